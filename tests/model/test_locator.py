"""The locator, untrained: where it finds what another view shows."""

import pytest
import torch
import torch.nn.functional as F

from model.features import Levels
from model.locator import PARTS, WIDTH, Locator, coverage_of, peaks


@pytest.fixture
def locator():
    torch.manual_seed(0)
    return Locator(64, 32)


def random_levels(batch: int, height: int, width: int, seed: int = 1) -> Levels:
    """Of so many cells of 16 pixels."""
    generator = torch.Generator().manual_seed(seed)
    feat = F.normalize(torch.randn(batch, 64, height, width, generator=generator), dim=1)
    return Levels(feat, torch.randn(batch, 32, 2 * height, 2 * width, generator=generator))


def views(locator: Locator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cells of queries, what the object covers of them, and cells of targets that hold a copy of it elsewhere."""
    query, target = (locator.cells(random_levels(2, *size, seed)) for seed, size in ((1, (6, 6)), (2, (8, 12))))
    coverage = torch.zeros(2, 12, 12)
    coverage[:, 4:7, 5:8] = 1
    target[0, 9:12, 16:19] = query[0, 4:7, 5:8]
    target[1, 2:5, 3:6] = query[1, 4:7, 5:8]
    return query, coverage, target


def test_the_heat_is_highest_where_the_target_holds_a_copy_of_the_object(locator):
    query, coverage, target = views(locator)
    heat = locator.heat(locator.describe(query, coverage), target).detach().clone()
    assert heat.shape == (2, 16, 24) and heat.dtype == torch.float32
    for one, rows, cols in zip(heat.unbind(), (slice(9, 12), slice(2, 5)), (slice(16, 19), slice(3, 6)), strict=True):
        best = one[rows, cols].max().item()
        one[rows, cols] = -torch.inf
        assert best > one.max() + 0.5


def test_the_parts_of_an_object_are_found_with_their_shares_and_its_context_is_no_part(locator):
    torch.manual_seed(0)
    kinds, sizes = F.normalize(torch.randn(PARTS, WIDTH), dim=1), [14, 9, 6, 4, 3]
    cells = torch.randn(1, 12, 12, WIDTH) / WIDTH**0.5
    coverage, numbers = torch.zeros(1, 144), torch.repeat_interleave(torch.arange(PARTS), torch.tensor(sizes))
    place = torch.randperm(144)[: sum(sizes)]
    cells.view(144, WIDTH)[place] = 3 * kinds[numbers] + 0.05 * torch.randn(len(place), WIDTH)
    coverage[0, place] = 1
    found = locator.describe(cells, coverage.view(1, 12, 12))
    order = (F.normalize(found.parts[0], dim=1) @ kinds.T).argmax(1)
    assert sorted(order.tolist()) == list(range(PARTS))
    torch.testing.assert_close(found.parts[0], 3 * kinds[order], rtol=0, atol=0.1)
    torch.testing.assert_close(found.shares[0], torch.tensor(sizes)[order] / sum(sizes), rtol=0, atol=1e-3)
    torch.testing.assert_close(found.context, cells.mean((1, 2)))


def test_an_object_of_few_cells_has_as_many_parts_however_sums_are_rounded(locator):
    query, coverage = views(locator)[0].detach(), torch.zeros(2, 12, 12)
    coverage[:, 4:6, 5:7] = 1
    expected = locator.describe(query, coverage)
    assert (expected.shares > 1e-3).sum(1).tolist() == [4, 4]
    for seed in range(5):
        torch.manual_seed(seed)
        for x, y in zip(locator.describe(query + 1e-7 * torch.randn(query.shape), coverage), expected, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("black", [False, True])
def test_an_object_that_is_not_there_gives_finite_numbers_and_gradients(locator, black):
    levels = random_levels(2, 6, 6)
    if black:
        levels = Levels(*(torch.zeros_like(x) for x in levels))
    cells = locator.cells(levels)
    heat = locator.heat(locator.describe(cells, torch.zeros(2, 12, 12)), cells)
    assert heat.isfinite().all()
    (heat.logsumexp((1, 2)) + locator.heat_logit(heat.amax((1, 2)))).sum().backward()
    assert all(p.grad.isfinite().all() for p in locator.parameters() if p.grad is not None)


def test_peaks_are_the_highest_places_apart_from_each_other():
    heat = torch.zeros(1, 12, 20)
    heat[0, 3, 4], heat[0, 3, 6], heat[0, 8, 15], heat[0, 11, 0] = 5, 4, 3, 2  # the second is too near to the first
    values, cells = peaks(heat, 3)
    assert values.tolist() == [[5, 3, 2]] and cells.tolist() == [[[3, 4], [8, 15], [11, 0]]]
    assert peaks(heat, 10**6)[0].shape == (1, 12 * 20)


def test_coverage_is_the_part_of_a_cell_that_a_mask_takes():
    mask = torch.zeros(1, 48, 96, dtype=torch.uint8)
    mask[0, 8:16, 20:32] = 1
    covered = coverage_of(mask, (6, 12))
    assert covered.sum() * 64 == mask.sum() and covered[0, 1, 2:4].tolist() == [0.5, 1]
