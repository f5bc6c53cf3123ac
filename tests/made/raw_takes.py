"""Small takes in the layout of Ego-Exo4D, with videos, and the output of process_data.py for them, as fixtures."""

import json
import random
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from data import process_data
from formats.masks import encode_mask
from tests.made import EGO
from tests.made.processes import exit_status
from tests.made.results import raw_mask
from tests.made.videos import make_video, read_number

EXO_1, EXO_2 = "cam01", "gp02"
CAMERAS = (EGO, EXO_1, EXO_2)
FRAMES = 95  # a little more than three seconds; frames 0, 30, 60 and 90 are annotated
SIZE = (96, 192)
RAW_SPLITS = {"train": ["uid-a", "uid-b"], "val": ["uid-c"]}
TRACKS = {  # object -> camera -> frames with a mask
    "cup _0": {EGO: [0, 30, 60, 90], EXO_1: [0, 60, 90], EXO_2: [30, 90]},
    "Milk Carton": {EGO: [0, 30], EXO_2: [0, 30, 60]},
    "ego only_0": {EGO: [60]},
    "nowhere_0": {},
}
NAMES = {"uid-a": "lab_take_1", "uid-b": "lab_take_2", "uid-c": "kitchen 03-30"}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The takes of RAW_SPLITS, their annotations and split.json, without faults."""
    root = tmp_path_factory.mktemp("original")
    for name in NAMES.values():
        for camera in CAMERAS:
            make_video(video(root, name, camera), FRAMES, SIZE, options={"g": "40", "bf": "2", "preset": "fast"})
    for split, uids in RAW_SPLITS.items():
        write_annotations(root, split, {uid: annotation(uid) for uid in uids})
    (root / "split.json").write_text(json.dumps(RAW_SPLITS))
    return root


@pytest.fixture(scope="module")
def undisturbed(original: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """All files that process_data.py makes from `original`, by path."""
    root = tmp_path_factory.mktemp("undisturbed")
    shutil.copy(original / "split.json", root)
    out = root / "processed"
    assert process(original, "--outputpath", out) == 0
    return tree(out)


def video(root: Path, name: str, camera: str) -> Path:
    return root / "takes" / name / "frame_aligned_videos" / f"{camera}.mp4"


def write_annotations(root: Path, split: str, takes: dict) -> None:
    path = root / "annotations" / f"relations_{split}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"annotations": takes}))


def read_annotations(root: Path, split: str) -> dict:
    return json.loads((root / "annotations" / f"relations_{split}.json").read_text())["annotations"]


def annotation(uid: str) -> dict:
    """A take's entry in the annotation file, with frames in random order as in the real file."""
    rng = random.Random(uid)
    objects = {}
    for name, cameras in TRACKS.items():
        objects[name] = {}
        for camera, frames in cameras.items():
            masks = {str(frame): raw_mask(_mask(uid, name, camera, frame)) for frame in rng.sample(frames, len(frames))}
            objects[name][camera] = {"annotation": masks, "annotated_frames": [0, 30, 60, 90], "annotation_fps": 1}
    return {"take_name": NAMES[uid], "scenario": "Cooking", "object_names": {}, "object_masks": objects}


def _mask(*key: object) -> dict:
    mask = np.zeros(SIZE, np.uint8)
    rng = random.Random(str(key))
    return encode_mask(cv2.circle(mask, (rng.randrange(40, 150), rng.randrange(20, 70)), rng.randrange(5, 20), 1, -1))


def expected_masks(uid: str, without: tuple[str, ...] = ()) -> dict:
    """The masks that annotation.json holds, with frames as text and without the cameras `without`."""
    return {
        name: {
            camera: {str(frame): _mask(uid, name, camera, frame) for frame in frames}
            for camera, frames in cameras.items()
            if camera not in without
        }
        for name, cameras in TRACKS.items()
    }


def assert_complete(data_dir: Path, uid: str, without: tuple[str, ...] = ()) -> None:
    """Assert that the processed take has all frames and masks, and that every picture is of the right frame."""
    raw = json.loads((data_dir / uid / "annotation.json").read_text())
    assert raw == {"masks": expected_masks(uid, without), "subsample_idx": list(range(0, FRAMES, 30))}
    assert {path.name for path in (data_dir / uid).iterdir() if path.is_dir()} == set(CAMERAS) - set(without)
    for camera in set(CAMERAS) - set(without):
        assert read_frames(data_dir, uid, camera) == {frame: frame for frame in range(0, FRAMES, 30)}


def read_frames(data_dir: Path, uid: str, camera: str) -> dict[int, int]:
    """For each frame of a camera, the number in its file's name -> the number in its picture."""
    return {int(p.stem): read_number(cv2.imread(str(p))) for p in (data_dir / uid / camera).iterdir()}


def process(root: Path, *flags: object) -> int:
    """Run process_data.py in this process on the takes of `root`, with one worker; returns its exit status."""
    return exit_status(process_data.main, "--takepath", root / "takes", "--num_workers", 1, *flags)


def failures(data_dir: Path) -> list[dict]:
    """The failures of all takes, from their failed.json."""
    files = {path.parent.name: json.loads(path.read_text()) for path in sorted(data_dir.glob("*/failed.json"))}
    return [{"take_uid": uid, **row} for uid, take in files.items() for row in take["failures"]]


def tree(folder: Path) -> dict[str, bytes]:
    """The content of every file below a folder, by its path."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
