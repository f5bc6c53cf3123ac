"""The options of a rendered take: its things and cameras, and the sizes of objects in its pictures."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.option_fields import option
from formats.geometry import Size
from formats.takes import FRAME_STEP

# (H, W) of ego and exo videos. At the native size, data/process_data.py halves ego videos and quarters exo videos.
VIDEO_SIZES: dict[str, tuple[Size, Size]] = {
    "tiny": ((192, 192), (216, 384)),
    "small": ((512, 512), (540, 960)),
    "medium": ((1024, 1024), (1080, 1920)),
    "native": ((1408, 1408), (2160, 3840)),
}
FPS = 30
# With --seen_only, an object is annotated only if it is visible and bright enough.
LEAST_VISIBLE_SHARE = 0.1  # the fraction of the object that is visible
LEAST_GRAY = 24  # the gray value, of 255, that a tenth of the object's pixels reach


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


SIZE_HELP = "area of an object as a fraction of the picture, up to 0.4. One number: all objects have this area; two: "
SIZE_HELP += "nine of ten lie between them; real: areas as in Ego-Exo4D, smaller in exo than in ego pictures"
THINGS_HELP = "twins: solids with one pattern each, four of which share two patterns and two pairs of colors; rooms "
THINGS_HELP += "may have these colors, each camera has its own light, and --seen_only holds. patterned: solids that "
THINGS_HELP += "differ in colors, in pale rooms. models: those of --models, some touching each other, in dim and "
THINGS_HELP += "colored light; some cameras are turned, and people walk by"
MODELS_HELP = "folder of OBJ and GLB files in meters for --things models (needs requirements-models.txt); takes that "
MODELS_HELP += "are rendered already keep what they show when its files change"
SEEN_HELP = f"annotate only objects that an annotator would see: {LEAST_VISIBLE_SHARE:.0%}% is visible, and the "
SEEN_HELP += f"brightest tenth has a gray value of {LEAST_GRAY} or more"
HOLDS = [n for n in range(1, FRAME_STEP + 1) if FRAME_STEP % n == 0]  # so that annotated frames are rendered


@dataclass(frozen=True)
class TakeOptions:
    """All that a take depends on besides its split and index, as flags of make_takes.py. Uids depend on their order."""

    seed: int = option(0, "other seeds give other takes", limits=[0])
    size: str = option("small", "size of the videos; native is 3840x2160, ego 1408x1408", choices=VIDEO_SIZES)
    num_frames: int = option(61, "frames of each video, 30 a second; each 30th is annotated", limits=[1, 1_000_000])
    num_exo: int = option(2, "number of static cameras", limits=[1, 99])
    num_objects: int = option(4, "objects on the table; each camera sees about two at a time", limits=[1, 18])
    object_size: ObjectSizes = option(("0.2",), SIZE_HELP, nargs="+", metavar="SIZE", type=str)
    hold: int = option(30, "render only every n-th frame and repeat it", choices=HOLDS)
    clutter: int = option(0, "largest number of further things on the table, never annotated", limits=[0, 1000])
    blur: float = option(0, "each video's Gaussian blur has up to this many pixels", limits=[0, 100])
    noise: float = option(0, "standard deviation of Gaussian noise, in gray levels", limits=[0, 255])
    things: str = option("twins", THINGS_HELP, choices=("twins", "patterned", "models"))
    models: Path | None = option(None, MODELS_HELP)
    photos: Path | None = option(None, "folder of pictures for table tops, walls and floors (default: painted ones)")
    left_out: float = option(
        0, "probability that an object, but not its twins, is left out, drawn by camera and second", limits=[0, 0.9]
    )
    odd_cameras: float = option(
        0, "fraction of the takes whose cameras may be unusual: all static, turned by any angle, or gray", limits=[0, 1]
    )
    seen_only: bool = option(False, SEEN_HELP)
    touching: bool = option(False, "every second object touches the object before it")

    def record(self) -> dict[str, Any]:
        """The options as JSON; a folder is written as its name."""
        return {name: value.name if isinstance(value, Path) else value for name, value in asdict(self).items()}
