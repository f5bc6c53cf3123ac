"""The results file of a setting, `{setting}_{split}_results.json`:

    {setting: {"results": {take_uid: {"masks": {object: {"{query_cam}_{target_cam}": {frame:
        {"pred_mask": {"size": [H, W], "counts": str}, "confidence": float}}}}, "subsample_idx": [0, 30, ...]}}}}

Every object of a take has a key, even without a pair. Predicted masks have a long side of 480 pixels.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from formats.files import iter_json, write_json


def results_path(out_dir: Path, setting: str, split: str) -> Path:
    return Path(out_dir) / f"{setting}_{split}_results.json"


def camera_pair_key(query_camera: str, target_camera: str) -> str:
    return f"{query_camera}_{target_camera}"


def write_results(path: Path, setting: str, takes: Iterable[tuple[str, dict]]) -> None:
    """Write `(take_uid, {"masks", "subsample_idx"})` one after the other, atomically, holding one take at a time."""
    write_json(path, {setting: {"results": iter(takes)}})


def iter_results(path: Path, setting: str) -> Iterator[tuple[str, Any]]:
    """`(take_uid, results)` of one setting, in the file's order, a take at a time.

    Raises UserError if the file is missing, no JSON, or holds no results of the setting.
    """
    return iter_json(path, (setting, "results"), f"make it with `python eval_segswap.py --setting {setting}`")
