"""Object masks: COCO run lengths, read without decoding the image, and the LZString text of the annotation files.

A mask is a dict `{"size": [H, W], "counts": str}`, COCO's compressed RLE: run lengths of zeros and ones in turn, zeros
first, down the columns. Masks that an array holds are uint8 of shape (H, W) with values 0 and 1.
"""

import re
from typing import Any, TypedDict

import numpy as np
from lzstring import LZString
from pycocotools import mask as coco

from formats.geometry import EVAL_SIDE, Size, eval_size, letterbox_axes, nearest_axes
from formats.lz_text import decompress

MAX_SIDE, MAX_ASPECT = 8192, 100  # of masks in pixels, long side by short side; the benchmark's have 3840 and 1.8
MAX_RUNS = 1 << 22  # of a mask: noise over a picture of 3840x2160 has as many, an object that somebody drew thousands
MAX_DIGITS = 7  # of a run length in COCO's text, five bits each: 8192 x 8192 and the sign have room
_COUNTS = re.compile("[0-o]*[0-O]")  # six bits a character; the bit "more follow" is not set in the last one


class RLE(TypedDict):
    size: list[int]
    counts: str


def decode_lzstring(encoded: str, size: Size = (MAX_SIDE, MAX_SIDE)) -> str:
    """`encodedMask` of the annotation files -> COCO counts string of a mask of `size` (H, W).

    Raises ValueError if it is not LZString, or of more characters than any mask of that size has.
    """
    try:
        counts = decompress(encoded, _max_length(size)) if isinstance(encoded, str) else ""
    except ValueError as error:
        raise ValueError(f"mask {encoded[:24]!r}... is not LZString text ({error})") from None
    if not counts or not counts.isascii():
        raise ValueError(f"mask {str(encoded)[:24]!r}... is not LZString text")
    return counts


def encode_lzstring(counts: str) -> str:
    """COCO counts string -> `encodedMask` of the annotation files."""
    return LZString().compressToEncodedURIComponent(counts)


def encode_mask(mask: np.ndarray) -> RLE:
    """(H, W) array, non-zero = object -> RLE."""
    rle = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": rle["counts"].decode()}


def decode_mask(rle: RLE) -> np.ndarray:
    """RLE -> (H, W) uint8 of 0 and 1. Raises ValueError as `run_lengths` does."""
    runs = run_lengths(rle)
    height, width = rle["size"]
    values = np.arange(len(runs), dtype=np.uint8) & 1
    return np.repeat(values, runs).reshape(width, height).T


def check_size(size: Any) -> Size:
    """`size` of a mask from a file -> (H, W) in pixels. Raises ValueError if no picture has it."""
    if not isinstance(size, list) or len(size) != 2 or not all(type(side) is int and side >= 1 for side in size):
        raise ValueError(f"mask size {str(size)[:40]} is not [H, W]")
    if max(size) > MAX_SIDE or max(size) > MAX_ASPECT * min(size):
        raise ValueError(f"mask size {str(size)[:40]} is not that of a picture")
    return size[0], size[1]


def mask_size(rle: Any) -> Size:
    """(H, W) of a mask from a file. Raises ValueError if it has no size and counts, or a size that no picture has."""
    if not isinstance(rle, dict) or "size" not in rle or "counts" not in rle:
        raise ValueError(f"mask {str(rle)[:40]!r} has no size and counts")
    return check_size(rle["size"])


def check_rle(rle: Any) -> tuple[int, int, str]:
    """A mask from a file -> (H, W, counts). Raises ValueError if it is no RLE of a plausible size.

    Quick: whether the runs fill the image is left to `run_lengths`.
    """
    size, counts = mask_size(rle), rle["counts"]
    if not isinstance(counts, str) or not _COUNTS.fullmatch(counts):
        raise ValueError(f"mask counts {str(counts)[:24]!r}... are not COCO run-length text")
    return *size, counts


def _max_length(size: Size) -> int:
    """The most characters that the counts of a mask of `size` (H, W) need.

    The worst case are runs of one pixel, each with a character; longer runs need fewer characters per pixel.
    """
    return min(size[0] * size[1], MAX_RUNS) * 9 // 8 + 16


def run_lengths(rle: RLE) -> np.ndarray:
    """RLE -> (N,) int64 lengths of the runs of zeros and ones in turn, zeros first.

    Raises ValueError if it is no RLE, or if its runs do not add up to H x W.
    """
    height, width, counts = check_rle(rle)
    if len(counts) > _max_length((height, width)):
        raise ValueError(f"mask counts {counts[:24]!r}... are longer than those of any mask of {height}x{width}")
    codes = np.frombuffer(counts.encode(), np.uint8) - np.uint8(48)
    # Each number is a little-endian string of 5-bit digits; bit 5 says "more follow", bit 4 of the last is the sign.
    ends = np.flatnonzero(codes < 0x20)
    starts = np.zeros_like(ends)
    starts[1:] = ends[:-1] + 1
    last_digit = ends - starts  # 0-based, of each number
    if last_digit.max() >= MAX_DIGITS:
        raise ValueError(f"mask counts {counts[:24]!r}... are not COCO run-length text")
    digit = np.arange(len(codes)) - np.repeat(starts, last_digit + 1)
    runs = np.add.reduceat((codes & 0x1F).astype(np.int64) << (5 * digit), starts)
    runs -= (codes[ends] & 0x10).astype(np.int64) << (5 * last_digit + 1)
    # From the fourth number on, each is the difference to the one two before it.
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    # The sum alone proves nothing: that of very long runs wraps around in 64 bits.
    if runs.min() < 0 or runs.max() > height * width or runs.sum() != height * width:
        raise ValueError(f"mask runs add up to {runs.sum()} pixels, not to {height}x{width} = {height * width}")
    return runs


def sample_mask(rle: RLE, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """The mask's pixels at the crossings of `rows` and `cols`, without decoding it -> (len(rows), len(cols)) uint8.

    Both must ascend (repeats are fine). Costs a look-up for each end of a run instead of a visit to each pixel.
    """
    ends = np.cumsum(run_lengths(rle))
    height = rle["size"][0]
    # The number of samples, counted down the columns, that lie before each end of a run.
    end_col, end_row = np.divmod(ends, height)
    first_col = np.searchsorted(cols, end_col)
    same_col = np.searchsorted(cols, end_col, side="right") - first_col
    before = first_col * len(rows) + same_col * np.searchsorted(rows, end_row)
    if len(cols) > 1 and same_col.max() > 1:  # enlarging: several samples share a column, each is cut at the same row
        unique, inverse = np.unique(cols, return_inverse=True)
        return sample_mask(rle, rows, unique)[:, inverse]
    values = np.arange(len(ends), dtype=np.uint8) & 1
    flat = np.repeat(values, np.diff(before, prepend=0))
    return flat.reshape(len(cols), len(rows)).T


def letterbox_mask(rle: RLE, side: int) -> np.ndarray:
    """The letterboxed mask, (side, side) uint8: the same bits as decoding, padding and resizing it."""
    rows, cols, row_slice, col_slice = letterbox_axes(mask_size(rle), side)
    out = np.zeros((side, side), np.uint8)
    out[row_slice, col_slice] = sample_mask(rle, rows, cols)
    return out


def resize_mask(rle: RLE, new_size: Size) -> np.ndarray:
    """The mask resized by nearest neighbour to `new_size` (H, W): the same bits as decoding and resizing it."""
    return sample_mask(rle, *nearest_axes(mask_size(rle), new_size))


def eval_mask(rle: RLE) -> np.ndarray:
    """The mask with its long side resized to 480 pixels, as the benchmark compares it."""
    size = mask_size(rle)
    return decode_mask(rle) if max(size) == EVAL_SIDE else resize_mask(rle, eval_size(size))
