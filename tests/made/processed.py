"""Small processed data sets for tests; their pictures are noise, their masks ellipses."""

import json
import subprocess
from pathlib import Path

import cv2
import numpy as np

import data.create_pairs
from formats.masks import encode_mask
from formats.processed import ProcessedTake
from tests.made import EGO
from tests.made.processes import run_main

MASK_AND_FRAME_SIZES = {
    True: ((176, 176), (88, 88)),
    False: ((180, 320), (90, 160)),
}  # by whether a camera is ego: the size of its masks and of its frames
LAYOUT = {  # object -> camera -> frames with a mask, unsorted as in the real files
    "cup_0": {EGO: [60, 0, 30], "cam01": [0, 30], "cam02": [30, 60, 0]},
    "Milk carton ": {"cam02": [0, 60], EGO: [30, 60]},
    "ego only_0": {EGO: [0]},
    "nothing_0": {},
}


def make_take(data_dir: Path, uid: str, layout: dict | None = None, seed: int = 0) -> ProcessedTake:
    """Write a processed take, with all frames in which one of its objects has a mask in any camera."""
    rng = np.random.default_rng(seed)
    layout = LAYOUT if layout is None else layout
    masks = {
        name: {
            camera: {f: _ellipse(rng, MASK_AND_FRAME_SIZES[camera == EGO][0]) for f in frames}
            for camera, frames in cameras.items()
        }
        for name, cameras in layout.items()
    }
    frames = sorted({f for cameras in layout.values() for frames in cameras.values() for f in frames})
    take = ProcessedTake(uid, Path(data_dir) / uid, masks, frames)
    for camera in sorted({camera for cameras in layout.values() for camera in cameras}):
        (take.folder / camera).mkdir(parents=True)
        for frame in frames:
            height, width = MASK_AND_FRAME_SIZES[camera == EGO][1]
            noise = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
            cv2.imwrite(str(take.folder / camera / f"{frame}.jpg"), cv2.resize(noise, (width, height)))
    take.write_annotation()
    return take


def make_data_set(root: Path, takes: dict[str, list[str]], layout: dict | None = None) -> Path:
    """Write <root>/split.json and <root>/processed; `takes` are the uids by split. Returns <root>/processed."""
    for seed, uid in enumerate(uid for uids in takes.values() for uid in uids):
        make_take(root / "processed", uid, layout, seed)
    (root / "split.json").write_text(json.dumps(takes))
    return root / "processed"


def _ellipse(rng: np.random.Generator, size: tuple[int, int]) -> dict:
    height, width = size
    mask = np.zeros(size, np.uint8)
    center = int(rng.uniform(0.2, 0.8) * width), int(rng.uniform(0.2, 0.8) * height)
    axes = int(rng.uniform(0.05, 0.3) * width), int(rng.uniform(0.05, 0.3) * height)
    return encode_mask(cv2.ellipse(mask, center, axes, 0, 0, 360, 1, -1))


def write_data_set(root: Path, annotations: dict[str, dict], splits: dict[str, list[str]]) -> Path:
    """Write split.json and the annotation.json of each take, without frames; returns the processed folder."""
    for uid, annotation in annotations.items():
        folder = root / "processed" / uid
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "annotation.json").write_text(json.dumps(annotation))
    (root / "split.json").write_text(json.dumps(splits))
    return root / "processed"


def create_pairs(data_dir: Path, *flags: object) -> subprocess.CompletedProcess[str]:
    """Run data/create_pairs.py."""
    return run_main(data.create_pairs.main, "--data_dir", data_dir, *flags)
