"""What training draws: the same stream for everybody, and negatives that are negatives."""

import numpy as np
import pytest

from formats.geometry import letterbox
from formats.masks import decode_mask
from formats.pairs import PairSet
from formats.processed import ProcessedTake
from tests.made import EGO
from tests.made.networks import strong_config
from tests.made.training import make_training_set
from train.crops import CropReader
from train.dataset import TARGET_SWAP, StepSampler, TrainSamples, ValidationSamples, ViewKey, source_of
from train.flags import BLOCK
from train.letterboxed import LetterboxReader

SIDE, DRAWS = 48, 1500
READERS = {"paper": lambda: LetterboxReader(SIDE), "strong": lambda: CropReader(strong_config(SIDE))}
PAPER = LetterboxReader(SIDE)


@pytest.fixture(scope="module", params=["ego-exo", "exo-ego"])
def pairs(training_set, request):
    return PairSet([training_set], "train", request.param)


def draws(samples, count=DRAWS):
    return [samples.draw(np.random.default_rng((samples.seed, n, 0))) for n in range(count)]


def sources(samples, count=DRAWS):
    return [source_of(samples.pairs, draw) for draw in draws(samples, count)]


def is_synthetic(source):
    return source.query.take_uid != source.target.take_uid


def test_ranks_share_a_stream_that_ends_and_take_the_same_number_of_steps():
    parts = [list(StepSampler(range(2), 4, rank, 2, count=5)) for rank in range(2)]
    assert parts == [[[0, 1], [4]], [[2, 3], []]]


def test_ranks_together_see_the_batch_of_one_process_and_a_resumed_run_goes_on_where_it_was():
    whole = list(StepSampler(range(5), 6))
    parts = [list(StepSampler(range(5), 6, rank, 3)) for rank in range(3)]
    assert [sum(step, []) for step in zip(*parts, strict=True)] == whole
    assert list(StepSampler(range(3, 5), 6)) == whole[3:]


def test_a_sample_shows_the_frames_and_masks_of_its_pair(pairs):
    samples = TrainSamples(pairs, PAPER, 0)
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


def test_a_strong_sample_shows_the_object_twice_and_where_to_look_in_the_whole_target(pairs):
    samples = TrainSamples(pairs, READERS["strong"](), 0)
    for n in range(30):
        sample, other = samples[n], TrainSamples(pairs, PAPER, 0)[n]
        source, (first, second) = sample["sources"], sample["places"]
        assert source == other["sources"] and sample["visible"] == other["visible"] == sample["mask"].any()
        for name in ("wide", "query"):
            image, mask = sample[name], sample[f"{name}_mask"]
            side = {"wide": 32, "query": SIDE}[name]
            assert image.shape[-3:] == (side, side, 3) and mask.shape[-2:] == (side, side) and mask.any()
        inside = np.pad(sample["query_mask"], 1)[SIDE // 3 : SIDE - SIDE // 3 + 2].sum()
        assert inside > sample["query_mask"].sum() / 2  # in the middle, or nearly
        assert sample["image"].shape[:2] == sample["mask"].shape
        assert first.extent > 0 and second.extent > 0
        if sample["visible"]:
            rows, cols = np.nonzero(sample["mask"])
            assert first.peak < 0 and abs(first.row - rows.mean()) < 2 * first.extent > abs(first.col - cols.mean())


def plain(value):
    """Of a sample: what can be compared."""
    return value.tolist() if isinstance(value, np.ndarray) else value


@pytest.mark.parametrize("make", READERS.values(), ids=READERS)
def test_a_sample_is_a_function_of_seed_and_number_alone_whichever_came_before(pairs, make):
    forwards, backwards = TrainSamples(pairs, make(), 3), TrainSamples(pairs, make(), 3)
    expected = [forwards[n] for n in range(12)]
    for n in reversed(range(12)):
        again = backwards[n]
        assert all(plain(again[key]) == plain(value) for key, value in expected[n].items())
    assert plain(TrainSamples(pairs, make(), 4)[0]["query_mask"]) != plain(expected[0]["query_mask"])


def test_a_tenth_are_synthetic_negatives_in_the_target_camera_of_another_take_and_object(pairs):
    drawn = sources(TrainSamples(pairs, PAPER, 0))
    synthetic = [source for source in drawn if is_synthetic(source)]
    assert len(synthetic) / DRAWS == pytest.approx(TARGET_SWAP, abs=0.03)
    targets = {ViewKey(p.take_uid, p.target_camera, p.frame) for p in pairs}
    for source in synthetic:
        assert source.target in targets
        assert (source.target.camera == EGO) == (pairs.setting == "exo-ego")
    samples = TrainSamples(pairs, PAPER, 0)
    numbers = [n for n, source in enumerate(drawn) if is_synthetic(source)][:10]
    assert not any(samples[n]["visible"] or samples[n]["target_mask"].any() for n in numbers)


def test_a_single_take_gives_no_synthetic_negatives(tmp_path):
    training_set = make_training_set(tmp_path, {"train": ["uid-a"]})
    samples = TrainSamples(PairSet([training_set], "train", "ego-exo"), PAPER, 0)
    assert not any(map(is_synthetic, sources(samples, 200)))


def test_all_pairs_are_drawn(pairs):
    drawn = {(s.object_name, s.query, s.target) for s in sources(TrainSamples(pairs, PAPER, 0)) if not is_synthetic(s)}
    assert len(drawn) == len(pairs)


def test_validation_samples_are_fixed_pairs_as_they_are(pairs):
    few, again, every = (ValidationSamples(pairs, PAPER, size) for size in (5, 5, 0))
    assert len(few) == 5 and np.array_equal(few.numbers, again.numbers)
    assert [every[n]["sources"].query for n in range(len(every))] == [
        ViewKey(p.take_uid, p.query_camera, p.frame) for p in pairs
    ]
    assert not any(few[n]["block"] or is_synthetic(few[n]["sources"]) for n in range(5))


def test_a_sample_says_where_the_target_frame_lies_in_the_square(training_set):
    samples = ValidationSamples(PairSet([training_set], "val", "ego-exo"), PAPER, 0)
    assert (samples[0]["frame_rows"], samples[0]["frame_cols"]) == ([11, 38], [0, 48])  # 180x320 in 48x48


@pytest.mark.parametrize("make", READERS.values(), ids=READERS)
def test_a_batch_without_a_readable_sample_is_empty(make):
    batch = make().collate([{"unreadable": ["why"]}])
    assert len(batch) == 0 and batch.unreadable == ["why"]


def test_nothing_is_blocked_where_the_recipe_says_so_and_the_rest_of_the_stream_stays(pairs):
    usual, never = (draws(TrainSamples(pairs, PAPER, 0, block)) for block in (BLOCK, 0))
    assert 0.45 < np.mean([draw.block for draw in usual]) < 0.55
    assert never == [draw._replace(block=False) for draw in usual]
