"""The results file of a setting, `{setting}_{split}_results.json`:

    {setting: {"results": {take_uid: {"masks": {object: {"{query_cam}_{target_cam}": {frame:
        {"pred_mask": {"size": [H, W], "counts": str}, "confidence": float}}}}, "subsample_idx": [0, 30, ...]}}}}

Every object of a take has a key, even without a pair. Predicted masks have a long side of 480 pixels. Further keys are
passed over, such as "version" and "challenge" beside "results" or beside the setting.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from formats.files import holds_json_list, iter_json, write_json
from formats.other_results import iter_detections, iter_mask_folder

THRESHOLD = 0.5  # a pixel with a higher probability belongs to the object, an object with a higher existence is visible


def results_path(out_dir: Path, setting: str, split: str) -> Path:
    return Path(out_dir) / f"{setting}_{split}_results.json"


def camera_pair_key(query_camera: str, target_camera: str) -> str:
    return f"{query_camera}_{target_camera}"


def write_results(path: Path, setting: str, takes: Iterable[tuple[str, dict]]) -> None:
    """Write `(take_uid, {"masks", "subsample_idx"})` one after the other, atomically, holding one take at a time."""
    write_json(path, {setting: {"results": iter(takes)}})


def iter_results(path: Path, setting: str) -> Iterator[tuple[str, Any]]:
    """`(take_uid, results)` of one setting, in the file's order, a take at a time.

    `path` may also be a folder of PNG masks or a list of detections (formats/other_results.py), with the pairs of both
    settings. Raises UserError if it is missing, no JSON, or holds no results of the setting.
    """
    if Path(path).is_dir():
        return iter_mask_folder(path)
    if holds_json_list(path):
        return iter_detections(path)
    return iter_json(path, (setting, "results"), f"make it with `python eval_segswap.py --setting {setting}`")
