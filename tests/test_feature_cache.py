"""What the network is given of a batch, fresh and from the cache."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from formats import geometry
from formats.pairs import PairSet
from model.backbone import mask_to_image, normalize_image
from model.features import Encoder
from tests.made.networks import random_backbone
from tests.made.training import make_training_set
from train.dataset import SampleOptions, TrainSamples, collate
from train.feature_cache import BatchEncoder

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return PairSet([make_training_set(tmp_path_factory.mktemp("cache"))], "train", "ego-exo")


@pytest.fixture(scope="module")
def backbone():
    return random_backbone(0)


def batch_of(samples, numbers):
    return collate([samples[n] for n in numbers])


def tensors(inputs) -> dict[str, torch.Tensor]:
    query, target, mask_feat = inputs
    named = {"query": query.feat, "target": target.feat, "mask": mask_feat}
    return named | {"query_fine": query.fine, "target_fine": target.fine}


def test_the_views_of_a_batch_are_the_backbones_features_of_query_target_and_mask(pairs, backbone):
    batch = batch_of(TrainSamples(pairs, 64, 0, options=SampleOptions(zoom=3)), range(3))
    images = {"query": normalize_image(batch.query_image), "target": normalize_image(batch.target_image)}
    inputs = BatchEncoder(Encoder(backbone, CPU, zoom=3))(batch)
    found = tensors(inputs)
    reduced = {name: image[:, :, ::3, ::3] for name, image in images.items()}
    for name, image in (reduced | {"mask": mask_to_image(batch.query_mask)}).items():
        torch.testing.assert_close(found[name], backbone(image), rtol=1e-4, atol=1e-5)
    for name, image in images.items():
        torch.testing.assert_close(found[f"{name}_fine"], backbone(image), rtol=1e-4, atol=1e-5)
    assert torch.equal(inputs[0].mask, batch.query_mask) and inputs[1].mask is None
    plain = BatchEncoder(Encoder(backbone, CPU))(batch_of(TrainSamples(pairs, 64, 0), range(3)))
    assert torch.equal(plain[0].fine, plain[0].feat)
    torch.testing.assert_close(plain[0].feat, found["query"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cache_bytes", [0, 10**8])
def test_images_of_a_near_camera_are_also_read_at_half_their_size(pairs, backbone, cache_bytes):
    batch = batch_of(TrainSamples(pairs, 64, 0, options=SampleOptions(zoom=3)), range(3))
    plain, both = (
        tensors(BatchEncoder(Encoder(backbone, CPU, zoom=3, two_sizes=two_sizes), cache_bytes)(batch))
        for two_sizes in (False, True)
    )
    halved = backbone(F.interpolate(normalize_image(batch.query_image), scale_factor=0.5, mode="area"))
    halved = F.interpolate(halved, plain["query_fine"].shape[2:], mode="bilinear")
    expected = plain | {"query_fine": (plain["query_fine"] + halved) / 2}
    for name, features in both.items():
        torch.testing.assert_close(features, expected[name], rtol=2e-3, atol=1e-4)


def test_a_closer_look_shows_the_features_of_its_part_of_the_enlarged_image(pairs, backbone, monkeypatch):
    monkeypatch.setattr(geometry, "CROP_EXTENT", 1)  # these objects are large
    samples = TrainSamples(pairs, 48, 0, options=SampleOptions(zoom=3, closer_look=True))
    for encode in (BatchEncoder(Encoder(backbone, CPU, zoom=3), size) for size in (0, 10**8)):
        batch = batch_of(samples, range(12))
        query, target, _ = encode(batch)
        assert {corner is None for source in batch.sources for corner in (source.target.corner,)} == {True, False}
        for view, keys in ((query, [s.query for s in batch.sources]), (target, [s.target for s in batch.sources])):
            for feat, fine, key in zip(view.feat, view.fine, keys, strict=True):
                if key.corner:
                    row, col = key.corner
                    assert torch.equal(feat, fine[:, row : row + 3, col : col + 3])
                else:
                    shown = normalize_image(torch.from_numpy(samples.shown(samples.image(key), key))[None])
                    torch.testing.assert_close(feat[None], backbone(shown), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("zoom", [1, 2])
def test_cached_features_equal_fresh_ones_to_half_precision(pairs, backbone, zoom):
    options = SampleOptions(zoom=zoom)
    samples, encoder = TrainSamples(pairs, 64, 0, options=options), Encoder(backbone, CPU, zoom=zoom)
    plain, cached = (BatchEncoder(encoder, size) for size in (0, 10**8))
    first = tensors(cached(batch_of(samples, range(8))))
    blind = TrainSamples(pairs, 64, 0, cached.cache, options)
    assert not batch_of(blind, range(8)).query_image.any()
    second = tensors(cached(batch_of(blind, range(8))))
    for name, fresh in tensors(plain(batch_of(samples, range(8)))).items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(fresh, first[name], rtol=1e-3, atol=1e-4)


def test_the_cache_stops_at_its_capacity_and_stays_right(pairs, backbone):
    samples, encoder = TrainSamples(pairs, 64, 0), Encoder(backbone, CPU)
    size = 2 * 1024 * 4 * 4
    small = BatchEncoder(encoder, cache_bytes=5 * size)
    for start in (0, 4, 0):
        found = tensors(small(batch_of(TrainSamples(pairs, 64, 0, small.cache), range(start, start + 4))))
        expected = tensors(BatchEncoder(encoder)(batch_of(samples, range(start, start + 4))))
        assert all(torch.allclose(found[name], expected[name], rtol=1e-3, atol=1e-4) for name in expected)
    assert len(small.cache) == 5 and all(entry[0].nbytes == size for entry in small.cache.values())


def test_one_key_never_stands_for_two_images_whatever_the_recipe_draws(pairs, monkeypatch):
    """Else the cache would show the first one for ever."""
    monkeypatch.setattr(geometry, "CROP_EXTENT", 1)  # these objects are large
    samples, seen = TrainSamples(pairs, 48, 0, options=SampleOptions(zoom=3, closer_look=True)), {}
    for n in range(150):
        sample = samples[n]
        source = sample["sources"]
        for key, name in (
            (source.query.whole, "query_image"),
            (source.target.whole, "target_image"),
            (source.query_mask, "query_mask"),
        ):
            assert np.array_equal(seen.setdefault(key, sample[name]), sample[name])
    assert any(key.corner for key in seen) and len(seen) < 3 * 150
