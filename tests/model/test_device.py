"""Devices. On a pretended GPU, an epoch of training and a prediction give the CPU's numbers, leave no tensor elsewhere
and hardly wait. Several processes and code for `device.type == "cuda"` alone are not covered.
"""

import os
import subprocess
import sys
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import gpu
from common.distributed import World
from common.errors import UserError
from formats.pairs import Pairs, open_pairs
from model.device import resolve_device, tf32
from recipes.samples import TrainSamples
from recipes.scene import Scenes, joined
from recipes.table import load_checkpoint, training_of
from tests.made import ROOT
from tests.made.pretended_device import PretendedDevice, register
from tests.made.training import log_lines
from train.engine import LossStep, train_one_epoch
from train.log import Log
from train.options import Options
from train.state import TrainState


@pytest.fixture
def two_gpus(monkeypatch):
    """`torch.empty` as on a machine with two GPUs and MPS."""

    def empty(size, device):
        if device == "cuda:2":
            raise RuntimeError("CUDA error: invalid device ordinal\nCompile with `TORCH_USE_CUDA_DSA`")
        return SimpleNamespace(device=torch.device(device))

    monkeypatch.setattr(torch, "empty", empty)


def test_auto_takes_cuda_then_mps_then_the_cpu(monkeypatch, two_gpus):
    for cuda, mps, expected in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
        assert resolve_device("auto").type == expected


def test_each_process_of_torchrun_gets_a_gpu_of_its_own(monkeypatch, two_gpus):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for rank, mine in ((None, "cuda:0"), ("1", "cuda:1")):
        if rank:
            monkeypatch.setenv("LOCAL_RANK", rank)
        assert resolve_device("auto") == resolve_device("cuda") == torch.device(mine)
    assert resolve_device("cuda:0") == torch.device("cuda:0") and resolve_device("cpu") == torch.device("cpu")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UserError, match="^device 'cuda:2' cannot be used: CUDA error: invalid device ordinal; use"):
        resolve_device("auto")


@pytest.mark.parametrize("name", ["cuda:99", "mps:99", "gpu"])
def test_a_device_that_is_missing_is_refused_in_one_line(name):
    with pytest.raises(UserError, match=f"^device '{name}' cannot be used: [^\n]*; use auto, cpu, [^\n]*$"):
        resolve_device(name)


def test_predicting_leaves_the_callers_precision_of_products_as_it_was():
    switches = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [switch.allow_tf32 for switch in switches]
    for allowed in (True, False):
        with pytest.raises(KeyError), tf32(allowed):
            assert [switch.allow_tf32 for switch in switches] == [allowed, allowed]
            raise KeyError
        assert [switch.allow_tf32 for switch in switches] == before


STEPS = 3  # of an epoch
# Of this epoch (pictures are read once) and of a frame of four pairs. A search waits for its places, looks, close looks
# and answers, and for each further look at a mask that its crop cuts off, as this network's masks always are: five.
WAITS = {"paper": (5, 2), "strong": (5, 4 + 5)}
COMPARE = "import sys; from tests.model.test_device import compare; compare(*sys.argv[1:])"


def test_a_gpu_that_is_named_is_the_one_that_pytorch_uses(monkeypatch, two_gpus):
    used = []
    monkeypatch.setattr(torch.cuda, "set_device", used.append)
    for name in ("cuda:1", "cpu"):
        monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", name, "--precision", "fp32"])
        assert gpu.parse_args().device == torch.device(name)
    assert used == [torch.device("cuda:1")]


def run_on(
    gpu: PretendedDevice | None,
    name: str,
    path: Path,
    pairs: Pairs,
    rows: np.ndarray,
    out_dir: Path,
    most: tuple[int, int],
) -> tuple[list, list, list]:
    """The losses and gradients of an epoch, and the answers for the frame of these rows. The device may be waited for
    `most` times in each.
    """
    device, waits = (gpu.device, gpu.waits) if gpu else (torch.device("cpu"), [])
    checkpoint = load_checkpoint(path)
    recipe, kind = checkpoint.recipe(checkpoint.network, checkpoint.backbone, device), training_of(name)
    training = kind(recipe, kind.Options())
    samples, frame = TrainSamples(pairs, training.read, 0), Scenes(pairs, [rows], recipe.prepare)[0]
    options = Options(lr=0, warmUpIter=0, iter_epoch=STEPS, val_size=0, out_dir=out_dir, precision="fp32")
    state = TrainState(options, checkpoint.backbone, recipe.network, device)
    log, batch = Log(out_dir, 0, World(), STEPS), training.collate([samples[n] for n in range(2, 5)])
    waits.clear()
    train_one_epoch(state, LossStep(training, World(), 1.0), repeat(batch), log, 1)
    assert len(waits) <= most[0], waits
    log.close()
    recipe.network.eval()
    losses = [x for key, x in log_lines(out_dir, "train")[-1].items() if "loss" in key]
    gradients = [x.grad.cpu() for x in recipe.network.parameters() if x.requires_grad]
    waits.clear()
    found = recipe.predict(frame)
    assert len(waits) <= most[1], waits
    if gpu:  # several frames together, as on a GPU
        other = replace(frame, row=[-1 - row for row in frame.row])
        found += recipe.predict(joined([frame, other]))
    return losses, gradients, [(x.in_image((90, 160)), x.existence) for x in found]


def compare(training_set: str, out_dir: str, *networks: str) -> None:
    """Compare an epoch and a prediction on the pretended device with the CPU's, for each network. The rate is 0, so
    that both predict with the same weights.
    """
    if why_not := register():
        return print(why_not)
    pairs = open_pairs([Path(training_set)], "train", "ego-exo")
    rows = next(rows for rows in pairs.groups("take", "frame") if len(rows) == 4)
    for (name, most), path in zip(WAITS.items(), networks, strict=True):
        with PretendedDevice() as gpu:
            both = [run_on(device, name, Path(path), pairs, rows, Path(out_dir), most) for device in (None, gpu)]
        losses, gradients, answers = zip(*both, strict=True)
        assert losses[1] == pytest.approx(losses[0], rel=1e-4) and losses[0][1], name  # some targets have masks
        for ours, expected in zip(*gradients, strict=True):
            assert (ours - expected).norm() <= 0.01 * expected.norm() + 1e-6, name
        for (ours, existence), (prob, expected) in zip(answers[1], 3 * answers[0], strict=True):
            assert np.abs(ours - prob).mean() < 1e-4 and existence == pytest.approx(expected, rel=1e-3), name


def test_an_epoch_and_a_prediction_on_another_device_give_the_cpus_numbers_and_hardly_wait(
    warm_python, training_set, checkpoint, strong_checkpoint, tmp_path
):
    """In a process of its own, because the device is registered for good."""
    words = [warm_python, "-c", COMPARE, training_set, tmp_path, checkpoint, strong_checkpoint]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    if "registers no device" in done.stdout:
        pytest.skip(done.stdout)
