"""The rules by which groups of this field average scores, for the same cases (defined in docs/evaluation.md).

The rule `official` is the benchmark's. Each other rule comes from the scorer of a published system, and makes figures
comparable with the figures of that system.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from common.existence import balanced_accuracy
from evaluation.metrics import OFFICIAL, MaskScores
from evaluation.score import Case
from evaluation.summary import mean, metrics_of_cases

VISIBLE_AREA = 0.001  # fraction of the image; LM-EEC predicts "visible" if the mask is larger
OFFICIAL_RULE = "official"


def official(cases: Sequence[Case]) -> dict[str, Any]:
    """The benchmark's rule: means over all frames in which the target has a mask."""
    values, visible = metrics_of_cases(cases), [case.visible for case in cases]
    return protocol_scores([values[name] for name in OFFICIAL], sum(visible), visible)


def omama(cases: Sequence[Case]) -> dict[str, Any]:
    """O-MaMa's rule: true masks are resized to the prediction, and distances are fractions of the image's diagonal."""
    masks = [case.scores_at_file_size or case.scores for case in cases if case.scores]
    values = mean_scores(masks, "iou", "location_error_own_diagonal", "contour_accuracy")
    accuracy = metrics_of_cases(cases)["balanced_accuracy"]
    return protocol_scores([*values, accuracy], len(masks), [case.visible for case in cases])


def lmeec_visibility(cases: Sequence[Case]) -> dict[str, Any]:
    """LM-EEC's rule: a mask above 0.1 % of the image says "visible"; true masks empty at 480 pixels are hidden."""
    masks = [case.scores for case in cases if case.scores and case.scores.truth_pixels]
    truth = np.array([case.scores and case.scores.truth_pixels > 0 for case in cases], bool)
    predicted = np.array([case.predicted_area > VISIBLE_AREA for case in cases], bool)
    accuracy = balanced_accuracy(mean(predicted[truth]), mean(~predicted[~truth]))
    return protocol_scores([*mean_scores(masks, *OFFICIAL[:3]), accuracy], len(masks), truth.tolist())


def mean_scores(masks: Sequence[MaskScores], *names: str) -> list[float]:
    return [mean(getattr(mask, name) for mask in masks) for name in names]


def protocol_scores(values: Sequence[float], count: int, visible: Sequence[bool]) -> dict[str, Any]:
    """The scores by one rule, in the order of OFFICIAL; those of masks are means over `count` masks. `visible`: a flag
    for each frame that counts for existence. `existence_classes`: 1 or 2, the number of classes present.
    """
    basis = {"averaged_over": "masks", "count": count, "existence_classes": len(set(visible))}
    return dict(zip(OFFICIAL, values, strict=True)) | basis


PROTOCOLS: dict[str, Callable[[Sequence[Case]], dict[str, Any]]] = {
    OFFICIAL_RULE: official,
    "omama": omama,
    "lmeec_visibility": lmeec_visibility,
}


def under_protocols(protocol: str, cases: Sequence[Case]) -> dict[str, dict[str, Any]]:
    """The scores by the official rule and by `protocol`, a key of PROTOCOLS or "all"; by the name of the rule."""
    names = PROTOCOLS if protocol == "all" else dict.fromkeys((OFFICIAL_RULE, protocol))
    return {name: PROTOCOLS[name](cases) for name in names}
