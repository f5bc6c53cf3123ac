"""The rules of other scorers of the field, written out plainly: whole images, no shortcuts, a loop for each rule.

The oracle of test_protocols.py. Shares no code with evaluation/; the scores of two masks of one size are those of
benchmarks/official_evaluation.py. `truth` is the official ground truth's "annotations", `predictions` are results by
take uid.
"""

from collections.abc import Iterator
from functools import cache

import cv2
import numpy as np
from pycocotools import mask as coco

from benchmarks import official_evaluation
from benchmarks.official_evaluation import balanced_accuracy, center, iou, location_error


def scored(truth: dict, predictions: dict, setting: str) -> Iterator[tuple[tuple, dict | None, dict]]:
    """((take, query camera, target camera, frame), true RLE or None, entry) of each object in each scored frame."""
    for uid, take in truth.items():
        for name, cameras in take["masks"].items():
            for ego in [camera for camera in cameras if camera.startswith("aria")]:
                for exo in [camera for camera in cameras if not camera.startswith("aria")]:
                    query, target = (ego, exo) if setting == "ego-exo" else (exo, ego)
                    for frame in cameras[query]:
                        if int(frame) in take["annotated_frames"][name][target]:
                            entry = predictions[uid]["masks"][name][f"{query}_{target}"][frame]
                            yield (uid, query, target, frame), cameras[target].get(frame), entry


def resized(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """By nearest neighbor to (H, W)."""
    return cv2.resize(mask, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)


@cache  # rules share masks, and decoding a video's takes a while
def _true_mask(counts: str, size: tuple[int, int], new_size: tuple[int, int]) -> np.ndarray:
    return resized(coco.decode({"size": list(size), "counts": counts}), new_size)


def true_mask_of(rle: dict, size: tuple[int, int]) -> np.ndarray:
    """A true mask at (H, W)."""
    return _true_mask(rle["counts"], tuple(rle["size"]), size)


@cache
def _contour_accuracy(truth: bytes, mask: bytes, size: tuple[int, int]) -> float:
    truth, mask = (np.frombuffer(data, np.uint8).reshape(size) for data in (truth, mask))
    return official_evaluation.contour_accuracy(truth, mask)


def contour_accuracy(truth: np.ndarray, mask: np.ndarray) -> float:
    return _contour_accuracy(truth.tobytes(), mask.tobytes(), truth.shape)


def official_size(rle: dict) -> tuple[int, int]:
    height, width = rle["size"]
    if height > width:
        return 480, int(width * (1.0 / height * 480))
    return int(height * (1.0 / width * 480)), 480


def at_official_size(predictions: dict, truth: dict) -> dict:
    """Predictions of any size as they are read with --resize_masks."""
    out = {}
    for uid, take in predictions.items():
        out[uid] = {"masks": {}}
        for name, pairs in take["masks"].items():
            out[uid]["masks"][name] = {pair: {} for pair in pairs}
            for pair, frames in pairs.items():
                target = next(c for c in truth[uid]["masks"][name] if pair.endswith(f"_{c}"))
                size = next(official_size(rle) for rle in camera_masks(truth[uid], target))
                for frame, entry in frames.items():
                    mask = np.asfortranarray(resized(coco.decode(entry["pred_mask"]), size))
                    out[uid]["masks"][name][pair][frame] = {**entry, "pred_mask": coco.encode(mask)}
    return out


def camera_masks(take: dict, camera: str) -> Iterator[dict]:
    for cameras in take["masks"].values():
        yield from cameras.get(camera, {}).values()


SCORES = {"iou": iou, "contour_accuracy": contour_accuracy, "location_error": location_error}


def official(truth: dict, predictions: dict, setting: str) -> dict[str, float]:
    values = {name: [] for name in SCORES}
    exists, said = [], []
    for _, true_rle, entry in scored(truth, at_official_size(predictions, truth), setting):
        exists.append(int(true_rle is not None))
        said.append(int(entry["confidence"] > 0.5))
        if true_rle is not None:
            mask = coco.decode(entry["pred_mask"])
            for name, score in SCORES.items():
                values[name].append(score(true_mask_of(true_rle, mask.shape), mask))
    means = {name: np.mean(found) for name, found in values.items()}
    return {**means, "balanced_accuracy": balanced_accuracy(exists, said)}


def omama(truth: dict, predictions: dict, setting: str) -> dict[str, float]:
    ious, contours, locations, exists, said = [], [], [], [], []
    for _, true_rle, entry in scored(truth, predictions, setting):
        exists.append(int(true_rle is not None))
        said.append(int(entry["confidence"] > 0.5))
        if true_rle is None:
            continue
        mask = coco.decode(entry["pred_mask"])
        true_mask = true_mask_of(true_rle, mask.shape)
        ious.append(iou(true_mask, mask))
        contours.append(contour_accuracy(true_mask, mask))
        height, width = mask.shape
        (x0, y0), (x1, y1) = center(np.pad(true_mask, height)), center(np.pad(mask, height))
        locations.append(np.sqrt((x0 - x1) ** 2 + (y0 - y1) ** 2) / np.sqrt(height**2 + width**2))
    return {
        "iou": np.mean(ious),
        "location_error": np.mean(locations),
        "contour_accuracy": np.mean(contours),
        "balanced_accuracy": balanced_accuracy(exists, said),
    }


def pooled_per_take(truth: dict, predictions: dict, setting: str) -> dict[str, float]:
    intersection, union = {}, {}
    for (uid, *_), true_rle, entry in scored(truth, at_official_size(predictions, truth), setting):
        if true_rle is None:
            continue
        mask = coco.decode(entry["pred_mask"])
        true_mask = true_mask_of(true_rle, mask.shape)
        intersection[uid] = intersection.get(uid, 0) + np.sum((true_mask == 1) & (mask == 1))
        union[uid] = union.get(uid, 0) + np.sum((true_mask == 1) | (mask == 1))
    return {"iou": np.mean([intersection[uid] / (union[uid] + 1e-10) for uid in union])}


def per_pair(truth: dict, predictions: dict, setting: str) -> dict[str, float]:
    values = {name: {} for name in SCORES}
    for pair, true_rle, entry in scored(truth, at_official_size(predictions, truth), setting):
        if true_rle is None:
            continue
        mask = coco.decode(entry["pred_mask"])
        true_mask = true_mask_of(true_rle, mask.shape)
        for name, score in SCORES.items():
            values[name].setdefault(pair, []).append(score(true_mask, mask))
    return {name: np.mean([np.mean(pair) for pair in pairs.values()]) for name, pairs in values.items()}


def lmeec_visibility(truth: dict, predictions: dict, setting: str) -> dict[str, float]:
    values = {name: [] for name in SCORES}
    exists, said = [], []
    as_read = at_official_size(predictions, truth)
    entries = zip(scored(truth, predictions, setting), scored(truth, as_read, setting), strict=True)
    for (_, true_rle, given), (_, _, entry) in entries:
        given_mask, mask = coco.decode(given["pred_mask"]), coco.decode(entry["pred_mask"])
        said.append(int(given_mask.sum() > 0.001 * given_mask.shape[0] * given_mask.shape[1]))
        true_mask = np.zeros_like(mask) if true_rle is None else true_mask_of(true_rle, mask.shape)
        exists.append(int(true_mask.any()))
        if true_mask.any():
            for name, score in SCORES.items():
                values[name].append(score(true_mask, mask))
    means = {name: np.mean(found) for name, found in values.items()}
    return {**means, "balanced_accuracy": balanced_accuracy(exists, said)}
