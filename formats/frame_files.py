"""The frames of a processed take, each in a file of its own or all in one.

A network disk is slow with a million small files, so `pack_frames` moves <camera>/<frame>.jpg into an uncompressed
frames.zip. A frame is still named by its path. Where both are, as after a stopped packing, the packed one counts.
"""

import contextlib
import functools
import os
import resource
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from common.errors import UserError
from common.files import atomic_write
from formats.takes import parse_frame

PACK = "frames.zip"
ASKED_AT_ONCE = 32  # takes: a network disk answers many questions at once
MOST_OPEN = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4  # packs, of the files that a process may have open


def frame_path(camera_folder: Path, frame: int) -> Path:
    return camera_folder / f"{frame}.jpg"


def frames_of(folder: Path, sized: bool = False) -> dict[str, dict[int, int]]:
    """The frames of a take by camera and number, in no order. If `sized`, with the bytes of each, for which a disk is
    asked frame by frame unless they are packed. Raises UserError if the pack is damaged.
    """
    sizes: dict[str, dict[int, int]] = {}
    for path in folder.glob("*/*.jpg"):  # before the pack, into which a frame may be moving
        name = path.stem
        if name.isdecimal() and name == str(frame := int(name)):  # 030.jpg is no frame
            sizes.setdefault(path.parent.name, {})[frame] = path.stat().st_size if sized else 0
    with contextlib.suppress(FileNotFoundError):
        for camera, rows in _directory(folder / PACK, (folder / PACK).stat().st_mtime_ns).items():
            sizes[camera] = sizes.get(camera, {}) | dict(rows[:, ::2].tolist())
    return sizes


def frame_bytes(path: Path, start: int = 0) -> bytes:
    """The bytes of a frame, packed or not, from `start` on. Raises FileNotFoundError if there is no such frame, and
    UserError if the pack is damaged. A pack is read as it was when this process first read from it.
    """
    content = _packed_bytes(path, start)
    if content is None:
        try:
            with path.open("rb") as file:
                file.seek(start)
                return file.read()
        except FileNotFoundError:
            _is_packed.cache_clear()  # the frame may have been packed in the meantime
            content = _packed_bytes(path, start)
            if content is None:
                raise
    return content


def _packed_bytes(path: Path, start: int) -> bytes | None:
    """The bytes of a frame from `start` on; None if the frame is not packed."""
    pack = path.parents[1] / PACK
    if not _is_packed(pack):
        return None
    file, rows_of = _open(pack)  # kept here, because another thread may drop this pack from the cache
    rows = rows_of.get(path.parent.name, np.empty((0, 3), int))
    for _, begin, size in rows[rows[:, 0] == int(path.stem)].tolist():
        # pread, because processes that fork share the position in an open file.
        return os.pread(file.fileno(), size - start, begin + start)
    return None


@functools.cache  # so that a network disk is not asked again for each frame
def _is_packed(pack: Path) -> bool:
    return pack.exists()


@functools.lru_cache(min(MOST_OPEN, 512) if MOST_OPEN > 0 else 512)  # it is negative without a limit
def _open(pack: Path) -> tuple[BinaryIO, dict[str, np.ndarray]]:
    file = pack.open("rb", buffering=0)
    return file, _directory(pack, os.fstat(file.fileno()).st_mtime_ns)


@functools.cache  # a loader process reads frames of all takes in any order
def _directory(pack: Path, mtime_ns: int) -> dict[str, np.ndarray]:
    """What is in a pack, by camera: (n, 3) int64, in each row a frame, where its bytes begin, and how many they are."""
    rows: dict[str, list[tuple[int, int, int]]] = {}
    try:
        with zipfile.ZipFile(pack) as file:
            end = 0
            for entry in file.infolist():
                path, begin = Path(entry.filename), entry.header_offset + 30 + len(entry.filename.encode())
                frame, is_plain = parse_frame(path.stem), entry.compress_type == zipfile.ZIP_STORED
                if not is_plain or entry.header_offset != end or entry.filename != f"{path.parent.name}/{frame}.jpg":
                    raise ValueError(f"{path} does not lie there as data/process_data.py packs it")
                end = begin + entry.file_size
                rows.setdefault(path.parent.name, []).append((frame, begin, entry.file_size))
            if end != file.start_dir:
                raise ValueError("its directory is not behind its last frame")
    except Exception as error:  # a damaged archive can make zipfile raise any exception
        remedy = "delete it, then process its take again with data/process_data.py"
        raise UserError(f"{pack} is damaged ({type(error).__name__}: {error}); {remedy}") from None
    return {camera: np.array(of_camera) for camera, of_camera in rows.items()}


def pack_frames(folder: Path) -> None:
    """Move the frames of a take into one file. They are deleted when it is complete."""
    if not any(folder.glob("*/*.jpg")):
        return
    paths = [frame_path(folder / camera, frame) for camera, frames in frames_of(folder).items() for frame in frames]
    _write_pack(folder / PACK, paths)
    for path in paths:
        path.unlink(missing_ok=True)
    for camera_folder in {path.parent for path in paths}:
        with contextlib.suppress(OSError):  # it is gone, or holds other files
            camera_folder.rmdir()


def delete_frames(folder: Path, camera: str) -> None:
    """Delete a camera's frames of the take in `folder`, packed or not."""
    if (pack := folder / PACK).exists():
        packed = _directory(pack, pack.stat().st_mtime_ns)
        frames = ((name, frame) for name in packed.keys() - {camera} for frame in packed[name][:, 0].tolist())
        _write_pack(pack, [frame_path(folder / name, frame) for name, frame in frames])
    for path in (folder / camera).glob("*.jpg"):
        path.unlink(missing_ok=True)


def _write_pack(pack: Path, paths: Iterable[Path]) -> None:
    """Write a pack of these frames, some of which the pack that it replaces may hold."""
    with atomic_write(pack, "wb") as file, zipfile.ZipFile(file, "w") as new:
        for path in sorted(paths, key=lambda path: (path.parent.name, int(path.stem))):
            new.writestr(zipfile.ZipInfo(f"{path.parent.name}/{path.name}"), frame_bytes(path))
    _is_packed.cache_clear()
    _open.cache_clear()
