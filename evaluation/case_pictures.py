"""Draw predictions: the query, the prediction and the true mask side by side.

Images are (H, W, 3) uint8 RGB; colors are RGB.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from common.drawing import PREDICTION, QUERY, TRUTH, Color, overlay, to_ascii
from common.errors import UserError
from common.existence import verdict
from evaluation.score import Case
from evaluation.truth import GroundTruth, TakeTruth
from formats.geometry import Size, resize
from formats.masks import RLE, encode_mask, resize_mask
from formats.processed import read_frame
from formats.results import camera_pair_key, iter_results

BLACK, GRAY, WHITE = (20, 20, 20), (110, 110, 110), (255, 255, 255)
GAP = 6  # pixels between panels
PANEL_HEIGHT = 300  # pixels
FONT_SIZE, HEADER_SIZE = 18, 24  # pixels, of the text in and above the panels
SHEET_WIDTH = 1200  # pixels
MAX_ROWS = 65_500  # of a JPEG
EMPTY_MASK = encode_mask(np.zeros((1, 1)))  # an empty mask: nothing is drawn
Window = tuple[slice, slice]  # rows and columns of an image


class PredictedCase(NamedTuple):
    """A prediction to draw: its case, its RLE, and the name of its results file if there are several."""

    case: Case
    rle: RLE
    name: str = ""

    @property
    def drawn_rle(self) -> RLE | None:
        """The mask to draw; None if the object is not visible and the prediction says so."""
        return self.rle if self.case.visible or self.case.predicted_visible else None

    @property
    def caption(self) -> str:
        case = self.case
        notes = ["empty"] if case.scores and case.scores.predicted_pixels == 0 else []
        if not (case.visible and case.predicted_visible):
            answer = "visible" if case.predicted_visible else "hidden"  # by the official limit
            notes.append(f"{answer}: {'right' if case.predicted_visible == case.visible else 'wrong'}")
        title = self.name or "prediction"
        return f"{title} ({', '.join(notes)})" if notes else title


def draw_case(truth: TakeTruth, predictions: Sequence[PredictedCase]) -> list[np.ndarray]:
    """Draw a case as panels, (PANEL_HEIGHT, W, 3): the query with its mask, then the target, once with each prediction
    and once with the true mask.

    Small objects are also shown enlarged in a corner. The outline of a prediction that counts as hidden is dashed.
    Raises UserError if a frame is missing.
    """
    case = predictions[0].case
    masks = truth.take.masks[case.object_name]
    query_mask, true_mask = masks[case.query_camera][case.frame], masks[case.target_camera].get(case.frame)
    cameras = case.query_camera, case.target_camera
    query, target = (read_frame(truth.take.frame_path(camera, case.frame)) for camera in cameras)
    query_window = _close_up(query.shape[:2], query_mask)
    drawn = [true_mask, *(prediction.drawn_rle for prediction in predictions)]
    window = _close_up(target.shape[:2], next(filter(None, drawn), None))

    panels = [_draw_panel(query, query_mask, QUERY, f"query {case.query_camera}", query_window)]
    for prediction in predictions:
        dashed = not prediction.case.predicted_visible
        panels.append(_draw_panel(target, prediction.drawn_rle, PREDICTION, prediction.caption, window, dashed))
    caption = "truth" if case.visible else "truth: not there"
    return [*panels, _draw_panel(target, true_mask, TRUTH, caption, window)]


def side_by_side(panels: Sequence[np.ndarray]) -> np.ndarray:
    return np.hstack([_framed(panel, 0, 0, GAP, 0) for panel in panels])[:, GAP:]


def panel_styles(panels: Sequence[np.ndarray]) -> list[str]:
    """How page.css shows each panel alone, out of the picture of all `side_by_side`: its width / height, its place."""
    widths = [panel.shape[1] + GAP for panel in panels]
    others = [sum(widths) - width for width in widths]
    return [
        f"--shape: {(width - GAP) / PANEL_HEIGHT:.4f}; --place: {sum(widths[:number]) / other:.4%}"
        for number, (width, other) in enumerate(zip(widths, others, strict=True))
    ]


def _draw_panel(
    frame: np.ndarray, rle: RLE | None, color: Color, caption: str, window: Window | None, dashed: bool = False
) -> np.ndarray:
    """A frame with the outline of a mask, if any, (PANEL_HEIGHT, W, 3). `window` is also shown enlarged in a corner."""
    rle = rle or EMPTY_MASK
    image = resize(frame, (PANEL_HEIGHT, round(frame.shape[1] * PANEL_HEIGHT / frame.shape[0])))
    side = min(PANEL_HEIGHT * 2 // 5, image.shape[1])
    close_up = resize(frame[window or ()], (side, side))
    shown_mask, mask = (resize_mask(rle, size) for size in (image.shape[:2], frame.shape[:2]))
    image = overlay(image, shown_mask, color, dashed)
    if window:
        mask = np.ascontiguousarray(mask[window])
        mask = cv2.resize(mask, (side, side), interpolation=cv2.INTER_NEAREST)
        inset = overlay(close_up, mask, color, dashed)
        on_the_right = window[1].start + window[1].stop > frame.shape[1]
        image[-side:, slice(0, side) if on_the_right else slice(-side, None)] = _framed(inset[2:-2, 2:-2], 2, 2, 2, 2)

    size, font = FONT_SIZE, ImageFont.load_default(FONT_SIZE)
    canvas = Image.fromarray(image)  # the caption is in the upper left corner, beside a swatch of the mask's color
    draw = ImageDraw.Draw(canvas)
    caption = to_ascii(caption)[:100]
    box = draw.textbbox((size * 2, size // 2), caption, font=font)
    draw.rectangle((0, 0, box[2] + size // 2, box[3] + size // 2), fill=BLACK)
    draw.rectangle((size // 2, box[1], size * 3 // 2, box[3]), fill=color)
    draw.text((size * 2, size // 2), caption, WHITE, font)
    return np.array(canvas)


def _close_up(size: Size, rle: RLE | None) -> Window | None:
    """A square around the object of a mask in a frame of `size`; None if this is not small."""
    left, top, width, height = cv2.boundingRect(np.ascontiguousarray(resize_mask(rle or EMPTY_MASK, size)))
    side = 2 * max(width, height, min(size) // 15)
    if not width or side > min(size) * 2 // 5:
        return None
    row = int(np.clip(top + (height - side) // 2, 0, size[0] - side))
    column = int(np.clip(left + (width - side) // 2, 0, size[1] - side))
    return slice(row, row + side), slice(column, column + side)


def draw_frames(
    truth: GroundTruth, setting: str, files: Mapping[str, Path], frames: Sequence[Sequence[Case]]
) -> Iterator[list[np.ndarray]]:
    """Yield the panels of each scored frame, with the predictions of all results files.

    `files` has the path of each results file by its name ("" if there is only one); a frame has a case for each file.
    """
    if not frames:  # saves reading the files again, which can be large
        return
    predictions = [
        load_predictions(path, setting, cases, name)
        for (name, path), cases in zip(files.items(), zip(*frames, strict=True), strict=True)
    ]
    takes = {uid: truth.load_take(uid) for uid in {frame[0].take_uid for frame in frames}}
    for of_frame in tqdm(list(zip(*predictions, strict=True)), "pictures", unit="picture", delay=1, disable=None):
        yield draw_case(takes[of_frame[0].case.take_uid], of_frame)


def load_predictions(path: Path, setting: str, cases: Sequence[Case], name: str) -> list[PredictedCase]:
    """The predictions of a results file for `cases`, in the order of the cases."""
    rles = {}
    for uid, take in iter_results(path, setting):
        for case in (case for case in cases if case.take_uid == uid):
            pair = camera_pair_key(case.query_camera, case.target_camera)
            rles[case.key] = take["masks"][case.object_name][pair][str(case.frame)]["pred_mask"]
    return [PredictedCase(case, rles[case.key], name) for case in cases]


def draw_sheet(truth: GroundTruth, setting: str, results: Path, frames: Sequence[Sequence[Case]]) -> np.ndarray:
    """One image of frames that a results file predicts, one below the other on white, each under a line that names the
    case and its scores.

    Raises UserError if there is no frame, if there are too many, or if the picture of a frame is missing.
    """
    if not frames:
        raise UserError("no case to draw: --num must be above 0, and objects that are hidden need --order random")
    rows = []
    for (case,), panels in zip(frames, draw_frames(truth, setting, {"": results}, frames), strict=True):
        take = truth.infos[case.take_uid].name or case.take_uid[:8]
        row = side_by_side(panels)
        picture = np.vstack([_header(case, take, row.shape[1]), row])
        height = round(picture.shape[0] * SHEET_WIDTH / picture.shape[1])
        rows.append(_framed(resize(picture, (height, SHEET_WIDTH)), GAP, GAP, GAP, GAP))
        if sum(map(len, rows)) > MAX_ROWS:
            raise UserError(f"{len(frames)} cases need more than {MAX_ROWS} rows of pixels; give a smaller --num")
    return np.vstack(rows)


def _header(case: Case, take: str, width: int) -> np.ndarray:
    """The line above a picture: object, take, camera and frame; at the right IoU and existence."""
    canvas = Image.new("RGB", (width, HEADER_SIZE * 4 // 3 + GAP), WHITE)
    draw = ImageDraw.Draw(canvas)
    name = to_ascii(" ".join(case.object_name.split()))[:40] + "  "
    details = to_ascii(f"{take}, {case.target_camera}, frame {case.frame}")[:100]
    score_text = f"  {case.iou_text}  said {verdict(case.existence)}"
    fonts = map(ImageFont.load_default, range(HEADER_SIZE, HEADER_SIZE // 2, -1))
    fitting = (font for font in fonts if sum(draw.textlength(x, font) for x in (name, details, score_text)) <= width)
    font = next(fitting, ImageFont.load_default(HEADER_SIZE // 2 + 1))  # the largest font with which the line fits
    middle, left = draw.textlength(name, font), width - draw.textlength(score_text, font)
    draw.text((0, 0), name, BLACK, font)
    draw.text((middle, 0), details, GRAY, font)
    draw.rectangle((left, 0, width, canvas.height), fill=WHITE)
    draw.text((left, 0), score_text, BLACK, font)
    return np.array(canvas)


def _framed(image: np.ndarray, above: int, below: int, left: int, right: int) -> np.ndarray:
    """The image with white borders, whose widths are given in pixels."""
    return cv2.copyMakeBorder(image, above, below, left, right, cv2.BORDER_CONSTANT, value=WHITE)
