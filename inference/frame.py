"""A frame: the pairs to predict at a moment, with the images and masks that a network needs for these pairs."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from formats.geometry import Size, letterbox
from formats.masks import RLE, fit_rle, letterbox_mask
from formats.processed import Correspondence


@dataclass
class Frame:
    """The pairs of one moment: in each, an object's mask is given in a query view, and sought in a target view."""

    pairs: Sequence[Correspondence]  # (object_name, query_camera, target_camera)
    images: dict[str, np.ndarray]  # by camera: (H, W, 3) uint8 RGB
    # By pair[:2]: the query mask, which may be larger or smaller than its image. `prepare_frame` turns it into an array
    # (H, W) uint8 of 0 and 1 that is as large as the image.
    masks: dict[tuple[str, str], RLE]
    kinds: dict[str, str]  # by camera: ego or exo; a camera of unknown kind has no entry


@dataclass
class TakeFrame(Frame):
    """A frame of a processed take."""

    take_uid: str
    number: int  # 0-based position in the 30 fps video
    folder: Path  # the take's folder; the take's other frames are <folder>/<camera>/<number>.jpg
    sizes: dict[str, Size] = field(default_factory=dict)  # by camera: (H, W) of the frame, before it was letterboxed
    video_sizes: dict[str, Size] = field(default_factory=dict)  # by camera: (H, W) of the video, often larger
    left_out: dict[Correspondence, str] = field(default_factory=dict)  # pairs that cannot be predicted, with reasons


def prepare_frame(frame: Frame, side: int | None = None) -> Frame:
    """A `Matcher.prepare`. With a `side`, images and masks are letterboxed to squares of `side` pixels. Otherwise
    images stay as they are, and masks get the size of their images. Masks become (H, W) uint8 of 0 and 1.
    """
    if side is None:
        masks = {key: fit_rle(rle, frame.images[key[1]].shape[:2]) for key, rle in frame.masks.items()}
        return replace(frame, masks=masks)
    images = {camera: letterbox(image, side) for camera, image in frame.images.items()}
    return replace(frame, images=images, masks={key: letterbox_mask(rle, side) for key, rle in frame.masks.items()})
