"""A training step: which crops it uses, its losses, and the input of the network, computed or from the cache."""

import numpy as np
import pytest
import torch

from common.distributed import World
from formats.pairs import BOTH, open_pairs
from model.xsegtx import XSegTx, XSegTxConfig
from recipes.paper import Paper, PaperOptions
from recipes.stream import TrainSamples
from recipes.strong import samples as crops
from recipes.strong.recipe import Strong
from tests.made.networks import random_backbone, strong_network
from train.engine import Step

SIDE, CPU = 48, torch.device("cpu")


def paper(precision="fp32", cache_size=0, side=64):
    network, training = XSegTx(XSegTxConfig("tiny", side)), PaperOptions(block=0)
    return Paper(network, random_backbone(0), CPU, precision, cache_size=cache_size, training=training)


def strong(precision="fp32", cache_size=0, side=SIDE):
    return Strong(strong_network(side=side), random_backbone(0), CPU, precision, cache_size=cache_size)


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


def batch_of(recipe, pairs, numbers):
    samples = TrainSamples(pairs, recipe.read, 0)
    return recipe.collate([samples[n] for n in numbers])


def test_the_cache_stops_at_its_capacity_and_gives_fresh_features_to_half_precision(pairs):
    size = 2 * 1024 * 4 * 4
    caching, fresh = paper(cache_size=5 * size), paper()
    for start in (0, 4, 0, 8):
        numbers = range(start, start + 4)
        both = (recipe.encode(batch_of(recipe, pairs, numbers)) for recipe in (caching, fresh))
        assert all(torch.allclose(*features, rtol=1e-3, atol=1e-4) for features in zip(*both, strict=True))
    entries = caching.cache.entries
    assert len(entries) == 5 and all(entry[0].nbytes == size for entry in entries.values())


@pytest.mark.parametrize("make", [paper, strong])
def test_a_batch_has_the_same_losses_when_its_features_come_from_the_cache(pairs, make, monkeypatch):
    """In half precision, too; of frames of both cameras' shapes, each encoded once."""
    monkeypatch.setattr(crops, "LOCATED", 1)
    recipe = make("bf16", 1e9)
    step, cache, batch = Step(recipe, World(), 1.0).eval(), recipe.cache, batch_of(recipe, pairs, range(3))
    cached = [group.images for group in batch.frames] if make is strong else [batch.query_image, batch.target_image]
    with torch.no_grad():
        first, kept = step(batch), list(cache.entries)
        for pictures in cached:
            assert pictures.any()
            pictures.zero_()  # nobody looks at them
        second = step(batch)
    assert first == second and list(cache.entries) == kept


@pytest.mark.parametrize("make", [paper, strong])
def test_one_key_never_stands_for_two_images_whatever_the_recipe_draws(pairs, make):
    """Else the cache would show the first one for ever."""
    samples, seen, count = TrainSamples(pairs, make(side=SIDE).read, 0), {}, 0
    for sample in (samples[n] for n in range(100)):
        if make is strong:
            keyed = [sample["frame"][:2]] if sample["frame"] else []
        else:
            names = {"target_image": "target", "query_image": "query", "query_mask": "query_mask"}
            keyed = [(getattr(sample["keys"], key), sample[name]) for name, key in names.items()]
        for key, image in keyed:
            assert np.array_equal(seen.setdefault(key, image), image)
        count += len(keyed)
    assert len(seen) < count
