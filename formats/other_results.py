"""Predictions that other programs write, read as if they were a results file (formats/results.py).

A folder of PNG masks, any size; what is not black is the object:

    <folder>/{take_uid}/{object}/{query_cam}_{target_cam}/{frame}.png

A name with a slash is a folder in a folder. There is no confidence in it.

A JSON list of detections with COCO's four keys, those of a take one after the other:

    [{"image_id": "{take_uid}/{query_cam}_{target_cam}/{frame}", "category_id": object,
      "segmentation": {"size": [H, W], "counts": str}, "score": float}, ...]

Of several detections of an object in an image the one with the highest score counts.
"""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from formats.errors import MALFORMED, UserError
from formats.files import iter_json_list
from formats.masks import MAX_SIDE, encode_mask

MASK_LAYOUT = "{take_uid}/{object}/{query_cam}_{target_cam}/{frame}.png"
DETECTION = '{"image_id": "{take_uid}/{query_cam}_{target_cam}/{frame}", "category_id", "segmentation", "score"}'
ENTRY = {"pred_mask": "segmentation", "confidence": "score"}  # key of a results entry -> of a detection
LIST_REMEDY = f"write it as a list of {DETECTION}"


def iter_mask_folder(folder: Path) -> Iterator[tuple[str, Any]]:
    """`(take_uid, results)` of each take in a folder of PNG masks. Raises UserError if there is none."""
    found = False
    for take in sorted(path for path in Path(folder).iterdir() if path.is_dir()):
        masks: dict[str, Any] = {}
        for path in sorted(take.rglob("*.png")):
            *object_name, pair, _ = path.relative_to(take).parts
            if object_name and path.stem.isdecimal():
                frames = masks.setdefault("/".join(object_name), {}).setdefault(pair, {})
                frames[str(int(path.stem))] = _read_prediction(path)
        if masks:
            found = True
            yield take.name, {"masks": masks}
    if not found:
        raise UserError(f"{folder} is a folder without masks {MASK_LAYOUT}")


def _read_prediction(path: Path) -> dict[str, Any]:
    """A PNG mask as an entry of a results file; the entry of a broken one says so where a mask should be."""
    data = path.read_bytes()
    size = int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")  # of the PNG's header
    image = None
    if data[:8] == b"\x89PNG\r\n\x1a\n" and min(size) > 0 and max(size) <= MAX_SIDE:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        return {"pred_mask": "no PNG picture"}
    return {"pred_mask": encode_mask(image.any(axis=2))}


def iter_detections(path: Path) -> Iterator[tuple[str, Any]]:
    """`(take_uid, results)` of each take in a list of detections, holding one take at a time.

    Raises UserError, naming the entry, if one is no detection or the entries of a take are not one after the other.
    """
    seen = set()
    for uid, entries in groupby(_parsed(path), key=lambda entry: entry[0]):
        if uid in seen:
            raise UserError(f"{path}: the entries of take {uid} are not one after the other; sort the list by image_id")
        seen.add(uid)
        masks: dict[str, Any] = {}
        for _, object_name, pair, frame, entry in entries:
            frames = masks.setdefault(object_name, {}).setdefault(pair, {})
            if frame not in frames or _score(entry) > _score(frames[frame]):
                frames[frame] = entry
        yield uid, {"masks": masks}


def _parsed(path: Path) -> Iterator[tuple[str, str, str, str, dict[str, Any]]]:
    """Take uid, object, camera pair, frame and results entry of each detection."""
    for number, detection in enumerate(iter_json_list(path, LIST_REMEDY)):
        try:
            uid, pair, frame = detection["image_id"].split("/")
            object_name = detection["category_id"]
            if not isinstance(object_name, str) or not frame.isdecimal():
                raise ValueError
        except MALFORMED:
            raise UserError(f"{path}: entry {number} ({str(detection)[:80]}) is not {DETECTION}") from None
        entry = {key: detection[name] for key, name in ENTRY.items() if name in detection}
        yield uid, object_name, pair, str(int(frame)), entry


def _score(entry: dict[str, Any]) -> float:
    """To rank by; a score that is no number is the lowest, and is found fault with where it is read."""
    score = entry.get("confidence")
    return score if isinstance(score, int | float) else -1.0
