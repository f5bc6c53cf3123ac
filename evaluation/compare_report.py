"""The page of a comparison: differences, where they come from, and the cases that changed most."""

from collections.abc import Sequence
from pathlib import Path

from evaluation import html_page as html
from evaluation import plots
from evaluation.compare import Comparison, Difference
from evaluation.html_page import Card, Cell, Section, number_cell
from evaluation.outputs import NAMES
from evaluation.report_page import HEADER, SCALE
from evaluation.score import Case
from evaluation.summary import METRICS, OFFICIAL
from formats.files import atomic_write

ORDERS = {"change up": "largest fall first", "change down": "largest rise first", "size down": "largest object first"}
NOTE = "In brackets: 95 % of paired resamples of the takes."
BOLD = " Bold: 0 lies outside."


def write_comparison(
    folder: Path,
    title: str,
    lead: str,
    names: Sequence[str],
    comparisons: Sequence[Comparison],
    cases: Sequence[Sequence[Case]],
    pictures: Sequence[tuple[Sequence[Case], str]],
) -> Path:
    """Write the page and its plots into `folder`, where the pictures are already. Returns the page's path."""
    figures = []
    for number, (comparison, other) in enumerate(zip(comparisons, cases[1:], strict=True), 1):
        if any(case.visible for case in other):
            path = f"plots/iou_{number}.svg"
            plots.save_plot(folder / path, plots.paired_iou(cases[0], other, (names[0], comparison.name)), (4.5, 4.5))
            figures.append((path, f"each case in {names[0]} and in {comparison.name}"))
    sections = [Section("Differences", "\n".join(difference_table(names[0], c) for c in comparisons), NOTE + BOLD)]
    for kind in comparisons[0].by:
        tables = [group_table(names[0], c, kind) for c in comparisons if len(c.by[kind]) > 1]
        if tables:
            sections.append(Section(f"By {kind}", "\n".join(tables), NOTE))
    sections.append(Section("IoU, case by case", html.plots(figures)))
    cards = [_card(group, path, names) for group, path in pictures]
    sections.append(Section("Cases that changed most", html.gallery(cards, ORDERS, {})))
    with atomic_write(folder / "index.html") as file:
        file.write(html.page(title, lead, sections))
    return folder / "index.html"


def difference_table(first: str, comparison: Comparison) -> str:
    """All metrics of two files and their difference."""
    rows = [
        [
            NAMES[name] + ("" if name in OFFICIAL else " *") + (" (%)" if name in SCALE else ""),
            *(number_cell(value, *_format(name)) for value in (d.first, d.second)),
            _difference(name, d),
        ]
        for name in METRICS
        for d in [comparison.metrics[name]]
    ]
    bold = [number for number, name in enumerate(METRICS) if comparison.metrics[name].certain]
    return html.table(("", first, comparison.name, "difference"), rows, bold)


def group_table(first: str, comparison: Comparison, kind: str) -> str:
    """Differences of the official metrics by group, sortable."""
    rows = [
        [Cell(label, label), *(_difference(name, found[name]) for name in OFFICIAL)]
        for label, found in comparison.by[kind].items()
    ]
    return html.table((f"{comparison.name} - {first}", *HEADER), rows, sortable=True)


def _card(cases: Sequence[Case], picture: str, names: Sequence[str]) -> Card:
    case = cases[0]
    scores = ", ".join(f"{name} {one.iou:.3f}" for name, one in zip(names, cases, strict=True))
    caption = f"{case.take_uid}, {case.query_camera} to {case.target_camera}, frame {case.frame}: IoU {scores}"
    values = {"iou": case.iou, "change": cases[-1].iou - case.iou, "size": case.truth_pixels}
    return Card(picture, case.object_name.strip(), caption, ["visible"], values)


def _difference(name: str, found: Difference) -> Cell:
    digits, scale = _format(name)
    low, high = found.interval
    small = "" if low != low else f"[{low * scale:+.{digits}f}, {high * scale:+.{digits}f}]"
    cell = number_cell(found.value, digits, scale, small)
    return cell._replace(text=f"{found.value * scale:+.{digits}f}") if found.value == found.value else cell


def _format(name: str) -> tuple[int, float]:
    scale, digits = SCALE.get(name, (1, 3))
    return digits, scale
