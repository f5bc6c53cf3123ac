"""Whether a processed take is whole: looks at every frame and mask that a later stage may ask for."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from data.failures import BROKEN, Failure
from formats.errors import UserError
from formats.geometry import Size
from formats.masks import RLE, run_lengths
from formats.processed import MAX_FRAME_SIDE, ProcessedTake, frames_in, jpeg_size, pair_frames
from formats.takes import SETTINGS

HEADER_BYTES = 4096  # of a JPEG file, enough for the tables before its size
SHOWN = 5  # frames named in a problem


@dataclass
class TakeCheck:
    """What was looked at, and what is wrong. `pairs[setting][object, query, target]` counts the take's pairs."""

    take_uid: str
    frames: int = 0
    masks: int = 0
    problems: list[Failure] = field(default_factory=list)
    pairs: dict[str, dict[tuple[str, str, str], int]] = field(default_factory=lambda: {name: {} for name in SETTINGS})


def check_take(data_dir: Path, uid: str, decode: bool = False) -> TakeCheck:
    """Check a processed take: frames there, whole and of one size, masks readable, of one size and fitting the frames.

    Of a frame it reads the size in the header and the end mark; with `decode` it decodes each frame, which takes fifty
    times as long.
    """
    check = TakeCheck(uid)
    try:
        take = ProcessedTake.read(data_dir, uid)
    except UserError as error:
        check.problems.append(Failure(None, BROKEN, str(error)))
        return check
    needed = pair_frames(take.masks, take.is_ego)
    for camera in sorted(take.cameras):
        tracks = {name: cameras[camera] for name, cameras in take.masks.items() if cameras.get(camera)}
        reasons, mask_size = _check_masks(tracks)
        there = frames_in(take.folder / camera)
        wanted = needed.get(camera, set())
        if not there.keys() <= wanted:  # made with `--frames all`: every mask and every second has its frame
            seconds = take.subsample_idx
            if not take.is_ego(camera):  # its video may end early
                seconds = [frame for frame in seconds if frame <= max(there)]
            wanted = wanted.union(*tracks.values(), seconds)
        reasons += _check_frames({frame: there[frame] for frame in sorted(wanted & there.keys())}, mask_size, decode)
        if missing := sorted(wanted - there.keys()):
            reasons.append(f"{len(missing)} frames missing: {_some(missing)}")
        check.frames += len(wanted)
        check.masks += sum(map(len, tracks.values()))
        check.problems += [Failure(camera, BROKEN, reason) for reason in reasons]
    check.pairs = {
        setting: {pair: len(take.masks[pair.object_name][pair.query_camera]) for pair in take.camera_pairs(setting)}
        for setting in SETTINGS
    }
    return check


def _check_masks(tracks: Mapping[str, Mapping[int, RLE]]) -> tuple[list[str], Size | None]:
    """Problems of the masks of a camera, by object, and their size."""
    reasons, sizes = [], {}
    for name, masks in tracks.items():
        corrupt = []
        for frame, rle in masks.items():
            try:
                run_lengths(rle)
                sizes.setdefault(tuple(rle["size"]), f"{name!r}, frame {frame}")
            except ValueError:
                corrupt.append(frame)
        if corrupt:
            reasons.append(f"{len(corrupt)} corrupt masks of object {name!r}: {_some(sorted(corrupt))}")
    if len(sizes) > 1:
        reasons.append(f"masks of {len(sizes)} sizes: {_examples(sizes)}")
    return reasons, next(iter(sizes), None)


def _check_frames(paths: Mapping[int, str], mask_size: Size | None, decode: bool) -> list[str]:
    """Problems of the frames of a camera that are there."""
    broken, sizes = [], {}
    for frame, path in paths.items():
        size = announced_size(path)
        if size is None or max(size) > MAX_FRAME_SIDE or (decode and not _decodes(path, size)):
            broken.append(frame)
        else:
            sizes.setdefault(size, f"frame {frame}")
    reasons = [f"{len(broken)} frames broken: {_some(broken)}"] if broken else []
    if len(sizes) > 1:
        reasons.append(f"frames of {len(sizes)} sizes: {_examples(sizes)}")
    elif sizes and mask_size:
        (size,) = sizes
        # One must be the other scaled, give or take two pixels: shrinking rounds down, video sizes are even.
        scale = max(mask_size) / max(size)
        if any(abs(long / scale - short) > 2 for long, short in zip(mask_size, size, strict=True)):
            height, width = size
            masks = f"{mask_size[1]}x{mask_size[0]}"
            reasons.append(f"frames of {width}x{height} have another shape than their masks of {masks}")
    return reasons


def _examples(sizes: Mapping[Size, str]) -> str:
    return "; ".join(f"{width}x{height} ({where})" for (height, width), where in sizes.items())


def announced_size(path: str) -> Size | None:
    """(H, W) from the header of a JPEG file; None if that is broken or the file does not end as a JPEG does."""
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123, a Path for each of millions of files takes time
        size = jpeg_size(file.read(HEADER_BYTES))
        if size:
            file.seek(-2, os.SEEK_END)
        return size if size and file.read(2) == b"\xff\xd9" else None


def _decodes(path: str, size: Size) -> bool:
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    return image is not None and image.shape[:2] == size


def _some(frames: Iterable[int]) -> str:
    frames = list(frames)
    return ", ".join(map(str, frames[:SHOWN])) + (", ..." if len(frames) > SHOWN else "")
