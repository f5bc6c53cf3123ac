"""Draw predictions: the query, the prediction and the true mask side by side.

Images are (H, W, 3) uint8 RGB; colors are RGB.
"""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from common.constants import THRESHOLD
from common.drawing import PREDICTION, QUERY, TRUTH, WHITE, Color, around, captioned, in_columns, overlay
from common.errors import UserError
from evaluation.score import ScoredFiles
from formats.geometry import Size, resize
from formats.masks import RLE, encode_mask, resize_mask

GAP = 6  # pixels between panels
HEIGHT = 300  # pixels of a frame in a panel
SHEET_WIDTH = 1200  # pixels
MOST_ON_SHEET = 150  # cases, none of which has more than 370 rows of a JPEG's 65,500
EMPTY_MASK = encode_mask(np.zeros((1, 1)))  # an empty mask: nothing is drawn
Window = tuple[slice, slice]  # rows and columns of an image


def draw_case(scored: ScoredFiles, row: int) -> list[np.ndarray]:
    """Draw a case as panels, all of one height: the query with its mask, then the target, once with the prediction of
    each file and once with the true mask.

    Small objects are also shown enlarged in a corner. The outline of a prediction that counts as hidden is dashed.
    Raises UserError if a frame is missing.
    """
    pairs, cases, masks = scored.pairs, scored.cases[:, row], scored.masks[:, row]
    store, take, frame = pairs.store, int(pairs.take[row]), int(pairs.frame[row])
    query, target = (store.image(take, int(camera[row]), frame) for camera in (pairs.query, pairs.target))
    query_mask, true_mask = pairs.query_mask(row), pairs.target_mask(row)
    seen = cases["existence"] > THRESHOLD
    # A mask is not drawn if the object is not visible and the prediction says so.
    drawn = [mask if draws else None for mask, draws in zip(masks, seen | cases["visible"], strict=True)]
    query_window = _close_up(query.shape[:2], query_mask)
    window = _close_up(target.shape[:2], next((mask for mask in (true_mask, *drawn) if mask), None))
    panels = [_draw_panel(query, query_mask, QUERY, f"query {pairs.named(row).query_camera}", query_window)]
    for name, mask, is_seen in zip(scored.names, drawn, seen, strict=True):
        panels.append(_draw_panel(target, mask, PREDICTION, name or "prediction", window, dashed=not is_seen))
    caption = "truth" if pairs.visible[row] else "truth: not there"
    return [*panels, _draw_panel(target, true_mask, TRUTH, caption, window)]


def row_of_panels(panels: Sequence[np.ndarray]) -> np.ndarray:
    gap = np.full((len(panels[0]), GAP, 3), WHITE, np.uint8)
    return np.hstack([part for panel in panels for part in (gap, panel)][1:])


def panel_styles(panels: Sequence[np.ndarray]) -> list[str]:
    """How page.css shows each panel alone, out of the picture of all `row_of_panels`: its width / height, its place."""
    widths = [panel.shape[1] + GAP for panel in panels]
    others = [sum(widths) - width for width in widths]
    return [
        f"--shape: {(width - GAP) / len(panels[0]):.4f}; --place: {sum(widths[:number]) / other:.4%}"
        for number, (width, other) in enumerate(zip(widths, others, strict=True))
    ]


def _draw_panel(
    frame: np.ndarray, rle: RLE | None, color: Color, caption: str, window: Window | None, dashed: bool = False
) -> np.ndarray:
    """A frame with the outline of a mask, if any, below its caption. `window` is also shown enlarged in a corner."""
    rle = rle or EMPTY_MASK
    image = resize(frame, (HEIGHT, round(frame.shape[1] * HEIGHT / frame.shape[0])))
    image = overlay(image, resize_mask(rle, image.shape[:2]), color, dashed)
    if window:
        side, mask = min(HEIGHT * 2 // 5, image.shape[1] // 2), resize_mask(rle, frame.shape[:2])
        mask = cv2.resize(mask[window], (side, side), interpolation=cv2.INTER_NEAREST)
        inset = overlay(resize(frame[window], (side, side)), mask, color, dashed)
        cv2.rectangle(inset, (0, 0), (side - 1, side - 1), WHITE, 3)  # of which the image cuts off one pixel
        on_the_right = window[1].start + window[1].stop > frame.shape[1]
        image[-side:, slice(0, side) if on_the_right else slice(-side, None)] = inset
    return captioned(image, caption, image.shape[1])


def _close_up(size: Size, rle: RLE | None) -> Window | None:
    """A square around the object of a mask in a frame of `size`; None if this is not small."""
    rows, columns = around(resize_mask(rle or EMPTY_MASK, size), 2)
    return (rows, columns) if rows.stop - rows.start <= min(size) * 2 // 5 else None


def draw_sheet(pictures: Iterable[np.ndarray], captions: Sequence[str]) -> np.ndarray:
    """One image of pictures of cases, in as many columns as fit, each below its caption. Raises UserError if there is
    no picture.
    """
    if not captions:
        raise UserError("no case to draw: --num must be above 0, and objects that are hidden need --order random")
    pairs = zip(pictures, captions, strict=True)
    cells = [captioned(picture, caption, min(SHEET_WIDTH, picture.shape[1])) for picture, caption in pairs]
    return in_columns(cells, SHEET_WIDTH // max(cell.shape[1] for cell in cells))
