"""The results file of a setting, `{setting}_{split}_results.json`:

    {setting: {"results": {take_uid: {"masks": {object: {"{query_cam}_{target_cam}": {frame:
        {"pred_mask": {"size": [H, W], "counts": str}, "confidence": float}}}}, "subsample_idx": [0, 30, ...]}}}}

Every object of a take has a key, even without a pair. Predicted masks have a long side of 480 pixels.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from formats.errors import UserError
from formats.files import atomic_write, iter_json, read_json


def results_path(out_dir: Path, setting: str, split: str) -> Path:
    return Path(out_dir) / f"{setting}_{split}_results.json"


def camera_pair_key(query_camera: str, target_camera: str) -> str:
    return f"{query_camera}_{target_camera}"


def write_results(path: Path, setting: str, takes: Iterable[tuple[str, dict]]) -> None:
    """Write `(take_uid, {"masks", "subsample_idx"})` one after the other, atomically, holding one take at a time."""
    with atomic_write(path) as file:
        file.write(f'{{{json.dumps(setting)}: {{"results": {{')
        for number, (take_uid, take) in enumerate(takes):
            file.write(", " if number else "")
            file.write(f"{json.dumps(take_uid)}: {json.dumps(take)}")
        file.write("}}}\n")


def iter_results(path: Path, setting: str) -> Iterator[tuple[str, Any]]:
    """`(take_uid, results)` of one setting, in the file's order, a take at a time. Raises UserError as read_results."""
    return iter_json(path, (setting, "results"), f"make it with `python eval_segswap.py --setting {setting}`")


def read_results(path: Path, setting: str) -> dict[str, Any]:
    """The results of one setting by take uid. Raises UserError if the file is not a results file of that setting."""
    remedy = f"make it with `python eval_segswap.py --setting {setting}`"
    raw = read_json(path, remedy)
    if not isinstance(raw, dict) or setting not in raw:
        found = ", ".join(map(repr, raw)) if isinstance(raw, dict) else type(raw).__name__
        raise UserError(f"{path} holds no results for setting {setting!r} (it holds {found}); {remedy}")
    results = raw[setting].get("results") if isinstance(raw[setting], dict) else None
    if not isinstance(results, dict):
        raise UserError(f'{path} has no "results" object under {setting!r}; {remedy}')
    return results
