"""inference/closer_look.py: what the looks show, and what becomes of their answers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from formats.geometry import crop_corner
from inference.closer_look import CloserLook, resize_prob
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
        assert corner[0].tolist() == list(expected) and seen.sum() == mask.sum()


def similarity_with(row: int, col: int, zoom: int) -> Similarity:
    parts = torch.zeros(1, zoom * CELLS, zoom * CELLS)
    parts[0, row - 1 : row + 2, col - 1 : col + 2] = 1
    return Similarity(parts, parts)


def test_the_look_is_at_what_is_similar_and_the_first_answer_decides_between_places_that_are_alike():
    look, answer = CloserLook(SIDE, 3), masks_with((4, 50, 6, 6), side=SIDE)
    similarity = similarity_with(9, 3, zoom=3)
    at_similar, at_answer = (16 * 9 + 8, 16 * 3 + 8), (3 * 7, 3 * 53)
    for weight, expected in ((0, at_similar), (0.4, at_similar), (1, at_answer)):  # two deviations are more than one
        corner, _ = look.place(weight * answer, similarity)
        middle = (16 * corner[0] + SIDE / 2).tolist()
        nearest = [min(max(x, SIDE / 2), 2.5 * SIDE) for x in expected]  # not beyond the edge
        assert middle == pytest.approx(nearest, abs=8)


def test_the_look_is_in_the_middle_of_a_large_object_and_at_the_only_cell_of_a_small_one():
    look, nothing, parts = CloserLook(128, 2), torch.zeros(3, 128, 128), torch.full((3, 16, 16), -1.0)
    parts[0, 5:8, 6] = torch.tensor([2, 1.6, 1.5])  # three cells, the best one at the edge
    parts[0, 14, 6] = 1.9  # too far away
    parts[1, 9, 6] = 2
    parts[1, 9, 7] = 1  # not similar enough
    parts[2, 9, 6] = -0.5  # nothing stands out
    corner, _ = look.place(nothing, Similarity(parts, parts))
    middle = 16 * corner + 64
    assert (middle - 16 * torch.tensor([[6.5, 6.5], [9.5, 6.5], [9.5, 6.5]])).abs().max() <= 8


@pytest.mark.parametrize("small, expected", [(2, (16 * 6.5, 16 * 10.5)), (2.6, (16 * 13.5, 16 * 4.5))])
def test_a_large_object_wins_against_a_cell_a_little_more_similar_and_a_small_one_against_a_less_similar_part(
    small, expected
):
    parts = torch.full((1, 16, 16), -0.2)
    parts[0, 5:8, 9:12] = 1.8
    parts[0, 13, 4] = small
    corner, _ = CloserLook(64, 4).place(torch.zeros(1, 64, 64), Similarity(parts, parts))
    assert (16 * corner[0] + 32).tolist() == pytest.approx(expected, abs=8)


def test_a_look_that_shows_all_of_an_object_counts_and_else_the_first_one():
    first = masks_with((0, 0, 9, 9), (5, 5, 9, 9), (8, 8, 9, 9), side=SIDE)
    close = masks_with((2, 3, 4, 5), None, (0, 0, SIDE, 3), side=SIDE)  # the last one goes on beyond the crop
    prob = CloserLook(SIDE, 2).combine(first, torch.tensor([[1, 2], [0, 0], [0, 0]]), close)
    assert torch.equal(prob[0], masks_with((18, 35, 4, 5), side=2 * SIDE)[0])
    assert torch.equal(prob[1:], resize_prob(first[1:], 2 * SIDE))


def test_a_first_answer_that_is_one_large_object_counts():
    first = masks_with((0, 0, 30, 40), (0, 0, 4, 4), side=SIDE)
    first[1, 45:48, 45:48] = 1  # scattered guesses
    close = masks_with(*[(10, 10, 5, 5)] * 2, side=SIDE)
    prob = CloserLook(SIDE, 2).combine(first, torch.zeros(2, 2, dtype=torch.int64), close)
    assert torch.equal(prob[0], resize_prob(first[:1], 2 * SIDE)[0])
    assert torch.equal(prob[1], masks_with((10, 10, 5, 5), side=2 * SIDE)[0])


def test_of_an_answer_in_parts_those_stay_whose_place_is_as_likely_as_the_best():
    side, parts = 4 * SIDE, torch.full((3, 16, 16), -1.0)
    for value, row, col in ((2, 3, 3), (1.8, 10, 10), (1.6, 3, 12)):  # within 15 % of the best, and not
        parts[:, row, col] = value
    parts[2] = -1  # of a target in which nothing is found
    _, cells = CloserLook(SIDE, 4).place(torch.zeros(3, SIDE, SIDE), Similarity(parts, parts))
    masks = masks_with(None, None, None, side=side)
    hook = [(48, 48, 56, 8), (96, 48, 8, 56)]  # hangs together, and ends far from its place
    likely, unlikely = (160, 160, 16, 16), (56, 200, 8, 8)
    for mask, boxes in zip(masks, [[*hook, likely, unlikely], [unlikely], [unlikely, likely]], strict=True):
        mask[:] = masks_with(*boxes, side=side).amax(0)
    found = CloserLook(SIDE, 4).one_object(masks, cells)
    assert torch.equal(found[0], masks_with(*hook, likely, side=side).amax(0))
    assert torch.equal(found[1:], masks[1:])  # better than none
