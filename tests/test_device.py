"""Where the network runs."""

import pytest
import torch

from formats.errors import UserError
from model.device import resolve_device


def test_auto_takes_cuda_then_mps_then_the_cpu(monkeypatch):
    for cuda, mps, expected in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
        assert resolve_device("auto").type == expected


def test_a_device_that_is_there_is_taken_by_its_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("cuda:1") == torch.device("cuda:1")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cuda", "'cuda' asked for, but PyTorch .* sees 0 CUDA GPUs; use cpu"),
        ("cuda:1", "'cuda:1' asked for"),
        ("mps", "this machine has no MPS; use cpu"),
        ("gpu", "device 'gpu' is unknown; use auto, cpu, cuda, cuda:1 or mps"),
    ],
)
def test_a_device_that_is_missing_is_refused_in_one_line(name, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match=message) as error:
        resolve_device(name)
    assert "\n" not in str(error.value)
