"""The frames of a processed take, each in a file of its own or all in one.

A network disk is slow with a million small files, so `pack_frames` moves <camera>/<frame>.jpg into an uncompressed
frames.zip. A frame is still named by its path. Where both are, as after a stopped packing, its own file counts.
"""

import contextlib
import functools
import os
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np

from common.errors import UserError
from common.files import atomic_write

PACK = "frames.zip"


def frame_path(camera_folder: Path, frame: int) -> Path:
    return camera_folder / f"{frame}.jpg"


def frames_of(folder: Path, sized: bool = False) -> dict[str, dict[int, int]]:
    """The frames of a take by camera and number, in no order. If `sized`, with the bytes of each, for which a disk is
    asked frame by frame unless they are packed. Raises UserError if the pack is damaged.
    """
    sizes: dict[str, dict[int, int]] = {}
    for path in folder.glob("*/*.jpg"):  # before the pack, into which a frame may be moving
        if path.stem.isdecimal():
            sizes.setdefault(path.parent.name, {})[int(path.stem)] = path.stat().st_size if sized else 0
    with contextlib.suppress(FileNotFoundError):
        for camera, rows in _directory(folder / PACK, (folder / PACK).stat().st_mtime_ns).items():
            sizes[camera] = dict(rows[:, ::2].tolist()) | sizes.get(camera, {})
    return sizes


def frame_bytes(path: Path, start: int = 0) -> bytes:
    """The bytes of a frame, packed or not, from `start` on. Raises FileNotFoundError if there is no such frame, and
    UserError if the pack is damaged.
    """
    try:
        with path.open("rb") as file:
            file.seek(start)
            return file.read()
    except FileNotFoundError:
        pack = path.parents[1] / PACK
        time = pack.stat().st_mtime_ns  # which network disks remember, while they are asked for each opening
        rows = _directory(pack, time).get(path.parent.name, np.empty((0, 3), int))
        for _, begin, size in rows[rows[:, 0] == int(path.stem)].tolist():
            # pread, because processes that fork share the position in an open file.
            return os.pread(_open(pack, time).fileno(), size - start, begin + start)
        raise


@functools.cache  # a loader process reads frames of all takes in any order
def _directory(pack: Path, mtime_ns: int) -> dict[str, np.ndarray]:
    """What is in a pack, by camera: (n, 3) int64, in each row a frame, where its bytes begin, and how many they are."""
    rows: dict[str, list[tuple[int, int, int]]] = {}
    try:
        with zipfile.ZipFile(pack) as file:
            for entry in file.infolist():
                path, begin = Path(entry.filename), entry.header_offset + 30 + len(entry.filename.encode())
                rows.setdefault(path.parent.name, []).append((int(path.stem), begin, entry.file_size))
    except Exception as error:  # a damaged archive can make zipfile raise any exception
        remedy = "delete it, then process its take again with data/process_data.py"
        raise UserError(f"{pack} is damaged ({type(error).__name__}: {error}); {remedy}") from None
    return {camera: np.array(of_camera) for camera, of_camera in rows.items()}


@functools.lru_cache(512)  # a process may often have no more than 1024 files open
def _open(pack: Path, mtime_ns: int) -> BinaryIO:
    return pack.open("rb", buffering=0)


def pack_frames(folder: Path) -> None:
    """Move the frames of a take into one file. They are deleted when it is complete."""
    if not any(folder.glob("*/*.jpg")):
        return
    frames = sorted((camera, frame) for camera, frames in frames_of(folder).items() for frame in frames)
    paths = [frame_path(folder / camera, frame) for camera, frame in frames]
    with atomic_write(folder / PACK, "wb") as file, zipfile.ZipFile(file, "w") as pack:
        for path in paths:
            pack.writestr(zipfile.ZipInfo(f"{path.parent.name}/{path.name}"), frame_bytes(path))
    for path in paths:
        path.unlink(missing_ok=True)
    for camera_folder in {path.parent for path in paths}:
        with contextlib.suppress(OSError):  # it is gone, or holds other files
            camera_folder.rmdir()
