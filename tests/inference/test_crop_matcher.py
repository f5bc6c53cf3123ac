"""The strong network in use: where it looks, and that an answer depends on nothing but its own views."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from formats.processed import CameraPair
from inference.crop_matcher import CropMatcher
from inference.frame import Frame
from inference.memory import Memory
from inference.predictor import Predictor
from model.crops import Spot, spot_of
from tests.made.known_answer import color_matcher, edges, scene
from tests.made.networks import calibrate_batch_norm, random_backbone, strong_network

SIZES = {"ego": (352, 352), "left": (270, 480), "right": (480, 270)}
KINDS = {"ego": "ego", "left": "exo", "right": "exo"}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def parts():
    backbone = random_backbone(0)
    calibrate_batch_norm(backbone, [torch.randn(4, 3, 96, 96, generator=torch.Generator().manual_seed(0))])
    return backbone, strong_network()


def matcher(parts, **options) -> CropMatcher:
    return CropMatcher(*parts, CPU, **options)


def frame_of(pairs: list[tuple[str, str, str]], kinds: dict[str, str] = KINDS, number: int = 0) -> Frame:
    """Of noise; an object has a mask of its own in each query view, at any `number`."""
    rng, images, masks = np.random.default_rng(number), {}, {}
    for camera, (height, width) in SIZES.items():
        coarse = rng.integers(0, 256, (height // 10, width // 10, 3), np.uint8)
        images[camera] = cv2.resize(coarse, (width, height))
    for name, radius in {"cup": 12, "pot": 60, "hidden": 0}.items():
        for camera, (height, width) in SIZES.items():
            center = int(rng.uniform(0.2, 0.8) * width), int(rng.uniform(0.2, 0.8) * height)
            blank = np.zeros((height, width), np.uint8)
            masks[name, camera] = cv2.circle(blank, center, radius, 1, -1) if radius else blank
    pairs = [CameraPair(*pair) for pair in pairs]
    asked = {pair[:2]: masks[pair[:2]] for pair in pairs}
    return Frame("take", number, Path(), pairs, images, asked, video_sizes={}, kinds=kinds)


PAIRS = [("cup", "ego", "left"), ("pot", "ego", "left"), ("pot", "ego", "right"), ("cup", "right", "ego")]


@pytest.mark.parametrize("kinds", [KINDS, {}], ids=["kinds", "unknown"])
@pytest.mark.parametrize("options", [{}, {"looks": 3, "batch_size": 1}, {"looks": 3, "batch_size": 3}], ids=str)
def test_pairs_are_answered_as_each_alone_whatever_the_batches_and_whatever_else_is_asked(parts, kinds, options):
    together = matcher(parts, **options).predict(frame_of(PAIRS, kinds))
    alone = matcher(parts, looks=options.get("looks"))
    for number, pair in enumerate(PAIRS):
        prob, existence = alone.predict(frame_of([pair], kinds))
        np.testing.assert_allclose(together[0][number], prob[0], rtol=0, atol=2e-3)
        assert together[1][number].item() == pytest.approx(existence.item(), abs=1e-4)


def test_an_object_that_its_own_mask_hides_is_said_to_be_hidden_and_leaves_the_others_alone(parts):
    pairs = [("hidden", "ego", "left"), *PAIRS, ("hidden", "left", "ego")]
    prob, existence = matcher(parts).predict(frame_of(pairs))
    assert not prob[0].any() and not prob[-1].any() and existence[[0, -1]].tolist() == [0, 0]
    torch.testing.assert_close(existence[1:-1], matcher(parts).predict(frame_of(PAIRS))[1])
    prob, existence = matcher(parts).predict(frame_of(pairs[:1]), Memory())
    assert not prob[0].any() and existence.tolist() == [0]


BOXES = {  # of a thing, as parts of its picture: top, bottom, left, right
    "tiny": ((0.31, 0.325, 0.5, 0.515), (0.7, 0.715, 0.2, 0.215)),
    "usual": ((0.3, 0.42, 0.5, 0.62), (0.25, 0.35, 0.1, 0.2)),
    "at the border": ((0.0, 0.1, 0.9, 1.0), (0.4, 0.5, 0.0, 0.08)),
    "large": ((0.1, 0.6, 0.2, 0.7), (0.3, 0.8, 0.2, 0.6)),
    "fills its picture": ((0.0, 1.0, 0.0, 1.0), (0.1, 0.7, 0.1, 0.7)),
}
FRAMES = [(270, 480), (480, 270), (352, 352), (601, 333), (1080, 1920)]


@pytest.mark.parametrize("size", FRAMES, ids=str)
@pytest.mark.parametrize("boxes", BOXES.values(), ids=BOXES)
def test_a_thing_of_any_size_is_found_where_it_is_in_pictures_of_any_shape(size, boxes):
    query, query_mask = scene(size[::-1], boxes[0])
    target, expected = scene(size, boxes[1])
    found, existence = Predictor(color_matcher(looks=3)).segment(query, query_mask, target)
    assert found.shape == size and existence > 0.5
    pixel = max(1, 3 * spot_of(expected).crop().side / 192)  # of the largest crop
    assert np.abs(edges(found) - edges(expected)).max() <= pixel
    assert (found & expected).sum() / (found | expected).sum() > 0.8


def test_the_last_place_of_an_object_is_looked_at_again_and_stays_where_it_is_not_found():
    used, memory = color_matcher(looks=1), Memory()
    pair, seen = CameraPair("cup", "ego", "left"), []
    (query, mask), (shown, truth) = scene((352, 352), (0.3, 0.4, 0.5, 0.6)), scene((270, 480), (0.5, 0.57, 0.2, 0.24))
    for target in (shown, np.full_like(shown, 90)):  # it leaves
        frame = Frame("", 0, Path(), [pair], {"ego": query, "left": target}, {pair[:2]: mask}, {}, KINDS)
        _, existence = used.predict(frame, memory)
        seen.append((existence.item() > 0.5, memory.spots[pair]))
    assert [there for there, _ in seen] == [True, False] and seen[0][1] == seen[1][1]
    assert np.abs(np.subtract(seen[0][1], spot_of(truth))).max() <= 2
    with pytest.MonkeyPatch.context() as patch:
        looked, look = [], CropMatcher._look
        patch.setattr(CropMatcher, "_look", lambda *given: (looked.extend(x.spot for x in given[2]), look(*given))[1])
        patch.setattr(used.network, "existence", lambda logits, heat: torch.full_like(logits, 0.4))
        memory.spots[pair] = Spot(40, 300, 30)
        used.predict(replace(frame, images=frame.images | {"left": shown}), memory)
    assert looked[1] == Spot(40, 300, 30)  # after the highest peak
    assert memory.spots[pair] == Spot(40, 300, 30)  # although there is a mask elsewhere
