"""What the network is given of a batch, fresh and from the cache."""

import numpy as np
import pytest
import torch

from formats.pairs import BOTH, PairSet
from model.features import Encoder
from model.xsegtx import XSegTx, XSegTxConfig
from tests.made.networks import random_backbone, strong_config, strong_network
from train.crop_step import CropStep
from train.crops import CropReader
from train.dataset import TrainSamples
from train.distributed import Ranks
from train.feature_cache import FeatureCache
from train.letterboxed import LetterboxReader, LetterboxStep
from train.losses import LossWeights


@pytest.fixture(scope="module")
def pairs(training_set):
    return PairSet([training_set], "train", BOTH)


@pytest.fixture(scope="module")
def encoder():
    return Encoder(random_backbone(0), torch.device("cpu"))


def batch_of(pairs, numbers, reader):
    samples = TrainSamples(pairs, reader, 0)
    return reader.collate([samples[n] for n in numbers])


def letterboxed(pairs, numbers, cached=()):
    return batch_of(pairs, numbers, LetterboxReader(64, cached))


def step_of(encoder, cache=None, precision="fp32", strong=False):
    network = strong_network() if strong else XSegTx(XSegTxConfig("tiny", 64)).eval()
    made_with = network, encoder, cache or FeatureCache(), LossWeights(), Ranks(), precision
    return (CropStep if strong else LetterboxStep)(*made_with)


def encode(encoder, batch, cache=None):
    """Features of query, target and mask."""
    return step_of(encoder, cache).encode(batch)


def test_the_cache_stops_at_its_capacity_and_gives_fresh_features_to_half_precision(pairs, encoder):
    size = 2 * 1024 * 4 * 4
    cache = FeatureCache(5 * size)
    for start in (0, 4, 0):
        cached = encode(encoder, letterboxed(pairs, range(start, start + 4), cache), cache)
        fresh = encode(encoder, letterboxed(pairs, range(start, start + 4)))
        assert all(torch.allclose(*both, rtol=1e-3, atol=1e-4) for both in zip(cached, fresh, strict=True))
    assert len(cache.entries) == 5 and all(entry[0].nbytes == size for entry in cache.entries.values())


@pytest.mark.parametrize("strong", [False, True], ids=["paper", "strong"])
def test_a_batch_has_the_same_losses_when_its_features_come_from_the_cache(pairs, encoder, strong):
    """In half precision, too; of frames of both cameras' shapes, each encoded once."""
    cache = FeatureCache(10**9)
    step = step_of(encoder, cache, "bf16", strong)
    reader = CropReader(step.network.config, cache) if strong else LetterboxReader(64, cache)
    with torch.no_grad():
        first = step(batch_of(pairs, range(3), reader))
        kept, blind = list(cache.entries), batch_of(pairs, range(3), reader)
        pictures = (group.images for group in blind.frames) if strong else [blind.target_image]
        assert not any(picture.any() for picture in pictures)
        second = step(blind)
    assert torch.equal(torch.stack(first), torch.stack(second)) and list(cache.entries) == kept


READERS = {"paper": LetterboxReader(48), "strong": CropReader(strong_config(48))}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_one_key_never_stands_for_two_images_whatever_the_recipe_draws(pairs, reader):
    """Else the cache would show the first one for ever."""
    samples, seen, shown = TrainSamples(pairs, reader, 0), {}, 0
    for sample in (samples[n] for n in range(100)):
        if isinstance(reader, CropReader):
            keyed = [sample["frame"][:2]]
        else:
            names = {"target_image": "target", "query_image": "query", "query_mask": "query_mask"}
            keyed = [(getattr(sample["source"], key), sample[name]) for name, key in names.items()]
        for key, image in keyed:
            assert np.array_equal(seen.setdefault(key, image), image)
        shown += len(keyed)
    assert len(seen) < shown
