"""The predictor finds things at the right places, on images whose answer is known; boxes."""

import math
import pickle

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from common.drawing import write_picture
from common.errors import UserError
from common.parallel import init_loader_worker
from formats.masks import iou
from formats.pairs import open_pairs
from inference.cut_out import cut_out, whole_pixels
from inference.own_method import OwnMethod
from inference.predictor import Predictor, as_image, as_mask
from recipes.scene import Scenes
from tests.made import ROOT
from tests.made.known_answer import KnownAnswer, edges, scene

IMAGE_SIZES = [(270, 480), (480, 331), (191, 192), (2160, 3840), (1408, 1408), (75, 133), (601, 333)]


@pytest.mark.parametrize("side", [192, 480])
@pytest.mark.parametrize("size", IMAGE_SIZES, ids=str)
def test_an_object_is_found_where_it_is_in_images_of_any_shape(size, side):
    query, query_mask = scene(size[::-1], (0.3, 0.6, 0.5, 0.8))
    target, expected = scene(size, (0.25, 0.7, 0.1, 0.5))
    mask, existence = Predictor(KnownAnswer(side)).segment(query, query_mask, target)
    assert mask.shape == size and mask.dtype == np.uint8 and existence == 1
    assert abs(edges(mask) - edges(expected)).max() <= (0 if max(size) == side else math.ceil(max(size) / side))


def test_several_targets_at_once_are_answered_as_one_by_one_and_by_how_large_the_object_is(strong_checkpoint):
    predictor = Predictor.load(strong_checkpoint, "cpu")
    rng = np.random.default_rng(0)
    sizes = ((80, 90), (60, 100), (100, 60))
    query, *targets = (rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes)
    mask = cv2.circle(np.zeros((80, 90), np.uint8), (40, 40), 20, 1, -1)
    sure = []
    for size in ("smaller", "larger"):
        answers = predictor.segment_all(query, mask, targets, size=size)
        for together, target in zip(answers, targets, strict=True):
            alone = predictor.segment(query, mask, target, size=size)
            assert together[0].shape == target.shape[:2] and (together[0] == alone[0]).mean() > 0.98
            assert together[1] == pytest.approx(alone[1], abs=1e-5)
            prob, _ = predictor.segment(query, mask, target, size=size, probability=True)
            assert prob.dtype == np.float32 and np.array_equal(prob > 0.5, alone[0])
        sure.append(round(answers[0][1], 4))
    assert sure[0] != sure[1]


def test_a_picture_is_encoded_once_for_several_objects_whose_answers_stay_the_same(strong_checkpoint):
    pictures = np.random.default_rng(0).integers(0, 256, (2, 90, 80, 3), np.uint8)
    masks = [cv2.circle(np.zeros((90, 80), np.uint8), (40, y), 10, 1, -1) for y in (30, 60)]
    encoded, answers = [], []
    for masks_of_one in (masks, masks[1:]):
        predictor = Predictor.load(strong_checkpoint, "cpu")
        levels = predictor.recipe.encoder.backbone.levels
        predictor.recipe.encoder.backbone.levels = lambda x, levels=levels: encoded.append(len(x)) or levels(x)
        answers.append([predictor.segment(pictures[0], mask, pictures[1]) for mask in masks_of_one][-1])
        encoded.append("end")
    both, alone = encoded.index("end"), len(encoded) - encoded.index("end") - 2
    assert both < 2 * alone
    assert np.array_equal(answers[0].mask, answers[1].mask) and answers[0].existence == answers[1].existence


def test_paths_and_a_box_stand_for_pictures_and_masks_and_no_targets_have_no_answers(tmp_path):
    query, query_mask = scene((97, 96), (0.3, 0.6, 0.5, 0.8))
    target, expected = scene((192, 108), (0.25, 0.7, 0.1, 0.5))
    for name, image in {"query": query, "mask": query_mask, "target": target}.items():
        write_picture(tmp_path / f"{name}.png", image)
    predictor = Predictor(KnownAnswer(192))
    mask, _ = predictor.segment(str(tmp_path / "query.png"), tmp_path / "mask.png", tmp_path / "target.png")
    np.testing.assert_array_equal(mask, predictor.segment(query, query_mask, target)[0])
    of_box, _ = predictor.segment(query, target_image=target, query_box=(43, 24, 82, 63))
    np.testing.assert_array_equal(of_box, mask)
    assert predictor.segment_all(query, query_mask, []) == []


IMAGE = np.zeros((3, 3, 3), np.uint8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query_mask": np.arange(3).repeat(3).reshape(3, 3)}, "query mask holds the values 1, 2, .* mask == value"),
        ({"target_images": [None]}, "target image is NoneType"),
        ({"target_images": IMAGE}, "the target images are ndarray; give a list"),
        ({"query_mask": None}, "give either query_mask or query_box"),
        ({"query_box": (0, 0, 3, 3)}, "give either query_mask or query_box"),
        ({"size": "small"}, "size 'small' is unknown; choose from smaller, larger, same, or None"),
        ({"query_image": [IMAGE] * 2}, "there are 2 query images; give a list of as many query masks"),
        ({"query_image": [IMAGE], "query_mask": None, "query_box": (0, 0, 3, 3)}, "a query_box is for a"),
    ],
)
def test_what_is_no_picture_mask_or_box_is_said_in_one_line(change, message):
    given = {"query_image": IMAGE, "query_mask": np.eye(3, dtype=bool), "target_images": [IMAGE]}
    with pytest.raises(UserError, match=f"^{message}[^\n]*$"):
        Predictor(KnownAnswer(96)).segment_all(**given | change)


def test_a_crumb_of_an_object_is_seen_and_an_odd_precision_is_named(strong_checkpoint):
    picture, _ = scene((192, 192), (0.3, 0.6, 0.5, 0.8))
    tiny = np.zeros((768, 768), np.uint8)
    tiny[401:404, 401:404] = 1  # of the mask's four rows to one of the picture, nearest neighbour takes the others
    assert Predictor.load(strong_checkpoint, "cpu").segment(picture, tiny, picture)[1] > 0
    with pytest.raises(UserError, match="precision 'foo' is unknown; choose from fp32"):
        Predictor.load(strong_checkpoint, precision="foo")


OWN = """class Method:
    letterbox_side = 96

    def __init__(self):
        self.weights = bytes(100_000)

    def predict(self, frame): ..."""


def test_a_spawned_loader_prepares_frames_without_a_network(checkpoint, strong_checkpoint, data_path, tmp_path):
    """It gets all of its data set pickled."""
    recipes = [Predictor.load(path, "cpu").recipe for path in (checkpoint, strong_checkpoint)]
    own = tmp_path / "own.py"
    own.write_text(OWN)
    pairs = open_pairs([data_path], "val", "ego-exo")
    for recipe in (*recipes, OwnMethod(f"{own}:Method", device=torch.device("cpu"))):
        dataset = Scenes(pairs, pairs.groups("take", "frame"), recipe.prepare)
        assert len(pickle.dumps(dataset)) < 2e4  # a network takes megabytes
    process = {"num_workers": 1, "multiprocessing_context": "spawn", "worker_init_fn": init_loader_worker}
    for there, here in zip(DataLoader(dataset, batch_size=None, **process), dataset, strict=True):
        assert there.row == here.row and there.row
        np.testing.assert_equal((there.pictures, there.masks), (here.pictures, here.masks))


RNG = np.random.default_rng(0)


@pytest.mark.parametrize("size", [(300, 480), (1200, 900)], ids=str)
def test_the_object_in_a_box_is_cut_out_of_what_surrounds_it(size):
    image = RNG.integers(90, 130, (*size, 3), np.uint8)
    (x, y), radius = center, _ = (size[1] // 3, size[0] // 2), min(size) // 5
    image = cv2.circle(image, center, radius, (220, 40, 30), -1)
    disc = cv2.circle(np.zeros(size, np.uint8), center, radius, 1, -1)
    mask = cut_out(image, (x - radius - 4, y - radius - 9, x + radius + 7, y + radius + 3))
    assert mask.shape == size and (mask & disc).sum() / (mask | disc).sum() > 0.95


def test_the_object_in_a_box_of_a_photograph_is_cut_out_as_before():
    image, drawn = (str(ROOT / "assets" / "samples" / "bin" / name) for name in ("query.jpg", "query_mask.png"))
    mask = as_mask(drawn, "mask", (size := as_image(image, "image").shape[:2]))
    left, top, width, height = cv2.boundingRect(mask)
    found = cut_out(as_image(image, "image"), (left, top, left + width, top + height))
    assert found.shape == size and iou(found, mask) == pytest.approx(0.970, abs=0.002)


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


BAD_BOXES = {
    "is not four numbers; give left, top": [(1, 2, 30), (1, 2, 30, np.nan), "1, 2", [[1, 2], [30, 30]]],
    "is -20x20 pixels; give left, top, right, bottom, at least 4": [(30, 10, 10, 30)],
    "is 3x20 pixels; give left, top, right, bottom, at least 4": [(30, 10, 33, 30)],
    "reaches out of its image, which is 60x40 pixels; give left and right from 0 to 60": [
        (-2, 0, 20, 20),
        (10, 10, 20, 90),
        (70, 10, 90, 20),
    ],
}


@pytest.mark.parametrize("message", BAD_BOXES)
def test_each_fault_of_a_box_is_said_in_a_line_of_its_own(message):
    for box in BAD_BOXES[message]:
        with pytest.raises(UserError, match=f"^the box .* {message}"):
            cut_out(np.zeros((40, 60, 3), np.uint8), box)
