"""The strong network: one for training and prediction, in every precision."""

import pytest
import torch
import torch.nn.functional as F

from model.features import Levels
from model.strong import Views
from tests.made.networks import strong_network

CELLS = 6


def levels(count: int, rows: int = CELLS, cols: int = CELLS, seed: int = 1) -> Levels:
    generator = torch.Generator().manual_seed(seed)
    feat = F.normalize(torch.randn(count, 1024, rows, cols, generator=generator).relu(), dim=1)
    return Levels(feat, torch.randn(count, 512, 2 * rows, 2 * cols, generator=generator))


def inputs() -> tuple:
    """What `StrongXSegTx.forward` takes: two objects, whole targets of two shapes, and three looks at each."""
    masks = torch.zeros(2, 96, 96, dtype=torch.uint8)
    masks[0, 30:60, 40:70], masks[1, 10:80, 20:50] = 1, 1
    frames = [levels(1, 6, 10, seed=2), levels(1, 10, 10, seed=3)]
    views = Views(levels(2), masks, levels(2, seed=5).feat, levels(6, seed=6))
    return levels(2, 3, 3, seed=4), masks.flip(0)[:, ::2, ::2], frames, views


def train(network, wide, wide_masks, frames, views):
    return network(wide, wide_masks, frames, lambda heat: views)


def rows(given: Levels, *numbers: int) -> Levels:
    return Levels(*(x[list(numbers)] for x in given))


@torch.no_grad()
def test_training_sees_what_prediction_sees_which_asks_for_one_look_at_a_time():
    network, given = strong_network(), inputs()
    wide, wide_masks, frames, views = given
    answer = train(network, *given)
    for i in range(2):
        description = network.describe(wide, wide_masks).rows(slice(i, i + 1))
        heat = network.locator.heat(description, network.locator.cells(frames[i]))
        torch.testing.assert_close(answer.heat[i], heat[0], rtol=1e-4, atol=1e-4)
        one = network.encode(rows(views.query, i), views.query_mask[i : i + 1], views.mask_feat[i : i + 1])
        for number in range(3 * i, 3 * i + 3):
            look = network.look(one, rows(views.target, number))
            assert look.query_mask_prob is None
            torch.testing.assert_close(look.logit[0], answer.looks.logit[number], rtol=1e-4, atol=1e-4)
            prob = answer.looks.target_mask_prob[number]
            torch.testing.assert_close(look.target_mask_prob[0], prob, rtol=1e-3, atol=1e-4)
    assert answer.looks.query_mask_prob.shape == answer.looks.target_mask_prob.shape == (6, 96, 96)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_float32_answers_near_float32_and_finite_gradients_whatever_comes(dtype):
    network, (wide, wide_masks, frames, views) = strong_network(), inputs()
    with torch.no_grad():
        exact = train(network, wide, wide_masks, frames, views)
        with torch.autocast("cpu", dtype):
            half = train(network, wide, wide_masks, frames, views)
    for some, other in zip(half.heat, exact.heat, strict=True):
        assert some.dtype == torch.float32
        torch.testing.assert_close(some, other, rtol=0, atol=1e-5)  # where to look does not depend on the precision
    assert half.looks.target_mask_prob.dtype == half.looks.logit.dtype == torch.float32
    torch.testing.assert_close(half.looks.target_mask_prob, exact.looks.target_mask_prob, rtol=0, atol=0.05)
    network.train()
    wide, query, target = (Levels(1e3 * x.feat, 1e4 * x.detail) for x in (wide, views.query, views.target))
    with torch.autocast("cpu", dtype):
        answer = train(
            network, wide, wide_masks * 0, frames, Views(query, views.query_mask * 0, views.mask_feat, target)
        )
    prob = answer.looks.target_mask_prob
    assert prob.min() > 0 and prob.max() < 1 and answer.looks.logit.isfinite().all()
    loss = prob.log().mean() + answer.looks.query_mask_prob.log().mean() + answer.looks.logit.sum()
    (loss + sum(heat.logsumexp((0, 1)) for heat in answer.heat)).backward()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)
