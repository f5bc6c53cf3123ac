"""Turn users' images and masks into arrays for the network; if this is not possible, raise a UserError that says why.

An image is the path of a picture file, a PIL image, or a uint8 array or tensor: (H, W) gray, (H, W, 3) RGB, (H, W, 4)
RGBA, or with the channels first, such as (3, H, W). A mask is a path, a tensor, or one of the forms of
`formats.picture_files.to_mask`. Tensors may be on any device.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from common.errors import UserError, warn_once
from formats.geometry import Size, same_aspect_ratio
from formats.masks import fit_mask
from formats.picture_files import read_mask, read_picture, refuse_strip, to_mask, to_rgb


def as_image(image: Any, what: str) -> np.ndarray:
    """Turn an image into (H, W, 3) uint8 RGB. Raises UserError, whose message begins with `what`, if the image has none
    of the forms above, or is a strip (`refuse_strip`).
    """
    if isinstance(image, str | Path):
        return read_picture(Path(image))
    if isinstance(image, Image.Image):
        return to_rgb(image, what)
    image = _tensor_to_array(image)
    if not isinstance(image, np.ndarray):
        raise UserError(f"{what} is {type(image).__name__}; give a path, a PIL image, a numpy array or a tensor")
    if image.dtype != np.uint8:
        raise UserError(f"{what} is an array of {image.dtype}; give uint8, 0 to 255")
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim == 3 and image.shape[0] in (1, 3, 4) and image.shape[2] not in (1, 3, 4):
        image = image.transpose(1, 2, 0)
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4) or not image.size:
        raise UserError(f"{what} has the shape {image.shape}; give (H, W), (H, W, 3) or (H, W, 4)")
    refuse_strip(image.shape[:2], what)
    return np.broadcast_to(image[..., :3], (*image.shape[:2], 3))


def as_mask(mask: Any, what: str, size: Size, value: int | None = None) -> np.ndarray:
    """A mask, which may be larger or smaller than its image of `size` (H, W) -> (H, W) uint8 of 0 and 1. Raises
    UserError, which begins with the mask's path or with `what`, if the mask has none of the forms above, has another
    aspect ratio than the image, or is empty. `value`: of the object in a label map, whose path `mask` is.
    """
    if isinstance(mask, str | Path):
        what, mask = str(mask), read_mask(Path(mask), value)
    else:
        mask = to_mask(_tensor_to_array(mask), what)
    if not same_aspect_ratio(mask.shape, size):
        remedy = "it may be larger or smaller, but must have the image's aspect ratio"
        raise UserError(f"{what} is {mask.shape[1]}x{mask.shape[0]}, its image {size[1]}x{size[0]}; {remedy}")
    if not mask.any():
        raise UserError(f"{what} is empty; mark the object with non-zero pixels")
    ask_if_inverted(mask, what)
    return fit_mask(mask, size)


def ask_if_inverted(mask: np.ndarray, what: str) -> None:
    """Warn, with a line that begins with `what`, if a mask (H, W) of 0 and 1 could be the one of the background."""
    if mask.mean() > 0.5 and all(edge.any() for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1])):
        warn_once(f"{what} covers most of its picture, up to all four edges; is it inverted? The object must be white")


def _tensor_to_array(value: Any) -> Any:
    """Turn a tensor into an array; any other value is returned as it is."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()  # numpy has no bfloat16
    return value
