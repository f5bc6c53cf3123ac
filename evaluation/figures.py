"""The figures of an evaluation: metrics.json has those of one results file, comparison.json those of several.

A value without any case is nan, which is null in JSON.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from common.constants import SETTINGS
from common.existence import benchmarks_accuracy
from common.files import has_form, read_record
from evaluation.metrics import METRICS, OFFICIAL

FIGURES_FILES = "metrics.json", "comparison.json"
REMEDY = "give metrics.json of evaluate.py, or comparison.json of compare.py, with --setting and without --all_frames"
Interval = tuple[float, float]  # the edges; nan if there is no interval, as for a single take


class Group(NamedTuple):
    """The counts and scores of some cases."""

    label: str
    frames: int  # the cases; one is an object in a pair of frames
    visible: int
    frames_several_objects: int
    missed: int
    invented: int
    scores: dict[str, float]  # METRICS, and right_object_chance

    @property
    def lacks(self) -> str:
        """Which objects the cases lack: "visible" or "hidden" ones; "" if they have both."""
        if not self.visible:
            return "visible"
        return "hidden" if self.visible == self.frames else ""

    def text(self, name: str) -> str:
        """The value of a metric; "-" if it has none."""
        return METRICS[name].as_text(self.scores[name])


def is_undefined(name: str, lacks: str) -> bool:
    """Whether a metric needs the objects that the cases lack. The balanced accuracy needs both."""
    return bool(lacks) and METRICS[name].over in ("", lacks)


def benchmarks_scores(scores: Mapping[str, float]) -> dict[str, float]:
    """The scores of all cases as the benchmark's script has them, which differ if the cases lack visible or hidden
    objects.
    """
    accuracy = benchmarks_accuracy(1 - scores["missed_existence"], 1 - scores["false_existence"])
    return {**scores, "balanced_accuracy": accuracy}


class Summary(NamedTuple):
    """The figures of a results file, or the means of several."""

    total: Group
    intervals: dict[str, Interval]  # of METRICS
    breakdown: dict[str, list[Group]] = {}  # by kind


class Change(NamedTuple):
    """A metric of two results files on the same cases."""

    first: float
    second: float
    difference: float
    interval_95: Interval  # of the difference


class Comparison(NamedTuple):
    """A results file, called `second`, beside the first one."""

    second: str
    metrics: dict[str, Change]
    by: dict[str, dict[str, dict[str, Change]]] = {}  # kind of breakdown -> label -> metric


class Spread(NamedTuple):
    """A metric of several results files of one method."""

    values: list[float]
    mean: float
    deviation: float  # standard deviation (n - 1)


@dataclass(frozen=True)
class Figures:
    setting: str
    split: str | None
    takes: int
    frames_wanted: int  # the cases of the ground truth; `summary.total` has the scored ones
    results: str  # path of the first results file
    summary: Summary  # of the first results file, or with `seeds` the means of all
    names: Sequence[str] = ()  # of the results files, if there are several
    takes_scored: int = 0
    comparisons: Sequence[Comparison] = ()  # of the other results files with the first; none with `seeds`
    seeds: Mapping[str, Spread] | None = None
    rules: Mapping[str, dict[str, Any]] = field(default_factory=dict)  # scores by rules, if other groups' are asked for
    all_frames: bool = False  # frames count at which no annotator looked: no score is official
    warnings: Sequence[str] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def file_name(self) -> str:
        return FIGURES_FILES[bool(self.names)]

    def as_json(self) -> dict[str, Any]:
        """The content of metrics.json, or of comparison.json if there are several files."""
        total, figures = self.summary.total, {"setting": self.setting, "split": self.split}
        figures |= {"takes": self.takes, "frames_wanted": self.frames_wanted}
        if self.names:
            figures |= {"names": self.names, "first": self.names[0], "takes_compared": self.takes_scored}
            figures |= {"frames_compared": total.frames, "comparisons": self.comparisons}
        figures |= {} if self.seeds is None else {"seeds": self.seeds}
        figures |= {"frames_scored": total.frames, "frames_visible": total.visible}
        figures |= {"frames_several_objects": total.frames_several_objects}
        figures |= {"right_object_chance": total.scores["right_object_chance"]}
        scores = benchmarks_scores(total.scores)
        official = {} if self.all_frames else {"official": {name: scores[name] for name in OFFICIAL}}
        figures |= official
        figures["extra"] = {name: scores[name] for name in METRICS if name not in official.get("official", ())}
        figures |= {"interval_95": self.summary.intervals, "breakdown": self.summary.breakdown}
        figures |= {} if not self.rules else {"protocols": self.rules}
        figures |= {"warnings": self.warnings, "results": self.results, "provenance": self.provenance}
        return _as_json(figures)


def _as_json(value: Any) -> Any:
    """Replace nan by None, named tuples by dicts, other tuples by lists, and put the scores of a group beside its
    counts.
    """
    if isinstance(value, Group):
        value = {**value._asdict(), **value.scores}
        del value["scores"]
    elif hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {key: _as_json(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return list(map(_as_json, value))
    return None if isinstance(value, float) and math.isnan(value) else value


def read_figures(path: Path) -> Figures:
    """Read the official scores, their intervals and differences from metrics.json or comparison.json, and no others.
    Raises UserError if the file does not hold what version 3 or this one writes.
    """
    raw = _with_nan(read_record(path, _are_figures, REMEDY))
    total = Group("", raw["frames_scored"], raw["frames_visible"], 0, 0, 0, raw["official"])
    changes = [{name: Change(**x["metrics"][name]) for name in OFFICIAL} for x in raw.get("comparisons", [])]
    about = raw["setting"], None, raw["takes"], total.frames, raw["results"], Summary(total, raw["interval_95"])
    names, seeds = raw.get("names", []), {} if "seeds" in raw else None
    comparisons = list(map(Comparison, names[1:], changes))
    return Figures(*about, names, comparisons=comparisons, seeds=seeds, warnings=raw["warnings"])


def _with_nan(raw: Any) -> Any:
    """Turn None into nan again."""
    if isinstance(raw, dict):
        return {key: _with_nan(member) for key, member in raw.items()}
    return list(map(_with_nan, raw)) if isinstance(raw, list) else math.nan if raw is None else raw


def _are_figures(raw: Any) -> bool:
    """Whether a JSON value is what `Figures.as_json` makes, and its parts fit each other."""
    if not has_form(raw, FORM) or not has_form(raw, SEVERAL_FORM if {"names", "comparisons"} & raw.keys() else {}):
        return False
    scored, visible, others = raw["frames_scored"], raw["frames_visible"], raw.get("comparisons", [])
    lacks = Group("", scored, visible, 0, 0, 0, {}).lacks
    scores = [raw["official"], *({name: x["metrics"][name]["second"] for name in OFFICIAL} for x in others)]
    has_all = all(is_undefined(name, lacks) or x[name] is not None for name in OFFICIAL for x in scores)
    of_others = [] if "seeds" in raw else raw.get("names", [""])[1:]
    return has_all and len(others) == len(of_others) and visible <= scored


def _is_count(raw: Any) -> bool:
    return type(raw) is int and raw >= 0


def _is_number(raw: Any, least: float = 0) -> bool:
    """Whether this is a score or a difference of scores, which are fractions, or null, which stands for nan."""
    return raw is None or (type(raw) in (int, float) and least <= raw <= 1)  # NaN is not


def _is_interval(raw: Any, least: float = 0) -> bool:
    has_edges = has_form(raw, [lambda edge: _is_number(edge, least)]) and len(raw) == 2
    return has_edges and (raw == [None, None] or (None not in raw and raw[0] <= raw[1]))


def _is_change(raw: Any) -> bool:
    if not has_form(raw, CHANGE_FORM):
        return False
    first, second, difference, _ = (raw[name] for name in Change._fields)
    return None in (first, second, difference) or abs(second - first - difference) < 1e-9


CHANGE_FORM = {
    **{"first": _is_number, "second": _is_number, "difference": lambda raw: _is_number(raw, -1)},
    "interval_95": lambda raw: _is_interval(raw, -1),
}
FORM = {  # of what `read_figures` reads
    "setting": lambda raw: raw in [*SETTINGS],
    **dict.fromkeys(("takes", "frames_scored", "frames_visible"), _is_count),
    **{"official": dict.fromkeys(OFFICIAL, _is_number), "interval_95": dict.fromkeys(OFFICIAL, _is_interval)},
    **{"warnings": [str], "results": str},
}
SEVERAL_FORM = {"names": [str], "comparisons": [{"metrics": dict.fromkeys(OFFICIAL, _is_change)}]}
