"""formats/parallel.py: how many processes, and loading processes that fail."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader

from formats import parallel
from formats.errors import UserError
from formats.parallel import default_workers, loader_failures, loader_workers, start_loader_worker

MB = 1 << 20


def test_the_processes_of_torchrun_share_a_machines_cpus(monkeypatch):
    monkeypatch.setattr(parallel.os, "sched_getaffinity", lambda _: set(range(12)), raising=False)
    assert default_workers() == 12
    for ranks, expected in ((4, 3), (5, 2), (64, 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
        assert default_workers() == expected


@pytest.mark.parametrize(
    ("free", "ranks", "fitting"), [(100, 1, 4), (99, 1, 3), (40, 1, 1), (39, 1, 0), (0, 1, 0), (120, 2, 2), (999, 8, 4)]
)
def test_no_more_loading_processes_than_shared_memory_has_room_for(tmp_path, monkeypatch, capsys, free, ranks, fitting):
    """A process has two batches under way, the reader holds two: 2 + 2 * 4 batches of 10 MB need 100 MB."""
    monkeypatch.setattr(parallel, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free * MB))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
    assert loader_workers(4, 10 * MB) == fitting
    warning = capsys.readouterr().err
    assert warning.count("\n") == (fitting < 4) and (str(tmp_path) in warning) == (fitting < 4)


class Unsendable:
    def __reduce__(self):
        raise RuntimeError("unable to allocate shared memory")


class Items:
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return Unsendable() if index == 2 else torch.tensor(index)


def test_a_loading_process_that_cannot_hand_over_a_batch_ends_the_loop_in_one_line():
    loader = DataLoader(Items(), batch_size=None, num_workers=1, worker_init_fn=start_loader_worker, timeout=60)
    with pytest.raises(UserError, match="fewer --num_workers") as caught, loader_failures():
        for _ in loader:
            pass
    assert "\n" not in str(caught.value)


def test_other_errors_in_the_loop_pass_unchanged():
    with pytest.raises(RuntimeError, match="of ours"), loader_failures():
        raise RuntimeError("a bug of ours")
