"""The figures of an evaluation: metrics.json has those of one results file, comparison.json those of several.

A value without any case is nan, which is null in JSON.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from common.constants import SETTINGS
from common.errors import MALFORMED, UserError
from common.files import read_json
from evaluation.metrics import METRICS, OFFICIAL

FIGURES_FILES = "metrics.json", "comparison.json"
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
        return "-" if is_undefined(name, self.lacks) else METRICS[name].as_text(self.scores[name])


def is_undefined(name: str, lacks: str) -> bool:
    """Whether a metric needs the objects that the cases lack. The balanced accuracy needs both: the benchmark, and
    metrics.json, then average only the class that occurs, so that a constant answer can score 100.
    """
    return bool(lacks) and METRICS[name].over in ("", lacks)


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
        official = {} if self.all_frames else {"official": {name: total.scores[name] for name in OFFICIAL}}
        figures |= official
        figures["extra"] = {name: total.scores[name] for name in METRICS if name not in official.get("official", ())}
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
    remedy = "write it with --setting, without --all_frames"
    raw = read_json(path, remedy)
    try:
        return _parse(raw)
    except MALFORMED as error:
        why = f"{type(error).__name__}: {error}"[:200]
        raise UserError(f"{path} is not of the form that this version writes ({why}); {remedy}") from None


def _parse(raw: Any) -> Figures:
    scored, visible, takes = (_typed(raw[name], int) for name in ("frames_scored", "frames_visible", "takes"))
    total = Group("", scored, visible, 0, 0, 0, {name: _number(raw["official"][name]) for name in OFFICIAL})
    intervals = {name: _interval(raw["interval_95"][name]) for name in OFFICIAL}
    names, warnings = ([_typed(text, str) for text in _typed(x, list)] for x in (raw.get("names", []), raw["warnings"]))
    others = [] if "seeds" in raw else _typed(raw.get("comparisons", []), list)  # version 2.7 compared seeds, too
    changes = [{name: _change(other["metrics"][name]) for name in OFFICIAL} for other in others]
    values = [total.scores, *({name: change.second for name, change in x.items()} for x in changes)]
    has_all = all(is_undefined(name, total.lacks) or x[name] == x[name] for name in OFFICIAL for x in values)
    of_others = [] if "seeds" in raw else names[1:]
    if raw["setting"] not in SETTINGS or not 0 <= visible <= scored or not has_all or len(changes) != len(of_others):
        raise ValueError("its parts do not fit each other")
    about, summary = (raw["setting"], None, takes, scored, _typed(raw["results"], str)), Summary(total, intervals)
    comparisons = list(map(Comparison, of_others, changes))
    return Figures(*about, summary, names, 0, comparisons, {} if "seeds" in raw else None, warnings=warnings)


def _change(raw: Any) -> Change:
    first, second, difference = _number(raw["first"]), _number(raw["second"]), _number(raw["difference"], -1)
    if abs(second - first - difference) > 1e-9:
        raise ValueError(f"{difference} is not {second} - {first}")
    return Change(first, second, difference, _interval(raw["interval_95"], -1))


def _interval(raw: Any, least: float = 0) -> Interval:
    low, high = (_number(edge, least) for edge in raw)
    if low > high or math.isnan(low) != math.isnan(high):
        raise ValueError(f"{raw} is no interval")
    return low, high


def _number(raw: Any, least: float = 0) -> float:
    """A score or a difference of scores, which are fractions; nan for null."""
    if raw is not None and (type(raw) not in (int, float) or not least <= raw <= 1):  # as of NaN
        raise ValueError(f"{raw!r} is no number from {least} to 1")
    return math.nan if raw is None else float(raw)


def _typed(raw: Any, kind: type) -> Any:
    if type(raw) is not kind:
        raise TypeError(f"{raw!r} is no {kind.__name__}")
    return raw
