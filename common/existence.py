"""Existence, the probability that an object is visible: how a person is told it, and the benchmark's score of it."""

import math
from typing import Any

from common.constants import THRESHOLD

Limits = tuple[float, float]  # of existence: "probably not there" ends at the first, "there" begins at the second
# From 0.8 on, "there" was right for 73 % of the strangers in benchmarks/photographs.py, and 86 % of our own pairs; from
# 0.9 on, for 79 % and 92 %.
LIMITS: Limits = (0.2, 0.9)
# With nothing trained, existence lies closer to the middle. With these limits, as many absent things of `chooses` are
# called there (1 of 12) and probably not there (6) as by the network. Among strangers, "there" is right for 77 %.
MATCHING_LIMITS: Limits = (0.4, 0.85)
WORDS = "there", "unsure", "probably not there", "not found"


def word_for(existence: float, low: float = LIMITS[0], high: float = LIMITS[1], mask: Any = None) -> str:
    """One of WORDS for an existence; "not found" if the found mask, of 0 and 1 or of probabilities, has no pixel."""
    if mask is not None and not (mask > THRESHOLD).any():
        return WORDS[3]
    return WORDS[0] if existence >= high else WORDS[1] if existence >= low else WORDS[2]


def with_percent(word: str, existence: float) -> str:
    return word if word == WORDS[3] else f"{word} ({int(100 * existence)} %)"  # 19.7 % are not yet 20 %


def verdict(existence: float, low: float = LIMITS[0], high: float = LIMITS[1], mask: Any = None) -> str:
    """An existence as a person is told it: "there (93 %)", "unsure (31 %)", "probably not there (4 %)" or "not found".
    Between the two, a mask in a photograph is right in one case of three, so a number alone would promise too much.
    The benchmark's scores know only visible and hidden, which common.constants.THRESHOLD separates.
    """
    return with_percent(word_for(existence, low, high, mask), existence)


def balanced_accuracy(visible_recall: Any, hidden_recall: Any) -> Any:
    """The benchmark's score of existence: the mean of the share of visible objects that are predicted visible, and the
    share of hidden objects that are predicted hidden; numbers, or arrays of one shape. Without visible, or without
    hidden objects, their share is nan, and so is the score: a constant answer would have 100 %, or 0 %.
    """
    return (visible_recall + hidden_recall) / 2


def benchmarks_accuracy(visible_recall: float, hidden_recall: float) -> float:
    """The balanced accuracy as the benchmark's script computes it even if a share is nan: it is then the other share.
    This number stands in files, for parity, and is shown nowhere.
    """
    recalls = [share for share in (visible_recall, hidden_recall) if not math.isnan(share)]
    return sum(recalls) / len(recalls) if recalls else math.nan
