"""Frames as the network reads them, beside the JPEG files that they were made from:

    <data_dir>/<take_uid>/<camera>.<side>.frames

1. a `HEAD`: the network's input size, the size of the JPEG images, the number N of frames
2. N rows `ROW`, ascending: each frame, and the state of its JPEG file
3. (N, h, w, 3) uint8 RGB: `letterbox(read_frame(path), side)` without its padding

Every read compares the state of the JPEG file: a frame that was processed again or is gone is not taken from here.
"""

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np

from common.errors import UserError, counted, warn_once
from common.files import atomic_write, open_file
from formats.geometry import Size, letterbox, letterbox_axes
from formats.processed import MAX_FRAME_SIDE, frame_path, read_frame

MAGIC = b"frames 1"
HEAD = np.dtype([("magic", "S8"), ("side", "<i8"), ("height", "<i8"), ("width", "<i8"), ("count", "<i8")])
ROW = np.dtype([("frame", "<i8"), ("n_bytes", "<i8"), ("mtime_ns", "<i8")])
NOT_STORED = "is missing"  # the problem of a camera without stored frames
_warned: set[int] = set()  # the input sizes of which a file has been named that does not fit


def stored_path(camera_folder: Path, side: int) -> Path:
    return Path(f"{camera_folder}.{side}.frames")


def read_letterboxed(camera_folder: Path, frame: int, side: int) -> tuple[np.ndarray, Size]:
    """`letterbox(read_frame(path), side)` and the frame's (H, W), from the stored frames if they are up to date.

    Warns once if there are some that are not. Raises UserError as `read_frame` does.
    """
    try:
        with _opened(camera_folder, side) as (file, size, table):
            return _read(file, size, table, camera_folder, frame, side), size
    except FileNotFoundError:
        pass
    except ValueError as error:
        if side not in _warned:  # once: a data set that was copied without times has thousands of such files
            _warned.add(side)
            remedy = f"JPEG files are read where this is so; run data/store_frames.py --side {side} again"
            warn_once(f"{stored_path(camera_folder, side)} {error}; {remedy}")
    pixels = read_frame(frame_path(camera_folder, frame))
    return letterbox(pixels, side), pixels.shape[:2]


def problem_of(camera_folder: Path, frames: Collection[int], side: int) -> str | None:
    """Why the stored frames of a camera cannot stand for all of `frames`; None if they can. Looks at no pixel."""
    try:
        with _opened(camera_folder, side) as (_, _, table):
            rows = {row[0]: row for row in table.tolist()}
    except FileNotFoundError:
        return NOT_STORED
    except ValueError as error:
        return str(error)
    stale = [frame for frame in frames if not _is_current(rows.get(frame), camera_folder, frame)]
    count = counted(len(stale), "JPEG file")
    return f"does not fit {count}, the first is {min(stale)}.jpg" if stale else None


def check_stored_frames(camera_folder: Path, frames: Collection[int]) -> list[str]:
    """What is wrong with the stored frames of a camera, which must have all of `frames`: a line for each input size."""
    problems = []
    for path in sorted(camera_folder.parent.glob("*.frames")):
        side = path.name.removeprefix(f"{camera_folder.name}.").removesuffix(".frames")
        if side.isdecimal() and (problem := problem_of(camera_folder, frames, int(side))):
            problems.append(f"{path.name} {problem}; run data/store_frames.py --side {side} again or delete it")
    return problems


def count_stored(a_frame: Mapping[Path, int], side: int) -> str:
    """How many cameras have stored frames, in words; `a_frame` of each camera's folder is looked at.

    What is said here is not said again when this process, or one that it forks, reads frames.
    """
    problems = {stored_path(folder, side): problem_of(folder, [frame], side) for folder, frame in a_frame.items()}
    bad = [f"{path} {problem}" for path, problem in problems.items() if problem not in (None, NOT_STORED)]
    if bad:
        _warned.add(side)
    text = f"{list(problems.values()).count(None)} of {counted(len(problems), 'camera')}"
    return f"{text}; {len(bad)} more cannot be used, the first: {bad[0]}" if bad else text


def store_frames(camera_folder: Path, frames: Collection[int], side: int) -> None:
    """Write the stored frames of a camera, holding one at a time.

    Raises UserError, and writes nothing, if a frame is missing or unreadable or has another size than the first.
    """
    table, size = np.zeros(len(frames), ROW), None
    with atomic_write(stored_path(camera_folder, side), "wb") as file:
        file.seek(HEAD.itemsize + table.nbytes)
        for place, frame in enumerate(sorted(frames)):
            jpeg = frame_path(camera_folder, frame)
            table[place] = (frame, *_state(jpeg))  # first: a change in between is noticed later
            pixels = read_frame(jpeg)
            size = size or pixels.shape[:2]
            if pixels.shape[:2] != size:
                raise UserError(f"frame {jpeg} has another size than those before it; process its take again")
            *_, rows, cols = letterbox_axes(size, side)
            file.write(letterbox(pixels, side)[rows, cols].tobytes())
        file.seek(0)
        file.write(np.array((MAGIC, side, *size, len(frames)), HEAD).tobytes() + table.tobytes())


@contextlib.contextmanager
def _opened(camera_folder: Path, side: int) -> Iterator[tuple[int, Size, np.ndarray]]:
    """File descriptor, (H, W) of the JPEG images, rows `ROW`.

    Raises FileNotFoundError if there is no file, ValueError if it cannot be read, is not whole or of another kind.
    """
    try:
        with open_file(stored_path(camera_folder, side), buffering=0) as file:
            head = os.pread(file.fileno(), HEAD.itemsize, 0).ljust(HEAD.itemsize)
            magic, own_side, height, width, count = np.frombuffer(head, HEAD)[0].tolist()
            if (magic, own_side) != (MAGIC, side) or not all(0 < x <= MAX_FRAME_SIDE for x in (height, width)):
                raise ValueError(f"holds no frames of {side} pixels")
            rows, cols, *_ = letterbox_axes((height, width), side)
            n_bytes = HEAD.itemsize + count * (ROW.itemsize + len(rows) * len(cols) * 3)
            if count < 1 or os.fstat(file.fileno()).st_size != n_bytes:
                raise ValueError("is not whole")
            table = np.frombuffer(os.pread(file.fileno(), count * ROW.itemsize, HEAD.itemsize), ROW)
            yield file.fileno(), (height, width), table
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from None


def _read(file: int, size: Size, table: np.ndarray, camera_folder: Path, frame: int, side: int) -> np.ndarray:
    """(side, side, 3) uint8: a stored frame, padded. Raises ValueError if it is not there or from another JPEG file."""
    place = int(np.searchsorted(table["frame"], frame))
    if place == len(table) or not _is_current(table[place].tolist(), camera_folder, frame):
        raise ValueError(f"does not fit {frame}.jpg")
    *_, rows, cols = letterbox_axes(size, side)
    image = np.zeros((side, side, 3), np.uint8)
    inside = image[rows, cols]
    # Read, not mapped: mapping takes longer, and what was looked at would count as memory of each loader worker.
    pixels = inside if inside.flags.c_contiguous else np.empty(inside.shape, np.uint8)
    if os.preadv(file, [pixels], HEAD.itemsize + table.nbytes + place * pixels.nbytes) != pixels.nbytes:
        raise ValueError("is not whole")
    if pixels is not inside:
        inside[...] = pixels
    return image


def _is_current(row: tuple[int, int, int] | None, camera_folder: Path, frame: int) -> bool:
    """Whether a row `ROW` is of this frame's JPEG file as it is now. Archives may have cut its time to seconds."""
    n_bytes, mtime_ns = _state(frame_path(camera_folder, frame))
    times = (mtime_ns,) if mtime_ns % 10**9 else range(mtime_ns, mtime_ns + 10**9)
    return row is not None and n_bytes > 0 and row[:2] == (frame, n_bytes) and row[2] in times


def _state(jpeg: Path) -> tuple[int, int]:
    """Bytes and time of change in ns; 0 and 0 of a file that is not there."""
    try:
        stat = jpeg.stat()
        return stat.st_size, stat.st_mtime_ns
    except OSError:
        return 0, 0
