"""The plots of the pages, written as SVG: the same values give the same file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.files import atomic_write
from evaluation.score import Case

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
    """Write the plots of a page with some results files -> their captions by path; none if no object is visible."""
    if not any(case.visible for case in cases[0]):
        return {}
    with rc_context(STYLE), atomic_write(folder / BY_SIZE) as file:
        figure = Figure(figsize=(5.4, 3.6), layout="constrained")
        iou_by_size(figure.subplots(), cases, names)
        figure.savefig(file, format="svg", metadata={"Date": None})
    return {BY_SIZE: ("mean " if len(cases) > 1 else "") + "IoU by the size of the true mask in the target image"}


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
    axes.set(xscale="log", ylim=(0, 100), ylabel="IoU (%)")
    axes.set_xlabel("true mask in the target image, pixels at a long side of 480")
    ticks = sorted({float(f"{size:.2g}") for size in np.geomspace(sizes[0], sizes[-1], 5)})  # also within a decade
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_formatter("")
    axes.legend()
