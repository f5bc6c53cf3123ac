"""The results file of a setting, `{setting}_{split}_results.json`, has this form:

    {setting: {"results": {take_uid: {"masks": {object: {"{query_cam}_{target_cam}": {frame:
        {"pred_mask": {"size": [H, W], "counts": str}, "confidence": float}}}}, "subsample_idx": [0, 30, ...]}}}}

Every object of a take has a key, even if it has no pair. Predicted masks have a long side of 480 pixels. `confidence`
is the predicted existence. Other keys, such as "version" and "challenge" beside "results" or the setting, are not read.

`iter_results` also reads two forms that other programs write: a folder of PNG masks with the paths MASK_LAYOUT (a slash
in an object's name then makes another folder), and a JSON list of detections with COCO's four keys.
"""

import contextlib
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from common.errors import MALFORMED, UserError
from common.files import file_digest, holds_json_list, iter_json, iter_json_list, read_record, write_json
from formats.mask_files import png_files
from formats.mask_pictures import read_mask
from formats.masks import encode_mask

THRESHOLD = 0.5  # a pixel of higher probability belongs to the object; an object of higher existence is visible
RESULTS_DIR = Path(__file__).resolve().parents[1] / "results"  # where eval_segswap.py writes by default
MASK_LAYOUT = "{take_uid}/{object}/{query_cam}_{target_cam}/{frame}.png"
DETECTION = (
    '{"image_id": "{take_uid}/{query_cam}_{target_cam}/{frame}", "category_id": "{object}", '
    '"segmentation": {"size", "counts"}, "score": 0.5}'
)


def results_path(out_dir: Path, setting: str, split: str) -> Path:
    return out_dir / f"{setting}_{split}_results.json"


def path_beside(results: Path, what: str) -> Path:
    """The path of another file of the same run: `results/ego-exo_val_results.json` -> `results/ego-exo_val_{what}`."""
    stem = Path(results.name.removesuffix(".gz")).stem
    return results.absolute().with_name(f"{stem.removesuffix('_results')}_{what}")


def read_run(results: Path) -> dict[str, Any]:
    """The run record that eval_segswap.py wrote beside a results file; without entries if none is about this file."""
    form = {"provenance": dict, "results_sha256": str, "takes": dict}
    with contextlib.suppress(UserError, OSError):  # the record is missing or not ours, or `results` is a folder
        record = read_record(path_beside(results, "run.json"), form, "delete it")
        if record["results_sha256"] == file_digest(results):
            return record
    return {"provenance": {}, "takes": {}}


def part_name(take_uid: str, digest: str) -> str:
    """The name of a predicted take in the run record; `digest` is its `ProcessedTake.digest`."""
    return f"{take_uid}.{digest[:12]}.json"


def reprocessed_line(run: dict[str, Any], digests: dict[str, str]) -> str:
    """A line that names the takes which, by the run's record, were predicted when they had other `digests`; or ""."""
    names = {uid: part_name(uid, digest) for uid, digest in digests.items() if digest}
    changed = [uid for uid, name in names.items() if run["takes"].get(uid, name) != name]
    what = f"predicted from masks or frames that have changed since, or by version 2.4: {', '.join(changed)}"
    return f"{what}; run `{run['provenance'].get('command')}` again" if changed else ""


def camera_pair_key(query_camera: str, target_camera: str) -> str:
    return f"{query_camera}_{target_camera}"


def write_results(path: Path, setting: str, takes: Iterable[tuple[str, dict]]) -> None:
    """Write the results of `takes`, `(take_uid, {"masks", "subsample_idx"})`, atomically, one take at a time."""
    write_json(path, {setting: {"results": iter(takes)}})


def iter_results(path: Path, setting: str, which: str = "--split SPLIT") -> Iterator[tuple[str, Any]]:
    """Yield `(take_uid, results)` for each take of one setting, in the file's order, with one take in memory.

    `path` may also be a folder of PNG masks or a list of detections, with the pairs of both settings. Raises UserError
    if the file is missing, is not JSON, has no results of the setting, or has a take twice. The error names the command
    that predicts; `which` are the options of this command that choose the takes.
    """
    if path.is_dir():
        takes = _iter_mask_folder(path)
    elif holds_json_list(path):
        takes = _iter_detections(path)
    else:
        command = f"eval_segswap.py --setting {setting} {which} --ckpt_path CHECKPOINT --out_path {path.parent}"
        takes = iter_json(path, (setting, "results"), f"results are made by `python {command}`")
    seen = set()
    for uid, take in takes:
        if uid in seen:
            raise UserError(f"{path} holds take {uid} at two places; keep one, or sort detections by image_id")
        seen.add(uid)
        yield uid, take


def _iter_mask_folder(folder: Path) -> Iterator[tuple[str, Any]]:
    """Yield the takes of a folder of PNG masks. The masks may have any size; the takes have no confidences.

    Raises UserError if the folder has no mask, or if one of its masks cannot be read.
    """
    is_empty = True
    for take in sorted(path for path in folder.iterdir() if path.is_dir()):
        masks: dict[str, Any] = {}
        for path in png_files(take):
            *object_name, pair = path.parent.relative_to(take).parts or ("",)
            if object_name and path.stem.isdecimal():
                frames = masks.setdefault("/".join(object_name), {}).setdefault(pair, {})
                frames[str(int(path.stem))] = {"pred_mask": encode_mask(read_mask(path))}
        if masks:
            is_empty = False
            yield take.name, {"masks": masks}
    if is_empty:
        raise UserError(f"{folder} is a folder without masks {MASK_LAYOUT}")


def _iter_detections(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the takes of a list of detections, in which the detections of a take come one after the other.

    If an object has several detections in an image, the one with the highest score counts. Raises UserError, with the
    entry's number, if an entry is not a DETECTION.
    """
    for uid, entries in groupby(_parsed_detections(path), key=lambda entry: entry[0]):
        masks: dict[str, Any] = {}
        for _, object_name, pair, frame, entry in entries:
            frames = masks.setdefault(object_name, {}).setdefault(pair, {})
            if frame not in frames or entry["confidence"] > frames[frame]["confidence"]:
                frames[frame] = entry
        yield uid, {"masks": masks}


def _parsed_detections(path: Path) -> Iterator[tuple[str, str, str, str, dict[str, Any]]]:
    """Yield the take's uid, object, camera pair, frame and results entry of each detection."""
    for number, detection in enumerate(iter_json_list(path, f"write it as a list of {DETECTION}")):
        try:
            uid, pair, frame = detection["image_id"].split("/")
            object_name, score = detection["category_id"], detection["score"]
            if not isinstance(object_name, str) or not frame.isdecimal() or not isinstance(score, int | float):
                raise ValueError
            entry = {"pred_mask": detection["segmentation"], "confidence": score}
        except MALFORMED:
            raise UserError(f"{path}: entry {number} ({str(detection)[:80]}) is not {DETECTION}") from None
        yield uid, object_name, pair, str(int(frame)), entry
