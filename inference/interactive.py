"""What the page of demo.py shows, without the page: a mask grown from a click, answers for pictures and for a take.

Images are (H, W, 3) uint8 RGB, masks (H, W) of 0 and 1; a point is (x, y) in the image's pixels.
"""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from common.drawing import PREDICTION, QUERY, TRUTH, overlay
from common.errors import UserError
from formats.geometry import letterbox, unletterbox
from formats.masks import decode_mask, resize_mask
from formats.picture_files import open_picture
from formats.processed import ProcessedTake, frames_in, is_processed, read_frame
from inference.pictures import as_image
from inference.predictor import Predictor
from model.features import Encoder

SHOWN_SIDE = 960  # long side of pictures on the page, pixels
GROW_SIDE = 576  # of the image whose features a mask grows in
COLOR_SIDE = 320  # of the image in which colors settle its outline
ALIKE, UNLIKE = 0.7, 0.3  # cosine with the clicked cell: probably the object, surely not
OTHERS = (255, 255, 255)  # outlines of objects that can be clicked on
Point = tuple[int, int]


class View(NamedTuple):
    """A picture with what was found drawn on it."""

    image: np.ndarray
    title: str
    existence: float | None = None  # None: the query view
    iou: float | None = None  # None: the truth is unknown, or not asked for


def read_upload(path: str | None, what: str) -> np.ndarray:
    """A picture file that a visitor gave -> image of SHOWN_SIDE pixels at most. UserError names `what` it is."""
    if path is None:
        raise UserError(f"the {what} is missing; drop one first")
    try:
        image = np.ascontiguousarray(as_image(open_picture(Path(path)), what))
    except UserError:  # its text names a path of this machine
        raise UserError(f"the {what} {Path(path).name} is no picture that can be read; give JPEG or PNG") from None
    return reduced(image, SHOWN_SIDE)


def reduced(image: np.ndarray, side: int) -> np.ndarray:
    """With a long side of `side` pixels, or as it is if that is smaller."""
    scale = min(1, side / max(image.shape[:2]))
    size = [max(1, round(length * scale)) for length in image.shape[1::-1]]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


@torch.inference_mode()
def grow_mask(encoder: Encoder, image: np.ndarray, point: Point) -> np.ndarray:
    """The object at a point -> its mask, which holds the point.

    1. The cosine of each feature cell with the clicked one, of the backbone's features less their mean.
    2. Cells above ALIKE that hang together with the clicked one are probably the object; those below UNLIKE are not.
    3. GrabCut decides by color, pixel by pixel, and what hangs together with the point remains.
    """
    backbone, size = encoder.backbone, image.shape[:2]
    pixels = torch.from_numpy(letterbox(image, GROW_SIDE))[None].to(encoder.device)
    features = backbone(backbone.normalize(pixels))[0]  # (C, h, w)
    features = F.normalize(features - features.mean((1, 2), keepdim=True), dim=0)
    long, (x, y) = max(size), point
    row, col = (
        (place + (long - length) // 2) * features.shape[1] // long for place, length in zip((y, x), size, strict=True)
    )
    cosine = torch.einsum("chw,c->hw", features, features[:, row, col])
    cosine = F.interpolate(cosine[None, None], (long, long), mode="bilinear", align_corners=False)[0, 0]
    cosine = unletterbox(cosine.cpu().numpy(), size)

    small = reduced(image, COLOR_SIDE)
    cosine = cv2.resize(cosine, small.shape[1::-1])
    at = x * small.shape[1] // size[1], y * small.shape[0] // size[0]
    labels = np.where(cosine > UNLIKE, cv2.GC_PR_BGD, cv2.GC_BGD).astype(np.uint8)
    dot = cv2.circle(np.zeros_like(labels), at, COLOR_SIDE // 80, 1, -1)
    labels[connected((cosine > ALIKE) | (dot > 0), at)] = cv2.GC_PR_FGD
    labels[dot > 0] = cv2.GC_FGD
    if (labels == cv2.GC_BGD).any():  # else GrabCut has no color to compare with
        cv2.setRNGSeed(0)  # its clusters begin at random
        cv2.grabCut(small, labels, None, np.zeros((1, 65)), np.zeros((1, 65)), 3, cv2.GC_INIT_WITH_MASK)
    found = connected((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD), at)
    return cv2.resize(found.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST)


def connected(mask: np.ndarray, point: Point) -> np.ndarray:
    """The part of a mask that hangs together with a point of it, (H, W) bool."""
    _, parts = cv2.connectedComponents(mask.astype(np.uint8))
    return parts == parts[point[::-1]]


def answer_pictures(predictor: Predictor, query: np.ndarray, mask: np.ndarray, target: np.ndarray | None) -> list[View]:
    """The query with its mask, of any size of the same shape; and the target with the answer, if there is one."""
    shown = cv2.resize(mask, query.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    views = [View(overlay(query, shown, QUERY), "your object")]
    if target is not None:
        found, existence = predictor.segment(query, mask, target)
        views.append(View(overlay(target, found, PREDICTION), "found", existence))
    return views


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
) -> list[View]:
    """The query view, all objects outlined, then every camera of the other kind that has a picture of this frame.

    `truth`: also outline the true masks, dashed, and compare.
    """
    query = read_frame(take.frame_path(camera, frame))
    cameras = [c for c in sorted(take.cameras) if take.is_ego(c) != take.is_ego(camera)]
    cameras = [c for c in cameras if take.frame_path(c, frame).is_file()]
    targets = [read_frame(take.frame_path(c, frame)) for c in cameras]
    drawn = query
    for masks in take.masks.values():
        if frame in masks.get(camera, {}):
            drawn = overlay(drawn, resize_mask(masks[camera][frame], query.shape[:2]), OTHERS, dashed=True)
    rle = take.masks[object_name][camera][frame]
    views = [View(overlay(drawn, resize_mask(rle, query.shape[:2]), QUERY), camera)]
    answers = predictor.segment_all(query, decode_mask(rle), targets) if targets else []
    for name, target, (found, existence) in zip(cameras, targets, answers, strict=True):
        image, iou = overlay(target, found, PREDICTION), None
        if truth and (true := take.masks[object_name].get(name, {}).get(frame)):
            mask = resize_mask(true, target.shape[:2])
            image, iou = overlay(image, mask, TRUTH, dashed=True), float((found & mask).sum() / (found | mask).sum())
        views.append(View(image, name, existence, iou))
    return views
