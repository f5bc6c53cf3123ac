"""Where the time goes, without making the device wait to find out."""

import contextlib
import time
from collections import Counter

import torch


class StageTimer:
    """`with timer("backbone"): ...` adds up seconds by stage. On CUDA the device's own time is measured, by events."""

    def __init__(self, device: torch.device | None = None):
        self._cuda = device is not None and device.type == "cuda"
        self._seconds: Counter[str] = Counter()
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextlib.contextmanager
    def __call__(self, stage: str):
        if self._cuda:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            yield
            end.record()
            self._events.append((stage, start, end))
        else:
            begin = time.perf_counter()
            yield
            self._seconds[stage] += time.perf_counter() - begin

    def seconds(self) -> dict[str, float]:
        """Seconds by stage so far; waits for the device."""
        if self._events:
            torch.cuda.synchronize()
            for stage, start, end in self._events:
                self._seconds[stage] += start.elapsed_time(end) / 1000
            self._events.clear()
        return dict(self._seconds)
