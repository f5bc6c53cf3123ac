"""Masks drawn onto images, and pictures written to disk. Images are (H, W, 3) uint8 RGB; colors are RGB."""

import io
import unicodedata
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from common.files import atomic_write

Color = tuple[int, int, int]
QUERY: Color = (255, 190, 40)  # color-blind people, too, can tell these three colors apart
PREDICTION: Color = (255, 64, 129)
TRUTH: Color = (64, 200, 255)


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


def to_ascii(text: str) -> str:
    """The text with the letters that Pillow's own font has: é becomes e, and letters of other scripts become ?."""
    letters = (letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return "".join(letters).encode("ascii", "replace").decode()


def write_picture(path: Path, image: np.ndarray) -> None:
    """Write an (H, W, 3) or gray (H, W) uint8 image atomically: PNG if `path` ends in .png, otherwise JPEG."""
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG" if path.suffix.lower() == ".png" else "JPEG", quality=90)
    with atomic_write(path, "wb") as file:
        file.write(data.getvalue())
