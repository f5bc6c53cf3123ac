"""A page of tables, plots and pictures that opens from disk, without a server or a network."""

import json
import math
import re
from collections.abc import Collection, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

WEB = Path(__file__).parent / "web"


class Cell(NamedTuple):
    """What a table shows, what its column is sorted by ("" stays below), and small print."""

    text: str
    value: float | str = ""
    small: str = ""


class Section(NamedTuple):
    title: str
    body: str  # HTML
    note: str = ""


class Card(NamedTuple):
    """One picture of a gallery and what it can be found and sorted by; nan values stay below."""

    picture: str  # path from the page
    title: str
    caption: str
    kinds: Sequence[str]
    values: dict[str, float]


def number_cell(value: float | None, digits: int = 3, scale: float = 1, small: str = "") -> Cell:
    """A number, or a dash for None and nan."""
    if value is None or math.isnan(value):
        return Cell("-")
    return Cell(f"{value * scale:.{digits}f}", value, small)


def page(title: str, lead: str, sections: Sequence[Section], warning: str = "") -> str:
    """The whole document, with style and script inside. A warning stands in a box on top."""
    style, script = ((WEB / name).read_text(encoding="utf-8") for name in ("style.css", "report.js"))
    links = "\n".join(f'<a href="#{_anchor(part.title)}">{escape(part.title)}</a>' for part in sections)
    body = "\n".join(map(_section, sections))
    boxed = f'<p class="warning">{escape(warning)}</p>' if warning else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{escape(title)}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<style>
{style}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
<p class="lead">{escape(lead)}</p>
{boxed}
<nav>{links}</nav>
{body}
</main>
<script>
{script}</script>
</body>
</html>
"""


def table(
    header: Sequence[str], rows: Sequence[Sequence[Cell | str]], bold: Collection[int] = (), sortable: bool = False
) -> str:
    """`bold`: which rows are. A sortable table sorts by the column whose head is clicked."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "\n".join(
        f"<tr{_class('bold', number in bold)}>{''.join(map(_table_cell, row))}</tr>" for number, row in enumerate(rows)
    )
    return (
        f'<div class="scroll"><table{_class("sortable", sortable)}>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def plots(figures: Sequence[tuple[str, str]]) -> str:
    """Plots with captions: (path from the page, caption)."""
    return '<div class="plots">\n' + "\n".join(map(_figure, figures)) + "\n</div>"


def gallery(cards: Sequence[Card], orders: dict[str, str], kinds: dict[str, str]) -> str:
    """Pictures with controls. `orders`: "value up" or "value down" -> label; `kinds`: kind -> label. The first rule."""
    choose = {
        name: "".join(f'<option value="{escape(key)}">{escape(label)}</option>' for key, label in options.items())
        for name, options in (("order", orders), ("kind", {"all": "all", **kinds}))
    }
    controls = (
        '<input name="search" type="search" placeholder="take, object, camera" aria-label="search">'
        f'<label>show <select name="kind">{choose["kind"]}</select></label>'
        '<label>IoU from <input name="low" type="number" min="0" max="1" step="0.05" value="0"></label>'
        '<label>to <input name="high" type="number" min="0" max="1" step="0.05" value="1"></label>'
        f'<label>order <select name="order">{choose["order"]}</select></label><span class="count"></span>'
    )
    body = "\n".join(map(_card, cards))
    return f'<div><div class="controls">{controls}</div>\n<div class="gallery">\n{body}\n</div></div>'


def track_plot(tracks: dict[str, list[tuple[int, float | None, float]]]) -> str:
    """IoU and confidence over time of a track that the reader picks: label -> (frame, IoU or None, confidence)."""
    options = "".join(f"<option>{escape(label)}</option>" for label in tracks)
    data = json.dumps(tracks).replace("<", "\\u003c")  # no tag in a name may end the element
    return (
        f'<div class="controls"><select id="track" aria-label="track">{options}</select></div>\n'
        f'<svg id="track-plot" role="img" aria-label="IoU and confidence over time"></svg>\n'
        f'<script type="application/json" id="tracks">{data}</script>'
    )


def _section(part: Section) -> str:
    note = f'<p class="note">{escape(part.note)}</p>\n' if part.note else ""
    return f'<section id="{_anchor(part.title)}">\n<h2>{escape(part.title)}</h2>\n{note}{part.body}\n</section>'


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower())


def _card(card: Card) -> str:
    values = "".join(f' data-{key}="{_plain(value)}"' for key, value in card.values.items())
    text = escape(f"{card.title} {card.caption}".lower())
    picture = escape(card.picture)
    return (
        f'<div class="card" data-text="{text}" data-kind="{escape(" ".join(card.kinds))}"{values}>'
        f'<a href="{picture}"><img src="{picture}" loading="lazy" alt="{escape(card.title)}"></a>'
        f"<p><b>{escape(card.title)}</b> {escape(card.caption)}</p></div>"
    )


def _table_cell(cell: Cell | str) -> str:
    if isinstance(cell, str):
        return f"<td>{escape(cell)}</td>"
    small = f" <small>{escape(cell.small)}</small>" if cell.small else ""
    return f'<td data-value="{escape(str(cell.value))}">{escape(cell.text)}{small}</td>'


def _figure(figure: tuple[str, str]) -> str:
    path, caption = map(escape, figure)
    return f'<figure><img src="{path}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'


def _class(name: str, given: bool) -> str:
    return f' class="{name}"' if given else ""


def _plain(value: float) -> str:
    return "" if math.isnan(value) else str(round(value, 6))
