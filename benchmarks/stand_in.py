"""Takes in the real data's proportions: jagged outlines for masks and smooth noise for pictures."""

from functools import cache
from pathlib import Path

import cv2
import numpy as np

from formats.geometry import Size
from formats.masks import RLE, encode_lzstring, encode_mask
from formats.processed import ProcessedTake
from formats.takes import is_ego

EGO = "aria01_214-1"
EGO_SIZE, EXO_SIZE = (1408, 1408), (2160, 3840)  # (H, W) of the videos and of the masks
EGO_FRAME, EXO_FRAME = (704, 704), (540, 960)
AREAS = (0.001, 0.06)  # of an object, as a share of the picture: smallest and largest
STEP = 30  # frames with masks
Pool = dict[str, list[RLE]]  # different masks, by "ego" and "exo"


def make_pool(count: int, areas: tuple[float, float] = AREAS, shrink: int = 1) -> Pool:
    """Masks for takes to draw from: a data set has millions, which would take hours to make."""
    rng = np.random.default_rng(0)
    sizes = {"ego": EGO_SIZE, "exo": EXO_SIZE}
    return {
        kind: [random_mask(rng, (height // shrink, width // shrink), areas) for _ in range(count)]
        for kind, (height, width) in sizes.items()
    }


def random_mask(rng: np.random.Generator, size: Size, areas: tuple[float, float]) -> RLE:
    """An object with an outline as jagged as if drawn by hand."""
    radius = np.sqrt(np.exp(rng.uniform(*np.log(areas))) * size[0] * size[1] / np.pi)
    angle = np.sort(rng.uniform(0, 2 * np.pi, 60))
    center = rng.uniform(0.15, 0.85, 2) * size[::-1]
    reach = radius * rng.uniform(0.6, 1.4, (60, 1))
    outline = center + reach * np.stack([np.cos(angle), np.sin(angle)], 1)
    return encode_mask(cv2.fillPoly(np.zeros(size, np.uint8), [outline.astype(np.int32)], 1))


def make_take(
    data_dir: Path, uid: str, pool: Pool, objects: int, frames: int, exos_per_object: int = 1, visible: float = 1.0
) -> ProcessedTake:
    """A take that is not written yet; the same one for the same arguments.

    Every object has a mask in every frame of the ego camera, and in the share `visible` of the frames of
    `exos_per_object` exo cameras. With one exo camera an object, two are in use in turn, as in most real takes.
    """
    rng = np.random.default_rng(list(uid.encode()))
    exos = [f"cam{number:02d}" for number in range(1, max(2, exos_per_object) + 1)]
    numbers = range(0, STEP * frames, STEP)
    masks = {}
    for place in range(objects):
        tracks = {EGO: {frame: pool["ego"][rng.integers(len(pool["ego"]))] for frame in numbers}}
        for camera in [exos[(place + i) % len(exos)] for i in range(exos_per_object)]:
            seen = [frame for frame in numbers if rng.random() < visible]
            tracks[camera] = {frame: pool["exo"][rng.integers(len(pool["exo"]))] for frame in seen}
        masks[f"object {place}_0"] = tracks
    return ProcessedTake(uid, Path(data_dir) / uid, masks, list(numbers))


def write_with_pictures(take: ProcessedTake) -> None:
    """Write the take with a picture of noise for every frame."""
    rng = np.random.default_rng(list(take.uid.encode()))
    for camera in sorted(take.cameras):
        height, width = EGO_FRAME if is_ego(camera) else EXO_FRAME
        (take.folder / camera).mkdir(parents=True)
        for frame in take.subsample_idx:
            noise = rng.integers(0, 256, (height // 16, width // 16, 3), np.uint8)
            cv2.imwrite(str(take.frame_path(camera, frame)), cv2.resize(noise, (width, height)))
    take.write_annotation()


def annotation(take: ProcessedTake) -> dict:
    """The take as the annotation file has it. The annotators looked at all frames of an object."""
    tracks = {
        name: {
            camera: {
                "annotation": {frame: _drawn(*rle["size"], rle["counts"]) for frame, rle in frames.items()},
                "annotated_frames": take.subsample_idx,
            }
            for camera, frames in cameras.items()
        }
        for name, cameras in take.masks.items()
    }
    return {"take_name": take.uid, "scenario": f"scenario {len(tracks)}", "object_masks": tracks}


@cache
def _drawn(height: int, width: int, counts: str) -> dict:
    return {"height": height, "width": width, "encodedMask": encode_lzstring(counts)}
