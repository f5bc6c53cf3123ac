"""Find one object of a picture in another: two images and a mask file or a box -> a mask and an overlay picture.

    python inference/segment_pair.py --query_image a.jpg --query_mask a.png --target_image b.jpg
    python inference/segment_pair.py --query_image a.jpg --query_box 120 80 310.5 260 --target_image b.jpg
    python inference/segment_pair.py --pairs pairs.csv --out found

Writes <out>_mask.png (0 and 255, the size of the target image) and <out>_overlay.jpg, and prints which network it used
and the probability that the object is visible in the target image. assets/samples/ has pictures to try.

Of a list, the folder <out> gets masks/{row}.png and existence.csv, the list with these masks and probabilities. Columns
are query_image, query_mask or query_box, target_image, and where need be setting and object; paths start at the list's
folder. Given again, the command goes on where it was stopped, and makes anew what was made of other files. Rows that
cannot be read are left out and named; the exit status is 3 then.
"""

import argparse
import contextlib
import csv
import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.cpu import tune_cpu
from common.errors import run_script, say_errors

say_errors(__name__)
tune_cpu(__name__)

import cv2
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tqdm import tqdm

from common.arguments import SETTINGS, Parser, Words, add_backbone_weights, add_device
from common.drawing import PREDICTION, QUERY, overlay, write_picture
from common.errors import UserError, counted
from common.files import atomic_write, claimed, file_digest, remove_leftovers
from formats.mask_pictures import read_mask
from formats.masks import fit_mask
from formats.picture_files import open_picture, read_picture
from inference.cut_out import cut_out
from inference.predictor import CKPT_HELP, SHIPPED, Predictor
from model.device import PRECISION_HELP, PRECISIONS

LEFT_OUT_STATUS = 3  # rows of the list are missing from its answers
FIGURES = "mask", "existence", "share"  # columns of existence.csv; share: of the picture that the mask covers
MORE = "cells without a column"
PNG_TEXT = "Pair"  # key in a mask's file: what it was made of, existence, share of the picture


class Pair(NamedTuple):
    query_image: Path
    target_image: Path
    query_mask: Path | None
    query_box: str | None
    object: int | None  # value in a label map
    setting: str | None


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--query_image", help="picture in which the object is known")
    add("--query_mask", help="its mask: black where the object is not; any size of the same shape")
    text = "or a box around the object, pixels, in which it is told from its surroundings by its colors"
    add("--query_box", nargs=4, action=Words, metavar=("LEFT", "TOP", "RIGHT", "BOTTOM"), help=text)
    add("--object", metavar="VALUE", help="value of the object if the mask is a label map; color: 0xRRGGBB")
    add("--target_image", help="picture in which to find it")
    add("--pairs", type=Path, metavar="CSV", help="list of pairs, instead of these")
    text = "which picture is of a head-worn camera, whose things look larger (default: not known)"
    add("--setting", choices=SETTINGS, help=text)
    add("--ckpt_path", type=Path, default=SHIPPED, help=CKPT_HELP)
    add_backbone_weights(parser)
    add("--out", type=Path, help="beginning of the two output files' names (default: pair), or folder (default: pairs)")
    add_device(parser)
    add("--precision", choices=PRECISIONS, help=PRECISION_HELP)
    args = parser.parse_args(argv)
    if args.pairs and any((args.query_image, args.target_image, args.query_mask, args.query_box)):
        raise UserError("--pairs names a list of pairs; leave out --query_image, --query_mask, ... of a single one")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    rows = read_rows(args.pairs) if args.pairs else []
    pair = None if rows else parse_pair(args, {})
    predictor = Predictor.load(args.ckpt_path, args.device, args.precision, backbone_weights=args.backbone_weights)
    print(f"{args.ckpt_path}: {predictor.description}")
    if pair:
        segment_pair(pair, predictor, args.out or Path("pair"))
        return 0
    weights = [path and file_digest(path) for path in (args.ckpt_path, args.backbone_weights)]
    return segment_list(args, rows, predictor, json.dumps([*weights, predictor.matcher.precision]))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The list's rows by column. Raises UserError if it is none."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, restval="", restkey=MORE))
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path} is no CSV file ({error})") from None
    if missing := {"query_image", "target_image"} - set(rows[0] if rows else ()):
        raise UserError(f"{path} has no column {min(missing)}, or no row; its first line names the columns")
    return rows


def parse_pair(args: argparse.Namespace, row: Mapping[str, Any]) -> Pair:
    """The pair of the command line, or of a row of its list, whose cells come first. Raises UserError."""
    given = vars(args) | {name: text for name, cell in row.items() if (text := str(cell).strip())}
    query, target, mask, box, value, setting = (given[name] for name in Pair._fields)
    if MORE in given or not query or not target or bool(mask) == bool(box):
        one = "query_image, target_image, and query_mask or query_box"
        raise UserError(f"give {one}, and no cell too many; or, instead of one pair, a list with --pairs")
    try:
        value = int(value, 0) if value else None
    except ValueError:
        raise UserError(f"object {value!r} is no number, such as 3 or 0x2040ff") from None
    folder = args.pairs.parent if args.pairs else Path()
    return Pair(folder / query, folder / target, folder / mask if mask else None, box, value, setting)


def find(pair: Pair, predictor: Predictor) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float]:
    """Query image and mask, target image, and the mask and the existence that are found there."""
    query, target = read_picture(pair.query_image), read_picture(pair.target_image)
    known = read_mask(pair.query_mask, pair.object) if pair.query_mask else cut_out(query, pair.query_box)
    return query, known, target, *predictor.segment(query, known, target, setting=pair.setting)


def segment_pair(pair: Pair, predictor: Predictor, out: Path) -> None:
    query, query_mask, target, mask, existence = find(pair, predictor)
    query_mask = fit_mask(query_mask, query.shape[:2])
    shown = [overlay(query, query_mask, QUERY), overlay(target, mask, PREDICTION)]
    height = max(image.shape[0] for image in shown)
    shown = [cv2.resize(image, (round(image.shape[1] * height / image.shape[0]), height)) for image in shown]
    mask_path, overlay_path = (out.with_name(out.name + end) for end in ("_mask.png", "_overlay.jpg"))
    with claimed(out.parent, out.name, f"writes {mask_path}", (mask_path.name, overlay_path.name)):
        write_picture(mask_path, mask * 255)
        write_picture(overlay_path, np.hstack(shown))
    print(f"visible with probability {existence:.3f}, {mask.mean():.2%} of the target image")
    print(f"{mask_path}\n{overlay_path}")


def segment_list(args: argparse.Namespace, rows: list[dict[str, Any]], predictor: Predictor, network: str) -> int:
    """Answer all pairs of the list; a mask that lies there and was made of the same files is not made again."""
    out = args.out or Path("pairs")
    table, answers, left_out = out / "existence.csv", [], []
    with claimed(out, table.name, f"writes {out}"):
        remove_leftovers(out / "masks")
        for number, row in enumerate(tqdm(rows, "segment", unit="pair"), start=1):
            path = out / "masks" / f"{number:05d}.png"
            try:
                pair = parse_pair(args, row)
                made_of = digest_of(pair, network)
                if not (figures := made_already(path, made_of)):
                    *_, mask, existence = find(pair, predictor)
                    figures = f"{existence:.6f}", f"{mask.mean():.6f}"
                    table.unlink(missing_ok=True)  # it no longer says what lies there
                    write_mask(path, mask, " ".join([made_of, *figures]))
            except UserError as error:
                left_out.append(f"row {number}: {error}")
            else:
                answers.append(row | dict(zip(FIGURES, (str(path.relative_to(out)), *figures), strict=True)))
        with atomic_write(table) as file:
            columns = dict.fromkeys([*rows[0], *FIGURES])
            columns.pop(MORE, None)
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(answers)
    print(f"{counted(len(answers), 'pair')}: {table}, masks lie beside it")
    if left_out:
        print(*left_out, f"{counted(len(left_out), 'row')} of {args.pairs} left out", sep="\n", file=sys.stderr)
    return LEFT_OUT_STATUS if left_out else 0


def digest_of(pair: Pair, network: str) -> str:
    """SHA-256 of all that decides the answer, files by their content. Raises UserError if one is no picture."""
    files = [pair.query_image, pair.target_image, *([pair.query_mask] if pair.query_mask else [])]
    for path in files:
        open_picture(path).close()
    return hashlib.sha256(json.dumps([network, *map(file_digest, files), *pair[3:]]).encode()).hexdigest()


def made_already(path: Path, digest: str) -> list[str]:
    """Existence and share of a mask that was made of what `digest` says; none if it is another's, or is not there."""
    with contextlib.suppress(UserError), open_picture(path) as image:
        made_of, *figures = str(image.info.get(PNG_TEXT)).split()
        if made_of == digest:
            return figures
    return []


def write_mask(path: Path, mask: np.ndarray, text: str) -> None:
    info = PngInfo()
    info.add_text(PNG_TEXT, text)
    with atomic_write(path, "wb") as file:
        Image.fromarray(mask * 255).save(file, "PNG", pnginfo=info)


if __name__ == "__main__":
    run_script(main)
