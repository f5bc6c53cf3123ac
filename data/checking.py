"""Is a processed take whole? Looks at every frame and mask that a later stage may ask for."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from formats.errors import UserError
from formats.geometry import Size
from formats.masks import RLE, run_lengths
from formats.processed import ProcessedTake, pair_frames
from formats.takes import SETTINGS, is_ego

HEADER_BYTES = 4096  # of a JPEG file, enough for the tables before its size
SHOWN = 5  # frames named in a problem


@dataclass(frozen=True)
class Problem:
    """Something wrong; `take_uid` None concerns all takes, `camera` None all cameras."""

    take_uid: str | None
    camera: str | None
    reason: str

    def __str__(self) -> str:
        where = [f"{kind} {name}" for kind, name in (("take", self.take_uid), ("camera", self.camera)) if name]
        return ": ".join([", ".join(where), self.reason] if where else [self.reason])


@dataclass
class TakeCheck:
    """What was looked at, and what is wrong. `pairs[setting][object, query, target]` counts the take's pairs."""

    take_uid: str
    frames: int = 0
    masks: int = 0
    problems: list[Problem] = field(default_factory=list)
    pairs: dict[str, dict[tuple[str, str, str], int]] = field(default_factory=dict)


def check_take(data_dir: Path, uid: str, decode: bool = False) -> TakeCheck:
    """Check a processed take: frames there, whole and of one size, masks readable, of one size and fitting the frames.

    Frames are looked at from outside (size in the header, end mark); `decode` decodes each, which takes fifty times
    as long. Never raises for what it finds.
    """
    check = TakeCheck(uid)
    try:
        take = ProcessedTake.read(data_dir, uid)
    except UserError as error:
        check.problems.append(Problem(uid, None, str(error)))
        return check
    needed = pair_frames(take.masks)
    for camera in sorted(take.cameras):
        masked = [(name, tracks[camera]) for name, tracks in take.masks.items() if tracks.get(camera)]
        reasons, mask_size = _check_masks(masked)
        found = _frames_in(take.folder / camera)
        wanted = needed.get(camera, set())
        if not found.keys() <= wanted:  # made with `--frames all`: every mask and every second has its frame
            wanted = wanted.union(*(masks for _, masks in masked), _grid(take, camera, found))
        reasons += _check_frames({frame: found[frame] for frame in sorted(wanted & found.keys())}, mask_size, decode)
        if missing := sorted(wanted - found.keys()):
            reasons.append(f"{len(missing)} frames missing: {_some(missing)}")
        check.frames += len(wanted)
        check.masks += sum(len(masks) for _, masks in masked)
        check.problems += [Problem(uid, camera, reason) for reason in reasons]
    check.pairs = {
        setting: {pair: len(take.masks[pair.object_name][pair.query_camera]) for pair in take.camera_pairs(setting)}
        for setting in SETTINGS
    }
    return check


def _grid(take: ProcessedTake, camera: str, found: Mapping[int, Path]) -> set[int]:
    """The frame of each second: in ego cameras all, in exo cameras, which may end early, those before the last."""
    end = max(found, default=0)
    return {frame for frame in take.subsample_idx if is_ego(camera) or frame <= end}


def _frames_in(folder: Path) -> dict[int, str]:
    """Path of each frame in a camera's folder."""
    if not folder.is_dir():
        return {}
    with os.scandir(folder) as entries:
        return {int(entry.name[:-4]): entry.path for entry in entries if entry.name[:-4].isdigit()}


def _check_masks(masked: Iterable[tuple[str, Mapping[int, RLE]]]) -> tuple[list[str], Size | None]:
    """Problems of the masks of a camera, and their size."""
    reasons, sizes = [], {}
    for name, masks in masked:
        corrupt = []
        for frame, rle in masks.items():
            try:
                run_lengths(rle)
                sizes.setdefault(tuple(rle["size"]), f"{name!r}, frame {frame}")
            except (ValueError, KeyError, TypeError):
                corrupt.append(frame)
        if corrupt:
            reasons.append(f"{len(corrupt)} corrupt masks of object {name!r}: {_some(sorted(corrupt))}")
    if len(sizes) > 1:
        examples = "; ".join(f"{width}x{height} ({where})" for (height, width), where in sizes.items())
        reasons.append(f"masks of {len(sizes)} sizes: {examples}")
    return reasons, next(iter(sizes), None)


def _check_frames(paths: Mapping[int, str], mask_size: Size | None, decode: bool) -> list[str]:
    """Problems of the frames of a camera that are there."""
    broken, sizes = [], {}
    for frame, path in paths.items():
        size = jpeg_size(path)
        if size and decode and not _decodes(path, size):
            size = None
        if size:
            sizes.setdefault(size, frame)
        else:
            broken.append(frame)
    reasons = [f"{len(broken)} frames broken: {_some(broken)}"] if broken else []
    if len(sizes) > 1:
        examples = "; ".join(f"{width}x{height} (frame {frame})" for (height, width), frame in sizes.items())
        reasons.append(f"frames of {len(sizes)} sizes: {examples}")
    elif sizes and mask_size and not _same_shape(next(iter(sizes)), mask_size):
        (height, width), (mask_height, mask_width) = next(iter(sizes)), mask_size
        reasons.append(f"frames of {width}x{height} have another shape than their masks of {mask_width}x{mask_height}")
    return reasons


def _same_shape(size: Size, mask_size: Size) -> bool:
    """Whether one is the other scaled, give or take two pixels: shrinking rounds down, video sizes are even."""
    scale = max(mask_size) / max(size)
    return all(abs(long / scale - short) <= 2 for long, short in zip(mask_size, size, strict=True))


def jpeg_size(path: str) -> Size | None:
    """(H, W) from the header of a JPEG file; None if that is broken or the file does not end as a JPEG does."""
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123, a Path for each of millions of files takes time
        head = file.read(HEADER_BYTES)
        if len(head) < 4 or head[:2] != b"\xff\xd8":
            return None
        file.seek(-2, os.SEEK_END)
        if file.read(2) != b"\xff\xd9":
            return None
    at = 2
    while at + 9 <= len(head) and head[at] == 0xFF:
        marker, length = head[at + 1], int.from_bytes(head[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xC2:  # start of frame: length, precision, height, width
            return int.from_bytes(head[at + 5 : at + 7], "big"), int.from_bytes(head[at + 7 : at + 9], "big")
        at += 2 + length
    return None


def _decodes(path: str, size: Size) -> bool:
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    return image is not None and image.shape[:2] == size


def _some(frames: list[int]) -> str:
    return ", ".join(map(str, frames[:SHOWN])) + (", ..." if len(frames) > SHOWN else "")
