"""The options of a rendered take: its things and cameras, and the sizes of objects in its pictures."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from formats.geometry import Size

# (H, W) of ego and exo videos. At the native size, data/process_data.py halves ego videos and quarters exo videos.
VIDEO_SIZES: dict[str, tuple[Size, Size]] = {
    "tiny": ((192, 192), (216, 384)),
    "small": ((512, 512), (540, 960)),
    "medium": ((1024, 1024), (1080, 1920)),
    "native": ((1408, 1408), (2160, 3840)),
}
FPS = 30


@dataclass(frozen=True)
class ObjectSizes:
    """Sizes of objects in pictures. An area is the fraction of a picture that an object fills if nothing hides it."""

    ego: float  # area of a median object in ego pictures
    exo: float  # area of the same object in exo pictures
    spread: float = 0.0  # standard deviation of the logarithm of an object's area; 0: all objects have one size
    cameras: float = 0.0  # standard deviation of the logarithm of an exo camera's distance

    @property
    def mixed(self) -> bool:
        return self.spread > 0

    @property
    def least(self) -> float:
        """The smallest area that an annotator outlines, as a fraction of the picture."""
        return 2e-5 if self.mixed else 5e-4  # 2e-5 is 10 pixels of a frame of 540 x 960

    def scales(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Draw the widths of `count` objects, in units of the median object's width."""
        return np.exp(rng.normal(0, self.spread / 2, count).clip(-1.5, 1.5))


# Areas of masks in percent of the picture, at five quantiles:  5 %   25 %   50 %   75 %   95 %
#   four takes of Ego-Exo4D                               ego   0.05   0.15   0.4    0.95   2.5 and more
#                                                         exo   0.01   0.04   0.1    0.3    1.5
#   126 takes rendered with REAL                          ego   0.04   0.17   0.41   1.0    3.8
#   (6 objects, 24 other things)                          exo   0.01   0.04   0.11   0.32   1.4
REAL = ObjectSizes(ego=3.8e-3, exo=1.15e-3, spread=1.3, cameras=0.35)


@dataclass(frozen=True)
class TakeOptions:
    """All that a take depends on besides its split and index; the options of make_takes.py with these names."""

    seed: int
    size: str
    num_frames: int
    num_exo: int
    num_objects: int
    object_size: ObjectSizes
    hold: int
    clutter: int = 0
    blur: float = 0.0
    noise: float = 0.0
    things: str = "patterned"
    models: Path | None = None
    photos: Path | None = None
    left_out: float = 0.0
    odd_cameras: float = 0.0
    seen_only: bool = False
    touching: bool = False

    def record(self) -> dict[str, Any]:
        """The options as JSON; a folder is written as its name."""
        return {name: value.name if isinstance(value, Path) else value for name, value in asdict(self).items()}
