"""The rules by which groups of this field average scores, for the same cases (defined in docs/evaluation.md).

The rule `official` is the benchmark's. Each other rule comes from the scorer of a published system, and makes figures
comparable with the figures of that system. A score that a rule does not define is nan.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from common.existence import balanced_accuracy
from evaluation.metrics import OFFICIAL, MaskScores
from evaluation.score import Case
from evaluation.summary import mean, metrics_of_cases

VISIBLE_AREA = 0.001  # fraction of the image; LM-EEC predicts "visible" if the mask is larger
OFFICIAL_RULE = "official"
MASK_SCORES = OFFICIAL[:3]  # without existence


def protocol_scores(values: Sequence[float], unit: str, count: int, visible: Sequence[bool] = ()) -> dict[str, Any]:
    """The scores by one rule, in the order of OFFICIAL; nan if the rule does not define a score.

    The scores are means over `count` items of the kind `unit`: "masks", "takes" or "frame pairs". `visible`: one flag
    for each frame that counts for existence. `existence_classes`: 1 or 2, the number of classes present.
    """
    basis = {"averaged_over": unit, "count": count, "existence_classes": len(set(visible))}
    return dict(zip(OFFICIAL, values, strict=True)) | basis


def official(cases: Sequence[Case]) -> dict[str, Any]:
    """The benchmark's rule: means over all frames in which the target has a mask."""
    values, visible = metrics_of_cases(cases), [case.visible for case in cases]
    return protocol_scores([values[name] for name in OFFICIAL], "masks", sum(visible), visible)


def omama(cases: Sequence[Case]) -> dict[str, Any]:
    """O-MaMa's rule: true masks are resized to the prediction, and distances are fractions of the image's diagonal."""
    visible = [case.visible for case in cases]
    of_masks = [case.scores_at_file_size or case.scores for case in cases if case.scores]
    values = mean_scores(of_masks, "iou", "location_error_own_diagonal", "contour_accuracy")
    return protocol_scores([*values, metrics_of_cases(cases)["balanced_accuracy"]], "masks", len(of_masks), visible)


def pooled_per_take(cases: Sequence[Case]) -> dict[str, Any]:
    """ObjectRelator's rule: for each take, the sum of intersections divided by the sum of unions; mean over takes."""
    shared, union = Counter(), Counter()
    for case in cases:
        if scores := case.scores:
            shared[case.take_uid] += scores.shared_pixels
            union[case.take_uid] += scores.truth_pixels + scores.predicted_pixels - scores.shared_pixels
    pooled = mean(shared[uid] / (union[uid] + 1e-10) for uid in union)
    return protocol_scores([pooled, math.nan, math.nan, math.nan], "takes", len(union))


def per_pair(cases: Sequence[Case]) -> dict[str, Any]:
    """V2-SAM's rule "frame level": the mean over objects of each pair of query and target frame, then over pairs."""
    pairs: dict[tuple, list[MaskScores]] = {}
    for case in cases:
        if case.scores:
            pair = case.take_uid, case.query_camera, case.target_camera, case.frame
            pairs.setdefault(pair, []).append(case.scores)
    pair_means = np.array([mean_scores(masks, *MASK_SCORES) for masks in pairs.values()]).reshape(-1, len(MASK_SCORES))
    values = map(mean, pair_means.T)
    return protocol_scores([*values, math.nan], "frame pairs", len(pairs))


def lmeec_visibility(cases: Sequence[Case]) -> dict[str, Any]:
    """LM-EEC's rule: a mask above 0.1 % of the image says "visible"; true masks empty at 480 pixels are hidden."""
    masks = [case.scores for case in cases if case.scores and case.scores.truth_pixels]
    truth = np.array([case.scores and case.scores.truth_pixels > 0 for case in cases], bool)
    predicted = np.array([case.predicted_area > VISIBLE_AREA for case in cases], bool)
    accuracy = balanced_accuracy(mean(predicted[truth]), mean(~predicted[~truth]))
    return protocol_scores([*mean_scores(masks, *MASK_SCORES), accuracy], "masks", len(masks), truth.tolist())


def mean_scores(masks: Sequence[MaskScores], *names: str) -> list[float]:
    return [mean(getattr(mask, name) for mask in masks) for name in names]


PROTOCOLS: dict[str, Callable[[Sequence[Case]], dict[str, Any]]] = {
    OFFICIAL_RULE: official,
    "omama": omama,
    "pooled_per_take": pooled_per_take,
    "per_pair": per_pair,
    "lmeec_visibility": lmeec_visibility,
}
