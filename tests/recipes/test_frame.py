"""recipes/frame.py: frames that are joined are answered row by row."""

from types import SimpleNamespace

import numpy as np
import pytest

from recipes.frame import Frame, answered


def frame_of(value: int, rows: list[int]) -> Frame:
    """A frame with two pictures of this gray; each row's object is marked in the first, sought in the second."""
    frame = Frame(left_out={100 + value: "missing"})
    for shade in (value, value + 1):
        frame.add_picture(np.full((2, 3, 3), shade, np.uint8))
    for row in rows:
        frame.add_pair(frame.add_object(np.full((2, 3), row, np.uint8), 0), 1, row)
    return frame


def answers_of(frame: Frame) -> list[tuple[int, int, int]]:
    """For each pair, the numbers in its object's mask, in the picture where it is marked, and in the target."""
    marked = [frame.pictures[frame.view[number]] for number in frame.object]
    target = [frame.pictures[number] for number in frame.target]
    masks = [frame.masks[number] for number in frame.object]
    return [tuple(int(x.flat[0]) for x in each) for each in zip(masks, marked, target, strict=True)]


@pytest.mark.parametrize(("at_once", "frames"), [(0, 4), (2, 2), (9, 1)])
def test_frames_that_are_joined_keep_the_pictures_masks_and_reasons_of_their_rows(at_once, frames):
    given = [frame_of(10, [7]), frame_of(20, []), frame_of(30, [3, 5]), frame_of(40, [4])]
    found = list(answered(SimpleNamespace(pairs_at_once=at_once), given, answers_of))
    assert len(found) == frames
    by_row = {row: answer for frame, answers in found for row, answer in zip(frame.row, answers, strict=True)}
    assert by_row == {7: (7, 10, 11), 3: (3, 30, 31), 5: (5, 30, 31), 4: (4, 40, 41)}
    assert {row for frame, _ in found for row in frame.left_out} == {110, 120, 130, 140}
