"""inference/predictor.py and predict_takes.py: where things are found, on images whose answer is known."""

import math

import cv2
import numpy as np
import pytest

from common.drawing import write_picture
from common.errors import UserError
from formats.geometry import eval_size
from formats.masks import decode_mask, encode_mask
from formats.processed import ProcessedTake
from inference.predict_takes import ChunkDataset, plan_chunks, predict_takes
from inference.predictor import Predictor
from tests.made.known_answer import KnownAnswer, scene
from tests.made.networks import make_network
from tests.made.results import eval_mask


def edges(mask: np.ndarray) -> np.ndarray:
    """The first and last row and column of the object."""
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([rows[0], rows[-1], cols[0], cols[-1]])


IMAGE_SIZES = [
    (270, 480),
    (480, 270),
    (480, 480),
    (479, 480),
    (480, 331),
]  # the network's input shows every pixel of these
IMAGE_SIZES += [(108, 192), (192, 108), (192, 192), (191, 192), (192, 101)]
IMAGE_SIZES += [(2160, 3840), (1408, 1408), (75, 133), (601, 333), (1000, 1000), (97, 96)]


@pytest.mark.parametrize("side", [192, 480])
@pytest.mark.parametrize("size", IMAGE_SIZES, ids=str)
def test_an_object_is_found_where_it_is_in_images_of_any_shape(size, side):
    query, query_mask = scene(size[::-1], (0.3, 0.6, 0.5, 0.8))
    target, expected = scene(size, (0.25, 0.7, 0.1, 0.5))
    found, existence = Predictor(KnownAnswer(side)).segment(query, query_mask, target)
    assert found.shape == size and found.dtype == np.uint8 and existence == 1
    if max(size) == side:
        np.testing.assert_array_equal(found, expected)
    else:
        assert abs(edges(found) - edges(expected)).max() <= math.ceil(max(size) / side)


@pytest.mark.parametrize("side", [192, 480])
@pytest.mark.parametrize("size", [(540, 960), (960, 540), (704, 704), (703, 704), (541, 331)], ids=str)
def test_results_hold_an_object_where_the_benchmark_looks_for_it(tmp_path, size, side):
    """From frames and masks on disk to the results file; frames are half as large as the masks, as real ego ones."""
    target, expected = scene(size, (0.25, 0.7, 0.1, 0.5))
    query, query_mask = scene((704, 704), (0.3, 0.6, 0.5, 0.8))
    double = np.ones((2, 2), np.uint8)
    masks = {
        "aria01": {0: encode_mask(np.kron(query_mask, double))},
        "cam01": {0: encode_mask(np.kron(expected, double))},
    }
    take = ProcessedTake("take", tmp_path / "take", {"cup_0": masks}, [0])
    write_picture(take.frame_path("aria01", 0), query)
    write_picture(take.frame_path("cam01", 0), target)
    take.write_annotation()

    results = {}
    plan = plan_chunks(ProcessedTake.read(tmp_path, "take"), "ego-exo", 8)
    dataset = ChunkDataset(tmp_path, "ego-exo", side, plan.chunks)
    predict_takes(KnownAnswer(side), [dataset[0]], {"take": plan}, results.__setitem__)
    found = decode_mask(results["take"]["masks"]["cup_0"]["aria01_cam01"][0]["pred_mask"])
    assert found.shape == eval_size((2 * size[0], 2 * size[1]))
    assert abs(edges(found) - edges(eval_mask(masks["cam01"][0]))).max() <= (1 if side == 480 else 2)


def test_several_targets_at_once_are_answered_as_one_by_one_and_by_which_camera_is_head_worn(tmp_path):
    predictor = Predictor.load(make_network(tmp_path / "net.pth", two_sizes=True), "cpu")
    rng = np.random.default_rng(0)
    sizes = ((80, 90), (60, 100), (100, 60), (96, 96))
    query, *targets = (rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes)
    mask = cv2.circle(np.zeros((80, 90), np.uint8), (40, 40), 20, 1, -1)
    sure = []
    for setting in (None, "ego-exo", "exo-ego"):
        answers = predictor.segment_all(query, mask, targets, setting=setting)
        for together, target in zip(answers, targets, strict=True):
            alone = predictor.segment(query, mask, target, setting=setting)
            assert together[0].shape == target.shape[:2] and (together[0] == alone[0]).mean() > 0.999
            assert together[1] == pytest.approx(alone[1], abs=1e-5)
        sure.append(round(answers[0][1], 4))
    assert len(set(sure)) == 3
    with pytest.raises(UserError, match="setting 'ego' is unknown; choose from ego-exo, exo-ego, or None"):
        predictor.segment(query, mask, query, setting="ego")
