"""Random changes of a view, the same on image and mask: colors, flip, scale and crop."""

import math

import cv2
import numpy as np

MAX_ZOOM = 1.25  # and 1 / MAX_ZOOM
MAX_SHIFT = 0.1  # of the side
MAX_COLOR = 0.3  # brightness, contrast and saturation are multiplied by 1 +- this


def augment_view(rng: np.random.Generator, image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A letterboxed image (S, S, 3) uint8 and its mask (S, S) uint8, both changed. The object may leave the view."""
    side = len(mask)
    zoom = math.exp(rng.uniform(-1, 1) * math.log(MAX_ZOOM))
    axes = [_axis(side, zoom, shift) for shift in rng.uniform(-MAX_SHIFT, MAX_SHIFT, 2) * side]
    flip = rng.random() < 0.5
    image = _change_colors(image, *rng.uniform(1 - MAX_COLOR, 1 + MAX_COLOR, 3))
    image, mask = (_resample(x, *axes, flip) for x in (image, mask))
    return image, mask


def _axis(side: int, zoom: float, shift: float) -> np.ndarray:
    """Source index of each output index; -1 outside."""
    middle = side / 2
    source = np.floor((np.arange(side) + 0.5 - middle) / zoom + middle + shift).astype(np.int64)
    return np.where((source >= 0) & (source < side), source, -1)


def _resample(array: np.ndarray, rows: np.ndarray, cols: np.ndarray, flip: bool) -> np.ndarray:
    out = array[rows[:, None], cols]
    out[rows < 0] = 0
    out[:, cols < 0] = 0
    return np.ascontiguousarray(out[:, ::-1]) if flip else out


def _change_colors(image: np.ndarray, brightness: float, contrast: float, saturation: float) -> np.ndarray:
    """uint8 RGB -> the same; padding may turn grey, which resembles other cameras' borders."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    image = cv2.addWeighted(image, saturation, cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), 1 - saturation, 0)
    mean = float(grey.mean())
    table = np.arange(256) * contrast + mean * (1 - contrast)
    return cv2.LUT(image, np.clip(table * brightness, 0, 255).astype(np.uint8))
