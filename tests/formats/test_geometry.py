"""Letterboxing agrees with the reference's numbers and is undone without loss of position."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats.geometry import EVAL_SIDE, eval_size, letterbox, nearest_axes
from model.crops import Crop, put_back
from tests.made.golden import GOLDEN

SIDES = st.integers(1, 200)


def test_letterboxed_masks_equal_the_reference_bit_for_bit():
    expected = np.load(GOLDEN / "square_pad.npz")
    rng = np.random.default_rng(5)
    for key in ["540x960", "704x704", "960x540", "541x960", "480x640", "123x457", "1408x1408", "2160x3840"]:
        height, width = map(int, key.split("x"))
        coarse = rng.integers(0, 2, (height // 8 + 1, width // 8 + 1), dtype=np.uint8)
        mask = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST)
        if key == "541x960":  # the reference fails on odd differences
            assert letterbox(mask, EVAL_SIDE).shape == (480, 480)
            continue
        golden_mask = np.unpackbits(expected[key]).reshape(480, 480)
        np.testing.assert_array_equal(letterbox(mask, EVAL_SIDE), golden_mask)


@given(SIDES, SIDES, st.integers(1, 100))
def test_letterboxing_is_padding_to_a_square_and_nearest_neighbour(height, width, side):
    image = np.random.default_rng(0).integers(1, 256, (height, width, 3), dtype=np.uint8)
    long = max(height, width)
    square = np.zeros((long, long, 3), np.uint8)
    top, left = (long - height) // 2, (long - width) // 2
    square[top : top + height, left : left + width] = image
    source = np.arange(side) * long // side
    np.testing.assert_array_equal(letterbox(image, side), square[source[:, None], source])


@pytest.mark.parametrize(
    ("size", "small"),
    [((2160, 3840), (270, 480)), ((1408, 1408), (480, 480)), ((540, 960), (270, 480)), ((960, 540), (480, 270))],
)
def test_the_long_side_is_scaled_to_480_and_a_letterboxed_pixel_is_the_one_that_the_benchmark_keeps(size, small):
    assert eval_size(size) == small
    image = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    rows, cols = nearest_axes(size, small)
    kept = put_back(letterbox(image, 480).astype(np.float32), Crop.whole(small), small)
    np.testing.assert_array_equal(kept, image[rows[:, None], cols])
