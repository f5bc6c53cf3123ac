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


def random_masks(seed: int) -> torch.Tensor:
    """Objects of a few pixels up to half of the image, anywhere, with holes."""
    generator = torch.Generator().manual_seed(seed)
    boxes = []
    for i, draw in enumerate(torch.rand(4, 4, generator=generator).tolist()):
        top, left, height, width = (int(x * length) for x, length in zip(draw, 2 * SIZE, strict=True))
        boxes.append((slice(top, top + 1 + (height >> 4 - i)), slice(left, left + 1 + (width >> 4 - i))))
    return boxes_mask(*boxes) & (torch.rand(4, *SIZE, generator=generator) < 0.8)


FIRST, LAST, SOME = slice(0, 1), slice(-1, None), slice(50, 61)
MASKS = {f"random {seed}": random_masks(seed) for seed in range(4)} | {
    "in corners": boxes_mask((FIRST, FIRST), (FIRST, LAST), (LAST, FIRST), (LAST, LAST)),
    "at borders, which have the image's own padding": boxes_mask((SOME, FIRST), (LAST, SOME)),
    "one pixel, at each place in a cell": boxes_mask(
        *((slice(96 + n, 97 + n), slice(111 - n, 112 - n)) for n in range(16))
    ),
    "empty and full": torch.stack([torch.zeros(SIZE), torch.ones(SIZE)]),
}


@pytest.mark.parametrize("masks", MASKS.values(), ids=MASKS)
def test_windows_give_the_features_of_the_plain_pass(backbone, masks):
    assert (MaskFeatures(backbone)(masks) - backbone(mask_to_image(masks))).abs().max() < 1e-5


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
