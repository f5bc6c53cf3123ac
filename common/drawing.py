"""Masks drawn onto images, and pictures written to disk. Images are (H, W, 3) uint8 RGB; colors are RGB."""

import io
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from common.files import atomic_write

Color = tuple[int, int, int]
QUERY: Color = (255, 190, 40)  # color-blind people, too, can tell these three colors apart
PREDICTION: Color = (255, 64, 129)
TRUTH: Color = (64, 200, 255)
WHITE: Color = (255, 255, 255)
SHEET_GAP = 16  # pixels between pictures on a sheet


def overlay(image: np.ndarray, mask: np.ndarray, color: Color, dashed: bool = False) -> np.ndarray:
    """A copy of `image` with the object outlined; the object keeps its colors.

    `mask` is (H, W), bool or 0 and 1, of the image's size.
    """
    mask = np.ascontiguousarray(mask, dtype=np.uint8)
    lines, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    width = max(2, round(image.shape[0] / 240))
    if dashed:
        dash = 4 * width  # so many pixels are drawn, then as many are left out
        dashes = (line[start : start + dash] for line in lines for start in range(0, len(line), 2 * dash))
        lines = [np.repeat(points, 2, axis=0) for points in dashes]  # OpenCV draws no line of one point
    return cv2.polylines(image.copy(), lines, not dashed, color, width, cv2.LINE_AA)


def around(mask: np.ndarray, times: int) -> tuple[slice, slice]:
    """The rows and columns of a square around the object of a mask (H, W), so many times as long as the object, as far
    as the image reaches; of the whole image if the mask is empty.
    """
    left, top, width, height = cv2.boundingRect(np.ascontiguousarray(mask, dtype=np.uint8))
    side = times * max(width, height, min(mask.shape) // 15) if width else max(mask.shape)
    row = int(np.clip(top + (height - side) // 2, 0, max(0, mask.shape[0] - side)))
    column = int(np.clip(left + (width - side) // 2, 0, max(0, mask.shape[1] - side)))
    return slice(row, row + side), slice(column, column + side)


def side_by_side(views: Sequence[np.ndarray]) -> np.ndarray:
    """Images as one, as high as the highest of them, but of at most 1600 rows."""
    widest = 65_000 / sum(image.shape[1] / image.shape[0] for image in views)  # a JPEG has at most 65,500 columns
    height = min(1600, max(image.shape[0] for image in views), int(widest))
    return np.hstack([cv2.resize(x, (round(x.shape[1] * height / x.shape[0]), height)) for x in views])


def in_columns(pictures: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Images as one, on white: row by row, in so many columns, each in a cell in which the largest has room."""
    height, width = (max(picture.shape[axis] for picture in pictures) + SHEET_GAP for axis in (0, 1))
    columns = min(columns, len(pictures))
    sheet = np.full((-(-len(pictures) // columns) * height + SHEET_GAP, columns * width + SHEET_GAP, 3), 255, np.uint8)
    for number, picture in enumerate(pictures):
        top, left = (x * side + SHEET_GAP for x, side in zip(divmod(number, columns), (height, width), strict=True))
        sheet[top : top + len(picture), left : left + picture.shape[1]] = picture
    return sheet


def captioned(image: np.ndarray, caption: str, width: int) -> np.ndarray:
    """The image, so many pixels wide, below a line of text in letters as large as fit."""
    text = to_ascii(" ".join(caption.split()))
    fonts = [ImageFont.load_default(size) for size in range(18, 11, -1)]
    font = next((font for font in fonts if font.getlength(text) <= width), fonts[-1])
    line = Image.new("RGB", (width, 26), "white")
    ImageDraw.Draw(line).text((0, 3), text, "black", font)
    shown = Image.fromarray(image).resize((width, max(1, round(len(image) * width / image.shape[1]))))
    return np.vstack([np.asarray(line), np.asarray(shown)])


def to_ascii(text: str) -> str:
    """The text with the letters that Pillow's own font has: é becomes e, and letters of other scripts become ?."""
    letters = (letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return "".join(letters).encode("ascii", "replace").decode()


def write_picture(path: Path, image: np.ndarray, **options: Any) -> None:
    """Write an (H, W, 3) or gray (H, W) uint8 image atomically: PNG if `path` ends in .png, otherwise JPEG. The options
    go to Pillow's `save`.
    """
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG" if path.suffix.lower() == ".png" else "JPEG", quality=90, **options)
    with atomic_write(path, "wb") as file:
        file.write(data.getvalue())
