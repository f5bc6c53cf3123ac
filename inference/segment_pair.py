"""Find an object of one picture in another picture, from a mask of the object or a box around it.

    python inference/segment_pair.py --query_image a.jpg --query_mask a.png --target_image b.jpg
    python inference/segment_pair.py --query_image a.jpg --query_box 120 80 310.5 260 --target_image b.jpg
    python inference/segment_pair.py --query_image a.jpg c.jpg --query_mask a.png c.png --target_image b.jpg

Writes the mask b_mask.png (0 and 255, in the size of the target image) and b_overlay.jpg, which shows all pictures with
the object; if such files exist, b_2_mask.png and b_2_overlay.jpg. --out gives them another name than the target's. With
--places 3, the masks of the next places are b_mask_2.png and b_mask_3.png, and b_overlay.jpg shows all places from
nearby. assets/samples/ has pictures to try.

    python inference/segment_pair.py --pairs pairs.csv --out answers

answers a table of pairs, which docs/own_data.md describes, into the folder answers. The same command continues a run
that was stopped. So do these: --object all, with all objects of a label map, and several targets, or a folder of them:

    python inference/segment_pair.py --query_image a.jpg --query_mask a.png --target_image photos --out answers
"""

import argparse
import itertools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.cpu import tune_cpu
from common.errors import UserError, counted, run_script, say_errors, warn_once

say_errors(__name__)
tune_cpu(__name__)

from common.arguments import CKPT_HELP, Parser, add_network_options, at_least, network_options
from common.constants import SIZES
from common.drawing import PREDICTION, QUERY, around, overlay, side_by_side, write_picture
from common.existence import SURELY_VISIBLE, verdict
from common.files import check_output, claimed
from formats.masks import fit_mask
from formats.picture_files import SUFFIXES, label_values, pictures_in, read_mask, read_picture
from inference.pair_table import COLUMNS, answer_table, read_table
from inference.predictor import Predictor, marked_images


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
    add("--size", choices=SIZES, help=text)
    add("--places", type=at_least(1), default=1, help="find the object at so many places, the answer first")
    add("--out", type=Path, help="beginning of the output files' names (default: as above); of many pairs, a folder")
    add("--overwrite", action="store_true", help="replace output files that exist")
    add_network_options(parser, CKPT_HELP)
    args = parser.parse_args(argv)
    pair = args.query_image, args.query_mask or args.query_box, args.target_image
    if any((*pair, args.size, args.object)) if args.pairs else not all(pair):
        parser.error("give either --pairs, or --query_image, --target_image, and --query_mask or --query_box")
    args.ranked = not args.pairs and (len(args.target_image) > 1 or args.target_image[0].is_dir())
    args.many = args.pairs or args.ranked or args.object == "all"
    if args.many and not args.out:
        parser.error("--pairs, --object all and several targets need a folder for the answers: add --out FOLDER")
    if args.many and (args.places > 1 or args.overwrite):
        parser.error("--places and --overwrite are for one pair; leave them out")
    return args


def label(text: str) -> int | str:
    return text if text == "all" else int(text, 0)


def load(args: argparse.Namespace) -> Predictor:
    predictor = Predictor.load(args.ckpt_path, args.device, **network_options(args))
    print(predictor.description)
    return predictor


def main(argv: list[str] | None = None) -> int | None:
    args = parse_args(argv)
    if args.many:
        rows = read_table(args.pairs) if args.pairs else rows_to_answer(args)
        if not rows:
            raise UserError(f"{args.pairs or args.query_mask[0]}: no object to seek; add a row, or mark one")
        predictor = load(args)
        made_by = f"{predictor.digest} {predictor.recipe.options}"
        return answer_table(rows, args.out, predictor.segment, made_by, args.ranked)
    [target_path] = args.target_image
    out, is_named = args.out or Path(target_path.stem), bool(args.out or args.overwrite)
    if not out.name:
        raise UserError(f"--out {out} is a folder; give the beginning of a file's name: {out / target_path.stem}")
    inputs = *args.query_image, *(args.query_mask or ()), target_path
    inputs += tuple(path for path in (args.ckpt_path, args.backbone_weights) if path)
    for path in output_paths(out, args.places) if is_named else ():
        check_output(path, args.overwrite, inputs)
    images = args.query_image if args.query_mask or len(args.query_image) > 1 else args.query_image[0]
    masks = args.query_mask
    if masks and args.object is not None:
        masks = [read_mask(path, args.object) for path in masks]
    # Errors come before the network is loaded.
    queries, masks = map(list, zip(*marked_images(images, masks, args.query_box), strict=True))
    target = read_picture(target_path)
    found = load(args).places(queries, masks, target, args.places, size=args.size)
    for mask, existence in found:
        print(f"{verdict(existence)}, {mask.mean():.2%} of the target image")
    if len(found) < args.places:
        print(f"{counted(len(found), 'place')} found, not {args.places}: no further place has a mask of its own")

    views = [overlay(query, fit_mask(mask, query.shape[:2]), QUERY) for query, mask in zip(queries, masks, strict=True)]
    for mask, existence in found:
        shown = overlay(target, mask, PREDICTION, dashed=existence < SURELY_VISIBLE)
        views.append(shown[around(mask, 4)] if args.places > 1 else shown)
    with claimed(out.parent, out.name, f"writes {out}_mask.png"):
        paths, numbers = output_paths(out, args.places), itertools.count(2)
        while not is_named and any(path.exists() for path in paths):
            paths = output_paths(out.with_name(f"{out.name}_{next(numbers)}"), args.places)
        *mask_paths, overlay_path = paths
        for path, (mask, _) in zip(mask_paths, found, strict=False):  # fewer places may be found
            write_picture(path, mask * 255)
        for path in mask_paths[len(found) :]:
            path.unlink(missing_ok=True)  # of a former run, which --overwrite allows to replace
        write_picture(overlay_path, side_by_side(views))
    print(*mask_paths[: len(found)], overlay_path, sep="\n")
    if args.query_box:
        print(f"look at {overlay_path}: if the box's object is outlined badly, paint it with inference/demo.py")


def rows_to_answer(args: argparse.Namespace) -> list[dict[str, str]]:
    """The rows of a table in which each marked object is sought in each target."""
    given, all_objects = [*args.query_image, *(args.query_mask or ())], args.object == "all"
    if len(args.query_image) > 1 or len(given) > 2 or (all_objects and not args.query_mask):
        raise UserError("several targets, or --object all, take one --query_image, with one mask or label map")
    row = dict.fromkeys(COLUMNS, "") | {"query_image": str(given[0]), "query_mask": "".join(map(str, given[1:]))}
    row |= {"size": args.size or "", "query_box": " ".join(map(str, args.query_box or ()))}
    row |= {} if args.object is None else {"object": str(args.object)}
    targets = [x for path in args.target_image for x in (pictures_in(path) if path.is_dir() else [path])]
    for folder in filter(Path.is_dir, args.target_image):
        if unread := sorted(x.name for x in {*folder.iterdir()} - {*targets} if x.name[0] != "."):
            others = f" and {len(unread) - 5} more" if len(unread) > 5 else ""
            warn_once(f"not read in {folder}: {', '.join(unread[:5])}{others}; it takes {', '.join(SUFFIXES)}")
    if args.ranked:  # the query may lie in the folder
        targets = [x for x in targets if x.resolve() not in {y.resolve() for y in given}]
    if doubled := {x.stem for x in targets if sum(x.stem == y.stem for y in targets) > 1}:
        raise UserError(f"two targets are called {min(doubled)!r}; rename one")
    rows = [row | {"name": x.stem, "target_image": str(x)} for x in targets]
    if all_objects:
        values = map(str, label_values(given[1]))
        rows = [row | {"name": f"{row['name']}_{x}", "object": x} for x in values for row in rows]
    return rows


def output_paths(out: Path, places: int) -> list[Path]:
    """The files of the masks and of the overlay; they have more places if a former run had."""
    while out.with_name(f"{out.name}_mask_{places + 1}.png").exists():
        places += 1
    ends = "_mask.png", *(f"_mask_{place}.png" for place in range(2, places + 1)), "_overlay.jpg"
    return [out.with_name(out.name + end) for end in ends]


if __name__ == "__main__":
    run_script(main)
