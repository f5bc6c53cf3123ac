"""inference/cut_out.py: the object inside a box."""

import cv2
import numpy as np
import pytest

from common.errors import UserError
from inference.cut_out import cut_out, whole_pixels
from inference.predictor import Predictor
from tests.made.known_answer import KnownAnswer, scene

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("size", [(300, 480), (1200, 900)], ids=str)
def test_the_object_in_a_box_is_cut_out_of_what_surrounds_it(size):
    image = RNG.integers(90, 130, (*size, 3), np.uint8)
    (x, y), radius = center, _ = (size[1] // 3, size[0] // 2), min(size) // 5
    image = cv2.circle(image, center, radius, (220, 40, 30), -1)
    disc = cv2.circle(np.zeros(size, np.uint8), center, radius, 1, -1)
    mask = cut_out(image, (x - radius - 4, y - radius - 9, x + radius + 7, y + radius + 3))
    assert mask.shape == size and (mask & disc).sum() / (mask | disc).sum() > 0.95


@pytest.mark.parametrize("box", [(0, 0, 60, 40), (3, 3, 7, 7), (0, 0, 4, 40), (56, 36, 60, 40)], ids=str)
def test_a_box_of_any_size_gives_a_mask_that_stays_in_it_and_the_same_one_each_time(box):
    image = RNG.integers(0, 256, (40, 60, 3), np.uint8)
    mask = cut_out(image, box)
    outside = mask.copy()
    outside[box[1] : box[3], box[0] : box[2]] = 0
    assert mask.any() and not outside.any()
    np.testing.assert_array_equal(mask, cut_out(image, box))
    assert cut_out(np.zeros_like(image), box).any()  # of one color


@pytest.mark.parametrize("box", [[9.2, 8.9, 29.1, 20], np.float32([9.9, 8.1, 29.4, 19.7])], ids=str)
def test_a_box_of_floats_is_the_whole_pixels_around_it(box):
    assert whole_pixels(box, (40, 60)) == (9, 8, 30, 20)
    assert whole_pixels([-0.4, -1, 60.2, 41], (40, 60)) == (0, 0, 60, 40)  # a pixel outside


BAD_BOXES = [(10, 10, 12, 30), (30, 10, 10, 30), (-2, 0, 20, 20), (50, 0, 61.1, 20), (1, 2, 30), (1, 2, 30, np.nan)]
BAD_BOXES += ["1, 2, 30", "left", [[1, 2], [30, 30]], (1, 2, 30, None), ([1], 2, 30, 30)]


@pytest.mark.parametrize("box", BAD_BOXES, ids=str)
def test_a_box_that_is_none_is_refused(box):
    with pytest.raises(UserError, match=r"is not left, top, right, bottom, in pixels of its 60x40 image"):
        cut_out(np.zeros((40, 60, 3), np.uint8), box)


def test_the_predictor_takes_a_box_instead_of_the_mask():
    query, query_mask = scene((480, 480), (0.3, 0.6, 0.5, 0.8))
    target, expected = scene((480, 480), (0.25, 0.7, 0.1, 0.5))
    predictor = Predictor(KnownAnswer(480))
    rows, cols = np.flatnonzero(query_mask.any(1)), np.flatnonzero(query_mask.any(0))
    box = int(cols[0]) - 5, int(rows[0]) - 5, int(cols[-1]) + 5, int(rows[-1]) + 5
    np.testing.assert_array_equal(predictor.segment(query, target_image=target, query_box=box)[0], expected)
    for mask, other_box in ((query_mask, box), (None, None)):
        with pytest.raises(UserError, match="give either query_mask or query_box"):
            predictor.segment(query, mask, target, query_box=other_box)
