"""What a method is asked about a frame, and where its answers go."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from formats.geometry import Size, unletterbox
from formats.processed import CameraPair


@dataclass
class Frame:
    """All that is asked about one frame of a take: to find each object with a mask in a query view in target views."""

    take_uid: str
    number: int  # 0-based position in the 30 fps video
    folder: Path  # of the processed take: frames of other times are <folder>/<camera>/<number>.jpg
    pairs: Sequence[CameraPair]  # the questions: (object_name, query_camera, target_camera)
    images: dict[str, np.ndarray]  # by camera: (H, W, 3) uint8 RGB
    masks: dict[tuple[str, str], np.ndarray]  # by pair[:2]: the query mask, (H, W) uint8 of 0 and 1, as its image
    video_sizes: dict[str, Size]  # by camera: (H, W) of the video, often larger than the frame
    kinds: dict[str, str]  # by camera: ego or exo; without those of which it is not known


def prob_in_image(prob: Tensor, size: Size) -> Tensor:
    """Probabilities (P, S, S) in letterboxed images -> (P, H, W) in the images, which are of `size`; bilinear."""
    if prob.shape[-1] != max(size):
        prob = F.interpolate(prob[:, None], [max(size)] * 2, mode="bilinear", align_corners=False)[:, 0]
    return unletterbox(prob, size)
