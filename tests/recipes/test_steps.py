"""A training step: which crops it uses, and its losses."""

import pytest
import torch

from common.distributed import World
from formats.pairs import BOTH, open_pairs
from recipes.samples import TrainSamples
from recipes.strong import samples as crops
from recipes.strong.recipe import Strong
from tests.made.networks import random_backbone, strong_network
from train.engine import Step

SIDE, CPU = 48, torch.device("cpu")


def strong(precision="fp32"):
    return Strong(strong_network(side=SIDE), random_backbone(0), CPU, precision)


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
        recipe = strong(precision)
        step = Step(recipe, World(), 0.1).train()
        losses = step(recipe.collate(samples[:count]))
        assert all(x.isfinite() and x > 0 for x in losses.values())
        losses["total"].backward()
        learning = [(name, p) for name, p in step.named_parameters() if p.requires_grad]
        missing = [name for name, p in learning if p.grad is None or not p.grad.any()]
        assert missing == []
        assert all(p.grad.isfinite().all() for _, p in learning)
