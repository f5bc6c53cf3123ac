"""Crops are cut out and put back at the right place and scale."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats.crop import Crop, cut, cut_mask, put_back
from formats.geometry import letterbox, resize
from recipes.search.crops import object_cells, spot_of

SIDES = st.integers(1, 60)
CROPS = st.builds(Crop, st.integers(-90, 90), st.integers(-90, 90), SIDES)  # inside, across the border, beyond


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(1, 256, (height, width), np.uint8)


def inside(crop: Crop, size: tuple[int, int]) -> np.ndarray:
    """Which pixels of an image of `size` a crop shows."""
    rows, cols = (np.arange(length) - first for length, first in zip(size, crop, strict=False))
    axes = ((x >= 0) & (x < crop.side) for x in (rows, cols))
    return np.outer(*axes)


@given(SIDES, SIDES, CROPS)
def test_what_is_cut_out_and_put_back_is_the_image_where_the_crop_shows_it_and_nothing_elsewhere(height, width, crop):
    image = noise(height, width)
    back = put_back(cut(image, crop, crop.side).astype(np.float32), crop, image.shape)
    np.testing.assert_array_equal(back, np.where(inside(crop, image.shape), image, 0))


@given(SIDES, SIDES)
def test_a_letterboxed_picture_is_a_crop_and_put_back_at_its_own_size_it_is_itself(height, width):
    image = noise(height, width)
    square, crop = letterbox(image, max(image.shape)), Crop.whole(image.shape)
    np.testing.assert_array_equal(square, cut(image, crop, crop.side))
    np.testing.assert_array_equal(put_back(square.astype(np.float32), crop, image.shape), image)


@given(SIDES, SIDES, CROPS, st.integers(1, 40))
def test_a_crop_is_black_beyond_the_image_and_only_there(height, width, crop, size):
    padded = np.pad(noise(height, width), 160)  # larger than any crop of these reaches
    plain = padded[crop.top + 160 :, crop.left + 160 :][: crop.side, : crop.side]
    part = cut(np.dstack([padded[160:-160, 160:-160]] * 3), crop, size)
    assert part.shape == (size, size, 3) and part.dtype == np.uint8
    np.testing.assert_array_equal(part, cut(np.dstack([plain] * 3), Crop(0, 0, crop.side), size))


@pytest.mark.parametrize("size", [(448, 796), (704, 704), (960, 540)], ids=str)
@pytest.mark.parametrize("share", [0.0002, 0.003, 0.05, 0.5, 1.0])
def test_a_mask_that_is_put_back_has_the_object_where_it_was_to_a_part_of_a_cell(size, share):
    """Of a network's 192 pixels, with 12 cells of 16."""
    rng = np.random.default_rng(0)
    mask = np.zeros(size, np.uint8)
    radius = (share * size[0] * size[1] / np.pi) ** 0.5
    row, col = (rng.uniform(min(radius, x / 2), max(x - radius, x / 2)) for x in size)
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    mask[(y - row) ** 2 + (x - col) ** 2 <= radius**2] = 1
    if share == 1:
        mask[:] = 1
    crop = spot_of(mask).crop(size)
    back = put_back(cut_mask(mask, crop, 192).astype(np.float32), crop, size) > 0.5
    pixel = max(1, crop.side / 192)
    for axis in (0, 1):
        edges = [np.flatnonzero(m.any(axis))[[0, -1]] for m in (mask, back)]
        assert np.abs(edges[0] - edges[1]).max() <= pixel < crop.side / 12
    assert (mask & back).sum() / (mask | back).sum() > 0.9


def test_no_object_is_too_thin_to_be_seen_in_its_crop():
    mask = np.zeros((500, 700), np.uint8)
    mask[250:253, 100:600] = 1
    crop = cut_mask(mask, spot_of(mask).crop(mask.shape), 96)
    assert crop.any(1).sum() in (1, 2) and 67 <= crop.any(0).sum() <= 71
    assert object_cells(mask, (6, 9)).sum() == 7


@pytest.mark.parametrize("degrees", [90.0, -90.0, 180.0])
def test_a_crop_may_be_turned_around_its_middle_with_its_corners_full(degrees):
    image, crop = cv2.resize(noise(12, 12), (240, 240), interpolation=cv2.INTER_CUBIC), Crop(70, 60, 96)
    expected = np.rot90(cut(image, crop, 48), round(degrees / 90)).astype(int)
    assert np.abs(cut(image, crop, 48, degrees) - expected).mean() < 2
    for angle in (degrees, 37.0):
        assert cut(np.full_like(image, 200), crop, 48, angle).min() == 200
        bright = cut(image, crop, 48, angle) > 128
        assert (cut_mask(image > 128, crop, 48, angle) == bright).mean() > 0.95


def test_images_are_made_smaller_without_leaving_pixels_out():
    """A line of one pixel in a large frame is still seen."""
    image = np.zeros((480, 480, 3), np.uint8)
    image[241] = 255
    assert cut(image, Crop(0, 0, 480), 48).max() > 20 and resize(image, (48, 48)).max() > 20
    prob = cv2.resize(np.eye(48, dtype=np.float32), (96, 96), interpolation=cv2.INTER_NEAREST)
    assert put_back(prob, Crop(0, 0, 12), (12, 12)).mean() == pytest.approx(prob.mean())
