"""Pictures of predictions: the query, the prediction and the truth side by side, under a line that says how good it is.

Images are (H, W, 3) uint8 RGB; colors are RGB.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from evaluation.metrics import CONFIDENCE_THRESHOLD
from evaluation.score import Case
from evaluation.truth import TakeTruth
from formats.drawing import PREDICTION, QUERY, TRUTH, overlay, write_picture
from formats.geometry import Size
from formats.masks import resize_mask
from formats.processed import read_frame
from formats.results import iter_results

INK, PALE, PAPER = (20, 20, 20), (110, 110, 110), (255, 255, 255)
GAP = 6  # pixels between panels


class Predicted(NamedTuple):
    """A prediction to draw: its case, its RLE, and whose it is if there are several."""

    case: Case
    rle: dict
    name: str = ""


def draw_case(truth: TakeTruth, predictions: Sequence[Predicted], height: int = 360) -> np.ndarray:
    """A case as panels of `height` pixels: query + mask, target + each prediction, target + truth.

    Small objects are shown enlarged in a corner too. Raises UserError if a frame is missing.
    """
    case = predictions[0].case
    masks = truth.take.masks[case.object_name]
    query_mask, true_mask = masks[case.query_camera][case.frame], masks[case.target_camera].get(case.frame)
    query = read_frame(truth.take.frame_path(case.query_camera, case.frame))
    target = read_frame(truth.take.frame_path(case.target_camera, case.frame))
    query_window = _close_up(query.shape[:2], query_mask)
    window = _close_up(target.shape[:2], true_mask, *(predicted.rle for predicted in predictions))
    caption = "truth" if case.visible else "truth: not visible"
    body = beside(
        [
            _panel(query, query_mask, QUERY, f"query {case.query_camera}", height, query_window),
            *(_panel(target, p.rle, PREDICTION, _prediction_caption(p), height, window) for p in predictions),
            _panel(target, true_mask, TRUTH, caption, height, window),
        ]
    )
    return np.vstack([_header(truth, predictions, body.shape[1], height // 12), body])


def _panel(
    frame: np.ndarray, rle: dict | None, color: tuple, caption: str, height: int, window: tuple | None
) -> np.ndarray:
    """A frame with its mask and a caption, `height` pixels high; `window` (rows, columns) is enlarged in a corner."""
    image = _fit(frame, height)
    if rle is not None:
        image = overlay(image, resize_mask(rle, image.shape[:2]), color)
    if window:
        side = height * 2 // 5
        inset = _resize(frame[window], (side, side))
        if rle is not None:
            mask = resize_mask(rle, frame.shape[:2])[window]
            mask = cv2.resize(np.ascontiguousarray(mask), (side, side), interpolation=cv2.INTER_NEAREST)
            inset = overlay(inset, mask, color)
        inset = cv2.copyMakeBorder(inset[2:-2, 2:-2], 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=PAPER)
        on_the_right = window[1].start + window[1].stop > frame.shape[1]
        image[-side:, slice(0, side) if on_the_right else slice(-side, None)] = inset
    return _caption(image, caption, color)


def _close_up(size: Size, *rles: dict | None) -> tuple[slice, slice] | None:
    """Rows and columns, a square, around the objects of some masks in a frame of `size`; None if they are not small."""
    masks = [resize_mask(rle, size) for rle in rles if rle is not None]
    boxes = [cv2.boundingRect(np.ascontiguousarray(mask)) for mask in masks if mask.any()]
    while boxes:
        corners = np.array([(x, y, x + w, y + h) for x, y, w, h in boxes])
        (left, top), (right, bottom) = corners[:, :2].min(0), corners[:, 2:].max(0)
        side = int(max(right - left, bottom - top, min(size) // 12) * 1.6)
        if side <= min(size) * 2 // 5:
            row = int(np.clip((top + bottom - side) // 2, 0, size[0] - side))
            column = int(np.clip((left + right - side) // 2, 0, size[1] - side))
            return slice(row, row + side), slice(column, column + side)
        boxes.pop()  # the prediction may lie far off: show the truth then
    return None


def write_numbered_pictures(folder: Path, images: Iterable[np.ndarray]) -> list[str]:
    """Write `folder`/pictures/0000.jpg and so on, and delete the pictures of an earlier, longer row.

    Returns their paths from `folder`.
    """
    paths = []
    for number, image in enumerate(images):
        paths.append(f"pictures/{number:04d}.jpg")
        write_picture(folder / paths[-1], image)
    for old in (folder / "pictures").glob("[0-9][0-9][0-9][0-9].jpg"):
        if f"pictures/{old.name}" not in paths:
            old.unlink()
    return paths


def predicted_masks(path: Path, setting: str, cases: list[Case]) -> dict[tuple, dict]:
    """The RLE of each case's prediction, by `case.key`."""
    takes = {case.take_uid for case in cases}
    raw = {uid: take for uid, take in iter_results(path, setting) if uid in takes}
    return {
        case.key: raw[case.take_uid]["masks"][case.object_name][case.camera_pair][str(case.frame)]["pred_mask"]
        for case in cases
    }


def beside(images: list[np.ndarray]) -> np.ndarray:
    """Images of one height in a row, with gaps."""
    gap = np.full((images[0].shape[0], GAP, 3), PAPER, np.uint8)
    return np.hstack([part for image in images for part in (gap, image)][1:])


def contact_sheet(pictures: list[np.ndarray], columns: int = 2, width: int = 2000) -> np.ndarray:
    """Pictures in `columns` on white paper of `width` pixels."""
    columns = min(columns, len(pictures))
    cell = (width - GAP * 2 * (columns + 1)) // columns
    scaled = [_resize(picture, (round(picture.shape[0] * cell / picture.shape[1]), cell)) for picture in pictures]
    rows = []
    for start in range(0, len(scaled), columns):
        row = scaled[start : start + columns]
        paper = np.full((max(image.shape[0] for image in row) + GAP * 2, width, 3), PAPER, np.uint8)
        for position, image in enumerate(row):
            left = GAP * 2 + position * (cell + GAP * 2)
            paper[GAP : GAP + image.shape[0], left : left + cell] = image
        rows.append(paper)
    return np.vstack(rows)


def _prediction_caption(predicted: Predicted) -> str:
    notes = [_score(predicted.case)] if predicted.name else []
    notes += ["empty"] if predicted.case.predicted_pixels == 0 else []
    notes += ["says not visible"] if predicted.case.confidence <= CONFIDENCE_THRESHOLD else []
    return (predicted.name or "prediction") + f" ({', '.join(notes)})" * bool(notes)


def _score(case: Case) -> str:
    return f"IoU {case.iou:.3f}" if case.visible else "not visible"


def _header(truth: TakeTruth, predictions: Sequence[Predicted], width: int, height: int) -> np.ndarray:
    """The line above a picture: object, take, camera, frame; at the right end the score, if it is one prediction's."""
    paper = Image.new("RGB", (width, height + GAP), PAPER)
    draw = ImageDraw.Draw(paper)
    plain, bold = _font(round(height * 0.7)), _font(round(height * 0.7), bold=True)
    case = predictions[0].case
    score = "" if len(predictions) > 1 else f"{_score(case)}  confidence {case.confidence:.2f}"
    right = width - draw.textlength(score, bold)
    draw.text((right, 0), score, INK, bold)
    name = case.object_name.strip()
    draw.text((0, 0), name, INK, bold)
    left = draw.textlength(name + "  ", bold)
    take = (truth.annotated.name if truth.annotated else "") or truth.uid[:8]
    details = f"{take}, {case.target_camera}, frame {case.frame}"
    while details and left + draw.textlength(details, plain) > right - height:
        details = details[:-1]  # what does not fit is in the file's name
    draw.text((left, 0), details, PALE, plain)
    return np.array(paper)


def _caption(image: np.ndarray, text: str, color: tuple[int, int, int]) -> np.ndarray:
    """Write a label into the upper left corner, with a swatch of its mask's color."""
    size = max(9, image.shape[0] // 22)
    paper = Image.fromarray(image)
    draw = ImageDraw.Draw(paper)
    box = draw.textbbox((size * 2, size // 2), text, font=_font(size))
    draw.rectangle((0, 0, box[2] + size // 2, box[3] + size // 2), fill=INK)
    draw.rectangle((size // 2, box[1], size * 3 // 2, box[3]), fill=color)
    draw.text((size * 2, size // 2), text, PAPER, _font(size))
    return np.array(paper)


@lru_cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)


def _fit(image: np.ndarray, height: int) -> np.ndarray:
    return _resize(image, (height, round(image.shape[1] * height / image.shape[0])))


def _resize(image: np.ndarray, size: Size) -> np.ndarray:
    shrinks = size[0] < image.shape[0]
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
