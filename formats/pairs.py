"""The pairs of a split and setting, and their masks: what training draws from.

`<data_dir>/{split}_{egoexo,exoego}_pairs.json`, written by create_pairs.py together with the split's mask index:

    {"version": 1, "setting": "ego-exo", "only_annotated": false, "index": "0a1b2c3d", "tracks": [
        {"take_uid": str, "object": str, "query_camera": str, "target_camera": str, "frames": [0, 30, ...]}, ...]}

A pair is one frame of a track; its target mask may be missing (a natural negative).
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from formats.errors import UserError
from formats.files import atomic_write, read_json
from formats.mask_index import MaskIndex, index_path
from formats.masks import RLE

VERSION = 1


class Pair(NamedTuple):
    """One question: an object's mask in the query camera is given, the one in the target camera is sought."""

    take_uid: str
    object_name: str
    query_camera: str
    target_camera: str
    frame: int


class PairTrack(NamedTuple):
    """All pairs of an object and two cameras; `frames` ascend."""

    take_uid: str
    object_name: str
    query_camera: str
    target_camera: str
    frames: list[int]


def pairs_path(data_dir: Path, split: str, setting: str) -> Path:
    return Path(data_dir) / f"{split}_{setting.replace('-', '')}_pairs.json"


def write_pairs(path: Path, setting: str, only_annotated: bool, index_identity: str, tracks: list[PairTrack]) -> None:
    """Write a pairs file, atomically, a line a track."""
    about = {"version": VERSION, "setting": setting, "only_annotated": only_annotated, "index": index_identity}
    with atomic_write(path) as file:
        file.write(json.dumps(about)[:-1] + ', "tracks": [\n')
        for number, (take_uid, object_name, query_camera, target_camera, frames) in enumerate(tracks):
            row = {
                "take_uid": take_uid,
                "object": object_name,
                "query_camera": query_camera,
                "target_camera": target_camera,
                "frames": frames,
            }
            file.write((",\n" if number else "") + json.dumps(row))
        file.write("\n]}\n")


def write_legacy_pairs(path: Path, data_dir: Path, tracks: list[PairTrack]) -> None:
    """Write the pairs as the reference implementation does: a JSON list of four paths a pair.

    Query frame, query mask, target frame, target mask; each joined with double slashes:
    `data_dir//take_uid//camera//object//rgb//frame` and `...//mask//frame`. The target mask's path is written for
    natural negatives too. At full size such a file takes hundreds of megabytes.
    """
    with atomic_write(path) as file:
        file.write("[")
        separator = "\n"
        for take_uid, object_name, query_camera, target_camera, frames in tracks:
            folders = [f"{data_dir}//{take_uid}//{camera}//{object_name}" for camera in (query_camera, target_camera)]
            for frame in frames:
                paths = [f"{folder}//{kind}//{frame}" for folder in folders for kind in ("rgb", "mask")]
                file.write(separator + json.dumps(paths))
                separator = ",\n"
        file.write("\n]\n")


def read_pairs(path: Path, remedy: str) -> tuple[dict[str, Any], list[PairTrack]]:
    """A pairs file -> (what it says of itself, tracks). Raises UserError if it is missing or malformed."""
    raw = read_json(path, remedy)
    if isinstance(raw, list):
        raise UserError(f"{path} is in the reference's format of paths, which training does not read; {remedy}")
    try:
        if raw["version"] != VERSION:
            raise ValueError(f"version {raw['version']}, not {VERSION}")
        tracks = [_parse_track(row) for row in raw.pop("tracks")]
        return {"only_annotated": bool(raw["only_annotated"]), "index": raw["index"]}, tracks
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is malformed ({type(error).__name__}: {error}); {remedy}") from None


def _parse_track(row: dict[str, Any]) -> PairTrack:
    names = (row["take_uid"], row["object"], row["query_camera"], row["target_camera"])
    return PairTrack(*names, [int(frame) for frame in row["frames"]])


class PairSet:
    """The pairs of a split and setting, numbered 0 to len - 1, those of a take in a row.

    Holds 12 bytes a pair; masks stay in the index file. Cheap to send to loader processes: forked ones share the
    arrays, spawned ones open the files again.
    """

    def __init__(self, data_dir: Path, split: str, setting: str, check: bool = True) -> None:
        """Use `PairSet.open`. `check` = False trusts that the files fit together and to the annotation files."""
        self.data_dir, self.split, self.setting = Path(data_dir), split, setting
        remedy = f"run `python data/create_pairs.py --data_dir {data_dir} --split {split}`"
        about, self.tracks = read_pairs(pairs_path(data_dir, split, setting), remedy)
        self.only_annotated: bool = about["only_annotated"]
        self._index = _open_index(index_path(data_dir, split), remedy)
        if check and about["index"] != self._index.identity:
            raise UserError(f"the {setting} pairs and {self._index.path} are of different runs; {remedy}")
        if check and (reason := self._index.stale(data_dir)):
            raise UserError(f"{self._index.path} is out of date: {reason}; {remedy}")
        if not any(track.frames for track in self.tracks):
            raise UserError(f"{pairs_path(data_dir, split, setting)} has no pairs; process more takes, then {remedy}")
        lengths = [len(track.frames) for track in self.tracks]
        self._uids = np.array([track.take_uid for track in self.tracks])
        self._names = np.array([track.object_name for track in self.tracks])
        self._track = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
        self._query_row, self._target_row = self._find_rows(remedy)

    @classmethod
    def open(cls, data_dir: Path, split: str, setting: str) -> "PairSet":
        """Open the pairs of `<data_dir>`. Raises UserError with the remedy if a file is missing, malformed or stale."""
        return cls(data_dir, split, setting)

    def __reduce__(self) -> tuple:
        return PairSet, (self.data_dir, self.split, self.setting, False)

    def _find_rows(self, remedy: str) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the query and target masks in the index, int32; -1 where the target has none."""
        query_rows, target_rows = [], []
        for track in self.tracks:
            frames = np.asarray(track.frames, np.int32)
            query, target = (
                self._index.find(track.take_uid, track.object_name, camera, frames)
                for camera in (track.query_camera, track.target_camera)
            )
            if (query < 0).any():
                raise UserError(
                    f"{self._index.path} lacks masks of {track.object_name!r} in take {track.take_uid}; {remedy}"
                )
            query_rows.append(query)
            target_rows.append(target)
        return np.concatenate(query_rows), np.concatenate(target_rows)

    def __len__(self) -> int:
        return len(self._track)

    def __getitem__(self, i: int) -> Pair:
        return Pair(*self.tracks[self._track[i]][:4], int(self._index.frame[self._query_row[i]]))

    def query_mask(self, i: int) -> RLE:
        return self._index.rle(self._query_row[i])

    def target_mask(self, i: int) -> RLE | None:
        """None: the object has no mask in the target view, a natural negative."""
        return self._index.rle(self._target_row[i]) if self._target_row[i] >= 0 else None

    @property
    def positive(self) -> np.ndarray:
        """(N,) bool: the target has a mask."""
        return self._target_row >= 0

    def object_sizes(self) -> tuple[np.ndarray, np.ndarray]:
        """Which part of the image each query and each target mask covers: two (N,) float32 in 0..1, 0 for negatives."""
        share = self._index.area / (self._index.height.astype(np.int64) * self._index.width)
        query, target = share[self._query_row], np.where(self.positive, share[self._target_row], 0)
        return query.astype(np.float32), target.astype(np.float32)

    @property
    def takes(self) -> list[str]:
        """The takes that have pairs, in the order of the pairs."""
        return list(dict.fromkeys(track.take_uid for track in self.tracks if track.frames))

    def pairs_of_take(self, take_uid: str) -> range:
        """Numbers of the pairs of a take."""
        numbers = np.flatnonzero((self._uids == take_uid)[self._track])
        return range(int(numbers[0]), int(numbers[-1]) + 1) if len(numbers) else range(0)

    def masks_at(self, take_uid: str, camera: str, frame: int) -> dict[str, RLE]:
        """All objects with a mask in a frame, by name."""
        return self._index.masks_at(take_uid, camera, frame)

    def unrelated(self, i: int, rng: np.random.Generator) -> Pair | None:
        """A random pair of another take and another object name, whose target frame serves as a synthetic negative.

        Uniform among all such pairs; None if there is none (as with a single take).
        """
        uid, object_name = self[i][:2]
        numbers = np.flatnonzero(((self._uids != uid) & (self._names != object_name))[self._track])
        return self[int(rng.choice(numbers))] if len(numbers) else None

    def __iter__(self) -> Iterator[Pair]:
        return (self[i] for i in range(len(self)))


def _open_index(path: Path, remedy: str) -> MaskIndex:
    try:
        return MaskIndex(path)
    except FileNotFoundError:
        raise UserError(f"no file {path}; {remedy}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}); {remedy}") from None
