"""inference/closer_look.py: what the looks show, and what becomes of their answers."""

import pytest
import torch

from inference.closer_look import CloserLook, resize_prob

SIDE = 64  # of what the network sees


def masks_with(boxes: list[tuple[int, int, int, int] | None], side: int) -> torch.Tensor:
    masks = torch.zeros(len(boxes), side, side)
    for mask, box in zip(masks, boxes, strict=True):
        if box:
            top, left, height, width = box
            mask[top : top + height, left : left + width] = 1
    return masks


@pytest.mark.parametrize("zoom", [2, 3])
def test_a_small_object_is_seen_enlarged_and_whole_and_a_large_one_in_the_whole_view(zoom):
    masks = masks_with([(70, 5, 9, 17), (0, 0, 60, 60), (100, 90, 1, 1)], zoom * SIDE)
    seen, corners = CloserLook(SIDE, zoom).queries(masks)
    assert seen.shape == (3, SIDE, SIDE)
    assert seen.sum((1, 2)).tolist() == [9 * 17, (60 // zoom) ** 2, 1]
    assert (corners[1] < 0).all() and (corners[[0, 2]] >= 0).all() and not (corners[[0, 2]] % 16).any()


def test_only_small_answers_are_looked_at_again_and_replaced():
    look, boxes = CloserLook(SIDE, 3), [(100, 120, 20, 30), None, (0, 0, 190, 20), (2, 150, 5, 5)]
    prob = resize_prob(masks_with(boxes, 3 * SIDE)[:, ::3, ::3], 3 * SIDE)
    before = prob.clone()
    pairs, corners = look.places(prob)
    assert pairs.tolist() == [0, 3]
    better = masks_with([(101, 119, 22, 28), (3, 151, 4, 4)], 3 * SIDE)
    close = torch.stack([mask[r : r + SIDE, c : c + SIDE] for mask, (r, c) in zip(better, corners, strict=True)])
    look.fill(prob, pairs, corners, close)
    assert torch.equal(prob[pairs], better) and torch.equal(prob[[1, 2]], before[[1, 2]])


def test_without_a_small_answer_there_is_no_second_look():
    pairs, corners = CloserLook(SIDE, 3).places(torch.zeros(2, 3 * SIDE, 3 * SIDE))
    assert pairs.shape == (0,) and corners.shape == (0, 2)
