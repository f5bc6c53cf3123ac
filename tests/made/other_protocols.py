"""The rules by which other groups score, written as simply as possible: whole images, no shortcuts.

test_protocols.py compares evaluation/ with it; they share no code. Scores of two masks of the same size are computed by
official_evaluation.py.
"""

import numpy as np
from pycocotools import mask as coco

from tests.made.official_evaluation import (
    SCORES,
    balanced_accuracy,
    center,
    contour_accuracy,
    iou,
    official_size,
    resized,
    scored_frames,
)


def scored_rows(truth: dict, predictions: dict, setting: str) -> list[dict]:
    """A dict for each object in each scored frame, with the values that the rules need.

    `truth` is the official ground truth's "annotations", `predictions` are results by take uid, with masks of any size.
    """
    rows = []
    for pair, true_rle, entry in scored_frames(truth, predictions, setting):
        whole_mask = coco.decode(entry["pred_mask"])
        row = {"pair": pair, "visible": true_rle is not None, "said": entry["confidence"] > 0.5}
        row["large"] = whole_mask.sum() > 0.001 * whole_mask.size
        if true_rle is not None:
            whole, size = coco.decode(true_rle), official_size(true_rle)
            true_mask, mask = resized(whole, size), resized(whole_mask, size)  # as --resize_masks does
            row["vanished"] = not true_mask.any()
            row["intersection"] = np.sum((true_mask == 1) & (mask == 1))
            row["union"] = np.sum((true_mask == 1) | (mask == 1))
            row["scores"] = {name: score(true_mask, mask) for name, score in SCORES.items()}
            row["scores at file size"] = omama_scores(resized(whole, whole_mask.shape), whole_mask)
        rows.append(row)
    return rows


def omama_scores(true_mask: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    height, width = mask.shape
    (x0, y0), (x1, y1) = center(np.pad(true_mask, height)), center(np.pad(mask, height))
    location = np.sqrt((x0 - x1) ** 2 + (y0 - y1) ** 2) / np.sqrt(height**2 + width**2)
    return {
        "iou": iou(true_mask, mask),
        "location_error": location,
        "contour_accuracy": contour_accuracy(true_mask, mask),
    }


def means(scores: list[dict[str, float]]) -> dict[str, float]:
    return {name: np.mean([of_mask[name] for of_mask in scores]) for name in SCORES}


def existence(rows: list[dict]) -> dict[str, float]:
    return {"balanced_accuracy": balanced_accuracy([row["visible"] for row in rows], [row["said"] for row in rows])}


def official(rows: list[dict]) -> dict[str, float]:
    return means([row["scores"] for row in rows if row["visible"]]) | existence(rows)


def omama(rows: list[dict]) -> dict[str, float]:
    return means([row["scores at file size"] for row in rows if row["visible"]]) | existence(rows)


def pooled_per_take(rows: list[dict]) -> dict[str, float]:
    intersection, union = {}, {}
    for row in rows:
        if row["visible"]:
            uid = row["pair"][0]
            intersection[uid] = intersection.get(uid, 0) + row["intersection"]
            union[uid] = union.get(uid, 0) + row["union"]
    return {"iou": np.mean([intersection[uid] / (union[uid] + 1e-10) for uid in union])}


def per_pair(rows: list[dict]) -> dict[str, float]:
    pairs = {}
    for row in rows:
        if row["visible"]:
            pairs.setdefault(row["pair"], []).append(row["scores"])
    return means([means(scores) for scores in pairs.values()])


def lmeec_visibility(rows: list[dict]) -> dict[str, float]:
    exists = [row["visible"] and not row["vanished"] for row in rows]
    scores = [row["scores"] for row, visible in zip(rows, exists, strict=True) if visible]
    return means(scores) | {"balanced_accuracy": balanced_accuracy(exists, [row["large"] for row in rows])}
