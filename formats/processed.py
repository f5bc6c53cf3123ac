"""The processed data set, which other baselines of the benchmark read too:

    <data_dir>/<take_uid>/<camera>/<frame>.jpg
    <data_dir>/<take_uid>/annotation.json

annotation.json: `{"masks": {object: {camera: {frame: {"size": [H, W], "counts": str}}}}, "subsample_idx": [0, 30]}`.
Masks have the size of the video they were drawn on, frames are smaller. Frames without a mask have no key.
"""

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from formats.errors import UserError
from formats.files import read_json, remove_leftovers, write_json
from formats.geometry import Size
from formats.masks import RLE
from formats.takes import DEFAULT_ROOT, is_ego

DEFAULT_DATA_DIR = DEFAULT_ROOT / "processed"
ANNOTATION = "annotation.json"
SOURCE = "source.json"


def is_processed(data_dir: Path, uid: str) -> bool:
    """Whether a take is complete: its annotation.json comes last."""
    return (Path(data_dir) / uid / ANNOTATION).is_file()


def frame_path(camera_folder: Path, frame: int) -> Path:
    return Path(camera_folder) / f"{frame}.jpg"


def frames_in(camera_folder: Path) -> dict[int, str]:
    """The path of each frame in a camera's folder, in no order; empty if there is no folder."""
    if not Path(camera_folder).is_dir():
        return {}
    with os.scandir(camera_folder) as entries:
        names = {entry.name: entry.path for entry in entries}
    return {int(name[:-4]): path for name, path in names.items() if name.endswith(".jpg") and name[:-4].isdecimal()}


class CameraPair(NamedTuple):
    """An object and the two cameras of a pair. Frames to predict are those with a mask in `query_camera`."""

    object_name: str
    query_camera: str
    target_camera: str


@dataclass(frozen=True)
class ProcessedTake:
    """One processed take; `masks[object][camera][frame]` is an RLE, `frame` an int, in the file's order."""

    uid: str
    folder: Path
    masks: dict[str, dict[str, dict[int, RLE]]]
    subsample_idx: list[int]

    @classmethod
    def read(cls, data_dir: Path, uid: str) -> "ProcessedTake":
        """Read a take's annotation.json. Raises UserError if it is missing or malformed."""
        folder = Path(data_dir) / uid
        path = folder / ANNOTATION
        raw = read_json(path, f"run data/process_data.py for take {uid} first")
        try:
            return cls.parse(uid, folder, raw)
        except ValueError as error:
            raise UserError(f"{path} is malformed ({error}); delete it and run data/process_data.py again") from None

    @classmethod
    def parse(cls, uid: str, folder: Path, raw: Any) -> "ProcessedTake":
        """The content of an annotation.json -> ProcessedTake. Raises ValueError if it is malformed."""
        try:
            masks = {
                object_name: {
                    camera: {int(frame): rle for frame, rle in frames.items()} for camera, frames in cameras.items()
                }
                for object_name, cameras in raw["masks"].items()
            }
            return cls(uid, folder, masks, raw["subsample_idx"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from None

    def write_annotation(self) -> None:
        """Write annotation.json, atomically. It comes last: its presence says that the take is complete."""
        write_json(self.folder / ANNOTATION, {"masks": self.masks, "subsample_idx": self.subsample_idx})

    def frame_path(self, camera: str, frame: int) -> Path:
        return frame_path(self.folder / camera, frame)

    @property
    def cameras(self) -> set[str]:
        """Every camera in which an object is annotated."""
        return {camera for cameras in self.masks.values() for camera in cameras}

    def camera_pairs(self, setting: str) -> Iterator[CameraPair]:
        """Every object with an ego camera, with each of its exo cameras, in the direction of `setting`."""
        for object_name, cameras in self.masks.items():
            for ego in filter(is_ego, cameras):
                for exo in (camera for camera in cameras if not is_ego(camera)):
                    yield CameraPair(object_name, *((ego, exo) if setting == "ego-exo" else (exo, ego)))

    def video_size(self, camera: str) -> Size | None:
        """(H, W) of the camera's video as its masks tell, None if it has no mask."""
        for cameras in self.masks.values():
            for rle in cameras.get(camera, {}).values():
                return rle["size"][0], rle["size"][1]
        return None


def pair_frames(masked: Mapping[str, Mapping[str, Collection[int]]]) -> dict[str, set[int]]:
    """The frames of each camera that some pair of either setting needs, the query's or the target's side of it.

    `masked[object][camera]` are the frames with a mask, or a mapping whose keys they are. Cameras without a pair are
    left out.
    """
    needed: dict[str, set[int]] = {}
    for cameras in masked.values():
        for ego in filter(is_ego, cameras):
            for exo in (camera for camera in cameras if not is_ego(camera)):
                for camera in (ego, exo):
                    needed.setdefault(camera, set()).update(cameras[ego], cameras[exo])
    return needed


def claim_data_dir(data_dir: Path, downscaled: bool) -> None:
    """Say in source.json which videos the frames come from. Raises UserError if the folder's come from others."""
    source = {"videos": "downscaled/448" if downscaled else "full size"}
    path = Path(data_dir) / SOURCE
    if not path.exists():
        remove_leftovers(data_dir, SOURCE, seconds=3600)  # other shards may be starting too
        write_json(path, source)
        return
    former = read_json(path, "delete it if the frames beside it may stay")
    if former != source:
        raise UserError(
            f"{data_dir} was made of {former.get('videos')} videos, not of {source['videos']}; give another "
            "--outputpath, or " + ("leave out" if downscaled else "add") + " --downscaled"
        )


def read_frame(path: Path) -> np.ndarray:
    """A processed frame -> (H, W, 3) uint8 RGB. Raises UserError if it is missing or cannot be decoded."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR) if path.is_file() else None
    if image is None:
        what = "cannot be decoded" if path.is_file() else "is missing"
        raise UserError(f"frame {path} {what}; process its take again with data/process_data.py")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
