"""A training step: which crops it uses, and its losses."""

import contextlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from common.distributed import World
from formats.pairs import BOTH, open_pairs
from recipes.samples import Batch, TrainSamples
from recipes.strong import samples as crops
from recipes.strong.recipe import Strong
from recipes.strong.training import StrongTraining
from tests.made.golden_training import PATH, golden_numbers
from tests.made.networks import random_backbone, strong_network
from train.engine import LossStep, train_one_epoch
from train.log import Log
from train.schedule import Schedule

SIDE, CPU = 48, torch.device("cpu")


def strong(precision="fp32"):
    return StrongTraining(Strong(strong_network(side=SIDE), random_backbone(0), CPU, precision))


@pytest.fixture(scope="module")
def pairs(training_set):
    return open_pairs([training_set], "train", BOTH)


@pytest.fixture(scope="module")
def samples(pairs):
    """Of both settings: frames of two shapes take turns. More samples than usual have a whole frame."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crops, "LOCATED", 0.7)
        samples = TrainSamples(pairs, strong().read, 1)
        return [samples[n] for n in range(8)]


def test_all_of_the_network_learns_from_the_losses_and_half_precision_keeps_them_finite(samples):
    for precision, count in (("fp32", 8), ("bf16", 5)):
        training = strong(precision)
        step = LossStep(training, World(), 0.1).train()
        losses = step(training.collate(samples[:count]))
        assert all(x.isfinite() and x > 0 for x in losses.values())
        losses["total"].backward()
        learning = [(name, p) for name, p in step.named_parameters() if p.requires_grad]
        missing = [name for name, p in learning if p.grad is None or not p.grad.any()]
        assert missing == []
        assert all(p.grad.isfinite().all() for _, p in learning)


def test_samples_show_what_they_did_and_two_steps_have_the_same_losses(pairs):
    *samples, first, second = golden_numbers(pairs)
    *golden, golden_first, golden_second = map(json.loads, PATH.read_text().splitlines())
    for sample, expected in zip(samples, golden, strict=True):
        assert np.abs(np.subtract(sample.pop("cuts"), expected.pop("cuts"))).max() <= 2  # a mask may differ by a pixel
        assert sample == expected
    assert first == pytest.approx(golden_first, rel=1e-2)  # OpenCV 4.9 is 2e-3 away
    assert second == pytest.approx(golden_second, rel=5e-2)


class Units(torch.nn.Module):
    """A step that notes what dropout would draw."""

    def __init__(self):
        super().__init__()
        self.weight, self.kept = torch.nn.Parameter(torch.zeros(())), []

    def forward(self, batch):
        self.kept.append(torch.rand(()).item())
        return {"total": self.weight * 0}


def test_in_each_step_each_process_drops_units_of_its_own_and_the_same_ones_again_after_a_stop(tmp_path):
    def kept(rank, begun=0):
        units, log = Units(), Log(tmp_path, 0, World(), 1)
        log.world.rank = rank
        optimizer, scaler = torch.optim.SGD(units.parameters(), 0.1), torch.amp.GradScaler("cpu", enabled=False)
        parts = {"optimizer": optimizer, "scaler": scaler, "network": units, "set_rate": lambda rate: None}
        state = SimpleNamespace(step=begun, seed=0, device=CPU, schedule=Schedule(0.1, 0, 4, 1), **parts)
        batches = iter([Batch([], torch.ones(1))] * 4)
        with contextlib.closing(log):
            train_one_epoch(state, units, batches, log, 1)
        return units.kept

    first, second = kept(0), kept(1)
    assert len({*first, *second}) == 8
    assert kept(1, begun=2) == second[2:]
