"""Make results and annotation files for tests of the evaluation; predictions are near the true masks."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from common.files import write_json
from evaluation.metrics import MaskScores
from evaluation.score import CASE
from formats.geometry import eval_size
from formats.masks import RLE, encode_lzstring, encode_mask, mask_size, resize_mask
from formats.processed import ANNOTATION, ProcessedTake
from formats.results import camera_pair_key, results_path
from tests.made.processed import make_data_set


def eval_mask(rle: RLE) -> np.ndarray:
    """The mask with a long side of 480 pixels, the size in which the benchmark compares masks."""
    return resize_mask(rle, eval_size(mask_size(rle)))


def make_results(data_dir: Path, uids: list[str], setting: str, seed: int = 0, shift: float = 3) -> dict:
    """Results by take uid: the true masks moved by about `shift` pixels, and some empty masks."""
    rng = np.random.default_rng(seed)
    results = {}
    for uid in uids:
        take = ProcessedTake.read(data_dir, uid)
        masks = {name: {} for name in take.masks}
        for pair in take.correspondences(setting):
            truth = take.masks[pair.object_name][pair.target_camera]
            frames = {}
            for frame in take.masks[pair.object_name][pair.query_camera]:
                mask = np.zeros(eval_size(take.video_size(pair.target_camera)), np.uint8)
                if frame in truth and rng.random() > 0.1:
                    mask = np.roll(eval_mask(truth[frame]), rng.normal(0, shift, 2).astype(int), (0, 1))
                confidence = 1 / (1 + np.exp(-rng.normal(1.5 if frame in truth else -1)))
                frames[str(frame)] = {"pred_mask": encode_mask(mask), "confidence": float(confidence)}
            masks[pair.object_name][camera_pair_key(pair.query_camera, pair.target_camera)] = frames
        results[uid] = {"masks": masks, "subsample_idx": take.subsample_idx}
    return results


def make_results_file(folder: Path, data_dir: Path, uids: list[str], setting: str, split: str = "val", **how) -> Path:
    path = results_path(folder, setting, split)
    write_json(path, {setting: {"results": make_results(data_dir, uids, setting, **how)}})
    return path


def read_results(path: Path, setting: str = "ego-exo") -> dict:
    """The takes of a results file."""
    return json.loads(path.read_text())[setting]["results"]


def keyed_entries(results: dict) -> Iterator[tuple[tuple[str, str, str, str], dict]]:
    """Yield ((take, object, camera pair, frame), entry) for each entry of the results."""
    for uid, take in results.items():
        for name, pairs in take["masks"].items():
            for pair, frames in pairs.items():
                yield from (((uid, name, pair, frame), entry) for frame, entry in frames.items())


def make_annotations(path: Path, takes: dict[str, dict], annotated_frames: dict[str, dict] | None = None) -> Path:
    """Write an annotation file of `takes`, the contents of annotation.json by uid. By default all frames count as
    annotated.
    """
    annotations = {}
    for uid, take in takes.items():
        annotated = (annotated_frames or {}).get(uid)
        annotations[uid] = {
            "take_name": f"take_{uid}",
            "scenario": "Cooking",
            "object_masks": {
                name: {
                    camera: {
                        "annotation": {frame: raw_mask(rle) for frame, rle in frames.items()},
                        "annotated_frames": annotated[name][camera] if annotated else take["subsample_idx"],
                    }
                    for camera, frames in cameras.items()
                }
                for name, cameras in take["masks"].items()
            },
        }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"annotations": annotations}))
    return path


def raw_mask(rle: RLE) -> dict:
    """A mask in the form of annotation files."""
    height, width = rle["size"]
    return {"height": height, "width": width, "encodedMask": encode_lzstring(rle["counts"]), "intSegClicks": []}


def make_cases(*cases: tuple[float, MaskScores | None]) -> np.ndarray:
    """Cases of these existences and scores; without scores, the object is hidden."""
    rows = ((scores is not None, existence, scores or (0,) * len(MaskScores._fields)) for existence, scores in cases)
    return np.array([(visible, existence, *scores, 0, scores) for visible, existence, scores in rows], CASE)


UIDS = ["take-a", "take-b"]


def make_scored_data(root: Path, layout: dict | None = None) -> Path:
    """Write a small data set with annotations, and results of two models (a is better than b) in both settings."""
    data_dir = make_data_set(root, {"val": UIDS}, layout)
    (root / "split.json").write_text(json.dumps({"val": UIDS, "test": UIDS[:1]}))
    takes = {uid: json.loads((data_dir / uid / ANNOTATION).read_text()) for uid in UIDS}
    make_annotations(root / "annotations" / "relations_val.json", takes)
    for model, (seed, shift) in {"a": (0, 3), "b": (1, 12)}.items():
        for setting in ("ego-exo", "exo-ego"):
            make_results_file(root / model, data_dir, UIDS, setting, seed=seed, shift=shift)
    return root


def options(root: Path, *results: Path) -> list[str]:
    """The options by which a script reads the ego-exo `results` (by default model a's) of the data set in `root`."""
    results = results or (root / "a" / "ego-exo_val_results.json",)
    words = ["--setting", "ego-exo", "--data_path", root / "processed", "--num_workers", 0, "--pred_file", *results]
    return list(map(str, words))
