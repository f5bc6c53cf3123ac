"""The plots of the pages, written as SVG: the same values give the same file."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluation.compare import take_means
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
REPORT_PLOTS = {  # path -> caption
    "plots/iou_by_size.svg": "IoU by the size of the true mask in the target image",
    "plots/iou.svg": "distribution of IoU",
    "plots/calibration.svg": "existence: how often the object is visible at each predicted value",
    "plots/precision_recall.svg": "existence: precision and recall",
}
Captioned = list[tuple[str, str]]  # path and caption of each plot


def draw_report_plots(folder: Path, summary: dict[str, Any], cases: Sequence[Case]) -> Captioned:
    """Write REPORT_PLOTS, only the calibration if no object is visible."""
    by_size, distribution, calibrated, curve = (folder / path for path in REPORT_PLOTS)
    existence, share_visible = summary["existence"], summary["frames_visible"] / len(cases)
    save_plot(calibrated, calibration, existence["bins"])
    if share_visible:
        save_plot(by_size, iou_by_size, [cases], ["mean"])
        save_plot(distribution, iou_histogram, cases)
        save_plot(curve, precision_recall, existence, share_visible)
    return [(path, caption) for path, caption in REPORT_PLOTS.items() if (folder / path).exists()]


def comparison_plots(names: Sequence[str]) -> dict[str, str]:
    """Path -> caption of the plots of a comparison: one of all files, then two for each but the first."""
    plots = {"plots/iou_by_size.svg": "mean IoU by the size of the true mask in the target image"}
    for number, name in enumerate(names[1:], 1):
        plots[f"plots/takes_{number}.svg"] = f"each take: mean IoU of {name} minus that of {names[0]}"
        plots[f"plots/iou_{number}.svg"] = f"each case in {names[0]} and in {name}"
    return plots


def draw_comparison_plots(folder: Path, names: Sequence[str], cases: Sequence[Sequence[Case]]) -> Captioned:
    """Write those of `comparison_plots`; none if no object is visible."""
    if not any(case.visible for case in cases[0]):
        return []
    save_plot(folder / "plots/iou_by_size.svg", iou_by_size, cases, names)
    means = take_means(cases)
    for number in range(1, len(names)):
        both = names[0], names[number]
        save_plot(folder / f"plots/takes_{number}.svg", take_differences, means[:, number] - means[:, 0], both)
        save_plot(folder / f"plots/iou_{number}.svg", paired_iou, cases[0], cases[number], both, size=(4.5, 4.5))
    return list(comparison_plots(names).items())


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
    values = _visible_iou(cases)
    axes.hist(values, np.linspace(*PERCENT, 21), color=BLUE, edgecolor="white")
    axes.axvline(np.mean(values), color=ORANGE, label=f"mean {np.mean(values):.2f}")
    axes.axvline(np.median(values), color=ORANGE, ls=":", label=f"median {np.median(values):.2f}")
    axes.set(xlabel="IoU (%)", ylabel="cases", xlim=PERCENT)
    axes.legend()


def iou_by_size(axes: Axes, cases: Sequence[Sequence[Case]], names: Sequence[str]) -> None:
    """Mean IoU of each results file over the size of the true mask; of a single one also its middle half.

    There are about a dozen groups of equal numbers of cases. Cases of one size are in one group: sizes grow from group
    to group.
    """
    pixels = np.array([max(case.mask.truth_pixels, 0.5) for case in cases[0] if case.visible])  # 0 has no logarithm
    edges = np.unique(np.quantile(pixels, np.linspace(0, 1, 13)[:-1], method="lower"))
    group = np.searchsorted(edges, pixels, side="right")
    members = [group == number for number in np.unique(group)]
    sizes = [float(np.median(pixels[at])) for at in members]
    for name, of_file in zip(names, cases, strict=True):
        iou = _visible_iou(of_file)
        (line,) = axes.plot(sizes, [iou[at].mean() for at in members], "o-", ms=4)
        line.set_label(name.lstrip("_") or " ")  # what begins with "_" gets no place in the legend
        if len(cases) == 1:
            low, high = zip(*(np.quantile(iou[at], (0.25, 0.75)) for at in members), strict=True)
            axes.fill_between(sizes, low, high, alpha=0.2, lw=0, label="middle half of the cases")
    axes.set(xscale="log", ylim=PERCENT, ylabel="IoU (%)")
    axes.set_xlabel("true mask in the target image, pixels at a long side of 480")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:g}"[0] in "25" else "")
    for text in axes.legend().get_texts():
        text.set_parse_math(False)


def _visible_iou(cases: Sequence[Case]) -> np.ndarray:
    return np.array([100 * case.mask.iou for case in cases if case.visible])


def calibration(axes: Axes, bins: Sequence[dict[str, float]]) -> None:
    """Share of cases that are visible over the predicted existence, dots as large as groups are."""
    total = sum(b["count"] for b in bins)
    predicted = [100 * b["mean_confidence"] for b in bins]
    share = [100 * b["share_visible"] for b in bins]
    axes.plot(PERCENT, PERCENT, color=GRAY, ls="--", label="calibrated")
    axes.plot(predicted, share, color=BLUE)
    axes.scatter(predicted, share, [20 + 300 * b["count"] / total for b in bins], color=BLUE, clip_on=False)
    axes.set(xlim=PERCENT, ylim=PERCENT, xlabel="predicted existence (%)", ylabel="visible (%)")
    axes.legend(loc="lower right")


def precision_recall(axes: Axes, existence: dict[str, Any], share_visible: float) -> None:
    """Precision over recall of "the object is visible"; chance is the share of visible cases."""
    recall, precision = (100 * np.array(existence[name]) for name in ("recall", "precision"))
    axes.axhline(100 * share_visible, color=GRAY, ls="--", label=f"chance {100 * share_visible:.2f}")
    label = f"average precision {100 * existence['average_precision']:.2f}"
    axes.step(recall, precision, where="pre", color=BLUE, label=label)
    axes.set(xlim=PERCENT, ylim=(0, 102), xlabel="recall (%)", ylabel="precision (%)")
    axes.legend(loc="lower left")


def take_differences(axes: Axes, differences: np.ndarray, names: tuple[str, str]) -> None:
    """(takes,) mean IoU of the second file minus that of the first, a bar each, from the worst take to the best."""
    differences = 100 * np.sort(differences)
    axes.bar(np.arange(1, len(differences) + 1), differences, color=np.where(differences > 0, BLUE, ORANGE), width=0.9)
    axes.axhline(0, color=GRAY, lw=0.8)
    axes.set(xlabel="takes, sorted", xlim=(0.4, len(differences) + 0.6))
    axes.set_ylabel(f"IoU of {names[1]} - {names[0]} (points)", parse_math=False)


def paired_iou(axes: Axes, first: Sequence[Case], second: Sequence[Case], names: tuple[str, str]) -> None:
    """IoU of the same visible cases in two results files, a dot each."""
    pairs = _visible_iou(first), _visible_iou(second)
    axes.plot(PERCENT, PERCENT, color=GRAY, ls="--")
    alpha = min(0.6, 60 / len(pairs[0]) ** 0.5)
    axes.scatter(*pairs, s=12, alpha=alpha, color=BLUE, lw=0, rasterized=True)
    axes.set(xlim=PERCENT, ylim=PERCENT, aspect="equal")
    axes.set_xlabel(f"IoU of {names[0]} (%)", parse_math=False)
    axes.set_ylabel(f"IoU of {names[1]} (%)", parse_math=False)
