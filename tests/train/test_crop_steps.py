"""A step of the strong recipe: what is looked at, and what validation makes of it."""

import contextlib
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from formats.geometry import letterbox
from formats.pairs import PairSet
from formats.processed import CameraPair, ProcessedTake
from inference import crop_matcher
from inference.crop_matcher import CropMatcher
from inference.predict_takes import read_pairs
from model.crops import Crop, Spot, cut
from model.features import Encoder
from tests.made.known_answer import color_matcher, scene
from tests.made.networks import random_backbone, strong_config, strong_network
from train.crops import CropBatch, CropReader, CropStep, Place, around_object, object_cells, spots_in
from train.dataset import TrainSamples, ValidationSamples
from train.distributed import Ranks
from train.feature_cache import FeatureCache
from train.losses import LossWeights

CONFIG = strong_config()


@pytest.fixture(scope="module")
def step():
    encoder = Encoder(random_backbone(0), torch.device("cpu"))
    return CropStep(encoder, FeatureCache(), LossWeights(0.1), CONFIG)


@pytest.fixture(scope="module")
def batch(training_set):
    reader = CropReader(CONFIG)
    samples = TrainSamples(PairSet([training_set], "train", "ego-exo"), reader, 1)
    return reader.collate([samples[n] for n in range(8)])


def test_all_of_the_network_learns_from_the_losses_and_half_precision_keeps_them_finite(step, batch):
    assert 0 < batch.visible.sum() < len(batch)
    network = strong_network().train()
    for dtype in (None, torch.bfloat16):
        autocast = torch.autocast("cpu", dtype) if dtype else contextlib.nullcontext()
        losses = step.losses(network, autocast, batch, Ranks())
        assert all(x.isfinite() and x > 0 for x in losses)
        network.zero_grad()
        losses.total.backward()
        missing = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
        assert missing == []
        assert all(p.grad.isfinite().all() for p in network.parameters())


def test_the_loss_of_a_batch_is_that_of_its_samples_whichever_are_together(step, batch):
    """As ranks see it, who know the sums of all."""
    network = strong_network()
    autocast, sums = contextlib.nullcontext(), {}

    def ranks(record: bool) -> SimpleNamespace:
        order = iter(range(9))

        def total(x: torch.Tensor) -> torch.Tensor:
            number = next(order)
            if record:
                sums[number] = x
            return sums[number]

        return SimpleNamespace(size=1 if record else 2, sum=total)

    def part(rows: slice):
        return type(batch)(
            **{name: value if name == "unreadable" else value[rows] for name, value in vars(batch).items()}
        )

    whole = step.losses(network, autocast, batch, ranks(record=True))
    parts = [step.losses(network, autocast, part(rows), ranks(record=False)) for rows in (slice(0, 4), slice(4, 8))]
    for name in whole._fields:
        together = sum(getattr(losses, name) for losses in parts)
        assert together.item() == pytest.approx(getattr(whole, name).item(), rel=1e-4), name
    doubled = {k: x + x if isinstance(x, list) else torch.cat((x, x)) for k, x in vars(batch).items()}
    twice = step.losses(network, autocast, replace(batch, **doubled), Ranks())
    assert twice.total.item() == pytest.approx(whole.total.item(), rel=1e-4)


def test_the_first_look_shows_a_visible_object_and_a_peak_of_the_heat_is_elsewhere(step, batch):
    heat = [torch.rand(x.shape[0] // 8, x.shape[1] // 8) for x in batch.image]
    objects = [object_cells(mask, each) for mask, each in zip(batch.mask, heat, strict=True)]
    for mask, cells in zip(batch.mask, objects, strict=True):
        assert cells.any() == mask.any()
    elsewhere = [x.masked_fill(around_object(cells), -torch.inf) for x, cells in zip(heat, objects, strict=True)]
    images, masks, shown = step.cut_targets(batch, spots_in(batch.image, batch.places, elsewhere))
    assert images.shape == (16, 96, 96, 3) and masks.shape == (16, 96, 96)
    first, second = shown.view(-1, 2).T
    assert first.tolist() == batch.visible.tolist() and not second.all()
    assert not masks[~batch.visible.repeat_interleave(2)].any()


def test_a_rival_at_a_peak_is_elsewhere_even_where_the_object_is_hottest(step, batch, monkeypatch):
    seen, cut_targets = [], step.cut_targets
    monkeypatch.setattr(step, "cut_targets", lambda *given: (seen.extend(given[1]), cut_targets(*given))[1])

    def model(wide, masks, frames, aim):
        aim([torch.from_numpy(cv2.resize(mask.astype(np.float32), (20, 20))) for mask in batch.mask])
        raise StopIteration

    with pytest.raises(StopIteration):
        places = [[Place(0, 0, 30, 0)] for _ in batch.image]
        step.losses(model, contextlib.nullcontext(), replace(batch, places=places), Ranks())
    assert not any(mask[int(spot.row), int(spot.col)] for mask, [spot] in zip(batch.mask, seen, strict=True))


def test_a_look_at_a_peak_is_around_it_in_the_whole_picture():
    heat = torch.zeros(27, 48)
    heat[20, 30], heat[4, 7] = 2, 1
    places = [Place(0, 0, 50, 0), Place(3, -4, 30, 1), Place(100, 200, 20)]
    (spots,) = spots_in([np.zeros((540, 960, 3))], [places], [heat])
    assert spots == [Spot(410, 610, 50), Spot(93, 146, 30), Spot(100, 200, 20)]
    heat[4, 7] = -torch.inf  # no peak any more
    heat[heat == 0] = -torch.inf
    (spots,) = spots_in([np.zeros((540, 960, 3))], [places[:2]], [heat])
    assert spots == [Spot(410, 610, 50), Spot(413, 606, 30)]


@pytest.mark.parametrize("size", [(270, 480), (352, 352), (480, 270)], ids=str)
def test_validation_scores_answers_in_the_whole_frame(size):
    """Of a network that knows them: what is visible is found to a pixel or two, and something else is not."""
    matcher = color_matcher()
    step = CropStep(matcher.encoder, FeatureCache(), LossWeights(), matcher.config)
    (query, query_mask), (target, mask) = scene((192, 192), (0.3, 0.6, 0.3, 0.6)), scene(size, (0.4, 0.55, 0.2, 0.35))
    crop = Crop(0, 0, 192)
    wide = matcher.config.wide_size
    side = max(np.ptp(np.nonzero(mask), axis=1)) + 1
    batch = CropBatch(
        [],
        [],
        torch.tensor([True]),
        wide=torch.from_numpy(cut(query, crop, wide))[None, None].expand(-1, 2, -1, -1, -1),
        wide_mask=torch.from_numpy(cut(query_mask, crop, wide))[None, None].expand(-1, 2, -1, -1),
        query=torch.from_numpy(query)[None],
        query_mask=torch.from_numpy(query_mask)[None],
        shares=[[side / max(size), 0.8 * side / max(size)]],
        image=[target],
        mask=[mask],
        places=[[]],
    )
    batch.sources = [SimpleNamespace(target="")]
    with torch.no_grad():
        scores, found = step.score(matcher.network, contextlib.nullcontext(), batch)
    assert scores.iou.item() > 0.9 and scores.existence.item() > 0.5 and found.shape == (1, 192, 192)
    batch.image, batch.mask, batch.visible = [np.full_like(target, 90)], [0 * mask], torch.tensor([False])
    with torch.no_grad():
        scores, found = step.score(matcher.network, contextlib.nullcontext(), batch)
    assert scores.iou.isnan().all() and not found.any() and scores.existence.item() < 0.5


def test_validation_is_the_same_in_batches_of_any_size(step, training_set):
    reader = CropReader(CONFIG)
    samples = ValidationSamples(PairSet([training_set], "val", "ego-exo"), reader, 6)
    network, taken = strong_network(), [samples[n] for n in range(6)]
    with torch.no_grad():
        scores = [
            [step.score(network, contextlib.nullcontext(), reader.collate(taken[i : i + n])) for i in range(0, 6, n)]
            for n in (6, 1)
        ]
    together, alone = ([torch.cat(x) for x in zip(*(s.scores for s in some), strict=True)] for some in scores)
    for some, other in zip(together, alone, strict=True):
        torch.testing.assert_close(some, other, rtol=0, atol=2e-3, equal_nan=True)


def test_validation_scores_what_prediction_answers_with_one_look_and_no_other(step, training_set, monkeypatch):
    monkeypatch.setattr(crop_matcher, "ROUNDS", 0)
    pairs, reader, network = PairSet([training_set], "val", "ego-exo"), CropReader(CONFIG), strong_network()
    samples = ValidationSamples(pairs, reader, 6)
    matcher = CropMatcher(random_backbone(0), network, torch.device("cpu"), looks=1)
    for number, sample in zip(samples.numbers, samples, strict=False):
        with torch.no_grad():
            scores, found = step.score(network, contextlib.nullcontext(), reader.collate([sample]))
        pair = pairs[int(number)]
        asked = CameraPair(pair.object_name, pair.query_camera, pair.target_camera)
        frame, _ = read_pairs(ProcessedTake.read(training_set, pair.take_uid), pair.frame, [asked], None, [])
        [prob], existence = matcher.predict(frame)
        torch.testing.assert_close(existence.double(), scores.existence, rtol=0, atol=1e-4)
        assert (letterbox(prob > 0.5, 96) == found[0].numpy()).mean() > 0.95
