"""The strong network's parts, which training and prediction call alike."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model.features import Levels
from model.strong import StrongXSegTx
from model.xsegtx import Look
from tests.made.networks import strong_network

CELLS = 6


def levels(count: int, rows: int = CELLS, cols: int = CELLS, seed: int = 1) -> Levels:
    generator = torch.Generator().manual_seed(seed)
    feat = F.normalize(torch.randn(count, 1024, rows, cols, generator=generator).relu(), dim=1)
    return Levels(feat, torch.randn(count, 512, 2 * rows, 2 * cols, generator=generator))


def masks() -> Tensor:
    """Of two objects, in crops."""
    masks = torch.zeros(2, 96, 96, dtype=torch.uint8)
    masks[0, 30:60, 40:70], masks[1, 10:80, 20:50] = 1, 1
    return masks


def answer(
    network: StrongXSegTx, query: Levels, masks: Tensor, target: Levels, both: bool = True
) -> tuple[Tensor, Look, Tensor]:
    """Heat of whole frames, looks, and looks back, of two objects."""
    cells, objects = network.locator.cells(levels(2, 6, 10, seed=2)), torch.zeros(2, 12, 20, dtype=torch.bool)
    objects[:, 3:6, 4:9] = True
    heat = network.locator.heat(network.describe(query, masks), cells)
    target = network.encode_target(target)
    look = network.look(network.encode(query, masks, levels(2, seed=5).feat), target, both)
    return heat, look, network.look_back(network.describe_answers(target, look.target_mask_prob), cells, objects)


@torch.no_grad()
def test_a_look_without_the_querys_mask_says_the_same_of_the_target():
    given = strong_network(), levels(2), masks(), levels(2, seed=6)
    (_, look, back), (_, with_query, back_with_query) = answer(*given, both=False), answer(*given)
    assert look.query_mask_prob is None
    assert with_query.query_mask_prob.shape == look.target_mask_prob.shape == (2, 96, 96)
    torch.testing.assert_close((*look[:2], back), (*with_query[:2], back_with_query))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_float32_answers_near_float32_and_finite_gradients_whatever_comes(dtype):
    network, query, target = strong_network(), levels(2), levels(2, seed=6)
    with torch.no_grad():
        exact_heat, exact, _ = answer(network, query, masks(), target)
        with torch.autocast("cpu", dtype):
            heat, half, back = answer(network, query, masks(), target)
    torch.testing.assert_close(heat, exact_heat, rtol=0, atol=1e-5)  # where to look does not depend on the precision
    assert {x.dtype for x in (heat, *half, back)} == {torch.float32}
    torch.testing.assert_close(half.target_mask_prob, exact.target_mask_prob, rtol=0, atol=0.05)
    network.train()
    query, target = (Levels(1e3 * x.feat, 1e4 * x.detail) for x in (query, target))
    with torch.autocast("cpu", dtype):
        heat, look, back = answer(network, query, masks() * 0, target)
    prob = look.target_mask_prob
    assert prob.min() > 0 and prob.max() < 1 and look.logit.isfinite().all() and back.isfinite().all()
    loss = prob.log().mean() + look.query_mask_prob.log().mean() + look.logit.sum()
    (loss + network.existence(look.logit, heat.amax((1, 2))).log().sum()).backward()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


@torch.no_grad()
def test_an_answer_leads_back_to_what_it_shows_in_the_same_picture_and_none_leads_nowhere():
    network, picture, shown = strong_network(), levels(2), masks()
    target = network.encode_target(picture)
    objects = F.max_pool2d(shown.float(), 8).bool()
    back = network.look_back(network.describe_answers(target, shown.float()), target.cells, objects)
    elsewhere = network.look_back(network.describe_answers(target, shown.roll(48, 2).float()), target.cells, objects)
    nothing = network.look_back(network.describe_answers(target, 0.4 * shown), target.cells, objects)
    assert back.min() > 0.9 and elsewhere.max() < 0.1 and nothing.tolist() == [0, 0]
    logit, highest = torch.zeros(2), torch.zeros(2)
    assert (network.score(logit, highest, back) > network.score(logit, highest, nothing)).all()
