"""What training draws: the same stream for everybody, and negatives that are negatives."""

import numpy as np
import pytest

from formats import geometry
from formats.geometry import crop_corner, letterbox
from formats.masks import decode_mask
from formats.pairs import PairSet
from formats.processed import ProcessedTake, frame_path, read_frame
from model.backbone import STRIDE
from tests.made import EGO
from tests.made.training import layout, make_training_set
from train.dataset import (
    CLOSER_LOOKS,
    ELSEWHERE,
    SMALL_TRIES,
    TARGET_SWAP,
    WITHIN,
    ImageKey,
    SampleOptions,
    StepSampler,
    TrainSamples,
    ValidationSamples,
    collate,
)

SIDE, ZOOM, DRAWS = 48, 3, 1500


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return make_training_set(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module", params=["ego-exo", "exo-ego"])
def pairs(data_dir, request):
    return PairSet([data_dir], "train", request.param)


def draws(samples, count=DRAWS):
    return [samples.draw(np.random.default_rng((samples.seed, n, 0))) for n in range(count)]


def sources(samples, count=DRAWS):
    return [samples.source(draw.query, draw.target) for draw in draws(samples, count)]


def is_synthetic(source):
    return source.query.take_uid != source.target.take_uid


def frames_of(uid, name, camera):
    return layout(uid)[name].get(camera, [])


def test_ranks_share_a_stream_that_ends_and_take_the_same_number_of_steps():
    parts = [list(StepSampler(range(2), 4, rank, 2, count=5)) for rank in range(2)]
    assert parts == [[[0, 1], [4]], [[2, 3], []]]


def test_ranks_together_see_the_batch_of_one_process_and_a_resumed_run_goes_on_where_it_was():
    whole = list(StepSampler(range(5), 6))
    parts = [list(StepSampler(range(5), 6, rank, 3)) for rank in range(3)]
    assert [sum(step, []) for step in zip(*parts, strict=True)] == whole
    assert list(StepSampler(range(3, 5), 6)) == whole[3:]


def test_a_sample_shows_the_frames_and_masks_of_its_pair(pairs):
    samples = TrainSamples(pairs, SIDE, 0)
    for n in range(20):
        sample = samples[n]
        source = sample["sources"]
        take = ProcessedTake.read(pairs.camera_folder(*source.query[:2]).parents[1], source.query.take_uid)
        mask = decode_mask(take.masks[source.object_name][source.query.camera][source.query.frame])
        assert np.array_equal(sample["query_mask"], letterbox(mask, SIDE))
        assert sample["query_image"].shape == (SIDE, SIDE, 3)
        target_mask = None
        if not is_synthetic(source):
            target_mask = take.masks[source.object_name][source.target.camera].get(source.target.frame)
        assert sample["visible"] == (target_mask is not None)
        expected = np.zeros((SIDE, SIDE)) if target_mask is None else letterbox(decode_mask(target_mask), SIDE)
        assert np.array_equal(sample["target_mask"], expected)


def test_a_tenth_are_synthetic_negatives_in_the_target_camera_of_another_take_and_object(pairs):
    drawn = sources(TrainSamples(pairs, SIDE, 0))
    synthetic = [source for source in drawn if is_synthetic(source)]
    assert len(synthetic) / DRAWS == pytest.approx(TARGET_SWAP, abs=0.03)
    targets = {ImageKey(p.take_uid, p.target_camera, p.frame, p.target_camera == EGO) for p in pairs}
    for source in synthetic:
        assert source.target in targets
        assert (source.target.camera == EGO) == (pairs.setting == "exo-ego")
    samples = TrainSamples(pairs, SIDE, 0)
    numbers = [n for n, source in enumerate(drawn) if is_synthetic(source)][:10]
    assert not any(samples[n]["visible"] or samples[n]["target_mask"].any() for n in numbers)


def test_a_single_take_gives_no_synthetic_negatives(tmp_path):
    data_dir = make_training_set(tmp_path, {"train": ["uid-a"]})
    samples = TrainSamples(PairSet([data_dir], "train", "ego-exo"), SIDE, 0)
    assert not any(map(is_synthetic, sources(samples, 200)))


def test_all_pairs_are_drawn(pairs):
    drawn = {(s.object_name, s.query, s.target) for s in sources(TrainSamples(pairs, SIDE, 0)) if not is_synthetic(s)}
    assert len(drawn) == len(pairs)


def test_closer_looks_show_visible_small_objects_enlarged_and_leave_the_rest_of_the_stream(pairs, monkeypatch):
    monkeypatch.setattr(geometry, "CROP_EXTENT", 1)  # these objects are large
    samples = TrainSamples(pairs, SIDE, 0, options=SampleOptions(zoom=ZOOM, closer_look=True))
    without = draws(TrainSamples(pairs, SIDE, 0))
    drawn = draws(samples)
    masks = [pairs.target_mask(i) for i in range(len(pairs))]
    small = np.mean([mask is not None and samples.corner(samples.mask(mask)) is not None for mask in masks])
    share = CLOSER_LOOKS * (ELSEWHERE + (1 - ELSEWHERE) * (1 - (1 - small) ** SMALL_TRIES))
    assert np.mean([draw.look_at is not None for draw in drawn]) == pytest.approx(share, abs=0.04)
    assert all(draw == usual for draw, usual in zip(drawn, without, strict=True) if draw.look_at is None)
    small_queries, shown = set(), set()
    for n, draw in enumerate(drawn[:120]):
        sample, source = samples[n], samples[n]["sources"]
        closer = source.target.corner is not None
        if closer:
            assert draw.look_at is not None and not is_synthetic(source)
            small_queries.add(source.query.corner is not None)
            shown.add(sample["visible"])
        masks = pairs.query_mask(draw.query), None if draw.is_negative else pairs.target_mask(draw.target)
        for name, view, rle in zip(("query", "target"), source[1:], masks, strict=True):
            mask = np.zeros((ZOOM * SIDE, ZOOM * SIDE)) if rle is None else letterbox(decode_mask(rle), ZOOM * SIDE)
            path = frame_path(pairs.camera_folder(view.take_uid, view.camera), view.frame)
            image = letterbox(read_frame(path), ZOOM * SIDE)
            if name == "query" or not closer or draw.look_at == draw.target:
                corner = crop_corner(mask.any(1), mask.any(0), SIDE, STRIDE) if name == "query" or closer else None
                assert view.corner == corner
            part = (slice(None, None, ZOOM),) * 2
            if view.corner:
                part = tuple(slice(STRIDE * first, STRIDE * first + SIDE) for first in view.corner)
            assert np.array_equal(sample[f"{name}_image"], image)
            assert np.array_equal(samples.shown(samples.image(view), view), image[part])
            assert np.array_equal(sample[f"{name}_mask"], mask[part])
            assert tuple(sample[f"{name}_corner"]) == (view.corner or (-1, -1))
            if name == "query":
                assert sample["query_coverage"].sum() * STRIDE**2 == pytest.approx(mask.sum())
            elif closer:  # enough of the object, or nothing
                inside = mask[part].sum()
                assert sample["visible"] == (inside > 0) and (not inside or inside >= WITHIN * mask.sum())
    assert small_queries == shown == {True, False}


def test_where_no_object_is_small_enough_nothing_is_seen_closer(pairs, monkeypatch):
    monkeypatch.setattr(geometry, "CROP_EXTENT", 0)
    samples = TrainSamples(pairs, SIDE, 0, options=SampleOptions(zoom=ZOOM, closer_look=True))
    assert not any(view.corner for n in range(50) for view in samples[n]["sources"][1:])


def test_validation_samples_are_fixed_pairs_as_they_are(pairs):
    few, again, every = (ValidationSamples(pairs, size, SIDE) for size in (5, 5, 0))
    assert len(few) == 5 and np.array_equal(few.numbers, again.numbers)
    assert [every[n]["sources"].query for n in range(len(every))] == [
        ImageKey(p.take_uid, p.query_camera, p.frame, p.query_camera == EGO) for p in pairs
    ]
    assert not any(few[n]["block"] or is_synthetic(few[n]["sources"]) for n in range(5))


def test_a_sample_says_where_the_target_frame_lies_in_the_square(data_dir):
    samples = ValidationSamples(PairSet([data_dir], "val", "ego-exo"), 0, SIDE)
    assert (samples[0]["frame_rows"], samples[0]["frame_cols"]) == ([11, 38], [0, 48])  # 180x320 in 48x48


def test_images_with_cached_features_are_not_read(pairs):
    plain = TrainSamples(pairs, SIDE, 0)
    cached = TrainSamples(pairs, SIDE, 0, cached={plain[0]["sources"].query})
    assert not cached[0]["query_image"].any() and plain[0]["query_image"].any()
    assert np.array_equal(cached[0]["target_image"], plain[0]["target_image"])
    assert np.array_equal(cached[0]["query_mask"], plain[0]["query_mask"])


def test_a_batch_without_a_readable_sample_is_empty():
    assert len(collate([{"unreadable": ["why"]}])) == 0
    assert collate([{"unreadable": ["why"]}]).unreadable == ["why"]


def test_nothing_is_blocked_where_the_recipe_says_so_and_the_rest_of_the_stream_stays(pairs):
    usual, never = (
        draws(TrainSamples(pairs, SIDE, 0)),
        draws(TrainSamples(pairs, SIDE, 0, options=SampleOptions(block=0))),
    )
    assert 0.45 < np.mean([draw.block for draw in usual]) < 0.55
    assert never == [draw._replace(block=False) for draw in usual]
