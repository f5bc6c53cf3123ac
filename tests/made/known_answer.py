"""Images whose objects are known by their color, and a matcher that finds them."""

import numpy as np
import torch

from inference.matcher import PairBatch

OBJECT, OTHER, BACKGROUND = (200, 40, 90), (30, 220, 160), (90, 90, 90)


class KnownAnswer:
    """In the place of a `Matcher`: finds what has the color of the marked query pixels, everywhere and only there."""

    def __init__(self, side: int, batch_size: int = 8):
        self.device, self.side, self.batch_size, self.memory = torch.device("cpu"), side, batch_size, None
        self.precision = "fp32"

    def predict(self, batch: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        images, masks, mask_image, pair_mask, pair_target = batch[:5]
        assert images.shape[1:3] == masks.shape[1:3] == (self.side, self.side)
        probs = []
        for mask, target in zip(pair_mask, pair_target, strict=True):
            marked = images[mask_image[mask]][masks[mask] != 0].float()
            color = marked.median(0).values
            assert (marked - color).abs().amax(-1).lt(60).float().mean() > 0.98  # the mask lies on the object
            probs.append((images[target] - color).abs().amax(-1).lt(60).float())
        return torch.stack(probs), torch.stack([prob.amax() for prob in probs])


def scene(size: tuple[int, int], box: tuple[float, float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """An image with an object in `box` (top, bottom, left, right as fractions of it) and another one in the lower
    right corner; the object's mask.
    """
    height, width = size
    top, bottom, left, right = (
        round(x * length) for x, length in zip(box, (height, height, width, width), strict=True)
    )
    image, mask = np.full((*size, 3), BACKGROUND, np.uint8), np.zeros(size, np.uint8)
    image[height - height // 8 :, width - width // 8 :] = OTHER
    image[top:bottom, left:right], mask[top:bottom, left:right] = OBJECT, 1
    return image, mask
