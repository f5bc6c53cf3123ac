"""Plots of a report, written as SVG: the same values give the same file."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluation.score import Case
from formats.files import atomic_write

BLUE, ORANGE, GRAY = "#1f6fb4", "#e07b00", "#8c8c8c"
PERCENT = (0, 100)
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "legend.frameon": False,
    "svg.hashsalt": "report",
}


def save_plot(path: Path, draw: Callable[..., None], *values: Any, size: tuple[float, float] = (5.4, 3.6)) -> None:
    """Let `draw(axes, *values)` fill a plot of `size` inches and write it."""
    with rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.subplots(), *values)
        data = io.StringIO()
        figure.savefig(data, format="svg", dpi=150, metadata={"Date": None})
    with atomic_write(path) as file:
        file.write(data.getvalue())


def iou_histogram(axes: Axes, cases: Sequence[Case]) -> None:
    """How many visible cases have which IoU."""
    values = [100 * case.mask.iou for case in cases if case.visible]
    axes.hist(values, np.linspace(*PERCENT, 21), color=BLUE, edgecolor="white")
    axes.axvline(np.mean(values), color=ORANGE, label=f"mean {np.mean(values):.2f}")
    axes.axvline(np.median(values), color=ORANGE, ls=":", label=f"median {np.median(values):.2f}")
    axes.set(xlabel="IoU (%)", ylabel="cases", xlim=PERCENT)
    axes.legend()


def iou_by_size(axes: Axes, cases: Sequence[Case]) -> None:
    """Mean IoU and its middle half over the size of the true mask, in a dozen groups of about as many cases each.

    Cases of one size are in one group, so that sizes grow from group to group.
    """
    sizes, members = _groups_by_size(cases)
    iou = _visible_iou(cases)
    low, high = zip(*(np.quantile(iou[at], (0.25, 0.75)) for at in members), strict=True)
    axes.fill_between(sizes, low, high, color=BLUE, alpha=0.2, lw=0, label="middle half of the cases")
    axes.plot(sizes, [iou[at].mean() for at in members], "o-", color=BLUE, label="mean")
    _label_sizes(axes)
    axes.legend()


def compared_iou_by_size(axes: Axes, cases: Sequence[Sequence[Case]], names: Sequence[str]) -> None:
    """Mean IoU of each results file over the size of the true mask, in the groups of `iou_by_size`."""
    sizes, members = _groups_by_size(cases[0])
    for name, of_file in zip(names, cases, strict=True):
        iou = _visible_iou(of_file)
        (line,) = axes.plot(sizes, [iou[at].mean() for at in members], "o-", ms=4)
        line.set_label(name.lstrip("_") or " ")  # what begins with "_" gets no place in the legend
    _label_sizes(axes)
    for text in axes.legend().get_texts():
        text.set_parse_math(False)


def _visible_iou(cases: Sequence[Case]) -> np.ndarray:
    return np.array([100 * case.mask.iou for case in cases if case.visible])


def _groups_by_size(cases: Sequence[Case]) -> tuple[list[float], list[np.ndarray]]:
    """A dozen groups of the visible cases: median pixels of each, and which cases belong to it."""
    pixels = np.array([max(case.mask.truth_pixels, 0.5) for case in cases if case.visible])  # 0 has no logarithm
    edges = np.unique(np.quantile(pixels, np.linspace(0, 1, 13)[:-1], method="lower"))
    group = np.searchsorted(edges, pixels, side="right")
    members = [group == number for number in np.unique(group)]
    return [float(np.median(pixels[at])) for at in members], members


def _label_sizes(axes: Axes) -> None:
    axes.set(xscale="log", ylim=PERCENT, ylabel="IoU (%)")
    axes.set_xlabel("true mask in the target image, pixels at a long side of 480")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:g}"[0] in "25" else "")


def calibration(axes: Axes, bins: Sequence[dict[str, float]]) -> None:
    """Share of cases that are visible over the confidence that they are, dots as large as groups are."""
    total = sum(b["count"] for b in bins)
    confidence = [100 * b["mean_confidence"] for b in bins]
    share = [100 * b["share_visible"] for b in bins]
    axes.plot(PERCENT, PERCENT, color=GRAY, ls="--", label="calibrated")
    axes.plot(confidence, share, color=BLUE)
    axes.scatter(confidence, share, [20 + 300 * b["count"] / total for b in bins], color=BLUE, clip_on=False)
    axes.set(xlim=PERCENT, ylim=PERCENT, xlabel="confidence that the object is visible (%)", ylabel="visible (%)")
    axes.legend(loc="lower right")


def precision_recall(axes: Axes, existence: dict[str, Any], share_visible: float) -> None:
    """Precision over recall of "the object is visible"; chance is the share of visible cases."""
    recall, precision = (100 * np.array(existence[name]) for name in ("recall", "precision"))
    axes.axhline(100 * share_visible, color=GRAY, ls="--", label=f"chance {100 * share_visible:.2f}")
    label = f"average precision {100 * existence['average_precision']:.2f}"
    axes.step(recall, precision, where="pre", color=BLUE, label=label)
    axes.set(xlim=PERCENT, ylim=(0, 102), xlabel="recall (%)", ylabel="precision (%)")
    axes.legend(loc="lower left")


def mask_sizes(axes: Axes, sizes: dict[str, dict[str, Any]]) -> None:
    """How large the masks of ego and exo cameras are: the share of the masks in each bin of size."""
    filled = []  # edges of the bins that hold masks
    for kind, color in (("ego", BLUE), ("exo", ORANGE)):
        edges, count = np.array(sizes[kind]["histogram"]["edges"]), np.array(sizes[kind]["histogram"]["masks"])
        if count.any():
            axes.stairs(100 * count / count.sum(), 100 * edges, color=color, fill=True, alpha=0.25)
            axes.stairs(100 * count / count.sum(), 100 * edges, color=color, label=kind)
            axes.axvline(100 * sizes[kind]["share"]["median"], color=color, ls=":", label=f"median of {kind}")
            filled += [*edges[:-1][count > 0], *edges[1:][count > 0]]
    axes.set(xscale="log", xlabel="mask, % of the image", ylabel="masks (%)")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    if filled:
        axes.set_xlim(100 * min(filled), 100 * max(filled))
        axes.legend()


def visible_shares(axes: Axes, settings: dict[str, dict[str, Any]]) -> None:
    """In which share of its scored frames the object of a track is visible: how many tracks, by setting."""
    for (setting, one), color in zip(settings.items(), (BLUE, ORANGE), strict=False):
        edges = 100 * np.array(one["histogram"]["edges"])
        axes.stairs(one["histogram"]["tracks"], edges, color=color, fill=True, alpha=0.25)
        axes.stairs(one["histogram"]["tracks"], edges, color=color, label=setting)
    axes.set(xlabel="scored frames in which the object is visible (%)", ylabel="tracks", xlim=PERCENT)
    axes.legend()


def take_differences(axes: Axes, differences: np.ndarray, names: tuple[str, str]) -> None:
    """(takes,) mean IoU of the second file minus that of the first, a bar each, from the worst take to the best."""
    differences = 100 * np.sort(differences)
    axes.bar(np.arange(1, len(differences) + 1), differences, color=np.where(differences > 0, BLUE, ORANGE), width=0.9)
    axes.axhline(0, color=GRAY, lw=0.8)
    axes.set(xlabel="takes, sorted", xlim=(0.4, len(differences) + 0.6))
    axes.set_ylabel(f"IoU of {names[1]} - {names[0]} (points)", parse_math=False)


def paired_iou(axes: Axes, first: Sequence[Case], second: Sequence[Case], names: tuple[str, str]) -> None:
    """IoU of the same visible cases in two results files, a dot each."""
    pairs = [(100 * a.mask.iou, 100 * b.mask.iou) for a, b in zip(first, second, strict=True) if a.visible]
    axes.plot(PERCENT, PERCENT, color=GRAY, ls="--")
    alpha = min(0.6, 60 / len(pairs) ** 0.5)
    axes.scatter(*zip(*pairs, strict=True), s=12, alpha=alpha, color=BLUE, lw=0, rasterized=True)
    axes.set(xlim=PERCENT, ylim=PERCENT, aspect="equal")
    axes.set_xlabel(f"IoU of {names[0]} (%)", parse_math=False)
    axes.set_ylabel(f"IoU of {names[1]} (%)", parse_math=False)
