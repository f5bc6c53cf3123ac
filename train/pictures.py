"""Example pictures for TensorBoard."""

import cv2
import numpy as np

QUERY, PREDICTION, TRUTH = (255, 200, 0), (0, 220, 90), (255, 255, 255)  # RGB


def example_panel(
    query_image: np.ndarray,
    query_mask: np.ndarray,
    target_image: np.ndarray,
    target_mask: np.ndarray,
    target_mask_prob: np.ndarray,
) -> np.ndarray:
    """Query with its mask | target with the predicted mask tinted and the true one outlined -> (S, 2 S, 3) uint8.

    Images (S, S, 3) uint8 RGB, masks (S, S) of 0 and 1, probabilities (S, S).
    """
    query = tint(query_image, query_mask > 0, QUERY)
    target = tint(target_image, target_mask_prob > 0.5, PREDICTION)
    outlines, _ = cv2.findContours(target_mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(target, outlines, -1, TRUTH, max(1, len(target) // 240))
    return np.concatenate((query, target), 1)


def tint(image: np.ndarray, mask: np.ndarray, color: tuple[int, int, int], strength: float = 0.5) -> np.ndarray:
    """A copy of (H, W, 3) uint8 `image` with `color` mixed in where the boolean `mask` is True."""
    out = image.copy()
    out[mask] = ((1 - strength) * image[mask] + strength * np.array(color)).astype(np.uint8)
    return out
