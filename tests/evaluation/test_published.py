"""The published results: what the README repeats of them is what docs/published_results.csv holds."""

import csv

from common.arguments import SETTINGS
from tests.made import ROOT

AUTHORS = ("XSegTx, trained, as published", "XView-XMem")  # whom README.md repeats


def test_the_readme_repeats_the_figures_of_the_benchmarks_authors():
    text = (ROOT / "README.md").read_text().replace("**", "")
    for row in csv.DictReader((ROOT / "docs/published_results.csv").open(newline="")):
        if row["method"] in AUTHORS:
            cells = []
            for setting in SETTINGS:  # the README drops the zero of fractions
                names = ("IoU", "location error", "contour accuracy", "existence")
                iou, location, contour, existence = (row[f"{setting} {name}"] or "-" for name in names)
                cells.append(f"{iou} / {location[1:]} / {contour[1:]} / {existence}")
            assert f"| {' | '.join(cells)} |" in text, row["method"]
