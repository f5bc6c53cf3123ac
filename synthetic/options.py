"""The options of a take: its things and cameras, and the sizes of objects in its pictures."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from formats.geometry import Size

# (H, W) of ego and exo videos. Processing halves the one and quarters the other.
VIDEO_SIZES: dict[str, tuple[Size, Size]] = {
    "tiny": ((192, 192), (216, 384)),
    "small": ((512, 512), (540, 960)),
    "medium": ((1024, 1024), (1080, 1920)),
    "native": ((1408, 1408), (2160, 3840)),
}
FPS = 30
LATER = "models", "photos", "left_out", "odd_cameras", "seen_only"  # options that came later


@dataclass(frozen=True)
class ObjectSizes:
    """Sizes of objects in pictures. Areas are fractions of a picture, of an unoccluded object."""

    ego: float  # area of a median object
    exo: float  # of the same object there
    spread: float = 0.0  # standard deviation of the logarithm of an object's area; 0: all are of one size
    cameras: float = 0.0  # of the logarithm of an exo camera's distance

    @property
    def mixed(self) -> bool:
        return self.spread > 0

    @property
    def least(self) -> float:
        """An annotator does not outline what is smaller."""
        return 2e-5 if self.mixed else 5e-4  # 10 pixels of a frame of 540 x 960

    def scales(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Widths of `count` objects in units of the median one's."""
        return np.exp(rng.normal(0, self.spread / 2, count).clip(-1.5, 1.5))


# Masks of four Ego-Exo4D takes have, in percent, at 5, 25, 50, 75 and 95 %: ego 0.05, 0.15, 0.4, 0.95, 2.5 and more;
# exo 0.01, 0.04, 0.1, 0.3, 1.5. Those of 126 takes rendered so (6 objects, 24 other things): ego 0.04, 0.17, 0.41, 1.0,
# 3.8; exo 0.01, 0.04, 0.11, 0.32, 1.4.
REAL = ObjectSizes(ego=3.8e-3, exo=1.15e-3, spread=1.3, cameras=0.35)


@dataclass(frozen=True)
class TakeOptions:
    """All that a take depends on besides its place in the data set."""

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

    def record(self) -> dict[str, Any]:
        """The options as JSON, of folders the names. Later options are there only where they are used, so that takes
        without them keep their uids.
        """
        used = {name: value for name, value in asdict(self).items() if value or name not in LATER}
        return {name: value.name if isinstance(value, Path) else value for name, value in used.items()}
