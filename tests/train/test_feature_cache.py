"""What the network is given of a batch, fresh and from the cache."""

import numpy as np
import pytest
import torch

from formats.pairs import PairSet
from model.features import Encoder
from model.xsegtx import XSegTx, XSegTxConfig
from tests.made.networks import random_backbone, strong_config
from tests.made.training import make_training_set
from train.crops import CropReader, CropStep
from train.dataset import TrainSamples
from train.feature_cache import FeatureCache
from train.letterboxed import LetterboxReader, LetterboxStep
from train.losses import LossWeights

NAMES = ("query", "target", "mask")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return PairSet([make_training_set(tmp_path_factory.mktemp("cache"))], "train", "ego-exo")


@pytest.fixture(scope="module")
def backbone():
    return random_backbone(0)


@pytest.fixture(scope="module")
def encoder(backbone):
    return Encoder(backbone, torch.device("cpu"))


def batch_of(pairs, numbers, cached=()):
    samples = TrainSamples(pairs, LetterboxReader(64, cached), 0)
    return samples.reader.collate([samples[n] for n in numbers])


def encode(encoder, batch, cache=None):
    return dict(zip(NAMES, LetterboxStep(encoder, cache or FeatureCache(), LossWeights()).encode(batch), strict=True))


def test_cached_features_equal_fresh_ones_to_half_precision(pairs, encoder):
    cache = FeatureCache(10**8)
    first = encode(encoder, batch_of(pairs, range(8)), cache)
    blind = batch_of(pairs, range(8), cache)
    assert not blind.query_image.any()
    second = encode(encoder, blind, cache)
    for name, fresh in encode(encoder, batch_of(pairs, range(8))).items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(fresh, first[name], rtol=1e-3, atol=1e-4)


def test_the_cache_stops_at_its_capacity_and_stays_right(pairs, encoder):
    size = 2 * 1024 * 4 * 4
    cache = FeatureCache(5 * size)
    for start in (0, 4, 0):
        found = encode(encoder, batch_of(pairs, range(start, start + 4), cache), cache)
        expected = encode(encoder, batch_of(pairs, range(start, start + 4)))
        assert all(torch.allclose(found[name], expected[name], rtol=1e-3, atol=1e-4) for name in NAMES)
    assert len(cache.entries) == 5 and all(entry[0].nbytes == size for entry in cache.entries.values())


def test_validation_takes_cached_features_in_half_precision_too(pairs, encoder):
    network, step = XSegTx(XSegTxConfig("tiny", 64)).eval(), LetterboxStep(encoder, FeatureCache(10**8), LossWeights())
    batch = batch_of(pairs, range(3))
    with torch.no_grad():
        first, again = (step.score(network, torch.autocast("cpu", torch.bfloat16), batch) for _ in range(2))
    assert torch.equal(first.scores.existence, again.scores.existence)


def test_whole_targets_of_the_strong_recipe_come_from_the_cache_as_they_went_in(pairs, encoder):
    """Frames of both cameras' shapes, each encoded once."""
    config, cache = strong_config(64), FeatureCache(10**8)
    reader = CropReader(config)
    batch = reader.collate([TrainSamples(pairs, reader, 0)[n] for n in range(6)])
    plain, cached = (CropStep(encoder, c, LossWeights(), config) for c in (FeatureCache(), cache))
    (*wide, fresh), (*_, first) = plain.located(batch), cached.located(batch)
    for image in batch.image:
        image[:] = 0  # nobody looks at them again
    *same, second = cached.located(batch)
    assert torch.equal(wide[0].detail, same[0].detail) and torch.equal(wide[1], same[1])
    assert {source for source, _ in cache.entries} == {source.target for source in batch.sources}
    for levels, *others in zip(fresh, first, second, strict=True):
        for x, once, again in zip(levels, *others, strict=True):
            assert torch.equal(once, again)
            torch.testing.assert_close(x, once, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("reader", [LetterboxReader(48), CropReader(strong_config(48))], ids=["paper", "strong"])
def test_one_key_never_stands_for_two_images_whatever_the_recipe_draws(pairs, reader):
    """Else the cache would show the first one for ever."""
    keyed = {"target_image": "target", "query_image": "query", "query_mask": "query_mask"}
    keyed = keyed if isinstance(reader, LetterboxReader) else {"image": "target"}
    samples, seen = TrainSamples(pairs, reader, 0), {}
    for sample in (samples[n] for n in range(100)):
        for name, key in keyed.items():
            image = seen.setdefault(getattr(sample["sources"], key), sample[name])
            assert np.array_equal(image, sample[name])
    assert len(seen) < 100 * len(keyed)
