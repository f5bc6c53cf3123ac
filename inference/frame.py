"""What is asked about a frame."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from formats.geometry import Size
from formats.masks import RLE
from formats.processed import CameraPair


@dataclass
class Frame:
    """To find each object with a mask in a query view in target views of the same time."""

    pairs: Sequence[CameraPair]  # the questions: (object_name, query_camera, target_camera)
    images: dict[str, np.ndarray]  # by camera: (H, W, 3) uint8 RGB
    # By pair[:2], the query mask: of any size with its image's aspect ratio. A method of one's own gets it as large as
    # its image, (H, W) uint8 of 0 and 1.
    masks: dict[tuple[str, str], RLE]
    kinds: dict[str, str]  # by camera: ego or exo; without those of which it is not known


@dataclass
class TakeFrame(Frame):
    """One of a processed take."""

    take_uid: str
    number: int  # 0-based position in the 30 fps video
    folder: Path  # of the take: frames of other times are <folder>/<camera>/<number>.jpg
    video_sizes: dict[str, Size]  # by camera: (H, W) of the video, often larger than the frame
