"""The one owner of image geometry: letterboxing to the network's square input and back.

Letterbox: pad the shorter side with zeros to a square, `(long - short) // 2` before and the rest behind, then resize to
`side` x `side` by nearest neighbour, `source = floor(i * long / side)`. Frames and masks alike.

A closer look at an object is a crop, as large as the network's input, of the image letterboxed to `ZOOM * side`.
"""

from functools import lru_cache

import numpy as np

ZOOM = 3  # how much a closer look enlarges
CROP_EXTENT = 0.75  # of an object, by the crop's side, at most: the network sees what is around it
EVAL_SIDE = 480  # long side, in pixels, of the masks that the benchmark compares
Size = tuple[int, int]  # (H, W)
Corner = tuple[int, int]  # (top, left)


@lru_cache(maxsize=64)
def letterbox_axes(size: Size, side: int, corner: Corner | None = None) -> tuple[np.ndarray, np.ndarray, slice, slice]:
    """Which source pixels a letterboxed image shows, and where.

    Returns `(rows, cols, row_slice, col_slice)`: output[row_slice, col_slice] = source[rows][:, cols]; everything
    outside the two slices is padding. `size` is the source's (H, W) in pixels. With a `corner`, the output is the crop
    that begins there in the image letterboxed to `ZOOM * side`.
    """
    long, whole = max(size), side if corner is None else ZOOM * side
    axes = []
    for length, first in zip(size, corner or (0, 0), strict=True):
        square = np.arange(first, first + side, dtype=np.int64) * long // whole  # index in the padded square
        source = square - (long - length) // 2
        inside = np.flatnonzero((source >= 0) & (source < length))
        # Empty when an image is so thin that no output pixel looks at it.
        start, stop = (int(inside[0]), int(inside[-1]) + 1) if len(inside) else (0, 0)
        axes.append((source[start:stop], slice(start, stop)))
    (rows, row_slice), (cols, col_slice) = axes
    rows.flags.writeable = cols.flags.writeable = False  # the cache hands the same arrays to everybody
    return rows, cols, row_slice, col_slice


def letterbox(image: np.ndarray, side: int, corner: Corner | None = None) -> np.ndarray:
    """(H, W) or (H, W, C) array -> (side, side[, C]) of the same dtype, padding 0; `corner` as `letterbox_axes`."""
    rows, cols, row_slice, col_slice = letterbox_axes(image.shape[:2], side, corner)
    out = np.zeros((side, side, *image.shape[2:]), image.dtype)
    out[row_slice, col_slice] = image.take(rows, 0).take(cols, 1)  # several times as fast as indexing both at once
    return out


def crop_corner(rows: np.ndarray, cols: np.ndarray, side: int) -> Corner | None:
    """Top-left corner of the crop centered on an object, in the image letterboxed to R = ZOOM * side, or as near to
    that as the image's edge allows. None if there is no object, or if it is too large.

    rows, cols: (R,) bool, which of them hold a part of the object.
    """
    rows, cols = np.flatnonzero(rows), np.flatnonzero(cols)
    if not len(rows) or max(rows[-1] - rows[0], cols[-1] - cols[0]) >= CROP_EXTENT * side:
        return None
    top, left = (int(min(max((x[0] + x[-1] + 1 - side) // 2, 0), (ZOOM - 1) * side)) for x in (rows, cols))
    return top, left


def eval_size(size: Size) -> Size:
    """(H, W) after scaling the long side to 480 pixels, rounded as the benchmark does: 2160x3840 -> 270x480."""
    height, width = size
    if height > width:
        return EVAL_SIDE, int(width * (1.0 / height * EVAL_SIDE))
    return int(height * (1.0 / width * EVAL_SIDE)), EVAL_SIDE


def unletterbox(square: np.ndarray, size: Size) -> np.ndarray:
    """Cut the image out of its padding: (S, S) array -> (*size) array.

    `size` is the image's (H, W) as it lies in the square, with a long side of S: `eval_size(...)` of a prediction that
    goes to the benchmark, the image's own size if the square was resized to its long side.
    """
    side = max(size)
    if square.shape != (side, side):
        raise ValueError(f"an image of size {size} cannot be cut out of an array of shape {square.shape}")
    height, width = size
    top, left = (side - height) // 2, (side - width) // 2
    return square[top : top + height, left : left + width]


@lru_cache(maxsize=64)
def nearest_axes(size: Size, new_size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Source rows and columns of OpenCV's nearest-neighbour resize from `size` to `new_size` (H, W).

    OpenCV computes `floor(i * old / new)` in floats, whose rounding moves single rows of some odd sizes.
    """
    rows, cols = (
        np.minimum(np.floor(np.arange(new) * (1.0 / (new / old))).astype(np.int64), old - 1)
        for old, new in zip(size, new_size, strict=True)
    )
    rows.flags.writeable = cols.flags.writeable = False
    return rows, cols
