"""The samples of training are the same for all processes, and its negatives really are negatives."""

from functools import partial

import numpy as np
import pytest
import torch

from formats.geometry import letterbox
from formats.masks import decode_mask
from formats.pairs import BOTH, open_pairs
from formats.processed import ProcessedTake
from recipes.paper import PaperOptions, read_letterboxed
from recipes.samples import DrawnPairs, TrainSamples
from recipes.strong.recipe import Strong
from recipes.strong.samples import other_object
from recipes.strong.training import StrongTraining
from tests.made import EGO
from tests.made.networks import random_backbone, strong_network
from tests.made.processed import create_pairs, make_take
from tests.made.training import make_training_set

SIDE, DRAWS = 48, 1500
PAPER = partial(read_letterboxed, side=SIDE)
STRONG = StrongTraining(Strong(strong_network(side=SIDE), random_backbone(0), torch.device("cpu"))).read


@pytest.fixture(scope="module", params=["ego-exo", "exo-ego", BOTH])
def pairs(training_set, request):
    return open_pairs([training_set], "train", request.param)


def draws(samples, count=DRAWS):
    return [samples.draw(np.random.default_rng((samples.seed, n, 0))) for n in range(count)]


def is_synthetic(drawn):
    return drawn.query != drawn.target


def test_a_sample_shows_the_frames_and_masks_of_its_pair(pairs):
    samples = TrainSamples(pairs, PAPER, 0)
    for n, drawn in enumerate(draws(samples, 20)):
        sample, pair = samples[n], pairs.named(drawn.query)
        take = ProcessedTake.read(pairs.store.folders[0].parent, pair.take_uid)
        mask = decode_mask(take.masks[pair.object_name][pair.query_camera][pair.frame])
        assert np.array_equal(sample["query_mask"], letterbox(mask, SIDE))
        assert sample["query_image"].shape == (SIDE, SIDE, 3)
        target_mask = None
        if not is_synthetic(drawn):
            target_mask = take.masks[pair.object_name][pair.target_camera].get(pair.frame)
        assert sample["visible"] == (target_mask is not None)
        expected = np.zeros((SIDE, SIDE)) if target_mask is None else letterbox(decode_mask(target_mask), SIDE)
        assert np.array_equal(sample["target_mask"], expected)


def test_a_strong_sample_shows_the_object_in_both_views_and_in_their_whole_frames(pairs):
    samples, paper = TrainSamples(pairs, STRONG, 0), TrainSamples(pairs, PAPER, 0)
    for n in range(30):
        sample, other = samples[n], paper[n]
        visible = sample["visible"]
        assert visible == other["visible"]
        for name, side in {"wide": 32, "query": SIDE}.items():
            image, mask = sample[name], sample[f"{name}_mask"]
            assert image.shape == (side, side, 3) and mask.shape == (side, side) and mask.any()
        inside = np.pad(sample["query_mask"], 1)[SIDE // 3 : SIDE - SIDE // 3 + 2].sum()
        assert inside > sample["query_mask"].sum() / 2  # in the middle, or nearly
        assert sample["target"].shape == (3, SIDE, SIDE, 3) and sample["target_mask"].shape == (3, SIDE, SIDE)
        for look in range(2):
            assert sample["contained"][look] == visible and sample["target_mask"][look].any() == visible
        if sample["frame"] is None:
            continue
        image, cells = sample["frame"]
        assert cells.shape == tuple(length // 8 for length in image.shape[:2]) and cells.any() == visible


def test_another_object_as_a_rival_is_never_the_object_itself_and_always_visible(pairs, tmp_path):
    rng = np.random.default_rng(0)
    for number in range(len(pairs)):
        pair = pairs.named(number)
        rivals = [other_object(pairs, DrawnPairs(number, number), rng) for _ in range(20)]
        assert pairs.visible[rivals].all()
        for other in map(pairs.named, rivals):
            assert other.object_name != pair.object_name
            assert (other.take_uid, other.target_camera) == (pair.take_uid, pair.target_camera)
    make_take(tmp_path, "a", {"cup_0": {EGO: [0], "cam01": [0]}, "lid_0": {EGO: [0, 30], "cam01": []}})
    (tmp_path / "split.json").write_text('{"train": ["a"]}')
    create_pairs(tmp_path)
    alone = open_pairs([tmp_path], "train", "ego-exo")
    assert [other_object(alone, DrawnPairs(number, number), rng) for number in range(3)] == [None, 0, 0]


def test_a_tenth_are_synthetic_negatives_in_the_target_camera_of_another_take_and_object(pairs):
    drawn = draws(TrainSamples(pairs, PAPER, 0))
    synthetic = [both for both in drawn if is_synthetic(both)]
    assert len(synthetic) / DRAWS == pytest.approx(0.1, abs=0.03)
    for query, target in ((pairs.named(both.query), pairs.named(both.target)) for both in synthetic):
        assert query.take_uid != target.take_uid and query.object_name != target.object_name
        assert (target.target_camera == EGO) == (query.query_camera != EGO)
    samples = TrainSamples(pairs, PAPER, 0)
    numbers = [n for n, both in enumerate(drawn) if is_synthetic(both)][:10]
    assert not any(samples[n]["visible"] or samples[n]["target_mask"].any() for n in numbers)


def test_a_single_take_gives_no_synthetic_negatives(tmp_path):
    training_set = make_training_set(tmp_path, {"train": ["uid-a"]})
    samples = TrainSamples(open_pairs([training_set], "train", "ego-exo"), PAPER, 0)
    assert not any(map(is_synthetic, draws(samples, 200)))


def test_all_pairs_are_drawn(pairs):
    drawn = draws(TrainSamples(pairs, PAPER, 0))
    assert {both.query for both in drawn if not is_synthetic(both)} == set(range(len(pairs)))


def test_half_of_the_samples_are_blocked_by_default_and_none_where_the_recipe_says_so(pairs):
    drawn = draws(TrainSamples(pairs, PAPER, 0))
    assert 0.45 < np.mean([x.chance < PaperOptions.block for x in drawn]) < 0.55
    for block, expected in ((1, True), (0, False)):
        sample = read_letterboxed(pairs, drawn[0], np.random.default_rng(0), SIDE, block=block)
        assert sample["block"] == expected
