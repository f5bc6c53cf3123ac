"""The published results: what documents and code repeat of them is what docs/published_results.csv holds."""

import csv

from common.arguments import SETTINGS
from evaluation.metrics import METRICS, OFFICIAL
from evaluation.outputs import PAPER
from tests.made import ROOT

XSEGTX = "XSegTx, trained, as published"
AUTHORS = ("XSegTx, random weights", XSEGTX, "XMem", "XView-XMem")  # whom README.md repeats
NAMES = dict(zip(("IoU", "location error", "contour accuracy", "existence"), OFFICIAL, strict=True))


def published():
    """The rows of the file: method, scorer, ..., and texts of figures, in percent as METRICS says."""
    with (ROOT / "docs/published_results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def figures(row, setting):
    return [row[f"{setting} {name}"] or "-" for name in NAMES]


def document_table():
    """The table of docs/results.md, ordered by the ego-exo IoU."""
    columns = [f"{setting} {name}" for setting in SETTINGS for name in NAMES]
    lines = [f"| method | scorer | {' | '.join(columns)} |", f"|{'---|' * (2 + len(columns))}"]
    for row in sorted(published(), key=lambda row: -float(row["ego-exo IoU"])):
        bold = "**" if row["method"] == XSEGTX else ""
        method = f"{bold}[{row['method']}](https://{row['source']}){bold}"
        cells = [method, row["scorer"], *(cell for setting in SETTINGS for cell in figures(row, setting))]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def test_the_document_holds_just_the_table_of_the_data():
    lines = [line for line in (ROOT / "docs/results.md").read_text().splitlines() if line.startswith("|")]
    expected = document_table()
    assert lines == expected, "the table should be:\n" + "\n".join(expected)


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


def test_each_method_has_one_row_with_a_source_and_numbers():
    rows = published()
    assert len({row["method"] for row in rows}) == len(rows)
    for row in rows:
        assert row["source"] and "//" not in row["source"] and row["scorer"]
        assert all(0 <= float(row[f"{setting} {name}"] or 0) <= 100 for setting in SETTINGS for name in NAMES)
        assert row["ego-exo IoU"] and row["exo-ego IoU"]
