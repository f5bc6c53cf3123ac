"""The benchmark's official evaluation, written as simply as possible: whole images, full-size masks, no shortcuts.

test_metrics.py compares evaluation/ with it; they share no code.
"""

import cv2
import numpy as np
from scipy import ndimage


def resized(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The mask resized to (H, W) by nearest neighbor."""
    return cv2.resize(mask, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)


def iou(truth: np.ndarray, mask: np.ndarray) -> float:
    truth, mask = truth.astype(bool), mask.astype(bool)
    if not truth.any() and not mask.any():
        return 1.0
    return np.sum(truth & mask) / (np.sum(truth | mask) + 1e-7)


def contour_accuracy(truth: np.ndarray, mask: np.ndarray) -> float:
    radius = int(np.ceil(0.008 * np.linalg.norm(truth.shape)))
    x, y = np.meshgrid(np.arange(-radius, radius + 1), np.arange(-radius, radius + 1))
    disk = x**2 + y**2 <= radius**2
    truth_contour, mask_contour = contour(truth.astype(bool)), contour(mask.astype(bool))
    truth_near, mask_near = (ndimage.binary_dilation(c, disk) for c in (truth_contour, mask_contour))
    n_truth, n_mask = truth_contour.sum(), mask_contour.sum()
    if n_mask == 0 and n_truth == 0:
        precision, recall = 1.0, 1.0
    elif n_mask == 0:
        precision, recall = 1.0, 0.0
    elif n_truth == 0:
        precision, recall = 0.0, 1.0
    else:
        precision = np.sum(mask_contour & truth_near) / n_mask
        recall = np.sum(truth_contour & mask_near) / n_truth
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def contour(mask: np.ndarray) -> np.ndarray:
    right, down, diagonal = np.zeros_like(mask), np.zeros_like(mask), np.zeros_like(mask)
    right[:, :-1] = mask[:, 1:]
    down[:-1, :] = mask[1:, :]
    diagonal[:-1, :-1] = mask[1:, 1:]
    out = (mask ^ right) | (mask ^ down) | (mask ^ diagonal)
    out[-1, :] = mask[-1, :] ^ right[-1, :]
    out[:, -1] = mask[:, -1] ^ down[:, -1]
    out[-1, -1] = False
    return out


def location_error(truth: np.ndarray, mask: np.ndarray) -> float:
    height = truth.shape[0]
    (x0, y0), (x1, y1) = center(np.pad(truth, height)), center(np.pad(mask, height))
    return np.sqrt((x0 - x1) ** 2 + (y0 - y1) ** 2) / np.sqrt(480**2 + 480**2)


def center(mask: np.ndarray) -> tuple[int, int]:
    if not mask.any():
        return mask.shape[0] // 2, mask.shape[1] // 2
    y, x = np.where(mask)
    return int(x.min() + x.max()) // 2, int(y.min() + y.max()) // 2


def balanced_accuracy(truth: list[int], prediction: list[int]) -> float:
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    return float(np.mean([np.mean(prediction[truth == label] == label) for label in np.unique(truth)]))


SCORES = {"iou": iou, "location_error": location_error, "contour_accuracy": contour_accuracy}
