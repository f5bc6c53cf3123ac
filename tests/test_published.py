"""The published results: what the README and evaluate.py repeat of them is what docs/published_results.csv holds."""

import csv

from common.arguments import SETTINGS
from evaluation.metrics import METRICS, OFFICIAL
from evaluation.tables import PAPER
from tests.made import ROOT

XSEGTX = "XSegTx, trained, as published"
AUTHORS = (XSEGTX, "XMem", "XView-XMem")  # whom README.md repeats
NAMES = dict(zip(("IoU", "location error", "contour accuracy", "existence"), OFFICIAL, strict=True))


def published():
    """The rows of the file: method, scorer, ..., and texts of figures, in percent as METRICS says."""
    with (ROOT / "docs/published_results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def figures(row, setting):
    return [row[f"{setting} {name}"] or "-" for name in NAMES]


def test_the_readme_repeats_the_figures_of_the_benchmarks_authors():
    text = (ROOT / "README.md").read_text().replace("**", "")
    for row in published():
        if row["method"] in AUTHORS:
            cells = []
            for setting in SETTINGS:  # the README drops the zero of fractions
                iou, location, contour, existence = figures(row, setting)
                cells.append(f"{iou} / {location[1:]} / {contour[1:]} / {existence}")
            assert f"| {' | '.join(cells)} |" in text, row["method"]


def test_evaluate_prints_the_figures_of_the_benchmarks_authors():
    (row,) = (row for row in published() if row["method"] == XSEGTX)
    for setting in SETTINGS:
        assert [METRICS[name].show(value) for name, value in PAPER[setting].items()] == figures(row, setting)
        assert tuple(PAPER[setting]) == OFFICIAL
