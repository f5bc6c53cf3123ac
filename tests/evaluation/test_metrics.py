"""Every metric equals the official evaluation, which tests/made/official_evaluation.py implements simply."""

import itertools

import cv2
import numpy as np
import pytest

from evaluation.metrics import score_masks
from formats.masks import encode_mask
from tests.made import official_evaluation as official

SIZES = [(270, 480), (480, 480), (480, 270), (271, 480), (1, 480), (480, 1)]


def score(truth, prediction):
    return score_masks(encode_mask(truth), prediction)


def blobs(rng, size):
    """A mask of up to three ellipses, some across the border."""
    mask = np.zeros(size, np.uint8)
    for _ in range(rng.integers(0, 4)):
        center = rng.integers(-10, (size[1] + 10, size[0] + 10)).tolist()
        cv2.ellipse(mask, center, rng.integers(1, 60, 2).tolist(), rng.uniform(0, 180), 0, 360, 1, -1)
    return mask


def with_pixels(size, *pixels):
    mask = np.zeros(size, np.uint8)
    for y, x in pixels:
        mask[y, x] = 1
    return mask


def square(size, top, left, side=40):
    mask = np.zeros(size, np.uint8)
    mask[top : top + side, left : left + side] = 1
    return mask


def assert_official(truth, prediction):
    scores = score(truth, prediction)
    assert score(np.asfortranarray(truth), np.asfortranarray(prediction)) == scores  # as RLE are decoded
    assert scores.iou == pytest.approx(official.iou(truth, prediction), abs=1e-12)
    assert scores.contour_accuracy == pytest.approx(official.contour_accuracy(truth, prediction), abs=1e-12)
    assert scores.location_error == pytest.approx(official.location_error(truth, prediction), abs=1e-12)
    assert scores.mask_presence == (truth.any() == prediction.any())
    assert (scores.truth_pixels, scores.predicted_pixels) == (truth.sum(), prediction.sum())
    return scores


@pytest.mark.parametrize("size", SIZES)
def test_random_and_hand_made_masks_score_as_in_the_official_evaluation(size):
    empty, full = np.zeros(size, np.uint8), np.ones(size, np.uint8)
    last = (size[0] - 1, size[1] - 1)
    masks = [empty, full, with_pixels(size, (0, 0)), with_pixels(size, (0, 0), last)]
    masks += [square(size, 0, 0), square(size, size[0] - 20, size[1] - 20), square(size, 100, 100), 1 - masks[2]]
    for truth, prediction in itertools.product(masks, masks):
        assert_official(truth, prediction)
    rng = np.random.default_rng(sum(size))
    for _ in range(8):
        truth = blobs(rng, size)
        near = np.roll(truth, rng.integers(-8, 9, 2), axis=(0, 1))
        for prediction in (blobs(rng, size), near, (rng.random(size) < 0.002).astype(np.uint8)):
            assert_official(truth, prediction)


def test_the_corrected_location_error_puts_an_empty_mask_in_the_middle_of_the_image():
    size = (270, 480)
    middle = square(size, 135 - 20, 240 - 20)
    scores = score(middle, np.zeros(size, np.uint8))
    assert scores.location_error_corrected < 0.003 < 0.2 < scores.location_error
    portrait = score(np.ascontiguousarray(middle.T), np.zeros((480, 270), np.uint8))
    assert portrait.location_error_corrected < 0.003 < 0.2 < portrait.location_error
    moved = square(size, 10, 10)
    assert score(middle, moved).location_error == score(middle, moved).location_error_corrected
