"""What the page of demo.py shows, without the page: uploads, and answers for pictures and for a take.

Images are (H, W, 3) uint8 RGB, masks (H, W) of 0 and 1; a point is (x, y) in the image's pixels.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from common.drawing import PREDICTION, QUERY, TRUTH, Color, overlay
from common.errors import UserError
from formats.mask_pictures import to_mask
from formats.masks import decode_mask, resize_mask
from formats.picture_files import open_picture, read_picture
from formats.processed import ProcessedTake, frames_in, is_processed, read_frame
from inference.predictor import Predictor

SHOWN_SIDE = 960  # long side of pictures on the page, pixels
OTHERS = (255, 255, 255)  # outlines of objects that can be clicked on
Point = tuple[int, int]


class Panel(NamedTuple):
    """A picture with what was found drawn on it."""

    image: np.ndarray
    title: str
    existence: float | None = None  # None: the query view
    iou: float | None = None  # None: the truth is unknown, or not asked for
    mask: np.ndarray | None = None  # that the visitor can save


def read_upload(path: str | None, what: str, read: Callable[[Path], np.ndarray] = read_picture) -> Any:
    """What a file that a visitor gave holds. Raises UserError, which names `what` it is, and no path."""
    if path is None:
        raise UserError(f"the {what} is missing; give it first")
    try:
        return read(Path(path))
    except UserError as error:
        raise UserError(str(error).replace(path, f"the {what} {Path(path).name}")) from None


def reduced(image: np.ndarray) -> np.ndarray:
    """With a long side of SHOWN_SIDE, or as it is if that is smaller."""
    scale = min(1, SHOWN_SIDE / max(image.shape[:2]))
    size = [max(1, round(length * scale)) for length in image.shape[1::-1]]
    return cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_AREA)


def outlined(image: np.ndarray, mask: np.ndarray, color: Color) -> np.ndarray:
    """The reduced image with the outline of a mask, of any size of the same shape."""
    image = reduced(image)
    return overlay(image, cv2.resize(mask, image.shape[1::-1], interpolation=cv2.INTER_NEAREST), color)


def read_layer(path: Path) -> np.ndarray:
    """What was painted over a reduced picture -> its mask. Raises UserError."""
    with open_picture(path) as image:
        if max(image.size) > SHOWN_SIDE:
            raise UserError(
                f"{path} is {image.width}x{image.height}; its picture has at most {SHOWN_SIDE} pixels a side"
            )
        return to_mask(image, str(path))


def answer_pictures(
    predictor: Predictor, query: np.ndarray, mask: np.ndarray, target: np.ndarray | None
) -> list[Panel]:
    """The query with its mask, of any size of the same shape; and the target with the answer, if there is one."""
    panels = [Panel(outlined(query, mask, QUERY), "your object")]
    if target is not None:
        found, existence = predictor.segment(query, mask, target)
        panels.append(Panel(outlined(target, found, PREDICTION), "found", existence, mask=found))
    return panels


def take_uids(data_dir: Path) -> list[str]:
    """The processed takes of a folder, sorted; none if there is no folder."""
    if not data_dir.is_dir():
        return []
    return sorted(path.name for path in data_dir.iterdir() if is_processed(data_dir, path.name))


def frames_of(take: ProcessedTake, object_name: str, camera: str) -> list[int]:
    """The frames in which a camera has a mask of the object and a picture, ascending."""
    return sorted(frames_in(take.folder / camera).keys() & take.masks[object_name].get(camera, {}).keys())


def objects_of(take: ProcessedTake, camera: str) -> list[str]:
    return [name for name in take.masks if frames_of(take, name, camera)]


def object_at(take: ProcessedTake, camera: str, frame: int, point: Point) -> str | None:
    """The smallest object whose mask in this frame holds a point of its picture."""
    size = read_frame(take.frame_path(camera, frame)).shape[:2]
    masks = {name: resize_mask(m[camera][frame], size) for name, m in take.masks.items() if frame in m.get(camera, {})}
    hit = [name for name, mask in masks.items() if mask[point[::-1]]]
    return min(hit, key=lambda name: masks[name].sum(), default=None)


def answer_take(
    predictor: Predictor, take: ProcessedTake, object_name: str, camera: str, frame: int, truth: bool
) -> list[Panel]:
    """The query view, all objects outlined, then every camera of the other kind that has a picture of this frame.

    `truth`: also outline the true masks, dashed, and compare.
    """
    query = read_frame(take.frame_path(camera, frame))
    cameras = [c for c in sorted(take.cameras) if take.kind_of(c) != take.kind_of(camera)]
    cameras = [c for c in cameras if take.frame_path(c, frame).is_file()]
    targets = [read_frame(take.frame_path(c, frame)) for c in cameras]
    drawn = query
    for masks in take.masks.values():
        if frame in masks.get(camera, {}):
            drawn = overlay(drawn, resize_mask(masks[camera][frame], query.shape[:2]), OTHERS, dashed=True)
    rle = take.masks[object_name][camera][frame]
    panels = [Panel(overlay(drawn, resize_mask(rle, query.shape[:2]), QUERY), camera)]
    setting = "ego-exo" if take.kind_of(camera) == "ego" else "exo-ego"
    asked = query, decode_mask(rle), targets
    answers = predictor.segment_all(*asked, setting=setting)
    for name, target, (found, existence) in zip(cameras, targets, answers, strict=True):
        image, iou = overlay(target, found, PREDICTION), None
        if truth and (true := take.masks[object_name].get(name, {}).get(frame)):
            mask = resize_mask(true, target.shape[:2])
            image, iou = overlay(image, mask, TRUTH, dashed=True), float((found & mask).sum() / (found | mask).sum())
        panels.append(Panel(image, name, existence, iou))
    return panels
