"""Ego-Exo4D as the `egoexo` downloader lays it out: videos, relation annotations, splits.

<root>/takes/<take_name>/frame_aligned_videos/<camera>.mp4
<root>/takes/<take_name>/frame_aligned_videos/downscaled/448/<camera>.mp4
<root>/annotations/relations_{train,val,test}.json
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from formats.errors import UserError
from formats.files import iter_json, read_json
from formats.geometry import Size
from formats.masks import RLE, decode_lzstring, run_lengths

SPLITS = ("train", "val", "test")
SETTINGS = ("ego-exo", "exo-ego")
FRAME_STEP = 30  # videos run at 30 frames a second, annotations at one
SPLIT_REMEDY = "get the paper's with `bash data/download_split.sh` or make one with data/make_split.py"
DATA_FOLDER = Path(__file__).resolve().parents[1] / "data"
SPLIT_PATH = DATA_FOLDER / "split.json"  # where download_split.sh puts the paper's
ANNOTATION_REMEDY = "download it with `egoexo -o <root> --parts annotations --benchmarks relations`"
DEFAULT_ROOT = DATA_FOLDER / "egoexo"  # the data set, or a link to it
ANNOTATION_TEMPLATE = Path("annotations") / "relations_{split}.json"  # below <root>


def is_ego(camera: str) -> bool:
    """Head-worn (Aria) cameras are the ones whose name starts with `aria`."""
    return camera.startswith("aria")


def video_path(takes_dir: Path, take_name: str, camera: str, downscaled: bool = False) -> Path:
    """The video of a camera, or the one with 448 pixels on the short side. `takes_dir` is <root>/takes."""
    folder = Path(takes_dir) / take_name / "frame_aligned_videos"
    return (folder / "downscaled" / "448" if downscaled else folder) / f"{camera}.mp4"


def annotation_path(template: Path, split: str) -> Path:
    """`template` with `{split}` filled in."""
    return Path(str(template).replace("{split}", split))


def find_split_path(data_dir: Path, root: Path | None = None) -> Path:
    """The split file to use by default: the first that exists of split.json in the folder of processed takes, where
    the original has it, beside that folder, in the data set's `root` and in `data/`.
    """
    folders = (Path(data_dir), Path(data_dir).absolute().parent, root)
    paths = [folder / "split.json" for folder in folders if folder]
    return next((path for path in paths if path.exists()), SPLIT_PATH)


def read_splits(path: Path) -> dict[str, list[str]]:
    """`split.json` -> take uids by split. Raises UserError if it is missing or malformed."""
    splits = read_json(path, SPLIT_REMEDY)
    if not isinstance(splits, dict) or not all(
        isinstance(uids, list) and all(isinstance(uid, str) for uid in uids) for uids in splits.values()
    ):
        raise UserError(
            f'{path} does not map split names to lists of take uids ({{"train": [...], ...}}); {SPLIT_REMEDY}'
        )
    return splits


def read_split(path: Path, split: str) -> list[str]:
    """The take uids of one split, each once, in the file's order. Raises UserError if there are none."""
    splits = read_splits(path)
    if split not in splits:
        raise UserError(f"no split {split!r} in {path}; it has {', '.join(map(repr, splits))}")
    if not splits[split]:
        raise UserError(f"split {split!r} in {path} has no takes; {SPLIT_REMEDY}")
    return list(dict.fromkeys(splits[split]))


@dataclass(frozen=True)
class Track:
    """One object in one camera. `annotated_frames` are all frames looked at; those without a mask show no object."""

    encoded: dict[int, tuple[Size, str]]  # frame -> mask's (H, W) and LZString text
    annotated_frames: list[int]

    def mask(self, frame: int) -> RLE:
        """The mask of a frame. Raises ValueError if it is corrupt, KeyError if there is none."""
        (height, width), encoded = self.encoded[frame]
        rle: RLE = {"size": [height, width], "counts": decode_lzstring(encoded)}
        run_lengths(rle)
        return rle


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


def read_annotations(path: Path) -> dict[str, Any]:
    """`relations_{split}.json` -> raw annotation by take uid, for `parse_take`. Raises UserError if it is unusable."""
    raw = read_json(path, ANNOTATION_REMEDY)
    if not isinstance(raw, dict) or not isinstance(raw.get("annotations"), dict):
        raise UserError(f'{path} has no "annotations" object keyed by take uid; {ANNOTATION_REMEDY}')
    return raw["annotations"]


def iter_annotations(path: Path) -> Iterator[tuple[str, Any]]:
    """`(take_uid, raw annotation)` of `relations_{split}.json`, in the file's order, a take at a time."""
    return iter_json(path, ("annotations",), ANNOTATION_REMEDY)


def parse_take(uid: str, raw: Any) -> Take:
    """One value of `read_annotations` -> Take. Raises UserError naming the take if a field is missing or malformed."""
    try:
        cameras = {camera for tracks in raw["object_masks"].values() for camera in tracks}
        for name in (uid, raw["take_name"], *cameras):  # each becomes a folder or a file
            if name in ("", ".", "..") or "/" in name or "\\" in name:
                raise ValueError(f"{name!r} cannot be the name of a file")
        objects = {
            name: {camera: _parse_track(track) for camera, track in cameras.items()}
            for name, cameras in raw["object_masks"].items()
        }
        return Take(uid, raw["take_name"], raw.get("scenario", ""), objects)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"the annotation of take {uid} is malformed ({type(error).__name__}: {error})") from None


def read_takes(path: Path, uids: Iterable[str]) -> tuple[dict[str, Take], dict[str, str], list[str]]:
    """Some takes of an annotation file: those by uid, what is wrong with malformed ones, and which others are there."""
    wanted = set(uids)
    takes: dict[str, Take] = {}
    malformed: dict[str, str] = {}
    others = []
    for uid, raw in iter_annotations(path):
        if uid not in wanted:
            others.append(uid)
            continue
        try:
            takes[uid] = parse_take(uid, raw)
        except UserError as error:
            malformed[uid] = str(error)
    return takes, malformed, others


def _parse_track(raw: dict) -> Track:
    encoded = {
        int(frame): ((int(mask["height"]), int(mask["width"])), mask["encodedMask"])
        for frame, mask in raw["annotation"].items()
    }
    return Track(encoded, sorted({int(frame) for frame in raw.get("annotated_frames", encoded)} | encoded.keys()))
