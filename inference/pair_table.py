"""Answer a table of pairs: in each row, an object of one picture is sought in another one. docs/own_data.md describes
the table and the answers.

A mask's file also holds the existence, and a digest of all that the answer was made from: so a run that was stopped
continues, and a row is answered anew if its pictures, its masks or the network have changed.
"""

import csv
import hashlib
import io
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL.PngImagePlugin import PngInfo
from tqdm import tqdm

from common.drawing import PREDICTION, QUERY, TRUTH, around, captioned, in_columns, overlay, side_by_side, write_picture
from common.errors import UserError, counted, printable, warn_once
from common.existence import SURELY_VISIBLE, verdict
from common.files import atomic_write, claimed, file_digest, is_file_name, remove_leftovers
from formats.masks import fit_mask, iou
from formats.picture_files import open_picture, read_mask, read_picture
from inference.pictures import as_mask
from inference.predictor import marked_images

ABSENT, MADE_OF = "absent", "made of"  # a truth; the entry of a mask's file
FILES, OTHERS = ("query_image", "target_image", "query_mask", "truth"), ("query_box", "object", "size")
COLUMNS = ("name", *FILES, *OTHERS)
SHEET = "answers.jpeg"  # no row's picture, which ends in .jpg
MOST_SHOWN, TILE = 100, 320  # answers on the sheet; pixels of the width of each
Find = Callable[..., tuple[np.ndarray, float]]  # such as `Predictor.segment`: query image, mask, target image, size=...


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a table, with all COLUMNS; paths are no longer relative to the table. Raises UserError if it is not
    such a table, or if a name has two rows or cannot name a file.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets begin it with a byte order mark
            text = file.read()
        separator = next((x for x in ",;\t" if x in text.partition("\n")[0]), ",")  # in spreadsheets of some countries
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        columns, *lines = [[cell.strip() for cell in line] for line in reader if any(line)] or [[]]
    except (csv.Error, ValueError, OSError) as error:
        raise UserError(f"cannot read --pairs {path} as comma-separated values in UTF-8: {error}") from None
    doubled = {column for column in columns if columns.count(column) > 1}
    if wrong := {*COLUMNS[:3]} - {*columns} or doubled:
        fault = "there twice" if wrong == doubled else "missing"
        raise UserError(f"{path}: column {min(wrong)!r} is {fault}; the columns are {', '.join(COLUMNS)}")
    if own := [repr(column) for column in columns if column not in COLUMNS]:
        warn_once(f"{path}: ignored: {counted(len(own), 'column')} {', '.join(own)}; known are {', '.join(COLUMNS)}")
    rows: dict[str, dict[str, str]] = {}
    for line in lines:
        row = dict.fromkeys(COLUMNS, "") | {key: x for key, x in zip(columns, line, strict=False) if key in COLUMNS}
        row |= {"truth": ABSENT} if row["truth"].lower() == ABSENT else {}
        if not is_file_name(row["name"]) or row["name"] in rows or len(line) > len(columns):
            fault = "has two rows" if row["name"] in rows else "cannot name a file, or its row has too many commas"
            raise UserError(f"{path}: {row['name']!r} {fault}; give each row a name of its own, without slashes")
        files = (key for key in FILES if row[key] not in ("", ABSENT))
        rows[row["name"]] = row | {key: str(path.parent / row[key]) for key in files}
    return list(rows.values())


def answer_table(rows: Sequence[dict[str, str]], out: Path, find: Find, made_by: str, ranked: bool = False) -> int:
    """Answer rows by `find`, which `made_by` tells from others, and print the scores. Returns the exit status. If
    `ranked`, the likeliest answers come first, and a sheet shows them.
    """
    answers, broken = [], {}
    with claimed(out, "answers.csv", f"writes {out / 'answers.csv'}"):
        for name in ("answers.csv", SHEET) if ranked else ("answers.csv",):
            (out / name).unlink(missing_ok=True)  # of a run before, whose masks may be replaced now
        for row in (bar := tqdm(rows, "segment", unit="pair", leave=False, disable=None)):
            try:
                answers.append(answer := answer_row(row, out, find, made_by))
            except UserError as error:
                broken[row["name"]] = error
                continue
            score = f", IoU {answer['iou']:.2f}" if isinstance(answer["iou"], float) else ""
            bar.write(f"{row['name']}: {verdict(answer['existence'])}, {answer['share']:.2%} of the target{score}")
        if ranked and answers:
            answers.sort(key=lambda answer: -answer["existence"])
            draw_sheet(answers[:MOST_SHOWN], out)
        with atomic_write(out / "answers.csv") as file:
            writer = csv.DictWriter(file, ("name", "existence", "verdict", "share", "iou"), lineterminator="\n")
            writer.writeheader()
            writer.writerows(answers)
    print_scores(answers)
    for name, error in broken.items():
        print(printable(f"left out: {name}: {error}"), file=sys.stderr)
    left_out = f", {counted(len(broken), 'row')} left out" if broken else ""
    shown = f", the likeliest first in {out / SHEET}" * (ranked and bool(answers))
    print(f"{counted(len(answers), 'answer')} in {out / 'answers.csv'}{shown}{left_out}")
    return 3 if broken else 0  # as eval_segswap.py does


def answer_row(row: dict[str, str], out: Path, find: Find, made_by: str) -> dict[str, Any]:
    """The row of answers.csv, once its mask and picture are written; they stay if they were made from the same before.
    Raises UserError if an input is not as it should be, and if the mask or picture would replace another file.
    """
    if not is_file_name(row["name"].lstrip("-.")):
        raise UserError("its name is too long or not of readable letters; rename it")
    paths = {key: Path(row[key]) for key in FILES if row[key] not in ("", ABSENT)}
    if missing := {"query_image", "target_image"} - {*paths}:
        raise UserError(f"{min(missing)} is {row[min(missing)] or 'empty'}; name a picture")
    try:
        value = int(row["object"], 0) if row["object"] else None
        box = [float(x) for x in row["query_box"].replace(",", " ").split()] or None
        for path in paths.values():
            open_picture(path).close()  # refuses a pipe, whose digest would wait for its writer
        made_of = [made_by, row | {key: file_digest(path) for key, path in paths.items()}]
    except (ValueError, OSError) as error:
        raise UserError(f"{error}; look at the row's files, query_box and object") from None
    digest = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()
    inputs = [path.resolve() for path in paths.values()]
    mask_path, picture_path = written = out / f"{row['name']}.png", out / f"{row['name']}.jpg"
    before: list[str] = []  # the digest and the existence of the answer that lies there
    if mask_path.exists():
        with open_picture(mask_path) as image:
            before = image.info.get(MADE_OF, "").split()
    if others := [path for path in written if path.exists() and (not before or path.resolve() in inputs)]:
        raise UserError(f"{others[0]} is an input, or of no table's run, and stays; give another name or --out")
    truth = read_mask(paths["truth"]) if "truth" in paths else np.zeros((1, 1), np.uint8)
    if before[:1] == [digest] and picture_path.exists():
        mask, existence = read_mask(mask_path), float(before[1])
    else:
        given = read_mask(paths["query_mask"], value) if "query_mask" in paths else None
        [(query, given)] = marked_images(read_picture(paths["query_image"]), given, box)
        target = read_picture(paths["target_image"])
        if truth.any():
            as_mask(truth, row["truth"], target.shape[:2])
        mask, existence = find(query, given, target, size=row["size"] or None)
        shown = overlay(target, mask, PREDICTION, dashed=existence < SURELY_VISIBLE)
        shown = overlay(shown, fit_mask(truth, mask.shape), TRUTH, dashed=True)
        for path in written:
            remove_leftovers(out, path.name)
        picture_path.unlink(missing_ok=True)  # without it, a mask counts as unfinished
        info = PngInfo()
        info.add_text(MADE_OF, f"{digest} {float(existence)!r}")
        write_picture(mask_path, mask * 255, pnginfo=info)
        write_picture(picture_path, side_by_side([overlay(query, fit_mask(given, query.shape[:2]), QUERY), shown]))
    answer = {"name": row["name"], "existence": existence, "verdict": verdict(existence).rpartition(" (")[0]}
    score = round(iou(mask, fit_mask(truth, mask.shape)), 4) if truth.any() else ABSENT if row["truth"] else None
    return answer | {"share": round(float(mask.mean()), 6), "iou": score}


def draw_sheet(answers: Sequence[dict[str, Any]], out: Path) -> None:
    """Draw what was found in each target, with its surroundings, from the pictures and masks of the rows."""
    tiles = []
    for answer in answers:
        picture, mask = read_picture(out / f"{answer['name']}.jpg"), read_mask(out / f"{answer['name']}.png")
        target = picture[:, -round(mask.shape[1] * len(picture) / len(mask)) :]  # without the query
        found = target[around(fit_mask(mask, target.shape[:2]), 4)]
        tiles.append(captioned(found, f"{verdict(answer['existence'])}: {answer['name']}", TILE))
    write_picture(out / SHEET, in_columns(tiles, 4))


def print_scores(answers: Sequence[dict[str, Any]]) -> None:
    """Print how good the answers are whose truth is known. An IoU above 0.5 is right."""
    visible = [(x["iou"], x["existence"] >= SURELY_VISIBLE) for x in answers if isinstance(x["iou"], float)]
    absent = [x["existence"] >= SURELY_VISIBLE for x in answers if x["iou"] == ABSENT]
    if visible:
        ious, said = np.array(visible).T
        score = f"mean IoU {ious.mean():.3f}, right (IoU above 0.5) {sum(ious > 0.5)}"
        print(f"visible: {len(ious)}, {score}, called there {said.sum():.0f}")
    if absent:
        print(f"absent: {len(absent)}, called there {sum(absent)}")
