"""The file of the pairs of a split in both settings, with their masks, which opens at once.

data/create_pairs.py writes <data_dir>/{split}_pairs.npz from the annotation.json files, with these arrays:

    masks    a row of type MASK for each mask; the masks of an object in a camera are in the order of their frames
    counts   the run lengths of all masks, one after the other
    files    (2, F) int32: the frames that pairs need, camera by camera, ascending; and the bytes of their files
    ego-exo  a row for each pair of this setting: the rows in `masks` of its query mask and its target mask (or -1)
    exo-ego  the same for the other setting
    about    JSON: the takes with the state of their annotation.json, the malformed ones with the reasons, the takes of
             the split that are not processed yet, the split file if it is not the default one, the tracks by setting,
             the masks of each object and camera, the cameras with the numbers of their frames and the sizes of their
             videos
    digest   SHA-256 of the other arrays
"""

import hashlib
import json
import shlex
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.arguments import SETTINGS
from common.errors import UserError
from common.files import atomic_write, claimed, file_digest
from formats.processed import ANNOTATION, ProcessedTake, frames_in, is_processed
from formats.takes import find_split_path, read_split, read_splits

MASK = np.dtype([("start", "<i8"), ("length", "<i4"), ("frame", "<i4"), ("height", "<i4"), ("width", "<i4")])
Listing = tuple[dict[str, Any], dict[str, np.ndarray]]  # the content of `about`, and the other arrays


def pairs_path(data_dir: Path, split: str) -> Path:
    return data_dir / f"{split}_pairs.npz"


def list_pairs(data_dir: Path, uids: Iterable[str], missing: Iterable[str] = ()) -> Listing:
    """List the pairs of the takes `uids`, with their masks. Each frame with a query mask makes a pair. `missing` are
    the takes of the split that are not processed yet.
    """
    states, malformed, masks, counts = {}, {}, [np.empty(0, MASK)], bytearray()
    tracks: dict[str, list[tuple]] = {setting: [] for setting in SETTINGS}
    of_masks, cameras, frames, sizes = [], [], array("i"), array("i")
    rows = {setting: array("i") for setting in SETTINGS}
    for uid in uids:
        annotation = data_dir / uid / ANNOTATION
        states[uid] = annotation.stat().st_mtime_ns, file_digest(annotation)
        try:
            take = ProcessedTake.read(data_dir, uid)
        except UserError as error:
            malformed[uid] = str(error)
            continue
        row_of = _copy_masks(take, masks, counts)
        of_masks += [(uid, *track, len(of_track)) for track, of_track in row_of.items()]
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
    about = {"takes": states, "malformed": malformed, "missing": list(missing)}
    about |= {"tracks": tracks, "masks": of_masks, "cameras": cameras}
    arrays: dict[str, Any] = {setting: np.array(rows[setting], np.int32).reshape(-1, 2) for setting in SETTINGS}
    arrays |= {"masks": np.concatenate(masks), "counts": np.frombuffer(counts, np.uint8)}
    return about, arrays | {"files": np.array([frames, sizes], np.int32)}


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


def list_split(data_dir: Path, split: str, splits_path: Path | None = None) -> Listing:
    """List the pairs of a split's processed takes."""
    uids = read_split(splits_path or find_split_path(data_dir), split)
    processed = [uid for uid in uids if is_processed(data_dir, uid)]
    return list_pairs(data_dir, processed, [uid for uid in uids if uid not in {*processed}])


def write_pairs(
    data_dir: Path, splits_path: Path, split: str, uids: Iterable[str], missing: Iterable[str]
) -> tuple[dict[str, int], dict[str, str]]:
    """Write the pairs of the takes `uids` of the file `splits_path`. Returns the number of pairs by setting, and by uid
    the errors of malformed takes, which are left out.
    """
    path = pairs_path(data_dir, split)
    with claimed(path.parent, path.name, f"lists the pairs of {split}"):
        about, arrays = list_pairs(data_dir, uids, missing)
        named = None if splits_path == find_split_path(data_dir) else str(splits_path.absolute())
        text = json.dumps(about | {"splits_path": named}).encode()
        content: dict[str, Any] = arrays | {"about": np.frombuffer(text, np.uint8)}
        with atomic_write(path, "wb") as file:
            np.savez(file, **content, digest=digest_of(content))
    return {setting: len(arrays[setting]) for setting in SETTINGS}, about["malformed"]


def read_pairs(data_dir: Path, split: str, settings: Sequence[str] = (), splits_path: Path | None = None) -> Listing:
    """Read the pairs of a split's takes in `splits_path`, by default in the file with which they were written.

    Raises UserError, with the remedy, if the file is missing, damaged or out of date, or if all `settings` have none.
    """
    path = pairs_path(data_dir, split)
    command = f"python data/create_pairs.py --data_dir {shlex.quote(str(data_dir))} --split {split}"
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        if arrays.pop("digest", np.empty(0)).tobytes() != digest_of(arrays).tobytes():
            raise ValueError("damaged, or of another version")
        about = json.loads(arrays.pop("about").tobytes())
    except FileNotFoundError:
        read_split(find_split_path(data_dir), split)  # if the split has no takes, this raises an error that says so
        raise UserError(f"no file {path}; run `{command}`") from None
    except Exception as error:  # a damaged archive can make numpy raise any exception
        raise UserError(f"{path} cannot be used ({type(error).__name__}: {error}); run `{command}`") from None
    if named := about.get("splits_path"):
        command += f" --splits_path {shlex.quote(named)}"
    if reason := _out_of_date(data_dir, splits_path or Path(named or find_split_path(data_dir)), split, about):
        raise UserError(f"{path} is out of date: {reason}; run `{command}`")
    if settings and not any(len(arrays[setting]) for setting in settings):
        raise UserError(f"{path} has no pairs; process more takes, then run `{command}`")
    return about, arrays


def digest_of(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """SHA-256 of all arrays, types and shapes, (32,) uint8. If the digest is right, a file needs no other check."""
    digest = hashlib.sha256(b"pairs of version 2.7")
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
