"""The rules by which groups of this field average scores, for the same cases (defined in docs/evaluation.md).

The rule `official` is the benchmark's. Each other rule comes from the scorer of a published system, and makes figures
comparable with the figures of that system. A score that a rule does not define is nan.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from common.existence import benchmarks_accuracy
from evaluation.figures import benchmarks_scores
from evaluation.metrics import OFFICIAL
from evaluation.summary import metrics_of_cases
from formats.pairs import Pairs

VISIBLE_AREA = 0.001  # fraction of the image; LM-EEC predicts "visible" if the mask is larger
WITHOUT_EXISTENCE = OFFICIAL[:3]


def protocol_scores(values: Sequence[float], unit: str, count: int, visible: Sequence[bool] = ()) -> dict[str, Any]:
    """The scores by one rule, in the order of OFFICIAL; nan if the rule does not define a score.

    The scores are means over `count` items of the kind `unit`: "masks", "takes" or "frame pairs". `visible`: one flag
    for each frame that counts for existence. `existence_classes`: 1 or 2, the number of classes present.
    """
    basis = {"averaged_over": unit, "count": count, "existence_classes": len(set(visible))}
    return dict(zip(OFFICIAL, map(float, values), strict=True)) | basis


def official(pairs: Pairs, cases: np.ndarray) -> dict[str, Any]:
    """The benchmark's rule: means over all frames in which the target has a mask."""
    values, visible = benchmarks_scores(metrics_of_cases(cases)), cases["visible"].tolist()
    return protocol_scores([values[name] for name in OFFICIAL], "masks", sum(visible), visible)


def omama(pairs: Pairs, cases: np.ndarray) -> dict[str, Any]:
    """O-MaMa's rule: true masks are resized to the prediction, and distances are fractions of the image's diagonal."""
    visible = cases["visible"].tolist()
    of_masks = cases["at_file_size"][visible]
    values = [mean(of_masks[name]) for name in ("iou", "location_error_own_diagonal", "contour_accuracy")]
    accuracy = benchmarks_scores(metrics_of_cases(cases))["balanced_accuracy"]
    return protocol_scores([*values, accuracy], "masks", len(of_masks), visible)


def pooled_per_take(pairs: Pairs, cases: np.ndarray) -> dict[str, Any]:
    """ObjectRelator's rule: for each take, the sum of intersections divided by the sum of unions; mean over takes."""
    masks = cases[cases["visible"]]
    takes, number = np.unique(pairs.take[cases["visible"]], return_inverse=True)
    shared = np.bincount(number, masks["shared_pixels"])
    union = np.bincount(number, masks["truth_pixels"] + masks["predicted_pixels"]) - shared
    return protocol_scores([mean(shared / (union + 1e-10)), math.nan, math.nan, math.nan], "takes", len(takes))


def per_pair(pairs: Pairs, cases: np.ndarray) -> dict[str, Any]:
    """V2-SAM's rule "frame level": the mean over objects of each pair of query and target frame, then over pairs."""
    masks, visible = cases[cases["visible"]], pairs[cases["visible"]]
    views = np.stack([visible.take, visible.query, visible.target, visible.frame])
    _, number, count = np.unique(views, axis=1, return_inverse=True, return_counts=True)
    values = [mean(np.bincount(number, masks[name]) / count) for name in WITHOUT_EXISTENCE]
    return protocol_scores([*values, math.nan], "frame pairs", len(count))


def lmeec_visibility(pairs: Pairs, cases: np.ndarray) -> dict[str, Any]:
    """LM-EEC's rule: a mask above 0.1 % of the image says "visible"; true masks empty at 480 pixels are hidden."""
    truth = cases["visible"] & (cases["truth_pixels"] > 0)
    masks, predicted = cases[truth], cases["predicted_area"] > VISIBLE_AREA
    accuracy = benchmarks_accuracy(mean(predicted[truth]), mean(~predicted[~truth]))
    values = [mean(masks[name]) for name in WITHOUT_EXISTENCE]
    return protocol_scores([*values, accuracy], "masks", len(masks), truth.tolist())


def mean(values: np.ndarray) -> float:
    """The mean; nan if there are no values."""
    return float(np.mean(values)) if len(values) else math.nan


PROTOCOLS = {rule.__name__: rule for rule in (official, omama, pooled_per_take, per_pair, lmeec_visibility)}
ALL_FRAMES = "omama", "lmeec_visibility"  # rules whose groups also score frames at which no annotator looked
