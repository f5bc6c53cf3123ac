"""The parts of the strong network that training and prediction share; the untrained locator."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model.backbone import Levels
from model.xsegtx import Look
from recipes.search.locator import Locator
from recipes.strong.network import LearnedLocator, StrongNetwork
from tests.made.networks import strong_network

CELLS = 6


def levels(count: int, rows: int = CELLS, cols: int = CELLS, seed: int = 1, channels=(1024, 512)) -> Levels:
    """Of so many cells of 16 pixels."""
    generator = torch.Generator().manual_seed(seed)
    feat = F.normalize(torch.randn(count, channels[0], rows, cols, generator=generator), dim=1)
    return Levels(feat, torch.randn(count, channels[1], 2 * rows, 2 * cols, generator=generator))


def masks() -> Tensor:
    """Of two objects, in crops."""
    masks = torch.zeros(2, 96, 96, dtype=torch.uint8)
    masks[0, 30:60, 40:70], masks[1, 10:80, 20:50] = 1, 1
    return masks


def answer(network: StrongNetwork, query: Levels, masks: Tensor, target: Levels) -> tuple[Tensor, Look, Tensor]:
    """Heat of whole frames, looks, and the agreement of two objects."""
    heat = network.locator.heat(
        network.locator.object_crops(query, masks).description, network.locator.cells(levels(2, 6, 10, seed=2))
    )
    encoded = network.encode(query, masks, levels(2, seed=5).feat)
    look, cells = network.look(encoded, target)
    matches = network.locator.match(encoded.cells, encoded.coverage, cells)
    return heat, look, matches.agreement(look.target_mask_prob > 0.5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_float32_answers_near_float32_and_finite_gradients_whatever_comes(dtype):
    network, query, target = strong_network(), levels(2), levels(2, seed=6)
    with torch.no_grad():
        exact_heat, exact, _ = answer(network, query, masks(), target)
        with torch.autocast("cpu", dtype):
            heat, half, agreement = answer(network, query, masks(), target)
    torch.testing.assert_close(heat, exact_heat, rtol=0, atol=1e-5)  # where to look does not depend on the precision
    assert {x.dtype for x in (heat, half.target_mask_prob, half.logit, agreement)} == {torch.float32}
    torch.testing.assert_close(half.target_mask_prob, exact.target_mask_prob, rtol=0, atol=0.05)
    network.train()
    query, target = (Levels(1e3 * x.feat, 1e4 * x.early) for x in (query, target))
    with torch.autocast("cpu", dtype):
        heat, look, agreement = answer(network, query, masks() * 0, target)
    prob = look.target_mask_prob
    assert prob.min() > 0 and prob.max() < 1 and look.logit.isfinite().all() and agreement.isfinite().all()
    (prob.log().mean() + look.logit.sum()).backward()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


@torch.no_grad()
def test_an_answer_leads_back_to_what_it_shows_in_the_same_picture_and_none_leads_nowhere():
    network, picture, answered = strong_network(), levels(2), masks()
    locator, cells = network.locator, network.locator.cells(picture)
    objects = F.max_pool2d(answered.float(), 8).bool()
    shown = [answered.float(), answered.roll(48, 2).float(), 0.4 * answered]
    described = [locator.describe(cells, F.avg_pool2d((masks > 0.5).float(), 8)) for masks in shown]
    back, elsewhere, nothing = (network.back(locator.heat(x, cells), x, objects) for x in described)
    assert back.exp().min() > 0.9 and elsewhere.exp().max() < 0.1
    assert nothing.exp().tolist() == pytest.approx([1e-3, 1e-3])  # an empty answer leads nowhere


@pytest.fixture
def locator():
    torch.manual_seed(0)
    return LearnedLocator(64, 32)


def views(locator: Locator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cells of queries, what the object covers of them, and cells of targets that hold a copy of it elsewhere."""
    query, target = (locator.cells(levels(2, *size, seed, (64, 32))) for seed, size in ((1, (6, 6)), (2, (8, 12))))
    coverage = torch.zeros(2, 12, 12)
    coverage[:, 4:7, 5:8] = 1
    target[0, 9:12, 16:19] = query[0, 4:7, 5:8]
    target[1, 2:5, 3:6] = query[1, 4:7, 5:8]
    return query, coverage, target


def test_an_object_of_few_cells_has_as_many_parts_however_sums_are_rounded(locator):
    query, coverage = views(locator)[0].detach(), torch.zeros(2, 12, 12)
    coverage[:, 4:6, 5:7] = 1
    expected = locator.describe(query, coverage)
    assert (expected.shares > 1e-3).sum(1).tolist() == [4, 4]
    for seed in range(5):
        torch.manual_seed(seed)
        moved = locator.describe(query + 1e-7 * torch.randn(query.shape), coverage)
        for name, x in vars(moved).items():
            torch.testing.assert_close(x, getattr(expected, name), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("black", [False, True])
def test_an_object_that_is_not_there_gives_finite_numbers_and_gradients(locator, black):
    cells = locator.cells(Levels(*((0 if black else 1) * x for x in vars(levels(2, channels=(64, 32))).values())))
    heat = locator.heat(locator.describe(cells, torch.zeros(2, 12, 12)), cells)
    assert heat.isfinite().all()
    heat.logsumexp((1, 2)).sum().backward()
    assert all(p.grad.isfinite().all() for p in locator.parameters() if p.grad is not None)


@torch.no_grad()
def test_a_mask_is_propagated_to_a_copy_of_its_object_and_not_to_a_copy_of_its_neighbor(locator):
    query, coverage, target = views(locator)
    target[:, 9:12, 2:5] = query[:, 4:7, 2:5]  # what is left of the object
    propagated = locator.propagate(query, coverage, target)
    assert propagated.shape == target.shape[:3] and propagated.min() >= 0 and propagated.max() <= 1
    assert propagated[0, 9:12, 16:19].min() > 0.9 and propagated[:, 9:12, 2:5].max() < 0.1
    assert torch.equal(locator.propagate(query, 0 * coverage, target), 0 * propagated)


@torch.no_grad()
def test_an_object_agrees_with_its_copy_and_not_with_its_neighbors_copy_or_a_thing_of_one_kind_of_cell(locator):
    query, coverage, target = (x[:1, :12, :12] for x in views(locator))
    target[:] = torch.randn(target.shape, generator=torch.Generator().manual_seed(1))
    target[0, 1:4, 1:4], target[0, 8:11, 2:5] = query[0, 4:7, 5:8], query[0, 4:7, 2:5]
    target[0, 8:11, 8:11] = query[0, 4:7, 5:8].mean((0, 1))

    def agreement(row, col, target=target):
        masks = torch.zeros(1, 96, 96)
        masks[0, 8 * row : 8 * row + 24, 8 * col : 8 * col + 24] = 1
        return locator.match(query, coverage, target).agreement(masks).item()

    assert (agreement(1, 1), agreement(8, 2)) == (1, 0)
    target[0, 1:4, 1:4] = 0
    assert agreement(8, 8) < 0.6
    assert locator.match(query, 0 * coverage, target).agreement(torch.zeros(1, 96, 96)).item() == 0
