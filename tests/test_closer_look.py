"""inference/closer_look.py: what the looks show, and what becomes of their answers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from formats.geometry import crop_corner
from inference.closer_look import CloserLook
from model.similarity import Similarity

SIDE = 64  # of what the network sees
CELLS = SIDE // 16


def masks_with(*boxes: tuple[int, int, int, int] | None, side: int) -> torch.Tensor:
    masks = torch.zeros(len(boxes), side, side)
    for mask, box in zip(masks, boxes, strict=True):
        if box:
            top, left, height, width = box
            mask[top : top + height, left : left + width] = 1
    return masks


@given(st.integers(2, 4), st.data())
def test_crops_are_where_training_has_them(zoom, data):
    side = zoom * SIDE
    top, left = (data.draw(st.integers(0, side - 1)) for _ in range(2))
    mask = masks_with((top, left, *(data.draw(st.integers(0, side // 2)) for _ in range(2))), side=side)
    seen, corner = CloserLook(SIDE, zoom).queries(mask)
    rows, cols = np.asarray(mask[0].any(1)), np.asarray(mask[0].any(0))
    expected = crop_corner(rows, cols, SIDE, 16)
    if expected is None:
        assert corner.tolist() == [[-1, -1]] and torch.equal(seen[0], mask[0, ::zoom, ::zoom])
    else:
        assert (16 * corner[0]).tolist() == list(expected) and seen.sum() == mask.sum()


def similarity_with(row: int, col: int, zoom: int) -> Similarity:
    parts = torch.zeros(1, zoom * CELLS, zoom * CELLS)
    parts[0, row - 1 : row + 2, col - 1 : col + 2] = 1
    return Similarity(parts, parts)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [((70, 90, 20, 30), (48, 80)), ((0, 0, 30, 190), (0, 64)), (None, (0, 0))],
    ids=["small", "large", "empty"],
)
def test_the_looks_are_around_the_answer_or_its_strongest_part_and_at_what_is_most_similar(answer, expected):
    prob = masks_with(answer, side=3 * SIDE)
    prob[0, 8:24, 88:104] *= 1.5  # the strongest part of the large answer
    at_answer, at_similar = CloserLook(SIDE, 3).places(prob, similarity_with(9, 4, zoom=3))
    assert (16 * at_answer[0]).tolist() == list(expected)
    middle = 16 * at_similar[0] + SIDE / 2
    assert (middle - 16 * torch.tensor([9.5, 4.5])).abs().max() <= 8


def test_the_surest_look_that_shows_all_of_an_object_counts_and_else_the_first_one():
    look, first = CloserLook(SIDE, 2), masks_with((0, 0, 9, 9), (5, 5, 9, 9), (8, 8, 9, 9), side=2 * SIDE)
    close = torch.stack([masks_with((2, 3, 4, 5), None, (0, 0, SIDE, 3), side=SIDE)] * 2)
    close[1, 0, 30] = 1  # the second look of the first pair sees a line across the whole crop
    close[1, 1, 7, 7] = 1
    corners = torch.tensor([[[1, 2], [0, 0], [0, 0]], [[3, 3], [4, 4], [0, 0]]])
    prob = look.combine(first, corners, close, torch.tensor([[0.2, 0.9, 0.9], [0.8, 0.3, 0.9]]))
    assert torch.equal(prob[0], masks_with((18, 35, 4, 5), side=2 * SIDE)[0])
    assert torch.equal(prob[1], masks_with((71, 71, 1, 1), side=2 * SIDE)[0])
    assert torch.equal(prob[2], first[2])


def test_a_first_answer_that_is_one_large_object_counts_and_scattered_guesses_do_not():
    first = masks_with((0, 0, 60, 70), (0, 0, 8, 8), side=2 * SIDE)
    first[1, 90:95, 90:95] = 1
    close, corners = (
        masks_with((10, 10, 5, 5), (10, 10, 5, 5), side=SIDE)[None],
        torch.zeros(1, 2, 2, dtype=torch.int64),
    )
    prob = CloserLook(SIDE, 2).combine(first, corners, close, torch.ones(1, 2))
    assert torch.equal(prob[0], first[0])
    assert torch.equal(prob[1], masks_with((10, 10, 5, 5), side=2 * SIDE)[0])
