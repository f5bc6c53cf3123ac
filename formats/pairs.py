"""The pairs of a split: a table with a row for each pair, and the store of what its rows name by number.

    pairs = open_pairs([data_dir], "val", "ego-exo")
    pairs.named(0)                           # Pair(take_uid="0f...", object_name="cup_0", query_camera="aria01", ...)
    pairs[pairs.visible]                     # the rows whose object is visible in the target
    pairs.groups("take", "frame")            # the numbers of the rows of each moment

formats/pairs_file.py has the form in which data/create_pairs.py writes them.
"""

import functools
import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common.constants import SETTINGS
from common.errors import UserError
from common.files import json_digest
from formats.frame_files import frame_path
from formats.masks import RLE
from formats.pairs_file import (
    CameraFrames,
    PairsFile,
    digest_of,
    find_replaced,
    frames_by_camera,
    open_listing,
    shifted,
)
from formats.processed import ANNOTATION, SOURCE, read_frame
from formats.takes import camera_kind, camera_pairs

BOTH = "both"  # used in place of a setting: the pairs of ego-exo, then the pairs of exo-ego


class Pair(NamedTuple):
    """A row by its names: the query camera's mask is given, the target camera's mask is sought."""

    take_uid: str
    object_name: str
    query_camera: str
    target_camera: str
    frame: int


@dataclass(frozen=True)
class Store:
    """What rows name by number: takes, objects and cameras by name, masks, and pictures, which lie in files."""

    takes: list[str]  # uids; the takes of a data set are in the order of its split
    folders: list[Path]  # of the takes
    states: list[str]  # SHA-256 of the annotation.json of each take
    objects: list[str]
    cameras: list[str]
    masks: np.ndarray  # this array and the next ones are as formats/pairs_file.py says
    counts: np.ndarray
    tracks: np.ndarray
    files: np.ndarray
    views: np.ndarray
    contents: list[list]  # of each take: the names of its objects, also of those without cameras, and its subsample_idx
    left_out: dict[str, str]  # uids of the splits whose takes cannot be read, with the reasons

    def mask(self, row: int) -> RLE:
        start, length, _, height, width = self.masks[row].tolist()
        return {"size": [height, width], "counts": self.counts[start : start + length].tobytes().decode()}

    def kind(self, camera: int) -> str:
        return camera_kind(self.cameras[camera])

    def image(self, take: int, camera: int, frame: int) -> np.ndarray:
        """A frame, (H, W, 3) uint8 RGB. Raises UserError if it cannot be read, or if its file has another size than
        when the pairs were listed.
        """
        view, path = self.pictures[take][camera], frame_path(self.folders[take] / self.cameras[camera], frame)
        return read_frame(path, int(view.sizes[np.searchsorted(view.frames, frame)]))

    def compare_frames(self, takes: Iterable[int]) -> None:
        """Raise UserError, with the remedy, if a frame of these takes has another size in bytes than was listed. The
        disk is asked for each frame that is not packed.
        """
        pictures = {self.folders[take]: self.pictures.get(take, {}) for take in takes}
        if replaced := find_replaced(pictures, self.cameras):
            raise UserError(f"{replaced}; run data/create_pairs.py again")

    def digest(self, take: int) -> str:
        """SHA-256 of a take's annotation.json and source.json, and of the names and sizes of its frames."""
        source = self.folders[take] / SOURCE
        views = self.pictures.get(take, {}).items()
        views = [(self.cameras[camera], x.frames.tolist(), x.sizes.tolist()) for camera, x in views]
        return json_digest([self.states[take], source.read_text() if source.exists() else "", sorted(views)])

    @functools.cached_property
    def pictures(self) -> dict[int, dict[int, CameraFrames]]:
        """Those of each take, by camera."""
        return frames_by_camera(self.views, self.files)

    @functools.cached_property
    def tracks_of_masks(self) -> np.ndarray:
        """(3, masks) int32: the take, the object and the camera of each mask."""
        return np.repeat(self.tracks[:, :3], self.tracks[:, 3], 0).T

    @functools.cached_property
    def is_ego(self) -> np.ndarray:
        """(cameras,) bool."""
        return np.array([camera_kind(name) == "ego" for name in self.cameras], bool)


@dataclass(frozen=True)
class Pairs:
    """N pairs: in each, an object's mask is given in a query camera and sought in a target camera, at a moment.

    Each column is an array (N,), int32 unless it says otherwise. `pairs[rows]` has the rows of a slice, a mask or an
    array of numbers. Pairs are sorted by take, object, cameras and frame, in this order.
    """

    store: Store
    take: np.ndarray  # numbers of names in the store
    object: np.ndarray
    query: np.ndarray
    target: np.ndarray
    frame: np.ndarray  # 0-based position in the 30 fps video
    given: np.ndarray  # rows of the store's masks: that of the object in the query view
    sought: np.ndarray  # and in the target view; -1 if the object is hidden there (a natural negative)

    def __len__(self) -> int:
        return len(self.take)

    def __getitem__(self, rows: Any) -> "Pairs":
        return replace(self, **{name: column[rows] for name, column in self.columns().items()})

    def columns(self) -> dict[str, np.ndarray]:
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "store"}

    def named(self, row: int) -> Pair:
        store = self.store
        objects = store.objects[self.object[row]], store.cameras[self.query[row]], store.cameras[self.target[row]]
        return Pair(store.takes[self.take[row]], *objects, int(self.frame[row]))

    @functools.cached_property
    def visible(self) -> np.ndarray:
        """(N,) bool: True if the object is visible in the target view."""
        return self.sought >= 0

    def query_mask(self, row: int) -> RLE:
        return self.store.mask(self.given[row])

    def target_mask(self, row: int) -> RLE | None:
        """None if the object is hidden in the target view."""
        return self.store.mask(self.sought[row]) if self.visible[row] else None

    def query_image(self, row: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB. Raises UserError if it cannot be read."""
        return self.store.image(int(self.take[row]), int(self.query[row]), int(self.frame[row]))

    def target_image(self, row: int) -> np.ndarray:
        return self.store.image(int(self.take[row]), int(self.target[row]), int(self.frame[row]))

    def is_of(self, setting: str) -> np.ndarray:
        """(N,) bool"""
        return self.store.is_ego[self.query] == (SETTINGS[setting][0] == "ego")

    def check_sets(self, data_dirs: Iterable[Path], split: str) -> None:
        """Raise UserError if one of these data sets has none of the pairs, which are of this split."""
        store, used = self.store, {self.store.folders[take].parent for take in np.unique(self.take)}
        for folder in (folder for folder in data_dirs if folder not in used):
            reason = "no object in it has masks of a head-worn camera (its name begins with aria) and of another camera"
            if not any(take.parent == folder for take in store.folders):
                reason = next(iter(store.left_out.values()))
            raise UserError(f"{folder} has no pairs of {split}: {reason}")

    def of_setting(self, setting: str) -> "Pairs":
        return self[self.is_of(setting)]

    def of_take(self, take: int) -> "Pairs":
        """The pairs of a take, with a store of this take alone, which is small enough to be sent to a process."""
        store = self.store
        first, stop = np.searchsorted(store.tracks_of_masks[0], [take, take + 1]).tolist()
        masks = store.masks[first:stop]
        begin = int(masks["start"][0]) if len(masks) else 0
        of_files = np.repeat(store.views[:, 0] == take, store.views[:, 2])
        alone = replace(
            store,
            masks=shifted(masks, -begin),
            counts=store.counts[begin : begin + int(masks["length"].sum())],
            tracks=store.tracks[store.tracks[:, 0] == take],
            files=store.files[:, of_files],
            views=store.views[store.views[:, 0] == take],
        )
        pairs = self[self.take == take]
        sought = np.where(pairs.visible, pairs.sought - first, -1)
        return replace(pairs, store=alone, given=pairs.given - first, sought=sought)

    def groups(self, *columns: str) -> list[np.ndarray]:
        """The numbers of the rows that are equal in these columns; the group of the first row comes first."""
        if not len(self):
            return []
        key = np.zeros(len(self), np.int64)
        for column in (getattr(self, name) for name in columns):
            key = key * (int(column.max()) + 1) + column
        _, first, group = np.unique(key, return_index=True, return_inverse=True)
        place = first[group]  # of each row, the first row of its group
        order = np.argsort(place, kind="stable")
        return np.split(order, np.flatnonzero(np.diff(place[order])) + 1)

    @functools.cached_property
    def by_target(self) -> dict[tuple[int, int], list[np.ndarray]]:
        """For each take and target camera, the rows of each object and query camera."""
        rows: dict[tuple[int, int], list[np.ndarray]] = {}
        for group in self.groups("take", "object", "query", "target"):
            rows.setdefault((int(self.take[group[0]]), int(self.target[group[0]])), []).append(group)
        return rows

    @functools.cached_property
    def digest(self) -> str:
        """The version of this digest, and SHA-256 of the pairs, their masks and the sizes of their frames' files, which
        does not depend on when files were written.
        """
        store = self.store
        arrays = self.columns() | {"masks": store.masks, "counts": store.counts, "files": store.files}
        views = [(*row[:3], row[3:] if any(row[3:]) else None) for row in store.views.tolist()]
        names = json.dumps([store.takes, store.objects, store.cameras, views]).encode()
        return f"2.7 {digest_of(arrays | {'names': np.frombuffer(names, np.uint8)}, '2.7').tobytes().hex()}"


def open_pairs(
    data_dirs: Iterable[Path],
    split: str,
    setting: str,
    splits_path: Path | None = None,
    write: bool = True,
    anew: bool = False,
) -> Pairs:
    """The pairs of a split in a data set, or in several, one after the other; there may be none. `setting` may be BOTH.

    They are listed first where this has not been done or is out of date, or `anew`, and written as `open_listing` says.
    What predicts and scores does not `write` the list, which would hold the sizes of its frames: frames that are mended
    between two predictions count as they are. Raises UserError if a split has no takes, or a take is in two data sets.
    """
    listings = [(folder, open_listing(folder, split, splits_path, write, anew)) for folder in data_dirs]
    return pairs_of(listings, setting)


def pairs_of(listings: Iterable[tuple[Path, PairsFile]], setting: str) -> Pairs:
    """The pairs of the takes that are listed of the data sets in these folders, one after the other. Each frame with a
    query mask makes a pair. Raises UserError if a take is in two data sets.
    """
    store, settings = joined_store(list(listings)), SETTINGS if setting == BOTH else [setting]
    rows_of: dict[tuple[int, int], dict[str, slice]] = {}  # by take and object: the rows of the masks by camera
    ends = store.tracks[:, 3].cumsum().tolist()
    for (take, name, camera, count), end in zip(store.tracks.tolist(), ends, strict=True):
        rows_of.setdefault((take, name), {})[store.cameras[camera]] = slice(end - count, end)
    sets = dict.fromkeys(folder.parent for folder in store.folders)
    parts = {part: [] for part in itertools.product(sets, settings)}  # in the order of the pairs
    number_of = {name: number for number, name in enumerate(store.cameras)}
    for (take, name), rows in rows_of.items():
        for way in settings:
            for x, y in camera_pairs(rows, way):
                numbers = take, name, number_of[x], number_of[y]
                columns = _columns(numbers, store.masks["frame"], rows[x], rows[y])
                parts[store.folders[take].parent, way].append(columns)
    return Pairs(store, *np.concatenate([np.empty((7, 0), np.int32), *itertools.chain(*parts.values())], 1))


def _columns(names: tuple[int, ...], frames: np.ndarray, query: slice, target: slice) -> np.ndarray:
    """The columns of the pairs of an object in two cameras: (7, n) int32, of which `names` are the first four. The
    slices are the rows of the object's masks in both cameras, and `frames` has the frame of each mask.
    """
    of_query, of_target = frames[query], np.append(frames[target], -1)
    place = np.searchsorted(of_target[:-1], of_query)  # of the mask in the target at the same frame
    columns = np.empty((7, len(of_query)), np.int32)
    columns[:4].T[:], columns[4], columns[5] = names, of_query, range(query.start, query.stop)
    columns[6] = np.where(of_target[place] == of_query, target.start + place, -1)
    return columns


def joined_store(listings: Sequence[tuple[Path, PairsFile]]) -> Store:
    """The store of the takes that are listed of several data sets. That of a single one has the listing's own masks,
    not copies. Raises UserError if a take is in two data sets.
    """
    takes, left_out = {}, {}  # by uid: the folder, or the reason
    for data_dir, listing in listings:
        if shared := next((uid for uid in listing.takes if uid in takes), None):
            raise UserError(f"take {shared} is in {takes[shared].parent} and in {data_dir}; drop one")
        takes |= {uid: data_dir / uid for uid in listing.takes}
        for uid, reason in listing.left_out.items():
            left_out[uid] = reason or f"no file {data_dir / uid / ANNOTATION}; run data/process_data.py first"
    files = [listing for _, listing in listings]
    objects = [*dict.fromkeys(name for listing in files for name in listing.objects)]
    cameras = [*dict.fromkeys(name for listing in files for name in listing.cameras)]
    parts, num_takes, num_counts = [], 0, 0
    for listing in files:
        parts.append(listing.shifted(num_takes, num_counts, objects, cameras))
        num_takes, num_counts = num_takes + len(listing.takes), num_counts + len(listing.counts)
    arrays = parts[0]
    if len(parts) > 1:
        arrays = {name: np.concatenate([part[name] for part in parts], axis=int(name == "files")) for name in arrays}
    states = [listing.states[uid][1] for listing in files for uid in listing.takes]
    contents = [content for listing in files for content in listing.contents]
    return Store([*takes], [*takes.values()], states, objects, cameras, **arrays, contents=contents, left_out=left_out)
