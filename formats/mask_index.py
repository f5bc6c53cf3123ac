"""All masks of a split in one file, `<data_dir>/{split}_masks.index`, so that training opens millions at once.

Written by create_pairs.py from the annotation.json files, which stay the data; this is a copy that reads fast:

    counts strings, one after the other | tables of numbers, a value a mask | JSON: takes, tracks | trailer

Rows are masks. Those of a track (an object in a camera of a take) are neighbours, in the order of their frames.
"""

import json
import os
import struct
import zlib
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from formats.errors import UserError
from formats.files import atomic_write
from formats.masks import RLE, mask_area
from formats.processed import ANNOTATION, ProcessedTake

TRAILER = struct.Struct("<QQ8s")  # offset and length of the JSON in bytes, MAGIC
MAGIC = b"xsegtx-1"
TABLES = {"start": np.int64, "frame": np.int32, "area": np.int32, "height": np.int32, "width": np.int32}


class Stamp(NamedTuple):
    """How an annotation.json was when its masks were copied."""

    n_bytes: int
    mtime_ns: int
    crc: int


def stamp(path: Path) -> Stamp:
    stat = path.stat()
    return Stamp(stat.st_size, stat.st_mtime_ns, zlib.crc32(path.read_bytes()))


def index_path(data_dir: Path, split: str) -> Path:
    return Path(data_dir) / f"{split}_masks.index"


def write_index(path: Path, takes: Iterable[ProcessedTake], missing: list[str]) -> str:
    """Write the masks of `takes`, atomically, holding one take at a time; returns the identity of the index.

    `missing` are the takes of the split that have no annotation.json yet. Raises UserError for a malformed mask.
    """
    columns = {name: array("q") for name in TABLES}
    about: dict = {"takes": {}, "missing": missing, "tracks": []}
    with atomic_write(path, "wb") as file:
        for take in takes:
            about["takes"][take.uid] = stamp(take.folder / ANNOTATION)
            for object_name, cameras in take.masks.items():
                for camera, masks in cameras.items():
                    about["tracks"].append([take.uid, object_name, camera, len(columns["frame"]), len(masks)])
                    _append_track(file, columns, masks, f"{object_name!r} in {take.folder / camera}")
        columns["start"].append(file.tell())  # where the last mask ends
        for name, dtype in TABLES.items():
            file.write(bytes(-file.tell() % 8))
            about[name] = [file.tell(), len(columns[name])]
            file.write(np.asarray(columns[name], dtype).tobytes())
        text = json.dumps(about).encode()
        file.write(text + TRAILER.pack(file.tell(), len(text), MAGIC))
    return _identity(text)


def _append_track(file: IO[bytes], columns: dict[str, array], masks: dict[int, RLE], where: str) -> None:
    for frame, rle in sorted(masks.items()):
        try:
            area = mask_area(rle)
            height, width = rle["size"]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"mask of {where}, frame {frame}: {error}; run data/process_data.py on it again") from None
        row = (file.tell(), frame, area, height, width)
        for name, value in zip(TABLES, row, strict=True):
            columns[name].append(value)
        file.write(rle["counts"].encode())


def _identity(text: bytes) -> str:
    return f"{zlib.crc32(text):08x}"  # the JSON holds the checksum of every annotation.json


class MaskIndex:
    """An open index. `frame`, `area` (pixels), `height`, `width` are int32 arrays with a value a row, memory-mapped.

    `tracks[take_uid, object_name, camera]` is the track's range of rows. Processes that inherit it by fork share it.
    """

    def __init__(self, path: Path) -> None:
        """Raises FileNotFoundError, or ValueError if the file is not a whole index."""
        self.path = Path(path)
        self._file = self.path.open("rb", buffering=0)
        size = self.path.stat().st_size
        offset, length, magic = TRAILER.unpack(
            os.pread(self._file.fileno(), TRAILER.size, max(0, size - TRAILER.size)).ljust(TRAILER.size)
        )
        if magic != MAGIC or offset + length + TRAILER.size != size:
            raise ValueError("it is not a whole mask index of this version")
        text = os.pread(self._file.fileno(), length, offset)
        about = json.loads(text)
        self.identity = _identity(text)
        self.stamps = {uid: Stamp(*values) for uid, values in about["takes"].items()}
        self.missing: list[str] = about["missing"]
        self.tracks = {
            (uid, object_name, camera): range(first, first + count)
            for uid, object_name, camera, first, count in about["tracks"]
        }
        self._objects: dict[str, list[str]] = {}
        for uid, object_name in dict.fromkeys((uid, name) for uid, name, _ in self.tracks):
            self._objects.setdefault(uid, []).append(object_name)
        whole = np.memmap(self._file, np.uint8, "r")
        for name, dtype in TABLES.items():
            first, count = about[name]
            setattr(self, name, whole[first : first + count * np.dtype(dtype).itemsize].view(dtype).view(np.ndarray))

    def __len__(self) -> int:
        return len(self.frame)

    def rle(self, row: int) -> RLE:
        # Read, not mapped: a mapping would count every mask ever looked at as memory of each loader worker.
        start, stop = int(self.start[row]), int(self.start[row + 1])
        counts = os.pread(self._file.fileno(), stop - start, start).decode()
        return {"size": [int(self.height[row]), int(self.width[row])], "counts": counts}

    def find(self, take_uid: str, object_name: str, camera: str, frames: np.ndarray) -> np.ndarray:
        """Rows of a track's masks at `frames` (N,) -> (N,) int32, -1 where there is none."""
        rows = self.tracks.get((take_uid, object_name, camera), range(0))
        if not rows:
            return np.full(len(frames), -1, np.int32)
        known = self.frame[rows.start : rows.stop]
        at = np.minimum(np.searchsorted(known, frames), len(known) - 1)
        return np.where(known[at] == frames, rows.start + at, -1).astype(np.int32)

    def masks_at(self, take_uid: str, camera: str, frame: int) -> dict[str, RLE]:
        """All objects with a mask in a frame, by name."""
        frames = np.array([frame], np.int32)
        found = {name: self.find(take_uid, name, camera, frames)[0] for name in self._objects.get(take_uid, ())}
        return {name: self.rle(row) for name, row in found.items() if row >= 0}

    def stale(self, data_dir: Path) -> str | None:
        """Why the index does not tell what the annotation files say now; None if it does.

        Looks at size and time of each take's file, and at the contents where only the time differs (a copied data set).
        """
        for uid, known in self.stamps.items():
            path = Path(data_dir) / uid / ANNOTATION
            try:
                stat = path.stat()
            except FileNotFoundError:
                return f"{path} is gone"
            if stat.st_size != known.n_bytes or (stat.st_mtime_ns != known.mtime_ns and stamp(path).crc != known.crc):
                return f"{path} has changed"
        for uid in self.missing:
            if (Path(data_dir) / uid / ANNOTATION).exists():
                return f"take {uid} has been processed"
        return None
