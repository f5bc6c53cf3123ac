"""The masks and the needed frames of a split's takes, listed in one file, from which its pairs open at once.

<data_dir>/{split}_pairs.npz has these arrays, whose numbers of takes, objects and cameras are places in lists of names:

    masks    a row of type MASK for each mask; the masks of an object in a camera are in the order of their frames
    counts   the run lengths of all masks, one after the other
    tracks   (T, 4) int32: take, object, camera and number of masks, in the order of `masks`
    files    (2, F) int32: the frames that pairs need, camera by camera, ascending; and the bytes of their files
    views    (V, 5) int32: take, camera, number of frames, height and width of the video, in the order of `files`
    about    JSON: the other fields of `PairsFile`
    digest   SHA-256 of the other arrays
"""

import hashlib
import json
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.errors import UserError
from common.files import atomic_write, check_outputs, claimed, file_digest, is_writable
from common.parallel import in_threads
from common.progress import progress
from formats.frame_files import ASKED_AT_ONCE, frame_path, frames_of
from formats.geometry import Size
from formats.processed import ANNOTATION, ProcessedTake, is_processed
from formats.takes import find_split_path, read_split, read_splits

VERSION = "4.1"  # of this form
FrameSizes = dict[str, dict[int, int]]  # bytes of a take's frames, by camera and frame
MASK = np.dtype([("start", "<i8"), ("length", "<i4"), ("frame", "<i4"), ("height", "<i4"), ("width", "<i4")])


class CameraFrames(NamedTuple):
    """The pictures of a camera in a take."""

    frames: np.ndarray  # (n,) int32: those that pairs need, ascending
    sizes: np.ndarray  # (n,) int32: the bytes of their files, 0 if one is missing
    video: Size | None  # (H, W) of the video and of its masks; None if it has no masks


@dataclass(frozen=True)
class PairsFile:
    """What is listed of the takes of a split in a data set."""

    masks: np.ndarray
    counts: np.ndarray
    tracks: np.ndarray
    files: np.ndarray
    views: np.ndarray
    takes: list[str]  # uids of the takes that can be read
    contents: list[list]  # of each of them: the names of its objects, also of those without cameras, and subsample_idx
    objects: list[str]
    cameras: list[str]
    states: dict[str, list]  # by take: the time of its annotation.json in nanoseconds, and its SHA-256
    left_out: dict[str, str]  # by take: why it cannot be read; "" if it is not processed yet
    splits_path: str | None = None  # the split file, if it is not the default one

    def shifted(self, takes: int, counts: int, objects: list[str], cameras: list[str]) -> dict[str, np.ndarray]:
        """The arrays behind so many takes and counts of other listings, with numbers of these names."""
        object_numbers, camera_numbers = (
            np.array([number_of[name] for name in names], np.int32)
            for number_of, names in ((_numbered(objects), self.objects), (_numbered(cameras), self.cameras))
        )
        tracks, views = self.tracks.copy(), self.views.copy()
        tracks[:, 0] += takes
        views[:, 0] += takes
        tracks[:, 1] = object_numbers[tracks[:, 1]]
        tracks[:, 2], views[:, 1] = camera_numbers[tracks[:, 2]], camera_numbers[views[:, 1]]
        masks = shifted(self.masks, counts) if counts else self.masks  # which may be large
        return {"masks": masks, "counts": self.counts, "tracks": tracks, "files": self.files, "views": views}


def shifted(masks: np.ndarray, by: int) -> np.ndarray:
    """A copy of rows of type MASK whose run lengths lie farther behind by so many."""
    masks = masks.copy()
    masks["start"] += by
    return masks


def listing_path(data_dir: Path, split: str) -> Path:
    return data_dir / f"{split}_pairs.npz"


def list_takes(data_dir: Path, uids: Collection[str], in_memory: Mapping[str, ProcessedTake] = {}) -> PairsFile:
    """List the masks of the takes `uids`, and the frames that their pairs need. A take that is `in_memory` is used as
    it is, without reading its annotation.json, and its state is (0, "").
    """
    takes, contents, states, left_out = [], [], {}, {}
    tracks, views, masks, counts, files = [], [], [], bytearray(), []
    for uid, state, take, sizes in _read_takes(data_dir, uids, in_memory):
        if state:
            states[uid] = state
        if isinstance(take, str):
            left_out[uid] = take
            continue
        for name, of_object in take.masks.items():
            for camera, rles in of_object.items():
                tracks.append((len(takes), name, camera, len(rles)))
                for frame, rle in sorted(rles.items()):
                    masks.append((len(counts), len(rle["counts"]), frame, *rle["size"]))
                    counts += rle["counts"].encode()
        for camera, needed in take.needed_frames().items():
            files += [(frame, sizes.get(camera, {}).get(frame, 0)) for frame in sorted(needed)]
            views.append((len(takes), camera, len(needed), *(take.video_size(camera) or (0, 0))))
        takes.append(uid)
        contents.append([[*take.masks], take.subsample_idx])
    objects = _numbered(name for _, name, *_ in tracks)
    cameras = _numbered(camera for _, camera, *_ in [*views, *((take, camera) for take, _, camera, _ in tracks)])
    tracks = [(take, objects[name], cameras[camera], count) for take, name, camera, count in tracks]
    views = [(take, cameras[camera], *numbers) for take, camera, *numbers in views]
    return PairsFile(
        *(np.array(masks, MASK), np.frombuffer(counts, np.uint8), np.array(tracks, np.int32).reshape(-1, 4)),
        *(np.array(files, np.int32).reshape(-1, 2).T.copy(), np.array(views, np.int32).reshape(-1, 5)),
        *(takes, contents, [*objects], [*cameras], states, left_out),
    )


def _numbered(names: Iterable[str]) -> dict[str, int]:
    """The numbers of names in the order in which they come first."""
    return {name: number for number, name in enumerate(dict.fromkeys(names))}


def _read_takes(
    data_dir: Path, uids: Collection[str], in_memory: Mapping[str, ProcessedTake]
) -> Iterator[tuple[str, list, ProcessedTake | str, FrameSizes]]:
    """For each take its uid, the time and digest of its annotation.json (nothing if it has none), its masks or else a
    text that says why they cannot be read, and its frames.
    """
    pool = ThreadPoolExecutor(ASKED_AT_ONCE)
    asked = {uid: pool.submit(frames_of, data_dir / uid, sized=True) for uid in uids}
    pool.shutdown(wait=False)
    for uid in progress(uids, "list pairs", len(uids), "take"):
        annotation = data_dir / uid / ANNOTATION
        if uid not in in_memory and not annotation.is_file():
            yield uid, [], "", {}
            continue
        state = [0, ""] if uid in in_memory else [annotation.stat().st_mtime_ns, file_digest(annotation)]
        try:
            yield uid, state, in_memory.get(uid) or ProcessedTake.read(data_dir, uid), asked.pop(uid).result()
        except UserError as error:
            yield uid, state, str(error), {}


def open_listing(
    data_dir: Path, split: str, splits_path: Path | None = None, write: bool = True, anew: bool = False
) -> PairsFile:
    """What is listed of a split. If the file is missing, damaged or out of date, or is to be made `anew`, the takes are
    listed now, which is said if nobody asked for it, and written.

    What is listed is compared with `splits_path`, by default the split file from which it was made. The new listing is
    for this run alone if it is not to be written, if the file cannot be, or if it was made from another split file.
    Raises UserError if the split has no takes, and OSError if the file was to be made anew and cannot be written.
    """
    path = listing_path(data_dir, split)
    listing, fault = (None, "") if anew else find_listing(data_dir, split, splits_path)
    if listing and not fault:
        return listing
    made_from = Path(listing.splits_path) if listing and listing.splits_path else find_split_path(data_dir)
    splits_path = splits_path or made_from
    uids = read_split(splits_path, split)
    check_outputs([path], [splits_path])
    is_other = splits_path.absolute() != made_from.absolute()
    if not anew and (not write or is_other or not is_writable(data_dir)):
        if write or path.exists():
            print(f"{fault}; the pairs of {split} are listed for this run alone", file=sys.stderr)
        return list_takes(data_dir, uids)
    with claimed(data_dir, path.name, f"lists the pairs of {split}"):
        if not anew:
            listing, fault = find_listing(data_dir, split, splits_path)
            if listing and not fault:  # another process has listed them meanwhile
                return listing
            print(f"{fault}; the pairs of {split} are listed now", file=sys.stderr)
        listing = list_takes(data_dir, uids)
        if splits_path != find_split_path(data_dir):
            listing = replace(listing, splits_path=str(splits_path.absolute()))
        try:
            write_listing(path, listing)
        except OSError as error:  # the disk is full
            if anew:
                raise
            print(f"{path} cannot be written ({error.strerror}); the next command lists them again", file=sys.stderr)
    return listing


def write_listing(path: Path, listing: PairsFile) -> None:
    arrays = {name: value for name, value in vars(listing).items() if isinstance(value, np.ndarray)}
    about = json.dumps({name: value for name, value in vars(listing).items() if name not in arrays})
    arrays["about"] = np.frombuffer(about.encode(), np.uint8)
    with atomic_write(path, "wb") as file:
        np.savez(file, **arrays, digest=digest_of(arrays, VERSION))  # pyrefly: ignore[bad-argument-type]


def find_listing(data_dir: Path, split: str, splits_path: Path | None = None) -> tuple[PairsFile | None, str]:
    """What is listed of a split, if it can be read, and what is wrong with it; "" if it is up to date."""
    path = listing_path(data_dir, split)
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        if arrays.pop("digest", np.empty(0)).tobytes() != digest_of(arrays, VERSION).tobytes():
            raise ValueError("damaged, or of another version")
        listing = PairsFile(**json.loads(arrays.pop("about").tobytes()), **arrays)
    except FileNotFoundError:
        return None, f"no file {path}"
    except Exception as error:  # a damaged archive can make numpy raise any exception
        return None, f"{path} cannot be used ({type(error).__name__}: {error})"
    splits_path = splits_path or Path(listing.splits_path or find_split_path(data_dir))
    reason = _out_of_date(data_dir, splits_path, split, listing)
    return listing, f"{path} is out of date: {reason}" if reason else ""


def digest_of(arrays: dict[str, np.ndarray], version: str) -> np.ndarray:
    """SHA-256 of all arrays, types and shapes, (32,) uint8. If the digest is right, a file needs no other check."""
    digest = hashlib.sha256(f"pairs of version {version}".encode())
    for name, values in sorted(arrays.items()):
        digest.update(f"{name} {values.dtype.descr} {values.shape}".encode())
        digest.update(np.ascontiguousarray(values).view(np.uint8))  # pyrefly: ignore[bad-argument-type]
    return np.frombuffer(digest.digest(), np.uint8)


def frames_by_camera(views: np.ndarray, files: np.ndarray) -> dict[int, dict[int, CameraFrames]]:
    """The pictures of each take, by camera."""
    found: dict[int, dict[int, CameraFrames]] = {}
    parts = np.split(files, views[:, 2].cumsum(), 1)  # the last one is empty
    for (take, camera, _, *size), part in zip(views.tolist(), parts, strict=False):
        frames, sizes = part
        found.setdefault(take, {})[camera] = CameraFrames(frames, sizes, tuple(size) if any(size) else None)
    return found


def find_replaced(takes: Mapping[Path, Mapping[int, CameraFrames]], names: list[str]) -> str:
    """A text that names a frame with another size in bytes than was listed; "" if there is none. `takes`: the pictures
    by the folder of a take and by the number of a camera's name. The disk is asked for each frame that is not packed.
    """
    there = in_threads(lambda folder: frames_of(folder, sized=True), takes, threads=ASKED_AT_ONCE)
    for (folder, cameras), sizes in zip(takes.items(), there, strict=True):
        for camera, view in cameras.items():
            for frame, size in zip(view.frames.tolist(), view.sizes.tolist(), strict=True):
                now = sizes.get(names[camera], {}).get(frame, 0)
                if now != size:
                    path = frame_path(folder / names[camera], frame)
                    return f"frame {path} was replaced after its pairs were listed ({size} bytes -> {now})"
    return ""


def _out_of_date(data_dir: Path, splits_path: Path, split: str, listing: PairsFile) -> str | None:
    """A text that says why a listing does not fit the split or the processed takes any more; None if it fits.

    If an annotation's time has changed, as in a copied data set, its content and the sizes of its take's frames are
    compared. The split file may be missing.
    """
    if splits_path.exists() and {*read_splits(splits_path).get(split, ())} != {*listing.states, *listing.left_out}:
        return f"its takes are not the takes of {split} in {splits_path}"
    written_since = set()
    for uid, (mtime_ns, digest) in listing.states.items():
        path = data_dir / uid / ANNOTATION
        if not path.exists():
            return f"{path} is gone"
        if path.stat().st_mtime_ns != mtime_ns:
            written_since.add(uid)
            if file_digest(path) != digest:
                return f"{path} has changed"
    pictures = frames_by_camera(listing.views, listing.files)
    takes = {data_dir / uid: pictures.get(take, {}) for take, uid in enumerate(listing.takes) if uid in written_since}
    if replaced := find_replaced(takes, listing.cameras):
        return replaced
    malformed = [uid for uid in listing.left_out if uid in listing.states]
    if processed := [uid for uid in listing.left_out if uid not in listing.states and is_processed(data_dir, uid)]:
        return f"take {processed[0]} has been processed"
    if mended := list_takes(data_dir, malformed).takes:
        return f"take {mended[0]} was left out, and can be read now"
    return None
