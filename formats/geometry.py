"""The geometry of images: sizes, resizing, and letterboxing to the square input of the network and back.

Letterboxing pads the shorter side with zeros to a square, with `(long - short) // 2` pixels before the image and the
rest after it, and resizes the square to `side` x `side` by nearest neighbor: row i shows row `floor(i * long / side)`
of the square. Frames and masks are letterboxed in the same way.
"""

from functools import lru_cache

import cv2
import numpy as np

EVAL_SIDE = 480  # long side, in pixels, of the masks that the benchmark compares
Size = tuple[int, int]  # (H, W)


@lru_cache(maxsize=64)
def letterbox_axes(size: Size, side: int) -> tuple[np.ndarray, np.ndarray, slice, slice]:
    """The pixels that an image of `size` (H, W) keeps when it is letterboxed, and their places in the square.

    Returns `(rows, cols, row_slice, col_slice)`: square[row_slice, col_slice] = image[rows][:, cols]; everything
    outside the two slices is padding.
    """
    long = max(size)
    square = np.arange(side, dtype=np.int64) * long // side  # index in the padded square
    axes = []
    for length in size:
        pixels = square - (long - length) // 2  # indices in the image
        inside = np.flatnonzero((pixels >= 0) & (pixels < length))
        # `inside` is empty if the image is so thin that no output pixel shows it.
        start, stop = (int(inside[0]), int(inside[-1]) + 1) if len(inside) else (0, 0)
        axes.append((pixels[start:stop], slice(start, stop)))
    (rows, row_slice), (cols, col_slice) = axes
    rows.flags.writeable = cols.flags.writeable = False  # all callers share the arrays
    return rows, cols, row_slice, col_slice


def letterbox(image: np.ndarray, side: int) -> np.ndarray:
    """Pad an array (H, W) or (H, W, C) with 0 and sample it -> (side, side[, C]) of the same dtype."""
    rows, cols, row_slice, col_slice = letterbox_axes(image.shape[:2], side)
    out = np.zeros((side, side, *image.shape[2:]), image.dtype)
    out[row_slice, col_slice] = image.take(rows, 0).take(cols, 1)  # indexing both axes at once would be slower
    return out


def eval_size(size: Size) -> Size:
    """The size (H, W) with a long side of 480 pixels, rounded as in the benchmark: 2160x3840 -> 270x480."""
    height, width = size
    if height > width:
        return EVAL_SIDE, int(width * (1.0 / height * EVAL_SIDE))
    return int(height * (1.0 / width * EVAL_SIDE)), EVAL_SIDE


def same_aspect_ratio(size: Size, other: Size) -> bool:
    """True if an image of `size` (H, W), scaled to the long side of `other`, has the size `other` to the pixel."""
    (height, width), (other_height, other_width) = size, other
    return abs(height * other_width - width * other_height) <= max(*size, *other)


def resize(image: np.ndarray, new_size: Size) -> np.ndarray:
    """(H, W) or (H, W, C) -> `new_size` (H, W). If the long side shrinks, pixels are area means, else bilinear."""
    method = cv2.INTER_AREA if max(new_size) < max(image.shape[:2]) else cv2.INTER_LINEAR
    return cv2.resize(image, new_size[::-1], interpolation=method)


def shrink(image: np.ndarray, max_short_side: int) -> np.ndarray:
    """Reduce an image (H, W, 3) by a whole number, so that its shorter side has at most `max_short_side` pixels. The
    interpolation is bilinear, as in the benchmark's frames.
    """
    height, width = image.shape[:2]
    factor = -(-min(height, width) // max_short_side)
    if factor == 1:
        return image
    return cv2.resize(image, (width // factor, height // factor), interpolation=cv2.INTER_LINEAR)


@lru_cache(maxsize=64)
def nearest_axes(size: Size, new_size: Size) -> tuple[np.ndarray, np.ndarray]:
    """The rows and columns that OpenCV keeps when it resizes by nearest neighbor from `size` to `new_size` (H, W).

    OpenCV computes `floor(i * old / new)` in floats, whose rounding moves single rows if sizes are odd.
    """
    rows, cols = (
        np.minimum(np.floor(np.arange(new) * (1.0 / (new / old))).astype(np.int64), old - 1)
        for old, new in zip(size, new_size, strict=True)
    )
    rows.flags.writeable = cols.flags.writeable = False
    return rows, cols


def sample_benchmark_pixels(values: np.ndarray, video: Size) -> np.ndarray:
    """The values (float32) of a picture at the pixels that the benchmark compares -> `eval_size(video)`.

    The benchmark samples single pixels of the video, whose (H, W) is `video` and of which the picture shows all. We
    interpolate `values`, which have the picture's size, at the centers of these pixels.
    """
    rows, cols = (
        np.clip((pixels + 0.5) * (length / full) - 0.5, 0, length - 1)
        for pixels, full, length in zip(nearest_axes(video, eval_size(video)), video, values.shape, strict=True)
    )
    return _interpolate(values, rows, cols)


def unletterbox(values: np.ndarray, size: Size) -> np.ndarray:
    """The values (S, S) float32 of a letterboxed picture -> (H, W) of its `size`, interpolated between the pixels that
    letterboxing kept.
    """
    *kept, rows, cols = letterbox_axes(size, len(values))
    rows, cols = (
        np.interp(np.arange(length), pixels, np.arange(within.start, within.stop))
        for length, pixels, within in zip(size, kept, (rows, cols), strict=True)
    )
    return _interpolate(values, rows, cols)


def _interpolate(values: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    cols, rows = np.asarray(np.meshgrid(cols, rows), np.float32)
    return cv2.remap(values, cols, rows, cv2.INTER_LINEAR)
