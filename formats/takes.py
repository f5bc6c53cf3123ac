"""The files of Ego-Exo4D as the `egoexo` downloader writes them (videos and relation annotations), and the splits:

<root>/takes/<take_name>/frame_aligned_videos/<camera>.mp4
<root>/takes/<take_name>/frame_aligned_videos/downscaled/448/<camera>.mp4
<root>/annotations/relations_{train,val,test}.json
"""

import functools
import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.constants import DATA_FOLDER, SETTINGS
from common.errors import MALFORMED, UserError
from common.files import has_form, is_file_name, iter_json, json_digest, read_json
from formats.masks import RLE, check_rle, decode_lzstring

SPLITS = ("train", "val", "test")
FRAME_STEP = 30  # videos run at 30 frames per second, annotations have one frame per second
SPLIT_REMEDY = (
    "name it with --splits_path; data/import_take.py writes one for your own takes (docs/own_data.md); "
    "the paper's: `bash data/download_split.sh`"
)
SPLIT_PATH = DATA_FOLDER / "split.json"  # data/download_split.sh puts the paper's split here
ANNOTATION_REMEDY = (
    "name it with --annotation_path; data/import_take.py writes one for your own takes; Ego-Exo4D's: "
    "`egoexo -o <root> --parts annotations --benchmarks relations`"
)
ANNOTATION_TEMPLATE = Path("annotations") / "relations_{split}.json"  # below <root>
MAX_SHORT_SIDE = {"ego": 1408 // 2, "exo": 2160 // 4}  # pixels that the short side of a processed frame has at most


def camera_kind(camera: str) -> str:
    """Return "ego" for a head-worn camera, whose name starts with `aria` (after the Aria glasses), otherwise "exo"."""
    return "ego" if camera.startswith("aria") else "exo"


def camera_pairs(cameras: Iterable[str], setting: str) -> list[tuple[str, str]]:
    """Each pair of a query and a target camera that fits the setting."""
    queries, targets = ([name for name in cameras if camera_kind(name) == kind] for kind in SETTINGS[setting])
    return [*itertools.product(queries, targets)]


def video_path(takes_dir: Path, take_name: str, camera: str, downscaled: bool = False) -> Path:
    """The path of a camera's video (if `downscaled`, with a short side of 448 pixels). `takes_dir` is <root>/takes."""
    folder = takes_dir / take_name / "frame_aligned_videos"
    return (folder / "downscaled" / "448" if downscaled else folder) / f"{camera}.mp4"


def annotation_path(template: Path, split: str) -> Path:
    """`template` with `{split}` replaced by the split; if that is a folder, the split's annotation file in it."""
    path = Path(str(template).replace("{split}", split))
    is_folder = path.is_dir() or not path.suffix
    return path / ANNOTATION_TEMPLATE.name.replace("{split}", split) if is_folder else path


def find_split_path(data_dir: Path, root: Path | None = None) -> Path:
    """The split file to use by default: the first split.json that exists, in this order: in `data_dir`, the folder of
    processed takes (where the original looks), beside `data_dir`, in the data set's folder `root`, and in `data/`.

    Raises UserError if `root` is None and `data_dir` does not exist.
    """
    if root is None and not data_dir.is_dir():
        raise UserError(f"no folder {data_dir}; name the folder of processed takes, or run data/process_data.py first")
    folders = (data_dir, data_dir.absolute().parent, root)
    paths = [folder / "split.json" for folder in folders if folder]
    return next((path for path in paths if os.path.lexists(path)), SPLIT_PATH)  # a broken link counts


def read_splits(path: Path) -> dict[str, list[str]]:
    """Read split.json -> take uids by split. Raises UserError if the file is missing or if the file or a uid is bad."""
    splits = read_json(path, SPLIT_REMEDY)
    if not has_form(splits, {str: [str]}):
        raise UserError(f'{path} does not map split names to lists of take uids ({{"train": [...]}}); {SPLIT_REMEDY}')
    if malformed := [uid for uids in splits.values() for uid in uids if not is_file_name(uid)]:
        raise UserError(f"{path}: take uid {malformed[0][:40]!r} cannot be the name of a folder; remove it")
    return splits


def read_split(path: Path, split: str) -> list[str]:
    """The take uids of one split, each once, in the file's order. Raises UserError if there are no takes."""
    splits = read_splits(path)
    if not splits.get(split):
        there = ", ".join(repr(name) for name, uids in splits.items() if uids)
        remedy = f"choose another --split, add a take with data/import_take.py --split {split}, or move the uid of a "
        remedy += "processed take there"
        raise UserError(f"no take of split {split!r} in {path}, which has {there or 'none at all'}; {remedy}")
    return list(dict.fromkeys(splits[split]))


@dataclass(frozen=True)
class Track:
    """The annotation of one object in one camera. `annotated_frames` are all frames that an annotator looked at. If an
    annotated frame has no mask, the object is not visible in it.
    """

    encoded: dict[int, tuple[int, int, str]]  # frame -> the mask's height, width and LZString text, as in the file
    annotated_frames: list[int]

    def mask(self, frame: int) -> RLE:
        """The mask of a frame. Raises ValueError if the mask is corrupt, KeyError if the frame has no mask."""
        height, width, text = self.encoded[frame]
        return check_rle({"size": [height, width], "counts": decode_lzstring(text)})


@dataclass(frozen=True)
class Take:
    """The annotation of a take. `objects[object][camera]` is a Track; an object may have no camera."""

    uid: str
    name: str
    scenario: str
    objects: dict[str, dict[str, Track]]

    @property
    def cameras(self) -> list[str]:
        """Every camera in which an object is annotated, sorted. Only the videos of these cameras are decoded."""
        return sorted({camera for tracks in self.objects.values() for camera in tracks})

    @property
    def digest(self) -> str:
        """SHA-256 of the take's annotation, hexadecimal."""
        return json_digest(vars(self) | {"stated_ego": {}})  # a field of version 2, so that its takes stay up to date


def iter_takes(path: Path, uids: Iterable[str]) -> Iterator[tuple[str, Take | UserError]]:
    """Yield the takes of `relations_{split}.json` that are in `uids`, by uid and in the file's order. Only one is in
    memory at a time. A malformed take is replaced by the error that says why.
    """
    wanted_uids = set(uids)
    for uid, raw in iter_json(path, ("annotations",), ANNOTATION_REMEDY):
        if uid in wanted_uids:
            try:
                yield uid, parse_take(uid, raw)
            except UserError as error:
                yield uid, error


def parse_take(uid: str, raw: Any) -> Take:
    """The value of a take in an annotation file -> Take. Raises UserError if a field is missing or malformed."""
    try:
        objects = {
            object_name: {camera: _parse_track(track) for camera, track in tracks.items()}
            for object_name, tracks in raw["object_masks"].items()
        }
        cameras = {camera for tracks in objects.values() for camera in tracks}
        for name in (uid, raw["take_name"], *cameras):
            if not is_file_name(name):
                raise ValueError(f"{str(name)[:40]!r} cannot be the name of a file")
        return Take(uid, raw["take_name"], str(raw.get("scenario") or ""), objects)
    except MALFORMED as error:
        raise UserError(f"the annotation of take {uid} is malformed ({type(error).__name__}: {error})") from None


def _parse_track(raw: dict) -> Track:
    masks = ((parse_frame(frame), mask) for frame, mask in raw["annotation"].items())
    encoded = {frame: (mask["height"], mask["width"], mask["encodedMask"]) for frame, mask in masks}
    return Track(encoded, sorted({*map(parse_frame, raw.get("annotated_frames", [])), *encoded}))


@functools.lru_cache(4096, typed=True)  # many objects and cameras have masks of the same frames
def parse_frame(raw: Any) -> int:
    """A frame in a JSON file, a whole number or its digits as text, -> int. Raises ValueError for any other value."""
    frame = int(raw) if isinstance(raw, str) and raw.isdecimal() else raw
    if type(frame) is not int or not 0 <= frame < 1 << 31:
        raise ValueError(f"{raw!r:.40} is not the number of a frame")
    return frame
