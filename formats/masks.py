"""Object masks: COCO's run lengths, which are read without decoding the image, and LZString text of annotation files.

A mask is a dict `{"size": [H, W], "counts": str}`, COCO's compressed RLE: the lengths of runs of zeros and ones in
turn, zeros first, down the columns. A mask in an array is uint8 of shape (H, W) with values 0 and 1.
"""

import base64
import re
from typing import Any, TypedDict

import cv2
import numpy as np
from lzstring import LZString
from PIL import Image
from pycocotools import mask as coco

from common.files import has_form
from formats.geometry import Size, letterbox_axes, nearest_axes

MAX_PIXELS = Image.MAX_IMAGE_PIXELS or 1 << 26  # of a mask, as of a picture; a run can stand for any number of pixels
CHAR_8, CHAR_16, END = 0, 1, 2  # LZString's codes for a new character of 8 or 16 bits, which follow, and for the end
_COUNTS = re.compile("[0-o]*[0-O]")  # a character has six bits; the last character lacks the bit "more follow"


class RLE(TypedDict):
    size: list[int]
    counts: str


def decode_lzstring(encoded: Any) -> str:
    """`encodedMask` of the annotation files -> COCO counts string. Raises ValueError if this is not LZString."""
    if not isinstance(encoded, str):
        raise ValueError(f"mask {str(encoded)[:24]!r} is not LZString text")
    try:
        return _decompress(encoded)
    except ValueError as error:
        raise ValueError(f"mask {encoded[:24]!r}... is not LZString text ({error})") from None


def _decompress(text: str) -> str:
    """Decode what `compressToEncodedURIComponent` of pieroxy's lz-string wrote. The lzstring package reads bit by bit
    and would need hours for the benchmark's two gigabytes; this function reads code by code.

    Each character holds six bits, the most significant bit first. The bits form codes, the least significant bit first.
    Each code stands for a known phrase and adds a longer phrase to the known ones. A code has as many bits as the
    number of known phrases needs.
    """
    padded = text.replace(" ", "+") + "A" * (-len(text) % 4)  # base64, with "-" for its last digit
    bits = np.unpackbits(np.frombuffer(base64.b64decode(padded, b"+-", validate=True), np.uint8))
    stream = np.packbits(bits, bitorder="little").tobytes()
    phrases = ["", "", ""]  # phrases[code]
    former, out = "", []
    position = 0  # bits read

    def read(width: int) -> int:
        nonlocal position
        start, position = position, position + width
        return int.from_bytes(stream[start >> 3 : (position + 7) >> 3], "little") >> (start & 7) & ((1 << width) - 1)

    while position + (width := len(phrases).bit_length()) <= 6 * len(text):
        code = read(width)
        if code == END:
            return "".join(out)
        if code in (CHAR_8, CHAR_16):
            phrase = chr(read(8 if code == CHAR_8 else 16))
            phrases.append(phrase)
        elif code < len(phrases):
            phrase = phrases[code]
        elif code == len(phrases) and former:
            phrase = former + former[0]  # the phrase that is added below
        else:
            raise ValueError(f"LZString code {code} stands for nothing")
        if former:
            phrases.append(former + phrase[0])
        former = phrase
        out.append(phrase)
    raise ValueError("LZString text is cut off")


def encode_lzstring(counts: str) -> str:
    """COCO counts string -> `encodedMask` of the annotation files."""
    return LZString().compressToEncodedURIComponent(counts)


def encode_mask(mask: np.ndarray) -> RLE:
    """(H, W) array, non-zero = object -> RLE."""
    rle = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": rle["counts"].decode()}  # pyrefly: ignore[missing-attribute]


def decode_mask(rle: RLE) -> np.ndarray:
    """RLE -> (H, W) uint8 of 0 and 1."""
    return coco.decode(rle)  # pyrefly: ignore[bad-argument-type]


def check_size(size: Any) -> Size:
    """The `size` of a mask from a file -> (H, W) in pixels. Raises ValueError if the size is malformed."""
    sides = size if isinstance(size, list) else []
    if len(sides) != 2 or not all(type(side) is int and 0 < side < 1 << 31 for side in sides):
        raise ValueError(f"mask size {str(size)[:40]} is not [H, W]")
    if size[0] * size[1] > MAX_PIXELS:
        raise ValueError(f"mask of {size[0]}x{size[1]} pixels has more than {MAX_PIXELS / 1e6:.0f} million; reduce it")
    return size[0], size[1]


def check_rle(rle: Any) -> RLE:
    """Check and return a mask from a file. Raises ValueError if it is malformed, or if the runs do not fit the size."""
    if not has_form(rle, {"size": object, "counts": object}):
        raise ValueError(f"mask {str(rle)[:40]!r} has no size and counts")
    check_size(rle["size"])
    if not isinstance(rle["counts"], str) or not _COUNTS.fullmatch(rle["counts"]):
        raise ValueError(f"mask counts {str(rle['counts'])[:24]!r}... are not COCO run-length text, as counts.decode()")
    run_lengths(rle)
    return rle


def mask_size(rle: RLE) -> Size:
    """(H, W)."""
    height, width = rle["size"]
    return height, width


def mask_area(rle: RLE) -> int:
    """Count the object's pixels without decoding the mask."""
    return int(run_lengths(rle)[1::2].sum())


def run_lengths(rle: RLE) -> np.ndarray:
    """RLE -> the (N,) int64 lengths of runs of zeros and ones in turn, zeros first.

    Raises ValueError if the lengths do not add up to H x W.
    """
    height, width = rle["size"]
    runs = _decode_counts(rle["counts"])
    # From the fourth number on, each number is the difference from the length two places before it.
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    if runs.min() < 0 or runs.sum() != height * width:
        raise ValueError(f"mask runs add up to {runs.sum()} pixels, not to {height}x{width} = {height * width}")
    return runs


def _decode_counts(counts: str) -> np.ndarray:
    """Read the numbers in COCO's text -> (N,) int64."""
    codes = np.frombuffer(counts.encode(), np.uint8) - np.uint8(48)
    # Each number is a little-endian string of 5-bit digits. Bit 5 says "more follow"; bit 4 of the last digit is the
    # sign.
    ends = np.flatnonzero(codes < 0x20)
    starts = np.zeros_like(ends)
    starts[1:] = ends[:-1] + 1
    last_digit = ends - starts  # the index of the last digit in each number
    digit = np.arange(len(codes)) - np.repeat(starts, last_digit + 1)
    numbers = np.add.reduceat((codes & 0x1F).astype(np.int64) << (5 * digit), starts)
    numbers -= (codes[ends] & 0x10).astype(np.int64) << (5 * last_digit + 1)
    numbers[last_digit > 6] = -(1 << 62)  # longer numbers could overflow; negative runs are refused
    return numbers


def sample_mask(rle: RLE, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """The mask's pixels in `rows` and `cols`, without decoding the mask -> (len(rows), len(cols)) uint8.

    `rows` and `cols` must ascend and may repeat. The cost is a look-up for each run, and not a visit to each pixel.
    """
    ends = np.cumsum(run_lengths(rle))
    height = rle["size"][0]
    # The number of samples, counted down the columns, that lie before each end of a run.
    end_col, end_row = np.divmod(ends, height)
    first_col = np.searchsorted(cols, end_col)
    same_col = np.searchsorted(cols, end_col, side="right") - first_col
    num_before = first_col * len(rows) + same_col * np.searchsorted(rows, end_row)
    if len(cols) > 1 and same_col.max() > 1:  # several samples share a column when a mask is enlarged
        unique, inverse = np.unique(cols, return_inverse=True)
        return sample_mask(rle, rows, unique)[:, inverse]
    values = np.arange(len(ends), dtype=np.uint8) & 1
    flat = np.repeat(values, np.diff(num_before, prepend=0))
    return flat.reshape(len(cols), len(rows)).T


def letterbox_mask(rle: RLE, side: int) -> np.ndarray:
    """The letterboxed mask, (side, side) uint8, with the same bits as if it were decoded, padded and resized."""
    rows, cols, row_slice, col_slice = letterbox_axes(mask_size(rle), side)
    out = np.zeros((side, side), np.uint8)
    out[row_slice, col_slice] = sample_mask(rle, rows, cols)
    return out


def resize_mask(rle: RLE, new_size: Size) -> np.ndarray:
    """The mask at `new_size` (H, W), with the same bits as if it were decoded and resized by nearest neighbor."""
    return sample_mask(rle, *nearest_axes(mask_size(rle), new_size))


def grab_cut(image: np.ndarray, labels: np.ndarray, rounds: int) -> np.ndarray:
    """The object's pixels, (H, W) bool, in an image (H, W, 3) uint8: GrabCut (Rother et al. 2004) decides by colors
    what is only probable in `labels` (H, W), OpenCV's GC_..., which change; there must be background and object.
    """
    cv2.setRNGSeed(0)  # its clusters begin at random
    cv2.grabCut(image, labels, None, *np.zeros((2, 1, 65)), rounds, cv2.GC_INIT_WITH_MASK)  # pyrefly: ignore
    return np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD))


def iou(mask: np.ndarray, other: np.ndarray) -> float:
    """The benchmark's intersection over union, in [0, 1], of two masks (H, W), bool or 0 and 1; 1 if both are empty."""
    union = np.count_nonzero(mask | other)
    return float(np.count_nonzero(mask & other) / (union + 1e-7)) if union else 1.0


def fit_mask(mask: RLE | np.ndarray, new_size: Size) -> np.ndarray:
    """Resize a mask, an RLE or (H, W) uint8 of 0 and 1, to `new_size` by nearest neighbor. If the object would vanish,
    the result shows it in the pixels whose covered part is more than half of the largest covered part of a pixel.
    """
    if isinstance(mask, np.ndarray):
        fitted = cv2.resize(mask, new_size[::-1], interpolation=cv2.INTER_NEAREST)
    else:
        fitted = resize_mask(mask, new_size)
    if fitted.any():
        return fitted
    mask = mask if isinstance(mask, np.ndarray) else decode_mask(mask)
    cover = cv2.resize(mask.astype(np.float32), new_size[::-1], interpolation=cv2.INTER_AREA)
    return (cover > min(0.5, cover.max() / 2)).astype(np.uint8)
