"""The pairs of a split in both settings, with their masks, in files that training opens without reading them all.

data/create_pairs.py writes them from the annotation.json files, which stay the data; this copy is fast to read:

    <data_dir>/{split}_pairs.json               the takes, the tracks, and which folder holds the arrays:
    <data_dir>/{split}_pairs_<run>/masks.npy    a row for each mask: place in counts.txt, frame, height, width
                                  /counts.txt   the run lengths of all masks, one after the other
                                  /ego-exo.npy  a row for each pair: rows of its query and its target mask, or -1
                                  /exo-ego.npy

Each run writes a folder of its own and names it in the JSON file last, so files of two runs are never mixed.
"""

import itertools
import os
import secrets
import shlex
import shutil
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from common.arguments import SETTINGS
from common.errors import MALFORMED, UserError
from common.files import (
    is_file_name,
    named_errors,
    only_one,
    open_file,
    read_file,
    read_json,
    remove_leftovers,
    sync_files,
    write_json,
)
from formats.masks import MAX_ASPECT, MAX_SIDE, RLE, check_rle
from formats.processed import ANNOTATION, ProcessedTake, is_processed

VERSION = 1
BOTH = "both"  # instead of a setting: the pairs of ego-exo, then those of exo-ego
MASK = np.dtype([("start", "<i8"), ("length", "<i4"), ("frame", "<i4"), ("height", "<i4"), ("width", "<i4")])
MASKS, COUNTS = "masks.npy", "counts.txt"
Annotated = Mapping[tuple[str, str, str], frozenset[int]]  # frames looked at, by take uid, object, camera


class Pair(NamedTuple):
    """One question: an object's mask in the query camera is given, the one in the target camera is sought."""

    take_uid: str
    object_name: str
    query_camera: str
    target_camera: str
    frame: int


class PairTrack(NamedTuple):
    """All pairs of an object and two cameras: their numbers, in the order of their frames."""

    take_uid: str
    object_name: str
    query_camera: str
    target_camera: str
    numbers: range


def pairs_path(data_dir: Path, split: str) -> Path:
    return Path(data_dir) / f"{split}_pairs.json"


def write_pairs(
    data_dir: Path, split: str, uids: Iterable[str], missing: list[str], annotated: Annotated | None = None
) -> tuple[dict[str, int], dict[str, str]]:
    """Write the pairs of the takes `uids` and their masks, holding one take at a time.

    A pair is a frame with a query mask; with `annotated`, only one that was looked at in the target camera. `missing`
    are the takes of the split that are not processed yet. Returns how many pairs there are by setting, and what is
    wrong with malformed takes, which are left out.
    """
    path = pairs_path(data_dir, split)
    with only_one(path.with_name(f".{path.stem}.lock"), f"lists the pairs of {split}"):
        remove_leftovers(path.parent, path.name)
        folder = path.with_name(f"{path.stem}_{secrets.token_hex(4)}")
        folder.mkdir()
        try:
            with named_errors(folder):
                about, malformed = _write_arrays(folder, data_dir, uids, annotated)
            write_json(path, {"version": VERSION, "arrays": folder.name, "missing": missing} | about)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        # Folders of former and of killed runs go; processes that have their files open can still read them.
        for other in path.parent.glob(f"{path.stem}_{'[0-9a-f]' * 8}"):
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)
    counts = {setting: sum(track[-1] for track in tracks) for setting, tracks in about["tracks"].items()}
    return counts, malformed


def _write_arrays(
    folder: Path, data_dir: Path, uids: Iterable[str], annotated: Annotated | None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Write the arrays; returns the takes and tracks for the pairs file, and what is wrong with malformed takes."""
    stamps: dict[str, list[int | None]] = {}
    malformed: dict[str, str] = {}
    masks = [np.empty(0, MASK)]
    tracks: dict[str, list[tuple]] = {setting: [] for setting in SETTINGS}
    rows = {setting: array("i") for setting in SETTINGS}
    with (folder / COUNTS).open("w", encoding="ascii") as counts:
        for uid in uids:
            stamps[uid] = _stamp(Path(data_dir) / uid / ANNOTATION)  # first: a change in between is noticed later
            try:
                take = ProcessedTake.read(data_dir, uid)
                row_of = _copy_masks(take, counts, masks)
            except UserError as error:
                malformed[uid] = str(error)
                continue
            for setting in SETTINGS:
                for name, query, target in take.camera_pairs(setting):
                    query_rows, target_rows = row_of[name, query], row_of[name, target]
                    looked_at = query_rows.keys() if annotated is None else annotated.get((uid, name, target), ())
                    frames = [frame for frame in query_rows if frame in looked_at]
                    for frame in frames:
                        rows[setting].extend((query_rows[frame], target_rows.get(frame, -1)))
                    tracks[setting].append((uid, name, query, target, len(frames)))
    np.save(folder / MASKS, np.concatenate(masks))
    for setting in SETTINGS:
        np.save(folder / f"{setting}.npy", np.array(rows[setting], np.int32).reshape(-1, 2))
    sync_files(folder.iterdir())
    return {"only_annotated": annotated is not None, "takes": stamps, "tracks": tracks}, malformed


def _copy_masks(take: ProcessedTake, counts: IO[str], masks: list[np.ndarray]) -> dict[tuple[str, str], dict[int, int]]:
    """Append a take's masks; returns the row of each, by object and camera and then by ascending frame.

    Raises UserError, and appends nothing, if one is malformed.
    """
    row, at = sum(map(len, masks)), counts.tell()
    found, texts, row_of = [], [], {}
    for object_name, cameras in take.masks.items():
        for camera, rles in cameras.items():
            row_of[object_name, camera] = rows = {}
            for frame, rle in sorted(rles.items()):
                try:
                    height, width, text = check_rle(rle)
                except ValueError as error:
                    where = f"mask of {object_name!r} in {take.folder / camera}, frame {frame}"
                    raise UserError(f"{where}: {error}; run data/process_data.py on it again") from None
                rows[frame] = row + len(found)
                found.append((at, len(text), frame, height, width))
                texts.append(text)
                at += len(text)
    counts.write("".join(texts))
    masks.append(np.array(found, MASK))
    return row_of


def _stamp(path: Path) -> list[int | None]:
    """The present state of an annotation.json: bytes, time of change in ns, checksum; None if it cannot be read."""
    try:
        stat = path.stat()
        return [stat.st_size, stat.st_mtime_ns, zlib.crc32(read_file(path))]
    except OSError:
        return [None, None, None]


def _map_array(path: Path, dtype: np.dtype, *columns: int) -> np.ndarray:
    """The array (N, *columns) of `dtype` in a file, which is not read yet. Raises ValueError if it is another one."""
    try:
        open_file(path).close()  # numpy would wait at a pipe
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # numpy reads the header as Python text, which can fail in any way
        raise ValueError(f"{path} is not an array ({type(error).__name__})") from None
    plain = isinstance(array, np.memmap) and array.flags.c_contiguous  # not several arrays, not in Fortran's order
    if not plain or array.dtype != dtype or not array.ndim or array.shape[1:] != columns:
        raise ValueError(f"{path} is another array than expected")
    return np.asarray(array)


class PairSet:
    """The pairs of a split and setting, numbered 0 to len - 1, those of a take in a row.

    `tracks` lists them by take, object and cameras. Arrays and masks stay in their files; cheap to send to loader
    processes, which open the same files.
    """

    def __init__(self, data_dir: Path, split: str, setting: str, arrays: str | None = None) -> None:
        """Use `PairSet.open`, which checks more. `arrays` is the folder that the parent process of a loader uses."""
        self.data_dir, self.split, self.setting = Path(data_dir), split, setting
        self._settings = SETTINGS if setting == BOTH else (setting,)
        self._path = pairs_path(data_dir, split)
        self._remedy = f"run `python data/create_pairs.py --data_dir {shlex.quote(str(data_dir))} --split {split}`"
        about = read_json(self._path, self._remedy)
        try:
            self._read_tracks(about)
            self._map_arrays(about["arrays"])
            if arrays is None:
                self._check_arrays()
        except (*MALFORMED, OSError) as error:
            raise UserError(f"{self._path} cannot be used ({type(error).__name__}: {error}); {self._remedy}") from None
        if arrays not in (None, self._folder.name):
            raise UserError(f"{self._path} was replaced while it was in use; start again")

    def _read_tracks(self, about: Any) -> None:
        if about["version"] != VERSION:
            raise ValueError(f"version {about['version']!r:.40}, not {VERSION}")
        self.only_annotated: bool = about["only_annotated"]
        self._stamps, self._missing = about["takes"], about["missing"]
        if not isinstance(self.only_annotated, bool) or not isinstance(self._missing, list):
            raise ValueError("only_annotated is not true or false, or missing is not a list")
        if not all(isinstance(stamp, list) and len(stamp) == 3 for stamp in self._stamps.values()):
            raise ValueError("takes are not listed with size, time and checksum")
        self.tracks: list[PairTrack] = []
        end = 0
        for uid, object_name, *cameras, count in itertools.chain(*(about["tracks"][name] for name in self._settings)):
            if not isinstance(object_name, str) or type(count) is not int or count < 0:
                raise ValueError(f"object {object_name!r:.40} of take {uid!r:.40} has {count!r:.40} pairs")
            self.tracks.append(PairTrack(uid, object_name, *cameras, range(end, end + count)))
            end += count
        self._starts = [track.numbers.start for track in self.tracks]
        uids = {track.take_uid for track in self.tracks}
        names = uids.union(*((track.query_camera, track.target_camera) for track in self.tracks))
        if odd := [name for name in (*self._stamps, *self._missing, *names) if not is_file_name(name)]:
            raise ValueError(f"{odd[0]!r:.40} cannot be the name of a take or a camera")
        if unlisted := uids - self._stamps.keys():
            raise ValueError(f"take {min(unlisted)} has pairs but is not listed")

    def _map_arrays(self, folder: str) -> None:
        if not is_file_name(folder):
            raise ValueError(f"{folder!r:.40} cannot be the name of a folder")
        self._folder = self._path.with_name(folder)
        self._masks = _map_array(self._folder / MASKS, MASK)
        rows = [_map_array(self._folder / f"{setting}.npy", np.dtype(np.int32), 2) for setting in self._settings]
        self._rows = rows[0] if len(rows) == 1 else np.concatenate(rows)
        self._counts = open_file(self._folder / COUNTS, buffering=0)
        count = self.tracks[-1].numbers.stop if self.tracks else 0
        if len(self._rows) != count:
            raise ValueError(f"the tracks have {count} pairs, the arrays in {self._folder} {len(self._rows)}")

    def _check_arrays(self) -> None:
        """Raises ValueError if the arrays do not fit together. Damaged ones could show masks of other objects."""
        masks, rows, frames = self._masks, self._rows, self._masks["frame"]
        ends = masks["start"] + masks["length"]
        n_bytes = os.fstat(self._counts.fileno()).st_size
        # Each mask starts where the one before ends, the first at 0; the last one ends with the file.
        if (np.append(masks["start"], n_bytes) != np.append(0, ends)).any() or (masks["length"] < 1).any():
            raise ValueError(f"{MASKS} and {COUNTS} in {self._folder} do not fit together")
        short, long = np.minimum(masks["height"], masks["width"]), np.maximum(masks["height"], masks["width"])
        if short.min(initial=1) < 1 or long.max(initial=1) > MAX_SIDE or (long > MAX_ASPECT * short).any():
            raise ValueError(f"{MASKS} in {self._folder} has sizes that no picture has")
        query_rows, target_rows = rows.T
        if min(query_rows.min(initial=0), target_rows.min(initial=0) + 1) < 0 or rows.max(initial=-1) >= len(masks):
            raise ValueError(f"the pairs in {self._folder} are of masks that do not exist")
        visible = target_rows >= 0
        if (frames[query_rows[visible]] != frames[target_rows[visible]]).any():
            raise ValueError(f"the pairs in {self._folder} are of masks of different frames")
        # An object's masks in a camera lie one after the other, in the order of their frames.
        track_numbers = np.repeat(np.arange(len(self.tracks)), [len(track.numbers) for track in self.tracks])
        for column in (query_rows, target_rows):
            own_track = np.diff(track_numbers[column >= 0]) == 0
            if (own_track & (np.diff(column[column >= 0]) <= 0)).any():
                raise ValueError(f"the pairs in {self._folder} are not in the order of their frames")

    @classmethod
    def open(cls, data_dir: Path, split: str, setting: str) -> "PairSet":
        """`setting` may be BOTH. Raises UserError with the remedy if there are no pairs or a file is missing, malformed
        or out of date.
        """
        pairs = cls(data_dir, split, setting)
        if reason := pairs._out_of_date():
            raise UserError(f"{pairs._path} is out of date: {reason}; {pairs._remedy}")
        if not len(pairs):
            raise UserError(f"{pairs._path} has no pairs; process more takes, then {pairs._remedy}")
        return pairs

    def _out_of_date(self) -> str | None:
        """Why the pairs do not fit the annotation files any more, None if they do.

        Files of another time but the same size, as in a copied data set, are compared by their contents.
        """
        for uid, (n_bytes, mtime_ns, checksum) in self._stamps.items():
            path = self.data_dir / uid / ANNOTATION
            try:
                stat = path.stat()
                same = (stat.st_size, stat.st_mtime_ns) == (n_bytes, mtime_ns)
            except FileNotFoundError:
                return f"{path} is gone"
            except OSError:
                same = False
            if not same and _stamp(path)[::2] != [n_bytes, checksum]:
                return f"{path} has changed"
        for uid in self._missing:
            if is_processed(self.data_dir, uid):
                return f"take {uid} has been processed"
        return None

    def __reduce__(self) -> tuple:
        return PairSet, (self.data_dir, self.split, self.setting, self._folder.name)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: int) -> Pair:
        return Pair(*self.track(i)[:4], int(self._masks[self._rows[i, 0]]["frame"]))

    def camera_folder(self, take_uid: str, camera: str) -> Path:
        return self.data_dir / take_uid / camera

    def track(self, i: int) -> PairTrack:
        """The track of a pair. Its other numbers are other frames of the same object and cameras."""
        return self.tracks[bisect_right(self._starts, i) - 1]

    def query_mask(self, i: int) -> RLE:
        return self._mask(self._rows[i, 0])

    def target_mask(self, i: int) -> RLE | None:
        """None: the object has no mask in the target view, a natural negative."""
        return self._mask(self._rows[i, 1]) if self._rows[i, 1] >= 0 else None

    def _mask(self, row: int) -> RLE:
        # Read, not mapped: a mapping would count every mask ever looked at as memory of each loader worker.
        start, length, _, height, width = self._masks[row].tolist()
        return {"size": [height, width], "counts": os.pread(self._counts.fileno(), length, start).decode()}

    def views(self) -> Iterator[tuple[PairTrack, np.ndarray]]:
        """Each track with the frames (n,) of its pairs."""
        frames = self._masks["frame"][self._rows[:, 0]]
        for track in self.tracks:
            yield track, frames[track.numbers.start : track.numbers.stop]

    @property
    def visible(self) -> np.ndarray:
        """(N,) bool: the object is visible in the target view."""
        return self._rows[:, 1] >= 0

    @property
    def takes(self) -> list[str]:
        """The takes that have pairs, in the order of the pairs."""
        return list(dict.fromkeys(track.take_uid for track in self.tracks if track.numbers))


class JoinedPairs:
    """The pairs of several data sets in a row, for training: what it asks of a PairSet, it can ask of this."""

    def __init__(self, parts: list[PairSet]) -> None:
        """Raises UserError if a take is in two of them."""
        self.setting = parts[0].setting
        self._parts = parts
        self._starts = [0, *itertools.accumulate(map(len, parts))]
        self._part_of: dict[str, PairSet] = {}
        self.tracks: list[PairTrack] = []
        for part, start in zip(parts, self._starts[:-1], strict=True):
            for uid in part.takes:
                if uid in self._part_of:
                    raise UserError(f"take {uid} is in {self._part_of[uid].data_dir} and in {part.data_dir}; drop one")
                self._part_of[uid] = part
            for track in part.tracks:
                numbers = range(track.numbers.start + start, track.numbers.stop + start)
                self.tracks.append(track._replace(numbers=numbers))

    def _find(self, i: int) -> tuple[PairSet, int]:
        """The part that has pair `i`, and its number there."""
        part = bisect_right(self._starts, i) - 1
        return self._parts[part], i - self._starts[part]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, i: int) -> Pair:
        part, number = self._find(i)
        return part[number]

    def camera_folder(self, take_uid: str, camera: str) -> Path:
        return self._part_of[take_uid].camera_folder(take_uid, camera)

    def query_mask(self, i: int) -> RLE:
        part, number = self._find(i)
        return part.query_mask(number)

    def target_mask(self, i: int) -> RLE | None:
        part, number = self._find(i)
        return part.target_mask(number)

    def views(self) -> Iterator[tuple[PairTrack, np.ndarray]]:
        frames = (frames for part in self._parts for _, frames in part.views())
        return zip(self.tracks, frames, strict=True)

    @property
    def visible(self) -> np.ndarray:
        return np.concatenate([part.visible for part in self._parts])

    @property
    def takes(self) -> list[str]:
        return list(self._part_of)


Pairs = PairSet | JoinedPairs


def open_pairs(data_dirs: Iterable[Path], split: str, setting: str) -> Pairs:
    """The pairs of one data set or of several. Raises UserError as PairSet.open, or if a take is in two of them."""
    parts = [PairSet.open(data_dir, split, setting) for data_dir in data_dirs]
    return parts[0] if len(parts) == 1 else JoinedPairs(parts)
