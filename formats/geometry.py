"""The one owner of image geometry: letterboxing to the network's square input and back.

Letterbox: pad the shorter side with zeros to a square, `(long - short) // 2` before and the rest behind, then resize to
`side` x `side` by nearest neighbour: row i shows row `floor(i * long / side)` of the square. Frames and masks alike.
"""

from functools import lru_cache

import cv2
import numpy as np

EVAL_SIDE = 480  # long side, in pixels, of the masks that the benchmark compares
Size = tuple[int, int]  # (H, W)


@lru_cache(maxsize=64)
def letterbox_axes(size: Size, side: int) -> tuple[np.ndarray, np.ndarray, slice, slice]:
    """The pixels that are left of an image of `size` (H, W) when it is letterboxed, and their places in the square.

    Returns `(rows, cols, row_slice, col_slice)`: square[row_slice, col_slice] = image[rows][:, cols]; everything
    outside the two slices is padding.
    """
    long = max(size)
    square = np.arange(side, dtype=np.int64) * long // side  # index in the padded square
    axes = []
    for length in size:
        pixels = square - (long - length) // 2  # of the image
        inside = np.flatnonzero((pixels >= 0) & (pixels < length))
        # Empty when an image is so thin that no output pixel looks at it.
        start, stop = (int(inside[0]), int(inside[-1]) + 1) if len(inside) else (0, 0)
        axes.append((pixels[start:stop], slice(start, stop)))
    (rows, row_slice), (cols, col_slice) = axes
    rows.flags.writeable = cols.flags.writeable = False  # the cache hands the same arrays to everybody
    return rows, cols, row_slice, col_slice


def letterbox(image: np.ndarray, side: int) -> np.ndarray:
    """(H, W) or (H, W, C) array -> (side, side[, C]) of the same dtype, padding 0."""
    rows, cols, row_slice, col_slice = letterbox_axes(image.shape[:2], side)
    out = np.zeros((side, side, *image.shape[2:]), image.dtype)
    out[row_slice, col_slice] = image.take(rows, 0).take(cols, 1)  # several times as fast as indexing both at once
    return out


def eval_size(size: Size) -> Size:
    """(H, W) after scaling the long side to 480 pixels, rounded as the benchmark does: 2160x3840 -> 270x480."""
    height, width = size
    if height > width:
        return EVAL_SIDE, int(width * (1.0 / height * EVAL_SIDE))
    return int(height * (1.0 / width * EVAL_SIDE)), EVAL_SIDE


def same_aspect_ratio(size: Size, other: Size) -> bool:
    """Whether an image of one size (H, W), scaled to the other's long side, has the other's size to the pixel."""
    (height, width), (other_height, other_width) = size, other
    return abs(height * other_width - width * other_height) <= max(*size, *other)


def resize(image: np.ndarray, new_size: Size) -> np.ndarray:
    """(H, W) or (H, W, C) -> `new_size` (H, W): means of the pixels' areas if the long side shrinks, else bilinear."""
    method = cv2.INTER_AREA if max(new_size) < max(image.shape[:2]) else cv2.INTER_LINEAR
    return cv2.resize(image, new_size[::-1], interpolation=method)


@lru_cache(maxsize=64)
def nearest_axes(size: Size, new_size: Size) -> tuple[np.ndarray, np.ndarray]:
    """The rows and columns that OpenCV's nearest-neighbour resize from `size` to `new_size` (H, W) keeps.

    OpenCV computes `floor(i * old / new)` in floats, whose rounding moves single rows of some odd sizes.
    """
    rows, cols = (
        np.minimum(np.floor(np.arange(new) * (1.0 / (new / old))).astype(np.int64), old - 1)
        for old, new in zip(size, new_size, strict=True)
    )
    rows.flags.writeable = cols.flags.writeable = False
    return rows, cols


def sample_for_score(values: np.ndarray, size: Size, video: Size, side: int | None = None) -> np.ndarray:
    """The values (float32) of a picture at the pixels that the benchmark compares -> `eval_size(video)`.

    The benchmark samples single pixels of the video, whose (H, W) is `video`. We interpolate `values` at the centers of
    these pixels. The picture shows all of the video and has `size` (H, W). `values` have the picture's size or, with
    `side`, the size of the square (side, side) that the picture was letterboxed to.
    """
    sampled, starts = map(np.arange, size), (0, 0)
    if side:
        *sampled, rows, cols = letterbox_axes(size, side)
        starts = rows.start, cols.start
    compared = nearest_axes(video, eval_size(video))
    rows, cols = (
        start + np.interp((pixels + 0.5) * (length / full) - 0.5, axis, np.arange(len(axis)))
        for pixels, full, length, axis, start in zip(compared, video, size, sampled, starts, strict=True)
    )
    return cv2.remap(values, *np.float32(np.meshgrid(cols, rows)), cv2.INTER_LINEAR)
