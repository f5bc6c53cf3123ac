"""Existence, the probability that an object is visible: how a person is told it, and the benchmark's score of it."""

from typing import Any

import numpy as np

# "There" begins at the first, "probably not there" ends at the second. From 0.8 on, "there" was right for 73 % of the
# strangers in benchmarks/photographs.py, and 86 % of our own pairs; from 0.9 on, for 79 % and 92 %.
SURELY_VISIBLE, SURELY_HIDDEN = 0.9, 0.2


def verdict(existence: float, low: float = SURELY_HIDDEN, high: float = SURELY_VISIBLE) -> str:
    """An existence as a person is told it: "there (93 %)", "unsure (31 %)" or "probably not there (4 %)".
    Between the two, a mask in a photograph is right in one case of three, so a number alone would promise too much.
    The benchmark's scores know only visible and hidden, which common.constants.THRESHOLD separates.
    """
    unsure = "unsure" if existence >= low else "probably not there"
    return f"{'there' if existence >= high else unsure} ({int(100 * existence)} %)"  # 19.7 % are not yet 20 %


def balanced_accuracy(visible_recall: Any, hidden_recall: Any) -> Any:
    """The benchmark's score of existence: the mean of the share of visible objects that are predicted visible, and the
    share of hidden objects that are predicted hidden; numbers, or arrays of one shape. A share is nan if there is no
    such object; it is then left out of the mean, which is nan without both.
    """
    recalls = np.stack([visible_recall, hidden_recall])
    known = ~np.isnan(recalls)
    return np.where(known.any(0), np.nansum(recalls, 0) / np.maximum(known.sum(0), 1), np.nan)[()]  # [()]: no 0-d array
