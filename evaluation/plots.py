"""Plots of a report, written as SVG: the same values give the same file."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluation.existence import Existence
from evaluation.score import Case
from formats.files import atomic_write

BLUE, ORANGE, GREY = "#1f6fb4", "#e07b00", "#8c8c8c"
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


def save_plot(path: Path, draw: Callable[[Axes], None], size: tuple[float, float] = (5.4, 3.6)) -> None:
    """Let `draw` fill a plot of `size` inches and write it."""
    with rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.subplots())
        data = io.StringIO()
        figure.savefig(data, format="svg", dpi=150, metadata={"Date": None})
    with atomic_write(path) as file:
        file.write(data.getvalue())


def iou_histogram(cases: Sequence[Case]) -> Callable[[Axes], None]:
    """How many visible cases have which IoU."""

    def draw(axes: Axes) -> None:
        values = [case.iou for case in cases if case.visible]
        axes.hist(values, np.linspace(0, 1, 21), color=BLUE, edgecolor="white")
        axes.axvline(np.mean(values), color=ORANGE, label=f"mean {np.mean(values):.3f}")
        axes.axvline(np.median(values), color=ORANGE, ls=":", label=f"median {np.median(values):.3f}")
        axes.set(xlabel="IoU", ylabel="cases", xlim=(0, 1))
        axes.legend()

    return draw


def iou_by_size(cases: Sequence[Case], groups: int = 12) -> Callable[[Axes], None]:
    """Mean IoU and its middle half over the size of the true mask, in groups of as many cases each."""

    def draw(axes: Axes) -> None:
        seen = sorted((case.truth_pixels, case.iou) for case in cases if case.visible)
        parts = [np.array(part) for part in np.array_split(seen, min(groups, len(seen))) if len(part)]
        pixels = [max(float(np.median(part[:, 0])), 1) for part in parts]
        low, high = zip(*(np.quantile(part[:, 1], (0.25, 0.75)) for part in parts), strict=True)
        axes.fill_between(pixels, low, high, color=BLUE, alpha=0.2, lw=0, label="middle half of the cases")
        axes.plot(pixels, [part[:, 1].mean() for part in parts], "o-", color=BLUE, label="mean")
        axes.set(xscale="log", ylim=(0, 1), xlabel="true mask, pixels at a long side of 480", ylabel="IoU")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:g}"[0] in "25" else "")
        axes.legend()

    return draw


def calibration(found: Existence) -> Callable[[Axes], None]:
    """Share of cases that are visible over the confidence that they are, dots as large as groups are."""

    def draw(axes: Axes) -> None:
        total = sum(b.count for b in found.bins)
        axes.plot([0, 1], [0, 1], color=GREY, ls="--", label="calibrated")
        confidence, share = [b.mean_confidence for b in found.bins], [b.share_visible for b in found.bins]
        axes.plot(confidence, share, color=BLUE)
        axes.scatter(confidence, share, [20 + 300 * b.count / total for b in found.bins], color=BLUE, clip_on=False)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence that the object is visible", ylabel="share visible")
        axes.legend(loc="lower right")

    return draw


def precision_recall(found: Existence, share_visible: float) -> Callable[[Axes], None]:
    """Precision over recall of "the object is visible"; chance is the share of visible cases."""

    def draw(axes: Axes) -> None:
        axes.axhline(share_visible, color=GREY, ls="--", label=f"chance {share_visible:.3f}")
        label = f"average precision {found.average_precision:.3f}"
        axes.step(found.recall, found.precision, where="pre", color=BLUE, label=label)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
        axes.legend(loc="lower left")

    return draw


def paired_iou(first: Sequence[Case], second: Sequence[Case], names: tuple[str, str]) -> Callable[[Axes], None]:
    """IoU of the same visible cases in two results files, a dot each."""

    def draw(axes: Axes) -> None:
        pairs = [(a.iou, b.iou) for a, b in zip(first, second, strict=True) if a.visible]
        axes.plot([0, 1], [0, 1], color=GREY, ls="--")
        axes.scatter(
            *zip(*pairs, strict=True), s=12, alpha=min(0.6, 60 / len(pairs) ** 0.5), color=BLUE, lw=0, rasterized=True
        )
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel=f"IoU of {names[0]}", ylabel=f"IoU of {names[1]}", aspect="equal")

    return draw
