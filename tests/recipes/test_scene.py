"""recipes/scene.py: scenes that are joined are answered row by row."""

from types import SimpleNamespace

import numpy as np
import pytest

from recipes.scene import Scene, answered


def scene_of(value: int, rows: list[int]) -> Scene:
    """A scene with two pictures of this gray; each row's object is marked in the first, sought in the second."""
    scene = Scene(left_out={100 + value: "missing"})
    for shade in (value, value + 1):
        scene.add_picture(np.full((2, 3, 3), shade, np.uint8))
    for row in rows:
        scene.add_pair(scene.add_object(np.full((2, 3), row, np.uint8), 0), 1, row)
    return scene


def answers_of(scene: Scene) -> list[tuple[int, int, int]]:
    """For each pair, the numbers in its object's mask, in the picture where it is marked, and in the target."""
    marked = [scene.pictures[scene.view[number]] for number in scene.object]
    target = [scene.pictures[number] for number in scene.target]
    masks = [scene.masks[number] for number in scene.object]
    return [tuple(int(x.flat[0]) for x in each) for each in zip(masks, marked, target, strict=True)]


@pytest.mark.parametrize(("at_once", "scenes"), [(0, 4), (2, 2), (9, 1)])
def test_scenes_that_are_joined_keep_the_pictures_masks_and_reasons_of_their_rows(at_once, scenes):
    given = [scene_of(10, [7]), scene_of(20, []), scene_of(30, [3, 5]), scene_of(40, [4])]
    found = list(answered(SimpleNamespace(pairs_at_once=at_once), given, answers_of))
    assert len(found) == scenes
    by_row = {row: answer for scene, answers in found for row, answer in zip(scene.row, answers, strict=True)}
    assert by_row == {7: (7, 10, 11), 3: (3, 30, 31), 5: (5, 30, 31), 4: (4, 40, 41)}
    assert {row for scene, _ in found for row in scene.left_out} == {110, 120, 130, 140}
