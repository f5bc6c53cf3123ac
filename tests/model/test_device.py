"""Where the network runs."""

import pytest
import torch

from common.errors import UserError
from model.device import resolve_device, resolve_precision, tf32


def test_auto_takes_cuda_then_mps_then_the_cpu(monkeypatch):
    for cuda, mps, expected in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        assert resolve_device("auto").type == expected


def test_each_process_of_torchrun_gets_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda:0")
    assert resolve_device("cuda:1") == torch.device("cuda:1") and resolve_device("cpu") == torch.device("cpu")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda:1")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UserError, match="'cuda:2' asked for, but PyTorch .* sees 2 CUDA GPUs"):
        resolve_device("auto")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cuda", "'cuda:0' asked for, but PyTorch .* sees 0 CUDA GPUs; use cpu"),
        ("mps", "this machine has no MPS; use cpu"),
        ("gpu", "device 'gpu' is unknown; use auto, cpu, cuda, cuda:1 or mps"),
    ],
)
def test_a_device_that_is_missing_is_refused_in_one_line(name, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match=f"^[^\n]*{message}[^\n]*$"):
        resolve_device(name)


def test_a_precision_that_a_cpu_is_slow_in_is_warned_of(capsys):
    assert [resolve_precision(name, torch.device("cpu")) for name in (None, "bf16", "fp16")] == ["fp32", "bf16", "fp16"]
    assert capsys.readouterr().err == "warning: on a CPU, fp16 is up to 20 times slower than fp32: take that\n"


def test_predicting_leaves_the_callers_precision_of_products_as_it_was():
    switches = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [switch.allow_tf32 for switch in switches]
    for allowed in (True, False):
        with pytest.raises(KeyError), tf32(allowed):
            assert [switch.allow_tf32 for switch in switches] == [allowed, allowed]
            raise KeyError
        assert [switch.allow_tf32 for switch in switches] == before
