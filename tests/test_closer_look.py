"""inference/closer_look.py: what the second look shows, on images whose answer is known."""

import numpy as np
import pytest
import torch

from formats.geometry import ZOOM
from inference.closer_look import CloserLook
from inference.matcher import PairBatch
from inference.predictor import Predictor
from tests.made.known_answer import BACKGROUND, KnownAnswer, scene


@pytest.mark.parametrize("size", [(108, 192), (192, 108), (192, 192), (191, 192)], ids=str)
def test_a_closer_look_shows_every_pixel_of_a_small_object(size):
    query, query_mask = scene(size[::-1], (0.3, 0.51, 0.5, 0.71))
    target, expected = scene(size, (0.25, 0.4, 0.11, 0.26))
    matcher = KnownAnswer(192 // ZOOM)
    found, existence = Predictor(CloserLook(matcher)).segment(query, query_mask, target)
    np.testing.assert_array_equal(found, expected)
    assert matcher.looks == [1, 1] and existence == 1


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_each_pair_gets_the_closer_look_at_its_own_object(batch_size):
    """Two target images and three objects: a small one, one too large to be enlarged, and one that is in one image."""
    side, rng = 96, np.random.default_rng(0)  # of the images
    colors = np.array([(200, 40, 90), (30, 220, 160), (60, 60, 240)], np.uint8)
    masks = np.zeros((3, 3, side, side), np.uint8)  # image, object
    for image in range(3):
        for k, length in enumerate((9, 40, 13)):
            top, left = rng.integers(0, side - length), 32 * k + rng.integers(0, 32 - min(length, 31))
            masks[image, k, top : top + length, left : left + min(length, 31)] = 1
    masks[2, 2] = 0
    images = np.full((3, side, side, 3), BACKGROUND, np.uint8)
    for image, k in np.ndindex(3, 3):
        images[image][masks[image, k] == 1] = colors[k]
    pair_mask, pair_target = map(torch.tensor, zip(*[(k, target) for k in range(3) for target in (1, 2)], strict=True))

    matcher = KnownAnswer(side // ZOOM, batch_size)
    inputs = torch.from_numpy(images), torch.from_numpy(masks[0]), torch.zeros(3, dtype=torch.long)
    prob, existence = CloserLook(matcher).predict(PairBatch(*inputs, pair_mask, pair_target))
    assert existence.tolist() == [1, 1, 1, 1, 1, 0]
    assert matcher.looks == [6] + {1: [1, 1, 1], 2: [2, 1], 8: [3]}[batch_size]
    expected = masks[pair_target, pair_mask]
    large = pair_mask.numpy() == 1
    np.testing.assert_array_equal(prob.numpy()[~large] > 0.5, expected[~large] == 1)
    assert ((prob.numpy()[large] > 0.5) != expected[large]).mean() < 0.02
