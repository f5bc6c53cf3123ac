"""Mask features in windows equal those of the plain pass."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from model.backbone import mask_to_image, normalize_image
from model.features import fold_batch_norm
from model.mask_features import MaskFeatures
from tests.made.networks import calibrate_batch_norm, random_backbone

SIZE = (224, 304)


@pytest.fixture(scope="module")
def backbone():
    backbone = random_backbone(0)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 96, 96, 3), dtype=torch.uint8, generator=generator)
    calibrate_batch_norm(backbone, [normalize_image(images)])
    return fold_batch_norm(backbone)


def boxes_mask(*boxes: tuple[slice, slice]) -> torch.Tensor:
    """(len(boxes), *SIZE) bool, a rectangle each."""
    masks = torch.zeros(len(boxes), *SIZE, dtype=torch.bool)
    for mask, box in zip(masks, boxes, strict=True):
        mask[box] = True
    return masks


def largest_error(backbone, masks: torch.Tensor) -> float:
    return (MaskFeatures(backbone)(masks) - backbone(mask_to_image(masks))).abs().max().item()


@pytest.mark.parametrize("seed", range(4))
def test_windows_give_the_features_of_the_plain_pass(backbone, seed):
    """Objects of a few pixels up to half of the image, anywhere, with holes."""
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand(4, 4, generator=generator).tolist()
    boxes = []
    for i, (y, x, height, width) in enumerate(draw):
        top, left = int(y * SIZE[0]), int(x * SIZE[1])
        share = 2 ** (i - 4)
        boxes.append(
            (slice(top, top + 1 + int(height * share * SIZE[0])), slice(left, left + 1 + int(width * share * 304)))
        )
    masks = boxes_mask(*boxes) & (torch.rand(4, *SIZE, generator=generator) < 0.8)
    assert largest_error(backbone, masks) < 1e-5


def test_objects_at_the_border_see_the_images_own_padding(backbone):
    first, last, some = slice(0, 1), slice(-1, None), slice(50, 61)
    corners = [(rows, columns) for rows in (first, last) for columns in (first, last)]
    assert largest_error(backbone, boxes_mask(*corners, (some, first), (last, some))) < 1e-5


@pytest.mark.parametrize("offset", range(16))
def test_single_pixels_are_exact_at_every_position_within_a_cell(backbone, offset):
    assert (
        largest_error(backbone, boxes_mask((slice(96 + offset, 97 + offset), slice(111 - offset, 112 - offset)))) < 1e-5
    )


def test_empty_and_full_masks(backbone):
    masks = torch.stack([torch.zeros(SIZE), torch.ones(SIZE)])
    assert largest_error(backbone, masks) < 1e-5


def test_masks_of_another_size_and_type_may_follow(backbone):
    features = MaskFeatures(backbone)
    for size, dtype in ((SIZE, torch.uint8), ((64, 64), torch.float32), (SIZE, torch.bool)):
        masks = torch.zeros(2, *size, dtype=dtype)
        masks[:, 20:30, 40:50] = 1
        assert (features(masks) - backbone(mask_to_image(masks))).abs().max() < 1e-5


def test_a_small_object_leaves_most_of_the_work_undone(backbone):
    features, masks = MaskFeatures(backbone), torch.zeros(1, 480, 480, dtype=torch.bool)
    masks[0, 200:233, 300:333] = True  # 0.5 % of the image
    features(masks)  # an empty mask's activations, once
    operations = []
    for run in (lambda: features(masks), lambda: backbone(mask_to_image(masks))):
        with FlopCounterMode(display=False) as counter:
            run()
        operations.append(counter.get_total_flops())
    assert operations[0] < 0.2 * operations[1]
