"""inference/predictor.py: where things are found, on images whose answer is known, and what it leaves as it was."""

import math

import numpy as np
import pytest
import torch

from formats.drawing import write_picture
from formats.geometry import ZOOM, eval_size
from formats.masks import decode_mask, encode_mask, eval_mask
from formats.processed import ProcessedTake
from inference.chunks import ChunkDataset, plan_chunks
from inference.predict_takes import predict_takes
from inference.predictor import Predictor, tf32

OBJECT, OTHER, BACKGROUND = (200, 40, 90), (30, 220, 160), (90, 90, 90)


class KnownAnswer(Predictor):
    """Its network finds what has the color of the marked query pixels, everywhere and only there."""

    def __init__(self, input_size: int, closer_look: bool = False, batch_size: int = 8):
        self.device, self.batch_size = torch.device("cpu"), batch_size
        self.input_size, self.closer_look = input_size, closer_look
        self.side = input_size * (ZOOM if closer_look else 1)
        self.looks = []  # pairs in each

    def _look(self, images, masks, mask_image, pair_mask, pair_target):
        assert images.shape[1:3] == masks.shape[1:3] == (self.input_size, self.input_size)
        self.looks.append(len(pair_mask))
        probs = []
        for mask, target in zip(pair_mask, pair_target, strict=True):
            marked = images[mask_image[mask]][masks[mask] != 0].float()
            color = marked.median(0).values
            assert (marked - color).abs().amax(-1).lt(60).float().mean() > 0.98  # the mask lies on the object
            probs.append((images[target] - color).abs().amax(-1).lt(60).float())
        return torch.stack(probs), torch.stack([prob.amax() for prob in probs])


def scene(size: tuple[int, int], box: tuple[float, float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """An image with an object in `box` (top, bottom, left, right as shares of the image) and another one in the lower
    right corner; the object's mask.
    """
    height, width = size
    top, bottom, left, right = (
        round(x * length) for x, length in zip(box, (height, height, width, width), strict=True)
    )
    image, mask = np.full((*size, 3), BACKGROUND, np.uint8), np.zeros(size, np.uint8)
    image[height - height // 8 :, width - width // 8 :] = OTHER
    image[top:bottom, left:right], mask[top:bottom, left:right] = OBJECT, 1
    return image, mask


def edges(mask: np.ndarray) -> np.ndarray:
    """The first and last row and column of the object."""
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([rows[0], rows[-1], cols[0], cols[-1]])


SIZES = [(270, 480), (480, 270), (480, 480), (479, 480), (480, 331)]  # the network's input shows every pixel of these
SIZES += [(108, 192), (192, 108), (192, 192), (191, 192), (192, 101)]
SIZES += [(2160, 3840), (1408, 1408), (75, 133), (601, 333), (1000, 1000), (97, 96)]


@pytest.mark.parametrize("side", [192, 480])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_an_object_is_found_where_it_is_in_images_of_any_shape(size, side):
    query, query_mask = scene(size[::-1], (0.3, 0.6, 0.5, 0.8))
    target, expected = scene(size, (0.25, 0.7, 0.1, 0.5))
    found, existence = KnownAnswer(side).segment(query, query_mask, target)
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
    dataset = ChunkDataset(tmp_path, "ego-exo", side, plan_chunks(take, "ego-exo", 8))
    predict_takes(KnownAnswer(side), [dataset[0]], tmp_path, "ego-exo", results.__setitem__)
    found = decode_mask(results["take"]["masks"]["cup_0"]["aria01_cam01"][0]["pred_mask"])
    assert found.shape == eval_size((2 * size[0], 2 * size[1]))
    assert abs(edges(found) - edges(eval_mask(masks["cam01"][0]))).max() <= (1 if side == 480 else 2)


@pytest.mark.parametrize("size", [(108, 192), (192, 108), (192, 192), (191, 192)], ids=str)
def test_a_closer_look_shows_every_pixel_of_a_small_object(size):
    query, query_mask = scene(size[::-1], (0.3, 0.51, 0.5, 0.71))
    target, expected = scene(size, (0.25, 0.4, 0.11, 0.26))
    predictor = KnownAnswer(192 // ZOOM, closer_look=True)
    found, existence = predictor.segment(query, query_mask, target)
    np.testing.assert_array_equal(found, expected)
    assert predictor.looks == [1, 1] and existence == 1


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

    predictor = KnownAnswer(side // ZOOM, closer_look=True, batch_size=batch_size)
    inputs = torch.from_numpy(images), torch.from_numpy(masks[0]), torch.zeros(3, dtype=torch.long)
    prob, existence = predictor.predict(*inputs, pair_mask, pair_target)
    assert existence.tolist() == [1, 1, 1, 1, 1, 0]
    assert predictor.looks == [6] + {1: [1, 1, 1], 2: [2, 1], 8: [3]}[batch_size]
    expected = masks[pair_target, pair_mask]
    large = pair_mask.numpy() == 1
    np.testing.assert_array_equal(prob.numpy()[~large] > 0.5, expected[~large] == 1)
    assert ((prob.numpy()[large] > 0.5) != expected[large]).mean() < 0.02


def test_predicting_leaves_the_callers_precision_of_products_as_it_was():
    switches = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [switch.allow_tf32 for switch in switches]
    for allowed in (True, False):
        with pytest.raises(KeyError), tf32(allowed):
            assert [switch.allow_tf32 for switch in switches] == [allowed, allowed]
            raise KeyError
        assert [switch.allow_tf32 for switch in switches] == before
