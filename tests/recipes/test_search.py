"""The strong network in use: where it looks, and that an answer depends on its own two views alone."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from common.errors import UserError
from formats.masks import encode_mask
from inference.predictor import Predictor
from recipes.base import Answer, Recipe
from recipes.scene import Scene
from recipes.search.crops import Part, connected_parts, spot_of
from recipes.search.locator import Matches
from recipes.search.places import Shown
from recipes.strong import recipe
from recipes.strong.recipe import Strong
from recipes.table import load_checkpoint
from tests.made.known_answer import BACKGROUND, NearestColor, color_recipe, edges, scene

SIZES = {"ego": (352, 352), "left": (270, 480), "right": (480, 270)}
KINDS = {"ego": "ego", "left": "exo", "right": "exo"}


@pytest.fixture(scope="module")
def parts(strong_checkpoint):
    networks = load_checkpoint(strong_checkpoint)
    return networks.network, networks.backbone, torch.device("cpu")


def answers(parts, scene: Scene, **options) -> tuple[list[np.ndarray], list[float]]:
    recipe = Strong(*parts, **options)
    found = recipe.predict(recipe.prepare(scene))
    probs = [answer.in_image(scene.sizes[target]) for answer, target in zip(found, scene.target, strict=True)]
    return probs, [answer.existence for answer in found]


def noise(pairs: list[tuple[str, str, str]], kinds: dict[str, str] = KINDS, number: int = 0) -> Scene:
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
    scene = Scene()
    pictures = {camera: scene.add_picture(image, kinds.get(camera)) for camera, image in images.items()}
    marked = list(dict.fromkeys(pair[:2] for pair in pairs))
    given = {key: scene.add_object(encode_mask(masks[key]), pictures[key[1]]) for key in marked}
    for row, pair in enumerate(pairs):
        scene.add_pair(given[pair[:2]], pictures[pair[2]], row)
    return scene


PAIRS = [("cup", "ego", "left"), ("pot", "ego", "left"), ("pot", "ego", "right"), ("cup", "right", "ego")]


@pytest.mark.parametrize("kinds", [KINDS, {}], ids=["kinds", "unknown"])
def test_pairs_are_answered_as_each_alone_whatever_the_batches_and_whatever_else_is_asked(parts, kinds):
    alone = [answers(parts, noise([pair], kinds)) for pair in PAIRS]
    for options in {}, {"batch_size": 1}, {"batch_size": 3}:
        for prob, existence, one in zip(*answers(parts, noise(PAIRS, kinds), **options), alone, strict=True):
            np.testing.assert_allclose(prob, one[0][0], rtol=0, atol=2e-3)
            assert existence == pytest.approx(one[1][0], abs=1e-4)


def test_an_object_that_its_own_mask_hides_is_said_to_be_hidden_and_leaves_the_others_alone(parts):
    pairs = [("hidden", "ego", "left"), *PAIRS, ("hidden", "left", "ego")]
    prob, existence = answers(parts, noise(pairs))
    assert not prob[0].any() and not prob[-1].any() and existence[0] == existence[-1] == 0
    assert existence[1:-1] == pytest.approx(answers(parts, noise(PAIRS))[1], abs=1e-4)
    prob, existence = answers(parts, noise(pairs[:1]))
    assert not prob[0].any() and existence == [0]


BOXES = {  # of a thing, as parts of its picture: top, bottom, left, right
    "tiny": ((0.31, 0.325, 0.5, 0.515), (0.7, 0.715, 0.2, 0.215)),
    "usual": ((0.3, 0.42, 0.5, 0.62), (0.25, 0.35, 0.1, 0.2)),
    "at the border": ((0.0, 0.1, 0.9, 1.0), (0.4, 0.5, 0.0, 0.08)),
    "large": ((0.1, 0.6, 0.2, 0.7), (0.3, 0.8, 0.2, 0.6)),
    "cut off in its query": ((0.4, 0.44, 0.0, 0.04), (0.3, 0.7, 0.3, 0.7)),
    "fills its picture": ((0.0, 1.0, 0.0, 1.0), (0.1, 0.7, 0.1, 0.7)),
}
FRAMES = [(270, 480), (480, 270), (352, 352), (601, 333), (1080, 1920)]


@pytest.mark.parametrize("size", FRAMES, ids=str)
@pytest.mark.parametrize("boxes", BOXES.values(), ids=BOXES)
def test_a_thing_of_any_size_is_found_where_it_is_in_pictures_of_any_shape(size, boxes):
    query, query_mask = scene(size[::-1], boxes[0])
    target, expected = scene(size, boxes[1])
    mask, existence = Predictor(color_recipe(looks=3)).segment(query, query_mask, target)
    assert mask.shape == size and existence > 0.5
    pixel = max(1, min(9 * spot_of(expected).extent, max(size)) / 192)  # of the largest crop
    assert np.abs(edges(mask) - edges(expected)).max() <= pixel
    assert (mask & expected).sum() / (mask | expected).sum() > 0.8


def look_alikes() -> tuple[Scene, np.ndarray]:
    """The object's color changes from part to part, and is a little darker in the target, which also shows a plain
    thing with the mean color of the object. The object's mask in the target comes second.
    """
    images, masks = {}, {}
    for camera, green in {"left": 100, "right": 94}.items():
        images[camera], masks[camera] = np.full((270, 480, 3), BACKGROUND, np.uint8), np.zeros((270, 480), np.uint8)
        images[camera][60:90, 120:150] = patterned(30, green)
        masks[camera][60:90, 120:150] = 1
    images["right"][180:210, 360:390] = patterned(30, 100).mean((0, 1))
    scene = Scene()
    left, right = (scene.add_picture(images[camera], "exo") for camera in ("left", "right"))
    scene.add_pair(scene.add_object(masks["left"], left), right, 0)
    return scene, masks["right"]


def patterned(side: int, green: int) -> np.ndarray:
    """A square whose red grows from row to row, and whose blue grows from column to column."""
    rows, cols = np.mgrid[:side, :side] * 66 / side
    return np.stack((137 + rows, np.full_like(rows, green), 57 + cols), 2).astype(np.uint8)


def finds(scene: Scene, truth: np.ndarray, used: Strong) -> bool:
    """Whether what is found is the object."""
    [answer] = used.predict(used.prepare(scene))
    prob, existence = answer.in_image(scene.sizes[1]), answer.existence
    assert existence > 0.5 and (prob > 0.5).any()
    return overlap(prob > 0.5, truth) > 0.8


def overlap(mask: np.ndarray, truth: np.ndarray) -> float:
    """The IoU of two masks."""
    mask, truth = mask.astype(bool), truth.astype(bool)
    return (mask & truth).sum() / (mask | truth).sum()


def test_of_two_look_alikes_the_one_whose_parts_agree_with_the_object_is_chosen(monkeypatch):
    assert finds(*look_alikes(), color_recipe(NearestColor))
    assert not finds(*look_alikes(), color_recipe(NearestColor, looks=1))
    monkeypatch.setattr(Matches, "agreement", lambda self, masks: torch.ones(len(masks)))
    assert not finds(*look_alikes(), color_recipe(NearestColor))


def largest_parts(self: Strong, shown: Shown, images: list[np.ndarray]) -> list[Part | None]:
    looks = zip(shown.mask, shown.crop, images, strict=True)
    return [next(iter(connected_parts(mask, crop, image.shape[:2])), None) for mask, crop, image in looks]


def test_of_two_things_in_one_answer_the_one_that_agrees_with_the_object_is_kept_though_it_is_smaller(monkeypatch):
    scene, truth = look_alikes()
    scene.pictures[1][:], truth[:] = BACKGROUND, 0
    scene.pictures[1][60:84, 120:144], truth[60:84, 120:144] = patterned(24, 94), 1
    scene.pictures[1][55:89, 151:185] = patterned(30, 100).mean((0, 1))
    assert finds(scene, truth, color_recipe(NearestColor))
    monkeypatch.setattr(Strong, "best_parts", largest_parts)
    assert not finds(scene, truth, color_recipe(NearestColor))  # the largest part is kept


def test_the_places_of_a_target_are_the_chosen_one_and_others_without_repetition(monkeypatch):
    scene, truth = look_alikes()
    mask, query = scene.masks[0], scene.pictures[0]
    predictor = Predictor(color_recipe(NearestColor))
    alone = predictor.segment(query, mask, scene.pictures[1])
    places = predictor.places(query, mask, scene.pictures[1])
    chosen, *others = places
    assert (chosen.mask == alone.mask).all() and overlap(chosen.mask, truth) > 0.8
    assert chosen.existence == alone.existence and max(overlap(place.mask, chosen.mask) for place in others) < 0.5
    assert len(predictor.places(query, mask, scene.pictures[1], count=1)) == 1
    choice = predictor.recipe.network.choice
    glance = choice.glance.forward
    choice.score.forward = lambda numbers: -glance(numbers)  # would choose, of more close looks, a worse place
    for judge in (glance, lambda numbers: -numbers.similarity):  # the second, of more looks, one at an unlikely place
        choice.glance.forward = judge
        for count in (1, 2, 3, 4):
            first = predictor.places(query, mask, scene.pictures[1], count)[0]
            assert (first.mask == predictor.segment(query, mask, scene.pictures[1]).mask).all()
        monkeypatch.setattr("recipes.search.places.UNLIKELY", 0)
    for count in (0, 2.5, "3"):
        with pytest.raises(UserError, match=f"the count of places is {count!r}; give a whole number of at least 1"):
            predictor.places(query, mask, scene.pictures[1], count=count)


class Chosen(Recipe):
    """Chooses, of four answers, the one that is second by existence; the last one covers most of the first."""

    def predict(self, scene: Scene) -> list[Answer]:
        return [answers[0] for answers in self.answers_at_places(scene, 1)]

    def answers_at_places(self, scene: Scene, count: int) -> list[list[Answer]]:
        pixels = np.arange(12).reshape(3, 4)
        shown = [np.float32((pixels >= low) & (pixels < high)) for low, high in ((0, 5), (5, 8), (8, 12), (0, 3))]
        return [list(map(Answer, shown, (0.66, 0.8, 0.4, 0.7)))[:count]]


def test_the_chosen_place_comes_first_and_the_others_follow_by_the_existence_that_is_printed():
    given = np.zeros((3, 4, 3), np.uint8), np.eye(3, 4, dtype=np.uint8), np.zeros((3, 4, 3), np.uint8)
    predictor = Predictor(Chosen())
    assert predictor.segment(*given).existence == 0.66
    assert [place.existence for place in predictor.places(*given, count=4)] == [0.66, 0.8, 0.4]
    assert [int(place.mask.argmax()) for place in predictor.places(*given, count=2)] == [0, 5]


def test_an_object_is_sought_from_each_of_its_pictures_and_the_surest_answer_counts():
    scene, truth = look_alikes()
    mask, query, target = scene.masks[0], scene.pictures[0], scene.pictures[1]
    unlike = np.full_like(query, BACKGROUND)
    unlike[60:90, 120:150] = 30, 220, 250  # the target shows no such thing
    predictor = Predictor(color_recipe(NearestColor))
    expected = predictor.segment(query, mask, target)
    assert overlap(predictor.segment(unlike, mask, target)[0], truth) < 0.1
    for pictures in ([query, unlike], [unlike, query]):
        found, existence = predictor.segment(pictures, [mask, mask], target)
        assert (found == expected[0]).all() and existence == pytest.approx(expected[1], abs=1e-5)


def test_an_object_that_has_left_is_said_to_be_hidden():
    scene, _ = look_alikes()
    scene.pictures[1][:] = BACKGROUND
    recipe = color_recipe(NearestColor)
    [answer] = recipe.predict(recipe.prepare(scene))
    prob, existence = answer.in_image(scene.sizes[1]), answer.existence
    assert not (prob > 0.5).any() and existence < 0.5


def test_features_that_have_not_learned_are_asked_about_existence_in_pictures_of_unknown_cameras_alone(
    parts, monkeypatch
):
    scenes = noise(PAIRS), noise(PAIRS, {}), replace(noise(PAIRS, {}), hint="same")  # a hint makes no camera known
    before = [answers(parts, scene)[1] for scene in scenes]
    monkeypatch.setattr(recipe, "RAW_AGREEMENT_WEIGHT", 50.0)
    known, *unknown = (answers(parts, scene)[1] for scene in scenes)
    assert known == before[0]
    assert all(after != pytest.approx(former, abs=1e-2) for after, former in zip(unknown, before[1:], strict=True))
