"""Samples for training, which are pairs of views with their masks, and batches of samples; stream.py draws them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class DrawnPairs(NamedTuple):
    """The pairs from which the two views of a sample come: the same pair, except in synthetic negatives."""

    query: int  # the pair whose query view and mask are shown
    target: int  # the pair whose target view is shown; if it is another pair, the object is not in this view
    chance: float = 1.0  # a random number from 0 to 1, for a choice of the recipe


@dataclass
class Batch:
    """B samples."""

    unreadable: list[str]  # samples that were left out, with the reasons
    visible: Tensor  # (B,) bool, the object is visible in the target view

    @classmethod
    def of(cls, samples: Sequence[dict[str, Any]], **given: Any) -> Any:
        """The batch of samples from `TrainSamples`: all fields except the `given` ones are stacked."""
        given["unreadable"] = [text for sample in samples for text in sample["unreadable"]]
        names = [field.name for field in fields(cls) if field.name not in given]
        tensors: Any = {x: torch.from_numpy(np.stack([sample[x] for sample in samples])) for x in names}
        return cls(**given, **tensors)

    def __len__(self) -> int:
        return len(self.visible)

    def to(self, device: torch.device) -> "Batch":
        return self._changed(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        return self._changed(Tensor.pin_memory)

    def _changed(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return replace(self, **{name: with_tensors_changed(value, change) for name, value in vars(self).items()})


def with_tensors_changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Change a tensor, or every tensor in a list of NamedTuples; any other value is returned as it is."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list) and value and hasattr(value[0], "_fields"):
        return [type(row)(*(with_tensors_changed(x, change) for x in row)) for row in value]
    return value
