"""Answer a table of pairs: in each row, an object of one picture is sought in another one. docs/own_data.md describes
the table and the answers.

A mask's file also holds the existence, and a digest of all that the answer was made from: so a run that was stopped
continues, and a row is answered anew if its pictures, its masks or the network have changed.
"""

import contextlib
import csv
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL.PngImagePlugin import PngInfo

from common.csv_table import read_csv
from common.drawing import PREDICTION, QUERY, TRUTH, around, captioned, in_columns, overlay, side_by_side, write_picture
from common.errors import UserError, counted, printable, warn_once
from common.existence import WORDS, Limits, with_percent
from common.files import atomic_write, check_outputs, claimed, file_digest, is_file_name, json_digest
from common.progress import progress
from formats.masks import fit_mask, iou
from formats.picture_files import open_picture, read_mask, read_picture
from inference.predictor import Predictor, Queries, as_mask, marked_images

VISIBLE, ABSENT = "visible", "absent"  # truths without a mask
MADE_OF = "made of"  # the entry of a mask's file
SHEET_COMMENT = "answers to a table of pairs"  # in the file of a sheet
TABLE = "answers.csv"
FILES, OTHERS = ("query_image", "target_image", "query_mask", "truth"), ("query_box", "object", "size")
COLUMNS = ("name", *FILES, *OTHERS)
SHEET = "answers.jpeg"  # no row's picture, which ends in .jpg
MOST_SHOWN, TILE_WIDTH = 100, 320  # answers on the sheet; pixels of the width of each view
TABLE_WIDTH = 4 * (TILE_WIDTH + 16)
TRIED_LIMITS = 0.5, 0.6, 0.7, 0.8, 0.9, 0.95


@dataclass(frozen=True)
class Row:
    """An object to seek: where it is marked, in one picture or several, and in which picture to look."""

    name: str
    queries: Sequence[Path]
    target: Path
    masks: Sequence[Path] = ()  # of the queries
    box: Sequence[float] | None = None  # or left, top, right, bottom in the only query, in pixels
    value: int | None = None  # of the object in masks that are label maps
    size: str | None = None  # a key of SIZE_HINTS
    truth: Path | str | None = None  # the object's mask in the target, VISIBLE or ABSENT

    @classmethod
    def parse(cls, cells: Mapping[str, str], folder: Path) -> "Row":
        """The row of a table in `folder`, from a text for each of COLUMNS. Raises UserError if one is unfit."""
        paths = {key: folder / cells[key] for key in FILES if cells[key].lower() not in ("", VISIBLE, ABSENT)}
        if missing := {"query_image", "target_image"} - {*paths}:
            raise UserError(f"{min(missing)} is {cells[min(missing)] or 'empty'}; name a picture")
        try:
            value = int(cells["object"], 0) if cells["object"] else None
            box = [float(x) for x in cells["query_box"].replace(",", " ").split()]
        except ValueError as error:
            raise UserError(f"{error}; look at the row's query_box and object") from None
        masks = [paths["query_mask"]] if "query_mask" in paths else []
        truth = paths.get("truth", cells["truth"].lower() or None)
        if isinstance(truth, Path) and not os.path.lexists(truth):
            raise UserError(f"truth {cells['truth']!r} is no file; give a mask, {VISIBLE} or {ABSENT}")
        query, target = paths["query_image"], paths["target_image"]
        return cls(cells["name"], [query], target, masks, box or None, value, cells["size"] or None, truth)

    @property
    def files(self) -> list[Path]:
        return [*self.queries, *self.masks, self.target, *([self.truth] if isinstance(self.truth, Path) else [])]

    def digest(self, made_by: str) -> str:
        """SHA-256 of all that an answer is made from. Raises UserError if a file is no picture."""
        try:
            for path in self.files:
                open_picture(path).close()  # refuses a pipe, whose digest would wait for its writer
            digests = [file_digest(path) for path in self.files]
        except (ValueError, OSError) as error:
            raise UserError(f"{error}; look at the row's files") from None
        form = len(self.queries), len(self.masks), self.box, self.value, self.size, self.truth == ABSENT
        return json_digest([made_by, digests, form])

    def read(self) -> tuple[Queries, np.ndarray]:
        """The queries and the target. Raises UserError if a picture or mask is not as it should be."""
        queries = self.queries if self.masks or len(self.queries) > 1 else self.queries[0]
        return marked_images(queries, self.masks or None, self.box, self.value), read_picture(self.target)


class RowAnswer(NamedTuple):
    """The answer to a row, as answers.csv has it."""

    name: str
    existence: float
    verdict: str
    share: float  # of the target's pixels
    iou: float | None  # with the truth, if this is known and shows the object
    absent: bool | None  # by the truth

    @property
    def said(self) -> str:
        return with_percent(self.verdict, self.existence)

    @property
    def rank(self) -> tuple[bool, float]:
        """As of a `Found`."""
        return self.verdict != WORDS[3], self.existence

    @property
    def error(self) -> float:
        """0 to 1: how far the answer is from the truth; 0 if nobody knows this."""
        if self.absent is None:
            return 0
        return self.existence if self.absent else 1 - min(1 if self.iou is None else self.iou, self.existence)


def read_table(path: Path) -> tuple[list[Row], dict[str, UserError]]:
    """The rows of a table, and by name the errors of rows that cannot be read. Raises UserError if it is not such a
    table, or if a name has two rows or cannot name a file.
    """
    columns, lines = read_csv(path, "--pairs")
    if missing := {*COLUMNS[:3]} - {*columns}:
        raise UserError(f"{path}: column {min(missing)!r} is missing; the columns are {', '.join(COLUMNS)}")
    if own := [repr(column) for column in columns if column not in COLUMNS]:
        warn_once(f"{path}: ignored: {counted(len(own), 'column')} {', '.join(own)}; known are {', '.join(COLUMNS)}")
    rows, broken = {}, {}
    for line in lines:
        cells = dict.fromkeys(COLUMNS, "") | dict(zip(columns, line, strict=False))
        name = cells["name"]
        if not is_file_name(name) or name in rows or name in broken or len(line) > len(columns):
            fault = "has two rows" if name in {*rows, *broken} else "names no file, or its row has too many commas"
            raise UserError(f"{path}: {name!r} {fault}; give each row a name of its own, without slashes")
        try:
            rows[name] = Row.parse(cells, path.parent)
        except UserError as error:
            broken[name] = error
    return list(rows.values()), broken


def check_files(rows: Sequence[Row], out: Path, *others: Path | None) -> None:
    """Raise UserError if the answers to rows would replace a file that is read, one of the rows or of the others, or a
    table or sheet that no table's run made.
    """
    written = [TABLE, SHEET, *(f"{row.name}{end}" for row in rows for end in (".png", ".jpg"))]
    check_outputs([out / name for name in written], [*others, *(path for row in rows for path in row.files)])
    for path in out / TABLE, out / SHEET:
        if os.path.lexists(path) and not is_of_a_table(path):
            raise UserError(f"{path} is of no table's run, and stays; rename it, or give another --out")


def is_of_a_table(path: Path) -> bool:
    """True if a table's run wrote this file, also if it is damaged: answers.csv by its first line, the sheet by its
    comment, a mask by what it was made of.
    """
    signs = {".csv": f"\n{','.join(RowAnswer._fields)}\n", ".jpeg": SHEET_COMMENT, ".png": f"tEXt{MADE_OF}\0"}
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return signs[path.suffix].encode() in b"\n" + file.read(4096)


def answer_table(
    rows: Sequence[Row],
    broken: dict[str, UserError],
    out: Path,
    predictor: Predictor,
    ranked: bool = False,
) -> int:
    """Answer rows and print the scores; rows that cannot be answered join the `broken` ones. Returns the exit status. A
    sheet shows the answers: the likeliest first if `ranked`, else those that are furthest from the truth.
    """
    answers = []
    with claimed(out, TABLE, f"writes {out / TABLE}"):
        for name in TABLE, SHEET:
            (out / name).unlink(missing_ok=True)  # of a run before, whose masks may be replaced now
        for row in (bar := progress(rows, "segment", len(rows), "pair", leave=False)):
            try:
                answers.append(found := answer(row, out, predictor))
            except UserError as error:
                broken[row.name] = error
                continue
            score = f", IoU {found.iou:.2f}" if found.iou is not None else ""
            bar.write(f"{row.name}: {found.said}, {found.share:.2%} of the target{score}")
        if ranked:
            answers.sort(key=lambda found: found.rank, reverse=True)
        with atomic_write(out / TABLE) as file:
            csv.writer(file, lineterminator="\n").writerows([RowAnswer._fields, *answers])
        if answers:
            shown = answers if ranked else sorted(answers, key=lambda found: -found.error)
            draw_answers({row.name: row for row in rows}, shown[:MOST_SHOWN], out)
    print_scores(answers, predictor.limits)
    for name, error in broken.items():
        print(printable(f"left out: {name}: {error}"), file=sys.stderr)
    if boxes := [row for row in rows if row.box and row.name not in broken]:
        print(f"{counted(len(boxes), 'query mask')} cut out of boxes: look at the outlines in {out / SHEET}")
    knows_truth = any(found.absent is not None for found in answers)
    order = "the likeliest first" if ranked else "wrong ones first" if knows_truth else "drawn"
    sheet = f", {order} in {out / SHEET}" if answers else ""
    left_out = f", {counted(len(broken), 'row')} left out" if broken else ""
    print(f"{counted(len(answers), 'answer')} in {out / TABLE}{sheet}{left_out}")
    return 3 if broken else 0  # as eval_segswap.py does


def answer(row: Row, out: Path, predictor: Predictor) -> RowAnswer:
    """The answer to a row, once its mask and picture are written; they stay if they were made from the same before.
    Raises UserError if an input is not as it should be, and if the mask or picture would replace a file of others.
    """
    if not is_file_name(row.name.lstrip("-.")):
        raise UserError("its name is too long or not of readable letters; rename it")
    digest, mask_path, picture_path = row.digest(predictor.made_by), out / f"{row.name}.png", out / f"{row.name}.jpg"
    truth = truth_of(row)
    former = former_answer(mask_path, picture_path, digest)
    if former:
        found = predictor.found(*former)
    else:
        queries, target = row.read()
        if truth.any():
            as_mask(truth, str(row.truth), target.shape[:2])
        found = predictor.find(queries, [target], size=row.size)[0][0]
        picture_path.unlink(missing_ok=True)  # without it, a mask counts as unfinished
        info = PngInfo()
        info.add_text(MADE_OF, f"{digest} {float(found.existence)!r}")
        write_picture(mask_path, found.mask * 255, pnginfo=info)
        shown = with_truth(outlined(target, found.mask, found.is_sure), truth)
        write_picture(picture_path, side_by_side([*outlined_queries(queries), shown]))
    mask, existence = found
    share = round(float(mask.mean()), 6)
    score = round(iou(mask, fit_mask(truth, mask.shape)), 4) if truth.any() else None
    absent = not truth.any() and row.truth != VISIBLE if row.truth else None
    return RowAnswer(row.name, existence, found.word, share, score, absent)


def former_answer(mask_path: Path, picture_path: Path, digest: str) -> tuple[np.ndarray, float] | None:
    """The answer that lies there, if it was made from the same and is whole. Raises UserError if one of both files was
    not made by a table.
    """
    is_ours = is_of_a_table(mask_path)
    for path in mask_path, picture_path:
        if path.exists() and not is_ours:
            raise UserError(f"{path} is of no table's run, and stays; give another name or --out")
    with contextlib.suppress(UserError, ValueError, KeyError):  # there is none yet, or it is damaged
        with open_picture(mask_path) as image:
            made_of, existence = image.info[MADE_OF].split()
        if made_of == digest and 0 <= float(existence) <= 1 and picture_path.exists():
            return read_mask(mask_path), float(existence)
    return None


def truth_of(row: Row) -> np.ndarray:
    """The true mask; an empty one if the object is absent, or if nobody knows where it is."""
    return read_mask(row.truth) if isinstance(row.truth, Path) else np.zeros((1, 1), np.uint8)


def outlined(target: np.ndarray, mask: np.ndarray, is_sure: bool) -> np.ndarray:
    return overlay(target, mask, PREDICTION, dashed=not is_sure)


def with_truth(shown: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return overlay(shown, fit_mask(truth, shown.shape[:2]), TRUTH, dashed=True)


def outlined_queries(queries: Queries) -> list[np.ndarray]:
    return [overlay(image, mask, QUERY) for image, mask in queries]


def draw_answers(rows: Mapping[str, Row], answers: Sequence[RowAnswer], out: Path) -> None:
    """Draw answers, each with its surroundings: where the object is marked, what was found, and the truth
    if this lies elsewhere.
    """
    tiles = []
    for found in answers:
        row = rows[found.name]
        queries, target = row.read()
        mask, truth = (fit_mask(x, target.shape[:2]) for x in (read_mask(out / f"{row.name}.png"), truth_of(row)))
        shown = with_truth(outlined(target, mask, found.verdict == WORDS[0]), truth)
        views = [image[around(query, 4)] for image, (_, query) in zip(outlined_queries(queries), queries, strict=True)]
        views += [shown[around(x, 4)] for x in ([mask] if not truth.any() or (mask & truth).any() else [mask, truth])]
        score = f", IoU {found.iou:.2f}" if found.iou is not None else ""
        caption = f"{found.said}{score}: {found.name}"
        tiles.append(captioned(side_by_side(views), caption, len(views) * TILE_WIDTH))
    columns = max(1, TABLE_WIDTH // max(tile.shape[1] for tile in tiles))
    write_picture(out / SHEET, in_columns(tiles, columns), comment=SHEET_COMMENT)


def print_scores(answers: Sequence[RowAnswer], limits: Limits) -> None:
    """Print how good the answers are whose truth is known, and how often "there" would be said with other limits."""
    visible, absent = ([found for found in answers if found.absent is x] for x in (False, True))
    ious = np.array([found.iou for found in visible if found.iou is not None])
    if len(ious):
        print(f"true masks: {len(ious)}, mean IoU {ious.mean():.3f}, right (IoU above 0.5) {sum(ious > 0.5)}")
    for name, those in (("visible", visible), ("absent", absent)):
        words = Counter(found.verdict for found in those)
        said = ", ".join(f"{word} {words[word]}" for word in WORDS if words[word] or word != WORDS[3])
        if those:
            print(f"{name}: {len(those)}, called {said}")
    for limit in [x for x in TRIED_LIMITS if x >= limits[0]] if visible or absent else []:
        there = [sum(found.rank >= (True, limit) for found in those) for those in (visible, absent)]
        counts = f"{there[0]} of {len(visible)} visible, {there[1]} of {len(absent)} absent"
        print(f"--limits {limits[0]:g} {limit:g}: there {counts}")
