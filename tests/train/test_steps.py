"""A training step: which crops it uses, its losses, and the input of the network, computed or from the cache."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from common.distributed import World
from formats.pairs import BOTH, PairSet
from model.features import Encoder
from model.xsegtx import Look, XSegTx, XSegTxConfig
from tests.made.networks import random_backbone, strong_config, strong_network
from train import crops
from train.crop_step import CropStep
from train.crops import CropReader
from train.dataset import TrainSamples
from train.feature_cache import FeatureCache
from train.letterboxed import LetterboxReader, LetterboxStep
from train.losses import loss_weights, total_loss

SIDE = 48
READER = CropReader(strong_config(SIDE))


@pytest.fixture(scope="module")
def encoder():
    return Encoder(random_backbone(0), torch.device("cpu"))


@pytest.fixture(scope="module")
def pairs(training_set):
    return PairSet([training_set], "train", BOTH)


@pytest.fixture(scope="module")
def make_step(encoder):
    def make(world=None, precision="fp32"):
        return CropStep(
            strong_network(side=SIDE), encoder, FeatureCache(), loss_weights(0.1), world or World(), precision
        )

    return make


@pytest.fixture(scope="module")
def samples(pairs):
    """Of both settings: frames of two shapes take turns. More samples than usual have a whole frame."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crops, "LOCATED", 0.7)
        samples = TrainSamples(pairs, READER, 1)
        return [samples[n] for n in range(8)]


@pytest.fixture(scope="module")
def batch(samples):
    return READER.collate(samples)


def test_all_of_the_network_learns_from_the_losses_and_half_precision_keeps_them_finite(make_step, samples):
    for precision, count in (("fp32", 8), ("bf16", 5)):
        step = make_step(precision=precision).train()
        losses = step(READER.collate(samples[:count]))
        assert all(x.isfinite() and x > 0 for x in losses.values())
        losses["total"].backward()
        learning = [(name, p) for name, p in step.named_parameters() if p.requires_grad]
        missing = [name for name, p in learning if p.grad is None or not p.grad.any()]
        assert missing == []
        assert all(p.grad.isfinite().all() for _, p in learning)


def test_place_and_choice_are_what_their_definitions_say_of_a_frame_of_three_cells(make_step):
    """The object is visible in the first two of three targets; the third look at each of these shows something else.
    The first and the last target are shown whole.
    """
    step, heat = make_step(), torch.tensor([[[1.0, 3, 0]], [[2.0, -1, 4]]])
    cells = torch.tensor([[[False, True, False]], [[False] * 3]])
    group = SimpleNamespace(rows=torch.tensor([0, 2]), cells=cells)
    masks, prob = torch.zeros(3, 3, 4, 4), torch.full((9, 4, 4), 0.5)
    contained = torch.tensor([[True, True, False]] * 2 + [[False] * 3])
    visible = torch.tensor([True, True, False])
    batch = SimpleNamespace(frames=[group], visible=visible, target_mask=masks, contained=contained)
    logit = torch.tensor([0.5, 2, 1, 3, 0, -1, 1, 2, 3])
    step.heat, step.look = lambda batch: [heat] * len(batch.frames), lambda batch: Look(prob, logit)
    with torch.no_grad():
        losses = step.losses(batch)
        scaled = step.network.locator.scale * heat[0, 0]
        without_frames = step.losses(SimpleNamespace(**vars(batch) | {"frames": []}))
    assert losses["place"].item() == pytest.approx(-scaled.log_softmax(0)[1].item())
    shares = logit.view(3, 3).softmax(1)[:2, :2].sum(1)
    assert losses["choice"].item() == pytest.approx(-shares.log().mean().item())
    expected = losses["mask"] + losses["dice"] + 0.1 * (losses["existence"] + losses["choice"])
    total = total_loss(losses, step.weights)
    assert total.item() == pytest.approx((expected + 0.15 * losses["place"]).item())
    assert without_frames == {**losses, "place": 0}


def batch_of(pairs, numbers, reader):
    samples = TrainSamples(pairs, reader, 0)
    return reader.collate([samples[n] for n in numbers])


def letterboxed(pairs, numbers, cached=()):
    return batch_of(pairs, numbers, LetterboxReader(64, cached))


def step_of(encoder, cache=None, precision="fp32", strong=False):
    network = strong_network() if strong else XSegTx(XSegTxConfig("tiny", 64)).eval()
    made_with = network, encoder, cache or FeatureCache(), loss_weights(), World(), precision
    return (CropStep if strong else LetterboxStep)(*made_with)


def test_the_cache_stops_at_its_capacity_and_gives_fresh_features_to_half_precision(pairs, encoder):
    size = 2 * 1024 * 4 * 4
    cache = FeatureCache(5 * size)
    for start in (0, 4, 0):
        cached = step_of(encoder, cache).encode(letterboxed(pairs, range(start, start + 4), cache))
        fresh = step_of(encoder).encode(letterboxed(pairs, range(start, start + 4)))
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
    assert first == second and list(cache.entries) == kept


READERS = {"paper": LetterboxReader(48), "strong": CropReader(strong_config(48))}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_one_key_never_stands_for_two_images_whatever_the_recipe_draws(pairs, reader):
    """Else the cache would show the first one for ever."""
    samples, seen, count = TrainSamples(pairs, reader, 0), {}, 0
    for sample in (samples[n] for n in range(100)):
        if isinstance(reader, CropReader):
            keyed = [sample["frame"][:2]] if sample["frame"] else []
        else:
            names = {"target_image": "target", "query_image": "query", "query_mask": "query_mask"}
            keyed = [(getattr(sample["source"], key), sample[name]) for name, key in names.items()]
        for key, image in keyed:
            assert np.array_equal(seen.setdefault(key, image), image)
        count += len(keyed)
    assert len(seen) < count
