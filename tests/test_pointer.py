"""The pointer: what masks cover, and what of a target is like it."""

import torch
import torch.nn.functional as F

from model.features import View
from model.pointer import RIVALS, TEMPERATURE, Pointer, mask_coverage, moved, rival_places, view_coverage

ZOOM, SIDE = 3, 64  # of what the network sees; the detail of an image has 24 x 24 cells
CELLS = ZOOM * SIDE // 8


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def mask_of(rows: slice, cols: slice, side: int = ZOOM * SIDE) -> torch.Tensor:
    mask = torch.zeros(1, side, side)
    mask[:, rows, cols] = 1
    return mask


def view_of(mask: torch.Tensor, corner: list[int] | None, detail: torch.Tensor) -> View:
    """Of a mask of the whole image, what a view shows that begins at `corner`, or is all of it."""
    if corner is None:
        shown = mask[:, ::ZOOM, ::ZOOM]
    else:
        shown = mask[:, 16 * corner[0] :, 16 * corner[1] :][:, :SIDE, :SIDE]
    feat, fine = torch.zeros(1, 1, SIDE // 16, SIDE // 16), torch.zeros(1, 1, ZOOM * SIDE // 16, ZOOM * SIDE // 16)
    return View(feat, fine, shown, corner=torch.tensor([corner or [-1, -1]]), detail=detail)


def test_what_a_mask_covers_is_the_same_in_a_crop_as_in_the_whole_image():
    detail, mask = random(1, 5, CELLS, CELLS), mask_of(slice(66, 90), slice(102, 126))
    expected = mask_coverage(mask, detail)
    assert expected.sum() * 64 == mask.sum()
    for corner in ([3, 5], [4, 6], [2, 4]):
        torch.testing.assert_close(view_coverage(view_of(mask, corner, detail)), expected)
    reduced = view_coverage(view_of(mask, None, detail))
    assert (reduced > 0).eq(expected > 0).float().mean() > 0.98 and abs(reduced.sum() - expected.sum()) < 1


def test_a_description_is_of_what_a_mask_covers_wherever_it_is():
    pointer, detail = Pointer(6), random(2, 6, CELLS, CELLS)
    detail[1, :, 10:14, 3:7] = detail[0, :, 2:6, 15:19]  # the same thing, elsewhere
    coverage = torch.zeros(2, 3, CELLS, CELLS)
    coverage[0, 0, 2:6, 15:19] = coverage[1, 0, 10:14, 3:7] = 0.5
    coverage[:, 1, 18:21, 9:12] = 1  # another thing; the third mask is empty
    first, second = pointer.describe(detail, coverage)
    assert first[0] @ second[0] > 0.9 > 0.5 > first[0] @ second[1]  # each less the mean of its image
    assert first[2].abs().max() == 0
    places = pointer.regions(detail)
    torch.testing.assert_close(places[0, 3, 16], pointer.describe(detail[:1], square(3, 16))[0, 0])


def test_the_mask_decoder_sees_the_detail_of_a_view_and_where_it_is_like_the_object():
    pointer, detail = Pointer(6), random(2, 6, CELLS, CELLS)
    mask = torch.zeros(1, 1, CELLS, CELLS)
    mask[..., 9, 13] = 1
    description = pointer.describe(detail[1:], mask)[0]
    corner, image = torch.tensor([[3, 5]]), torch.tensor([1])
    marked = pointer.marked(detail, description, corner, SIDE // 16, ZOOM, image)[0]
    shown = detail[1, :, 6:14, 10:18] - detail[1].mean((1, 2))[:, None, None]
    torch.testing.assert_close(marked[:6], shown / shown.std())
    assert marked[6].argmax() == 3 * 8 + 3 and marked[6, 3, 3] > 0.999
    whole = pointer.marked(detail, description, -torch.ones_like(corner), SIDE // 16, ZOOM, image)[0, :6]
    shown = F.avg_pool2d(detail[1], ZOOM) - detail[1].mean((1, 2))[:, None, None]
    torch.testing.assert_close(whole, shown / shown.std())


def square(row: int, col: int) -> torch.Tensor:
    coverage = torch.zeros(1, 1, CELLS, CELLS)
    coverage[..., row - 1 : row + 2, col - 1 : col + 2] = 1
    return coverage


def test_rivals_have_the_objects_form_at_the_places_that_look_most_like_it_and_leave_the_object_alone():
    coverage, similarity = torch.zeros(1, CELLS, CELLS), torch.zeros(1, CELLS // 2, CELLS // 2)
    coverage[0, 4:8, 4:6] = torch.tensor([1, 0.5])
    similarity[0, 2, 2] = 9  # the object's own place
    similarity[0, 3, 4] = 8  # too near to it
    similarity[0, 9, 3], similarity[0, 5, 10] = 7, 6
    places = rival_places(coverage, similarity)
    assert places.shape == (1, RIVALS, 2)
    assert places[0, :2].tolist() == [[19, 7], [11, 21]]
    rivals = moved(coverage, places)
    assert torch.equal(rivals[0, 0, 17:21, 6:8], coverage[0, 4:8, 4:6]) and rivals[0, 0].sum() == coverage.sum()
    assert not (rivals * (coverage > 0)).any()


def test_a_pointer_learns_to_tell_an_object_from_what_the_features_confuse_it_with():
    """Half of the channels say what a thing is, the others where the light is; those are as large."""
    torch.manual_seed(0)
    pointer, optimizer_steps = Pointer(8), 60
    optimizer = torch.optim.Adam(pointer.parameters(), 0.01)

    def logits() -> torch.Tensor:
        detail = 0.1 * torch.randn(2, 8, CELLS, CELLS)
        kinds, light = torch.randn(3, 4), torch.randn(2, 4)
        for i, col in enumerate((2, 10, 18)):  # three things in each view, the first is the object
            for view in range(2):
                detail[view, :4, 8:11, col : col + 3] += kinds[i, :, None, None]
                detail[view, 4:, 8:11, col : col + 3] += 2 * light[(view + i) % 2, :, None, None]
        mask = mask_of(slice(64, 88), slice(16, 40))
        similarity = F.max_pool2d(detail[1:].abs().sum(1), 2)
        description = pointer.describe(detail[:1], view_coverage(view_of(mask, [2, 0], detail[:1]))[:, None])[:, 0]
        return pointer(description, view_of(mask, None, detail[1:]), similarity)

    losses = []
    for _ in range(optimizer_steps):
        loss = -logits().log_softmax(1)[:, 0].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-20:]) < 0.7 * sum(losses[:20])
    assert logits().abs().max() <= 1 / TEMPERATURE + 1e-3
