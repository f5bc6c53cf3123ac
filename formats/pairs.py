"""The pairs of a split in both settings, with their masks, in one file that training opens at once.

data/create_pairs.py writes <data_dir>/{split}_pairs.npz from the annotation.json files, with these arrays:

    masks    a row of type MASK for each mask; the masks of an object in a camera are in the order of their frames
    counts   the run lengths of all masks, one after the other
    files    (2, F) int32: the frames that pairs need, camera by camera, ascending; and the bytes of their files
    ego-exo  a row for each pair of this setting: the rows in `masks` of its query mask and its target mask (or -1)
    exo-ego  the same for the other setting
    about    JSON: the takes with the state of their annotation.json, the takes of the split that are not processed
             yet, the split file if it is not the default one, the tracks by setting, the cameras with the numbers
             of their frames and the sizes of their videos
    digest   SHA-256 of the other arrays
"""

import functools
import hashlib
import json
import shlex
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common.arguments import SETTINGS
from common.errors import UserError
from common.files import atomic_write, claimed, file_digest
from formats.geometry import Size
from formats.masks import RLE
from formats.processed import ANNOTATION, Correspondence, ProcessedTake, frame_path, frames_in, is_processed, read_frame
from formats.takes import find_split_path, read_split, read_splits

BOTH = "both"  # used in place of a setting: the pairs of ego-exo, then the pairs of exo-ego
MASK = np.dtype([("start", "<i8"), ("length", "<i4"), ("frame", "<i4"), ("height", "<i4"), ("width", "<i4")])


class Pair(NamedTuple):
    """An object, a frame and two cameras: the query camera's mask is given, the target camera's mask is sought."""

    take_uid: str
    object_name: str
    query_camera: str
    target_camera: str
    frame: int
    setting: str  # a key of SETTINGS


class PairTrack(NamedTuple):
    """All pairs of an object and two cameras. `numbers` has the pairs' numbers in the PairSet, in the frames' order."""

    take_uid: str
    object_name: str
    query_camera: str
    target_camera: str
    numbers: range
    setting: str  # a key of SETTINGS


def pairs_path(data_dir: Path, split: str) -> Path:
    return data_dir / f"{split}_pairs.npz"


def write_pairs(
    data_dir: Path, splits_path: Path, split: str, uids: Iterable[str], missing: list[str]
) -> tuple[dict[str, int], dict[str, str]]:
    """Write the pairs of the takes `uids`, with their masks.

    Each frame with a query mask makes a pair. `missing` are the takes of the split in `splits_path` that are not
    processed yet. Returns the number of pairs by setting, and by uid the errors of malformed takes, which are left out.
    """
    path = pairs_path(data_dir, split)
    named_splits_path = None if splits_path == find_split_path(data_dir) else str(splits_path.absolute())
    with claimed(path.parent, path.name, f"lists the pairs of {split}"):
        annotation_states, malformed, masks, counts = {}, {}, [np.empty(0, MASK)], bytearray()
        tracks: dict[str, list[tuple]] = {setting: [] for setting in SETTINGS}
        cameras, frames, sizes = [], array("i"), array("i")
        rows = {setting: array("i") for setting in SETTINGS}
        for uid in uids:
            annotation = data_dir / uid / ANNOTATION
            annotation_states[uid] = annotation.stat().st_mtime_ns, file_digest(annotation)
            try:
                take = ProcessedTake.read(data_dir, uid)
            except UserError as error:
                malformed[uid] = str(error)
                continue
            row_of = _copy_masks(take, masks, counts)
            for camera, needed in take.needed_frames().items():
                paths = frames_in(take.folder / camera)
                frames.extend(sorted(needed))
                sizes.extend(paths[frame].stat().st_size if frame in paths else 0 for frame in sorted(needed))
                cameras.append((uid, camera, len(needed), take.video_size(camera)))
            for setting in SETTINGS:
                for name, query, target in take.correspondences(setting):
                    query_rows, target_rows = row_of[name, query], row_of[name, target]
                    for frame, row in query_rows.items():
                        rows[setting].extend((row, target_rows.get(frame, -1)))
                    tracks[setting].append((uid, name, query, target, len(query_rows)))
        about = {"takes": annotation_states, "missing": missing, "splits_path": named_splits_path}
        text = json.dumps(about | {"tracks": tracks, "cameras": cameras}).encode()
        arrays: dict[str, Any] = {setting: np.array(rows[setting], np.int32).reshape(-1, 2) for setting in SETTINGS}
        arrays |= {"masks": np.concatenate(masks), "counts": np.frombuffer(counts, np.uint8)}
        arrays |= {"files": np.array([frames, sizes], np.int32), "about": np.frombuffer(text, np.uint8)}
        with atomic_write(path, "wb") as file:
            np.savez(file, **arrays, digest=_digest(arrays))
    return {setting: len(arrays[setting]) for setting in SETTINGS}, malformed


def _copy_masks(
    take: ProcessedTake, masks: list[np.ndarray], counts: bytearray
) -> dict[tuple[str, str], dict[int, int]]:
    """Append a take's masks to `masks` and `counts`. Returns the rows of the new masks: for each object and camera, a
    dict from the frame, ascending, to the row.
    """
    first_row, new_masks, row_of = sum(map(len, masks)), [], {}
    for object_name, cameras in take.masks.items():
        for camera, rles in cameras.items():
            rows = row_of[object_name, camera] = {}
            for frame, rle in sorted(rles.items()):
                rows[frame] = first_row + len(new_masks)
                new_masks.append((len(counts), len(rle["counts"]), frame, *rle["size"]))
                counts += rle["counts"].encode()
    masks.append(np.array(new_masks, MASK))
    return row_of


def _read_pairs(data_dir: Path, split: str, settings: Sequence[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read the file of `write_pairs`: the content of `about`, and the other arrays.

    Raises UserError, with the remedy, if the file is missing, damaged, out of date or without pairs of `settings`.
    """
    path = pairs_path(data_dir, split)
    command = f"python data/create_pairs.py --data_dir {shlex.quote(str(data_dir))} --split {split}"
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        if arrays.pop("digest", np.empty(0)).tobytes() != _digest(arrays).tobytes():
            raise ValueError("damaged, or of another version")
        about = json.loads(arrays.pop("about").tobytes())
    except FileNotFoundError:
        read_split(find_split_path(data_dir), split)  # if the split has no takes, this raises an error that says so
        raise UserError(f"no file {path}; run `{command}`") from None
    except Exception as error:  # a damaged archive can make numpy raise any exception
        raise UserError(f"{path} cannot be used ({type(error).__name__}: {error}); run `{command}`") from None
    if named_splits_path := about.get("splits_path"):
        command += f" --splits_path {shlex.quote(named_splits_path)}"
    if reason := _out_of_date(data_dir, Path(named_splits_path or find_split_path(data_dir)), split, about):
        raise UserError(f"{path} is out of date: {reason}; run `{command}`")
    if not any(len(arrays[setting]) for setting in settings):
        raise UserError(f"{path} has no pairs; process more takes, then run `{command}`")
    return about, arrays


def _digest(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """SHA-256 of all arrays, types and shapes, (32,) uint8. If the digest is right, a file needs no other check."""
    digest = hashlib.sha256(b"pairs of version 2.6")
    for name, values in sorted(arrays.items()):
        digest.update(f"{name} {values.dtype.descr} {values.shape}".encode())
        digest.update(np.ascontiguousarray(values).view(np.uint8))  # pyrefly: ignore[bad-argument-type]
    return np.frombuffer(digest.digest(), np.uint8)


def _out_of_date(data_dir: Path, splits_path: Path, split: str, about: dict[str, Any]) -> str | None:
    """A text that says why the pairs do not fit the split or the annotation files any more; None if they fit.

    If a file's time has changed, as in a copied data set, its content is compared. The split file may be missing.
    """
    if splits_path.exists() and {*read_splits(splits_path).get(split, ())} != {*about["takes"], *about["missing"]}:
        return f"its takes are not the takes of {split} in {splits_path}"
    for uid, (mtime_ns, digest) in about["takes"].items():
        path = data_dir / uid / ANNOTATION
        if not path.exists():
            return f"{path} is gone"
        if path.stat().st_mtime_ns != mtime_ns and file_digest(path) != digest:
            return f"{path} has changed"
    for uid in about["missing"]:
        if is_processed(data_dir, uid):
            return f"take {uid} has been processed"
    return None


class PairSet:
    """The pairs of a split and setting, numbered 0 to len - 1, from one data set or from several, one after the other.

    `tracks` lists the pairs by take, object and cameras. `data_dir_of` maps each take that has pairs to the folder of
    its data set, in the order of the pairs. `frames` has the frame of each pair, (N,) int32. `cameras` has of each take
    and camera the frames that pairs need, ascending, and the bytes of their files, (2, n) int32, 0 if one is missing;
    and (H, W) of the camera's video and masks, None if it has no masks.
    """

    def __init__(self, data_dirs: Iterable[Path], split: str, setting: str) -> None:
        """`setting` may be BOTH. Raises UserError, with the remedy, if a data set has no pairs, if its file is missing,
        damaged or out of date, or if a take is in two data sets.
        """
        self.setting = setting
        self.tracks: list[PairTrack] = []
        self.data_dir_of: dict[str, Path] = {}
        self._numbers_of: dict[tuple[str, ...], range] = {}
        self.cameras: dict[tuple[str, str], tuple[np.ndarray, Size | None]] = {}
        settings = tuple(SETTINGS) if setting == BOTH else (setting,)
        masks, counts, rows = [], [], []
        num_pairs = 0
        for data_dir in data_dirs:
            about, arrays = _read_pairs(data_dir, split, settings)
            earlier_dir_of = self.data_dir_of.copy()
            for name in settings:
                for uid, object_name, query, target, count in about["tracks"][name]:
                    if count and uid in earlier_dir_of:
                        raise UserError(f"take {uid} is in {earlier_dir_of[uid]} and in {data_dir}; drop one")
                    numbers = range(num_pairs, num_pairs + count)
                    if count:
                        self.data_dir_of[uid] = data_dir
                        self._numbers_of[uid, object_name, query, target] = numbers
                    self.tracks.append(PairTrack(uid, object_name, query, target, numbers, name))
                    num_pairs += count
                rows.append(np.where(arrays[name] < 0, -1, arrays[name] + sum(map(len, masks))))
            end = 0
            for uid, camera, count, size in about["cameras"]:
                end += count
                self.cameras[uid, camera] = arrays["files"][:, end - count : end], size and tuple(size)
            arrays["masks"]["start"] += sum(map(len, counts))
            masks.append(arrays["masks"])
            counts.append(arrays["counts"])
        self._starts = [track.numbers.start for track in self.tracks]
        parts = rows, masks, counts
        self._rows, self._masks, self._counts = (x[0] if len(x) == 1 else np.concatenate(x) for x in parts)
        self.frames = self._masks["frame"][self._rows[:, 0]]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: int) -> Pair:
        track = self.track(i)
        return Pair(*track[:4], int(self.frames[i]), track.setting)

    def track(self, i: int) -> PairTrack:
        """The track that contains a pair; the track's other pairs are other frames of the same object and cameras."""
        return self.tracks[bisect_right(self._starts, i) - 1]

    def number(self, take_uid: str, pair: Correspondence, frame: int) -> int:
        """The number of the pair of this object, these cameras and this frame of a take."""
        numbers = self._numbers_of[(take_uid, *pair)]
        return numbers.start + int(np.searchsorted(self.frames[numbers.start : numbers.stop], frame))

    def view(self, take_uid: str, camera: str, frame: int) -> tuple[np.ndarray, Size | None]:
        """A frame, (H, W, 3) uint8 RGB, and the size of the camera's video. Raises UserError if the frame cannot be
        read, or if its file has not the size that is listed.
        """
        (frames, sizes), video_size = self.cameras[take_uid, camera]
        path = frame_path(self.data_dir_of[take_uid] / take_uid / camera, frame)
        return read_frame(path, int(sizes[np.searchsorted(frames, frame)])), video_size

    def given_mask(self, take_uid: str, pair: Correspondence, frame: int) -> RLE:
        return self.query_mask(self.number(take_uid, pair, frame))

    def query_mask(self, i: int) -> RLE:
        return self._mask(self._rows[i, 0])

    def target_mask(self, i: int) -> RLE | None:
        """The target mask of a pair; None if the object is hidden in the target view (a natural negative)."""
        return self._mask(self._rows[i, 1]) if self._rows[i, 1] >= 0 else None

    def _mask(self, row: int) -> RLE:
        start, length, _, height, width = self._masks[row].tolist()
        return {"size": [height, width], "counts": self._counts[start : start + length].tobytes().decode()}

    @functools.cached_property
    def by_target(self) -> dict[tuple[str, str], list[range]]:
        """For each take and target camera, the numbers of each track that has pairs."""
        numbers: dict[tuple[str, str], list[range]] = {}
        for track in self.tracks:
            if track.numbers:
                numbers.setdefault((track.take_uid, track.target_camera), []).append(track.numbers)
        return numbers

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the pairs, their masks and the sizes of their frames' files, hexadecimal, which does not depend on
        when files were written.
        """
        arrays = {"rows": self._rows, "masks": self._masks, "counts": self._counts}
        arrays["files"] = np.concatenate([files for files, _ in self.cameras.values()], 1)
        names = repr((self.tracks, [(*key, files.shape, size) for key, (files, size) in self.cameras.items()])).encode()
        return _digest(arrays | {"names": np.frombuffer(names, np.uint8)}).tobytes().hex()

    @functools.cached_property
    def visible(self) -> np.ndarray:
        """(N,) bool, for each pair: True if the object is visible in the target view."""
        return self._rows[:, 1] >= 0
