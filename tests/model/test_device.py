"""Devices. On a pretended GPU, training and prediction give the CPU's numbers and leave no tensor elsewhere; no step
of the paper's recipe waits for the GPU, and no step of the strong recipe waits twice.

These tests do not cover several processes and code for `device.type == "cuda"` alone.
"""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import train.train
from common.errors import UserError
from formats.processed import Correspondence
from inference.predictor import Predictor
from model.device import resolve_device, tf32
from recipes.frame import Frame, joined
from recipes.table import load_checkpoint
from tests.made.known_answer import scene
from tests.made.pretended_device import PretendedDevice, register
from tests.made.training import log_lines, run_training
from train.state import TrainState


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


def test_predicting_leaves_the_callers_precision_of_products_as_it_was():
    switches = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [switch.allow_tf32 for switch in switches]
    for allowed in (True, False):
        with pytest.raises(KeyError), tf32(allowed):
            assert [switch.allow_tf32 for switch in switches] == [allowed, allowed]
            raise KeyError
        assert [switch.allow_tf32 for switch in switches] == before


FLAGS = ("--iter-epoch", 4, "--log_every", 10, "--dropout", 0, "--drop-feat", 0)
STRONG = ("--recipe", "strong", "--frame_size", 160, "--cache_features", 1)


@pytest.fixture(scope="module")
def run():
    """Calls a function in a process of its own, where the device is registered: that is for good."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        if why_not := process.submit(register).result():
            pytest.skip(why_not)
        yield lambda function, *given: process.submit(function, *given).result()


def trained(pretended: bool, training_set: Path, out_dir: Path, flags: tuple) -> list[list[str]]:
    """Train -> where each step waits that is between two others of its epoch, without a line of the log."""
    waits, set_rate = [], TrainState.set_rate

    def noted_set_rate(state: TrainState, lr: float) -> None:
        if state.step in (1, 4, 5, 6):  # the first is one of the warm-up
            waits.append(gpu.waits.copy())
        gpu.waits.clear()
        set_rate(state, lr)

    with PretendedDevice() as gpu, pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainState, "set_rate", noted_set_rate)
        patch.setattr(train.train, "resolve_device", lambda name: gpu.device if pretended else torch.device("cpu"))
        assert run_training(training_set, out_dir, *FLAGS, *flags) is None
    return waits


def predicted(pretended: bool, network: Path) -> tuple[list[tuple[np.ndarray, float]], list[str]]:
    """The answers for two frames of four pairs each, which a GPU computes together, and where one of them waits."""
    checkpoint = load_checkpoint(network)
    boxes = (0.4, 0.55, 0.3, 0.45), (0.1, 0.3, 0.5, 0.6)
    (image, mask), (other, other_mask) = (scene((240, 320), box) for box in boxes)
    images = {"a": image, "b": cv2.resize(other, (180, 320)), "c": image[:, ::-1]}
    pairs = [Correspondence(name, "a", target) for name in ("one", "two") for target in ("b", "c")]
    frame = Frame(pairs, images, {("one", "a"): mask, ("two", "a"): other_mask}, {})
    with PretendedDevice() as gpu:
        device = gpu.device if pretended else torch.device("cpu")
        recipe = checkpoint.recipe(checkpoint.network, checkpoint.backbone, device)
        found = [(x.mask, x.existence) for _ in range(2) for x in Predictor(recipe).predict(frame)]
        gpu.waits.clear()  # constants are copied to the device once
        assert len(recipe.predict(recipe.prepare(frame))) == 4
        waits = gpu.waits.copy()
        both = recipe.predict(joined([recipe.prepare(frame)] * 2))
        for answer, (prob, existence) in zip(both, found, strict=True):
            np.testing.assert_allclose(recipe.prob_in_image(answer, prob.shape), prob, rtol=0, atol=1e-4)
            assert answer.existence == pytest.approx(existence, abs=1e-5)
        return found, waits


@pytest.mark.parametrize("flags", [(), STRONG], ids=["paper", "strong"])
def test_training_on_another_device_gives_the_cpus_numbers_and_hardly_waits(run, training_set, tmp_path, flags):
    waits = [run(trained, pretended, training_set, tmp_path / str(pretended), flags) for pretended in (False, True)]
    # What comes to the cache of features and from it is copied.
    steps = [[wait for wait in step if not wait.startswith("model/feature_cache.py")] for step in waits[1]]
    assert waits[0] == steps == [[]] * 4
    for kind in ("train", "val"):
        lines = [log_lines(tmp_path / str(pretended), kind) for pretended in (False, True)]
        for line, other in zip(*lines, strict=True):
            names = [name for name in line if name.endswith("loss") or name.startswith(("iou", "existence"))]
            assert [other[name] for name in names] == pytest.approx([line[name] for name in names], rel=1e-4)
    networks = [torch.load(tmp_path / str(on) / "netLast.pth", weights_only=True)["encoder"] for on in (False, True)]
    for name, weight in networks[0].items():  # where a gradient is nearly 0, Adam may take a step the other way
        torch.testing.assert_close(networks[1][name], weight, rtol=0, atol=2e-4)


@pytest.mark.parametrize("strong", [False, True], ids=["paper", "strong"])
def test_prediction_on_another_device_gives_the_cpus_answers_and_hardly_waits(
    run, checkpoint, strong_checkpoint, strong
):
    network = strong_checkpoint if strong else checkpoint
    (expected, none), (answers, waits) = (run(predicted, on, network) for on in (False, True))
    assert not none and (len(waits) <= 10 if strong else waits == ["recipes/paper.py predict: a copy"] * 2), waits
    for (prob, existence), (expected_prob, expected_existence) in zip(answers, expected, strict=True):
        np.testing.assert_allclose(prob, expected_prob, rtol=0, atol=1e-3)
        assert existence == pytest.approx(expected_existence, abs=1e-4)
