"""Find an object of one picture in another picture, from a mask of the object or a box around it.

    python inference/segment_pair.py --query_image a.jpg --query_mask a.png --target_image b.jpg
    python inference/segment_pair.py --query_image a.jpg --query_box 120 80 310.5 260 --target_image b.jpg
    python inference/segment_pair.py --query_image a.jpg c.jpg --query_mask a.png c.png --target_image b.jpg

Writes the mask b_mask.png (0 and 255, in the size of the target image) and b_overlay.jpg, which shows all pictures with
the object, into the current folder or into --out; if such files exist, b_2_mask.png and b_2_overlay.jpg. With --places
3, the masks of the next places are b_place2_mask.png and b_place3_mask.png, and b_overlay.jpg shows all places from
nearby. assets/samples/ has pictures to try.

    python inference/segment_pair.py --pairs pairs.csv --out answers

answers a table of pairs, which docs/own_data.md describes, into the folder answers. The same command continues a run
that was stopped. So do these: --object all, with all objects of a label map, and several targets, or a folder of them:

    python inference/segment_pair.py --query_image a.jpg --query_mask a.png --target_image photos --out answers
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.start import start

start(__name__)

import argparse
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from common.arguments import CKPT_HELP, Parser, add_network_options, at_least, network_files, network_options
from common.constants import SIZE_HINTS
from common.drawing import around, captioned, in_columns, side_by_side, write_picture
from common.errors import UserError, counted, run_script, warn_once
from common.existence import LIMITS, MATCHING_LIMITS
from common.files import check_writable, output_folder
from formats.picture_files import SUFFIXES, label_values, pictures_in
from inference.pair_table import TILE_WIDTH, Row, answer_table, check_files, outlined, outlined_queries, read_table
from inference.predictor import Predictor


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--pairs", type=Path, metavar="CSV", help="table of many pairs to answer, in place of one pair")
    text = "picture in which the object is marked, or several pictures of the same object"
    add("--query_image", type=Path, nargs="+", help=text)
    marking = parser.add_mutually_exclusive_group()
    text = "mask of the object in each query picture, in the picture's aspect ratio; the background is black"
    marking.add_argument("--query_mask", type=Path, nargs="+", help=text)
    text = "or a box around the object in pixels; colors then separate the object from its surroundings"
    marking.add_argument("--query_box", nargs=4, type=float, metavar=("LEFT", "TOP", "RIGHT", "BOTTOM"), help=text)
    text = "value of the object in a label map (of a color: 0xRRGGBB), or all, for each of them"
    add("--object", type=label, metavar="VALUE", help=text)
    text = "picture in which to find it, or several, or a folder of pictures: answers.jpeg shows the likeliest first"
    add("--target_image", type=Path, nargs="+", help=text)
    text = "size of the object in the target: smaller if only the query's camera is head-worn (default: unknown)"
    add("--size", choices=SIZE_HINTS, help=text)
    add("--places", type=at_least(1), default=1, help="find the object at so many places, the answer first")
    add("--out", type=Path, help="folder for the output files (default, of one pair: the current folder)")
    usual, matching = (f"{low} {high}" for low, high in (LIMITS, MATCHING_LIMITS))
    text = "existence below which an object counts as probably not there, and from which on it counts as there "
    text += f"(default: {usual}; with --backbone {matching})"
    add("--limits", nargs=2, type=at_least(0, float, 1), metavar=("LOW", "HIGH"), help=text)
    add_network_options(parser, CKPT_HELP)
    args = parser.parse_args(argv)
    pair = args.query_image, args.query_mask or args.query_box, args.target_image
    if any((*pair, args.size, args.object)) if args.pairs else not all(pair):
        parser.error("give either --pairs, or --query_image, --target_image, and --query_mask or --query_box")
    if args.limits and args.limits[0] > args.limits[1]:
        parser.error("--limits takes LOW before HIGH")
    if is_many(args) and not args.out:
        parser.error("--pairs, --object all and several targets need a folder for the answers: add --out FOLDER")
    if is_many(args) and args.places > 1:
        parser.error("--places is for one pair; leave it out")
    if args.query_image and len(args.query_mask or [args.query_box]) != len(args.query_image):
        parser.error("give one --query_mask for each --query_image, in the same order")
    if args.object == "all" and not args.query_mask:
        parser.error("--object all is for a --query_mask that is a label map")
    return args


def label(text: str) -> int | str:
    return text if text == "all" else int(text, 0)


def ranks(args: argparse.Namespace) -> bool:
    """True if an object is sought in several targets: the likeliest answer comes first."""
    return not args.pairs and (len(args.target_image) > 1 or args.target_image[0].is_dir())


def is_many(args: argparse.Namespace) -> bool:
    return bool(args.pairs) or ranks(args) or args.object == "all"


def main(argv: list[str] | None = None) -> int | None:
    args = parse_args(argv)
    if not is_many(args):
        [row] = rows_of(args)
        return answer_pair(row, args)
    rows, broken = read_table(args.pairs) if args.pairs else (rows_of(args), {})
    if not rows and not broken:
        raise UserError(f"{args.pairs or args.query_mask[0]}: no object to seek; add a row, or mark one")
    check_files(rows, args.out, args.pairs, *network_files(args))
    predictor = load(args)
    status = answer_table(rows, broken, args.out, predictor, ranks(args))
    print(predictor.recipe.remark(), end="")
    return status


def rows_of(args: argparse.Namespace) -> list[Row]:
    """Each marked object, sought in each target."""
    queries, masks, value = args.query_image, args.query_mask or [], args.object
    targets = targets_of(args.target_image)
    if ranks(args):  # the query may lie in the folder
        given = {path.resolve() for path in (*queries, *masks)}
        targets = [x for x in targets if x.resolve() not in given]
    names = names_of(targets)
    rows = [Row(x, queries, y, masks, args.query_box, value, args.size) for x, y in zip(names, targets, strict=True)]
    if value == "all":
        values = label_values(masks[0])
        rows = [replace(row, name=f"{row.name}_{x}", value=x) for x in values for row in rows]
    return rows


def names_of(targets: Sequence[Path]) -> list[str]:
    """The name of each target's answer: that of its file, and where two are the same, that of its folder before it."""
    counts = Counter(path.stem for path in targets)
    names = [x.stem if counts[x.stem] == 1 else f"{x.absolute().parent.name}_{x.stem}" for x in targets]
    doubled = [name for name, count in Counter(names).items() if count > 1]
    if doubled:
        raise UserError(f"two targets are called {doubled[0]!r}; rename one")
    return names


def targets_of(paths: Sequence[Path]) -> list[Path]:
    """Pictures, those in folders among them. A warning names what is not read in a folder."""
    targets = []
    for path in paths:
        targets += pictures_in(path) if path.is_dir() else [path]
        unread = sorted(x.name for x in {*path.iterdir()} - {*targets} if x.name[0] != ".") if path.is_dir() else []
        if unread:
            others = f" and {len(unread) - 5} more" if len(unread) > 5 else ""
            warn_once(f"not read in {path}: {', '.join(unread[:5])}{others}; it takes {', '.join(SUFFIXES)}")
    return targets


def load(args: argparse.Namespace) -> Predictor:
    predictor = Predictor.load(args.ckpt_path, args.device, args.limits, **network_options(args))
    print(predictor.recipe.description)
    return predictor


def answer_pair(row: Row, args: argparse.Namespace) -> None:
    """Answer one pair, at --places of the target, and write the masks and the overlay."""
    out = args.out or Path()
    check_writable(out)
    queries, target = row.read()  # errors come before the network is loaded
    predictor = load(args)
    found = predictor.find(queries, [target], args.places, row.size)[0]
    for place in found:
        print(f"{place.said}, {place.mask.mean():.2%} of the target image")
    if len(found) < args.places:
        print(f"{counted(len(found), 'place')} found, not {args.places}: no further place has a mask of its own")

    shown = outlined_queries(queries) + [outlined(target, place.mask, place.is_sure) for place in found]
    if args.places > 1:
        masks = [mask for _, mask in queries] + [place.mask for place in found]
        picture = tiles(shown, masks, ["query"] * len(queries) + [place.said for place in found])
    else:
        picture = side_by_side(shown)
    ends = ["_mask.png", *(f"_place{place}_mask.png" for place in range(2, len(found) + 1)), "_overlay.jpg"]
    with output_folder(out) as folder:  # one process at a time chooses the names, and all files appear together
        paths = free_paths(out, row.name, ends)
        for path, image in zip(paths, [*(place.mask * 255 for place in found), picture], strict=True):
            write_picture(folder / path.name, image)
    print(predictor.recipe.remark(), end="")
    print(*paths, sep="\n")
    if row.box:
        print(f"look at {paths[-1]}: if the box's object is outlined badly, paint it with inference/demo.py")


def tiles(shown: Sequence[np.ndarray], masks: Sequence[np.ndarray], texts: Sequence[str]) -> np.ndarray:
    """Pictures from nearby, cut around their masks and captioned, in four columns."""
    near = [image[around(mask, 4)] for image, mask in zip(shown, masks, strict=True)]
    return in_columns([captioned(x, text, TILE_WIDTH) for x, text in zip(near, texts, strict=True)], 4)


def free_paths(folder: Path, name: str, ends: Sequence[str]) -> list[Path]:
    """Paths NAME + end, or if one of them exists NAME_2 + end, and so on."""
    names = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
    sets = ([folder / f"{x}{end}" for end in ends] for x in names)
    return next(paths for paths in sets if not any(path.exists() for path in paths))


if __name__ == "__main__":
    run_script(main)
