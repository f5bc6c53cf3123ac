"""The plots of the pages, written as SVG: the same values give the same file."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.files import atomic_write
from evaluation.comparison import take_means
from evaluation.score import Case

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
BY_SIZE = "plots/iou_by_size.svg"


def draw_plots(folder: Path, names: Sequence[str], cases: Sequence[Sequence[Case]]) -> dict[str, str]:
    """Write the plots of a page, one of all its results files, then one for each but the first -> their captions by
    path; none if no object is visible.
    """
    if not any(case.visible for case in cases[0]):
        return {}
    with new_plot(folder / BY_SIZE) as axes:
        iou_by_size(axes, cases, names)
    plots = {BY_SIZE: ("mean " if len(cases) > 1 else "") + "IoU by the size of the true mask in the target image"}
    means = take_means(cases)
    for number, name in enumerate(names[1:], 1):
        path = f"plots/takes_{number}.svg"
        with new_plot(folder / path) as axes:
            take_differences(axes, means[:, number] - means[:, 0], names[0], name)
        plots[path] = f"each take: mean IoU of {name} minus that of {names[0]}"
    return plots


@contextmanager
def new_plot(path: Path) -> Iterator[Axes]:
    """Axes to draw into; the plot is written at the end."""
    with rc_context(STYLE):
        figure = Figure(figsize=(5.4, 3.6), layout="constrained")
        yield figure.subplots()
        with atomic_write(path) as file:
            figure.savefig(file, format="svg", metadata={"Date": None})


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
        iou = np.array([100 * case.mask.iou for case in of_file if case.visible])
        axes.plot(sizes, [iou[at].mean() for at in members], "o-", ms=4, label=name)
        if len(cases) == 1:
            low, high = zip(*(np.quantile(iou[at], (0.25, 0.75)) for at in members), strict=True)
            axes.fill_between(sizes, low, high, alpha=0.2, lw=0, label="middle half of the cases")
    axes.set(xscale="log", ylim=PERCENT, ylabel="IoU (%)")
    axes.set_xlabel("true mask in the target image, pixels at a long side of 480")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:g}"[0] in "25" else "")
    axes.legend()


def take_differences(axes: Axes, differences: np.ndarray, first: str, second: str) -> None:
    """(takes,) mean IoU of the second file minus that of the first, a bar each, from the worst take to the best."""
    differences = 100 * np.sort(differences)
    axes.bar(np.arange(1, len(differences) + 1), differences, color=np.where(differences > 0, BLUE, ORANGE), width=0.9)
    axes.axhline(0, color=GRAY, lw=0.8)
    axes.set(xlabel="takes, sorted", xlim=(0.4, len(differences) + 0.6))
    axes.set_ylabel(f"IoU of {second} - {first} (points)")
