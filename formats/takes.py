"""Ego-Exo4D as the `egoexo` downloader lays it out: videos, relation annotations, splits.

<root>/takes/<take_name>/frame_aligned_videos/<camera>.mp4
<root>/takes/<take_name>/frame_aligned_videos/downscaled/448/<camera>.mp4
<root>/annotations/relations_{train,val,test}.json
"""

import functools
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.arguments import DATA_FOLDER
from common.errors import MALFORMED, UserError
from common.files import has_form, is_file_name, iter_json, read_json
from formats.masks import RLE, check_rle, decode_lzstring

SPLITS = ("train", "val", "test")
FRAME_STEP = 30  # videos run at 30 frames per second, annotations at one
SPLIT_REMEDY = (
    "name it with --splits_path; data/import_take.py writes one for your own takes (docs/own_data.md); "
    "the paper's: `bash data/download_split.sh`"
)
SPLIT_PATH = DATA_FOLDER / "split.json"  # where download_split.sh puts the paper's
ANNOTATION_REMEDY = (
    "name it with --annotation_path; data/import_take.py writes one for your own takes; Ego-Exo4D's: "
    "`egoexo -o <root> --parts annotations --benchmarks relations`"
)
ANNOTATION_TEMPLATE = Path("annotations") / "relations_{split}.json"  # below <root>
MAX_SHORT_SIDE = {"ego": 1408 // 2, "exo": 2160 // 4}  # in pixels, of processed frames, by kind of camera


def camera_kind(camera: str) -> str:
    """A key of MAX_SHORT_SIDE: the names of head-worn cameras start with `aria`, as Aria glasses' names do."""
    return "ego" if camera.startswith("aria") else "exo"


def video_path(takes_dir: Path, take_name: str, camera: str, downscaled: bool = False) -> Path:
    """The video of a camera, or the one with 448 pixels on the short side. `takes_dir` is <root>/takes."""
    folder = takes_dir / take_name / "frame_aligned_videos"
    return (folder / "downscaled" / "448" if downscaled else folder) / f"{camera}.mp4"


def annotation_path(template: Path, split: str) -> Path:
    """`template` with `{split}` filled in. If that is a folder, the annotation file of the split in it."""
    path = Path(str(template).replace("{split}", split))
    is_folder = path.is_dir() or not path.suffix
    return path / ANNOTATION_TEMPLATE.name.replace("{split}", split) if is_folder else path


def find_split_path(data_dir: Path, root: Path | None = None) -> Path:
    """The split file to use by default: the first split.json that exists.

    It is looked for in the folder of processed takes, where the original has it, beside that folder, in the data set's
    `root`, and in `data/`. Raises UserError if there is no `root` and `data_dir` does not exist.
    """
    if root is None and not data_dir.is_dir():
        raise UserError(f"no folder {data_dir}; name the folder of processed takes, or run data/process_data.py first")
    folders = (data_dir, data_dir.absolute().parent, root)
    paths = [folder / "split.json" for folder in folders if folder]
    return next((path for path in paths if os.path.lexists(path)), SPLIT_PATH)  # a broken link is not passed over


def read_splits(path: Path) -> dict[str, list[str]]:
    """`split.json` -> take uids by split. Raises UserError if it is missing or malformed, or if a uid is."""
    splits = read_json(path, SPLIT_REMEDY)
    if not has_form(splits, {str: [str]}):
        raise UserError(f'{path} does not map split names to lists of take uids ({{"train": [...]}}); {SPLIT_REMEDY}')
    if malformed := [uid for uids in splits.values() for uid in uids if not is_file_name(uid)]:
        raise UserError(f"{path}: take uid {malformed[0][:40]!r} cannot be the name of a folder; remove it")
    return splits


def read_split(path: Path, split: str) -> list[str]:
    """The take uids of one split, each once, in the file's order. Raises UserError if there are none."""
    splits = read_splits(path)
    if split not in splits:
        raise UserError(f"no split {split!r} in {path}; it has {', '.join(map(repr, splits))}")
    if not splits[split]:
        remedy = f"add one with data/import_take.py --split {split}, or choose another --split"
        raise UserError(f"split {split!r} in {path} has no takes; {remedy}")
    return list(dict.fromkeys(splits[split]))


@dataclass(frozen=True)
class Track:
    """One object in one camera. `annotated_frames` are all frames that somebody looked at; where such a frame has no
    mask, the object is not visible.
    """

    encoded: dict[int, tuple[int, int, str]]  # frame -> height, width and LZString text, as they are in the file
    annotated_frames: list[int]

    def mask(self, frame: int) -> RLE:
        """The mask of a frame. Raises ValueError if it is corrupt, KeyError if there is none."""
        height, width, text = self.encoded[frame]
        return check_rle({"size": [height, width], "counts": decode_lzstring(text)})


@dataclass(frozen=True)
class Take:
    """The relation annotation of a take. `objects[object][camera]` is a Track; an object may have no camera."""

    uid: str
    name: str
    scenario: str
    objects: dict[str, dict[str, Track]]

    @property
    def cameras(self) -> list[str]:
        """Every camera in which an object is annotated, sorted: the ones worth decoding."""
        return sorted({camera for tracks in self.objects.values() for camera in tracks})

    @property
    def digest(self) -> str:
        """SHA-256 of what the annotation file says of the take, hexadecimal."""
        content = vars(self) | {"stated_ego": {}}  # version 2.1 had this field; takes that it processed stay up to date
        return hashlib.sha256(json.dumps(content, default=vars, sort_keys=True).encode()).hexdigest()


def iter_annotations(path: Path) -> Iterator[tuple[str, Any]]:
    """`(take_uid, raw annotation)` of `relations_{split}.json`, in the file's order, a take at a time."""
    return iter_json(path, ("annotations",), ANNOTATION_REMEDY)


def parse_take(uid: str, raw: Any) -> Take:
    """One value of `iter_annotations` -> Take. Raises UserError naming the take if a field is missing or malformed."""
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
    masks = parse_frame_keys(raw["annotation"])
    encoded = {frame: (mask["height"], mask["width"], mask["encodedMask"]) for frame, mask in masks.items()}
    return Track(encoded, sorted({*map(parse_frame, raw.get("annotated_frames", [])), *encoded}))


def parse_frame_keys(raw: dict[str, Any]) -> dict[int, Any]:
    """The values of a JSON object whose keys are frames. Raises ValueError if a key is no frame."""
    return {parse_frame(frame): value for frame, value in raw.items()}


@functools.lru_cache(4096, typed=True)  # many objects and cameras have masks of the same frames
def parse_frame(raw: Any) -> int:
    """A frame of a JSON file: a whole number, or its digits as text. Raises ValueError if it is anything else."""
    frame = int(raw) if isinstance(raw, str) and raw.isdecimal() else raw
    if type(frame) is not int or not 0 <= frame < 1 << 31:
        raise ValueError(f"{raw!r:.40} is not the number of a frame")
    return frame


def read_takes(path: Path, uids: Iterable[str]) -> tuple[dict[str, Take], dict[str, str], list[str]]:
    """Read the takes `uids` of an annotation file. Returns these takes by uid, what is wrong with the malformed takes
    among them, by uid, and the uids of all other takes in the file.
    """
    wanted_uids = set(uids)
    takes: dict[str, Take] = {}
    malformed: dict[str, str] = {}
    other_uids = []
    for uid, raw in iter_annotations(path):
        if uid not in wanted_uids:
            other_uids.append(uid)
            continue
        try:
            takes[uid] = parse_take(uid, raw)
        except UserError as error:
            malformed[uid] = str(error)
    return takes, malformed, other_uids
