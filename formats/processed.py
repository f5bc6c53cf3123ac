"""The processed data set, in the form that the benchmark's baselines read:

    <data_dir>/<take_uid>/<camera>/<frame>.jpg  or all of them in one frames.zip, see formats/frame_files.py
    <data_dir>/<take_uid>/annotation.json
    <data_dir>/<take_uid>/source.json           from which files data/process_data.py made the take
    <data_dir>/<take_uid>/failed.json           what the take lacks, if anything, and why

annotation.json: `{"masks": {object: {camera: {frame: {"size": [H, W], "counts": str}}}}, "subsample_idx": [0, 30]}`.
Masks have the size of the video on which they were drawn; frames are smaller. Frames without a mask have no key.

failed.json: `{"failures": [{"camera": str or null, "kind": "missing" or "broken", "reason": str}]}`.
"""

import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np

from common.constants import SETTINGS
from common.errors import MALFORMED, UserError
from common.files import is_file_name, json_errors, read_record, write_json
from formats.frame_files import PACK, frame_bytes
from formats.geometry import Size
from formats.masks import RLE, check_rle, mask_size
from formats.takes import Take, camera_pairs, parse_frame

ANNOTATION, SOURCE, FAILED = "annotation.json", "source.json", "failed.json"
VIDEOS = "videos.json"  # beside the takes: of which videos their frames are
SOURCE_REMEDY = "delete it if its frames may stay, else its folder"
FAILED_FORM = {"failures": [{"camera": str | None, "kind": str, "reason": str}]}


def is_processed(data_dir: Path, uid: str) -> bool:
    """True if a take is complete: its annotation.json is written last."""
    return (data_dir / uid / ANNOTATION).is_file()


class Correspondence(NamedTuple):
    """An object that is given in one camera and sought in another. Each frame in which the object has a mask in
    `query_camera` makes a pair.
    """

    object_name: str
    query_camera: str
    target_camera: str


@dataclass(frozen=True)
class ProcessedTake:
    """One processed take. `masks[object][camera][frame]` is an RLE; the frames, ints, are in the file's order."""

    uid: str
    folder: Path
    masks: dict[str, dict[str, dict[int, RLE]]]
    subsample_idx: list[int]

    @classmethod
    def read(cls, data_dir: Path, uid: str) -> "ProcessedTake":
        """Read a take's annotation.json. Raises UserError if the file is missing, malformed or cannot be read."""
        folder = data_dir / uid
        path = folder / ANNOTATION
        with json_errors(path, f"run data/process_data.py for take {uid} first"):
            raw = json.loads(path.read_bytes())
        try:
            return cls.parse(uid, folder, raw)
        except ValueError as error:
            raise UserError(f"{path} is malformed ({error}); delete it and run data/process_data.py again") from None

    @classmethod
    def parse(cls, uid: str, folder: Path, raw: Any) -> "ProcessedTake":
        """The content of an annotation.json -> ProcessedTake. Raises ValueError if the content is malformed."""
        try:
            masks = {
                object_name: {
                    camera: {
                        parse_frame(frame): check_rle(rle)
                        for frame, rle in frames.items()
                        if rle is not None  # the original writes null for a mask that it cannot decode
                    }
                    for camera, frames in cameras.items()
                }
                for object_name, cameras in raw["masks"].items()
            }
            take = cls(uid, folder, masks, list(map(parse_frame, raw["subsample_idx"])))
            for name in (uid, *take.cameras):
                if not is_file_name(name):
                    raise ValueError(f"{name[:40]!r} cannot be the name of a folder")
            return take
        except MALFORMED as error:
            raise ValueError(f"{type(error).__name__}: {error}") from None

    def content(self) -> dict[str, Any]:
        """The content of annotation.json."""
        return {"masks": self.masks, "subsample_idx": self.subsample_idx}

    def write_annotation(self) -> None:
        """Write annotation.json, atomically. Call this last, because a take with this file counts as complete."""
        write_json(self.folder / ANNOTATION, self.content())

    @property
    def cameras(self) -> set[str]:
        """Every camera in which an object is annotated."""
        return {camera for cameras in self.masks.values() for camera in cameras}

    def correspondences(self, setting: str) -> Iterator[Correspondence]:
        """Yield each object with each pair of its cameras that fits the setting (ego to exo, or exo to ego)."""
        for object_name, cameras in self.masks.items():
            yield from (Correspondence(object_name, *pair) for pair in camera_pairs(cameras, setting))

    def needed_frames(self) -> dict[str, set[int]]:
        """For each camera, the frames that pairs of any setting need, as query or as target."""
        needed: dict[str, set[int]] = {}
        for name, *cameras in itertools.chain(*map(self.correspondences, SETTINGS)):
            for camera in cameras:
                needed.setdefault(camera, set()).update(self.masks[name][cameras[0]])
        return needed

    def video_size(self, camera: str) -> Size | None:
        """(H, W) of the camera's video, which is the size of its masks; None if the camera has no masks."""
        rles = (rle for cameras in self.masks.values() for rle in cameras.get(camera, {}).values())
        return next(map(mask_size, rles), None)


@dataclass(frozen=True)
class Failure:
    """Something that a take lacks: in one camera, or in all of them if `camera` is None."""

    camera: str | None
    kind: Literal["missing", "broken"]  # the data set lacks a file; or a file is damaged and should be fetched again
    reason: str

    def describe(self, uid: str, take_name: str = "") -> str:
        """The failure of a take in one line."""
        name = f" ({take_name})" if take_name else ""
        camera = f", camera {self.camera}" if self.camera else ""
        return f"take {uid}{name}{camera}: {self.reason}"


def write_failures(folder: Path, failures: list[Failure]) -> None:
    """Write failed.json into a take's `folder`; without failures, delete it."""
    if failures:
        write_json(folder / FAILED, {"failures": [*map(asdict, failures)]}, 1)
    else:
        (folder / FAILED).unlink(missing_ok=True)


def read_failures(folder: Path) -> list[Failure]:
    """Read failed.json in a take's `folder`."""
    path = folder / FAILED
    if not path.exists():
        return []
    raw = read_record(path, FAILED_FORM, "delete it and run data/process_data.py again")
    return [Failure(**row) for row in raw["failures"]]


def read_source(folder: Path) -> dict[str, Any]:
    """Read source.json in the folder of a take; {} if it is missing. Raises UserError if it is damaged."""
    path = folder / SOURCE
    return read_record(path, {str: str | list}, SOURCE_REMEDY) if path.exists() else {}


def annotation_change(data_dir: Path, take: Take) -> str | None:
    """Compare the masks of a processed take with the masks of `take`, its annotation in an annotation file. Returns a
    text that says why the masks differ; None if the masks are the same, or if the take has no source.json. Raises
    UserError as `read_source` does.
    """
    processed = read_source(data_dir / take.uid).get("annotation")
    if processed in (None, take.digest):
        return None
    what = f"its annotation has changed since it was processed; run data/process_data.py --uids {take.uid}"
    return f"{what}, which needs the videos of {take.name}"


def read_frame(path: Path, listed_size: int | None = None) -> np.ndarray:
    """A processed frame -> (H, W, 3) uint8 RGB. Raises UserError if the file is missing, cut off or undecodable, or if
    its bytes are not as many as `listed_size`.
    """
    remedy, data = "process its take again with data/process_data.py", b""
    try:
        data = frame_bytes(path)
        # has_jpeg_end: some versions of OpenCV read a file that is cut off, and fill the missing part with gray.
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if has_jpeg_end(data) else None
    except FileNotFoundError:
        raise UserError(f"frame {path} is missing; {remedy}") from None
    except OSError as error:
        raise UserError(f"frame {path} cannot be read ({error.strerror}); {remedy}") from None
    except cv2.error:  # the file claims an absurd size
        image = None
    if image is None:
        delete = path.parents[1] / PACK if (path.parents[1] / PACK).exists() else "it"
        raise UserError(f"frame {path} is cut off or damaged; delete {delete}, then {remedy}")
    if listed_size is not None and listed_size != len(data):
        raise replaced(path, listed_size, len(data))
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def replaced(path: Path, listed_size: int, size: int) -> UserError:
    """The error of a frame whose file has another size in bytes than was listed."""
    what = f"frame {path} was replaced after its pairs were listed ({listed_size} bytes -> {size})"
    return UserError(f"{what}; run data/create_pairs.py again")


def has_jpeg_end(data: bytes) -> bool:
    """True if `data`, the last bytes of a JPEG file, ends with the end mark. Some encoders add zeros after it."""
    return data.rstrip(b"\0").endswith(b"\xff\xd9")
