"""Look at predictions: pictures of the query, the prediction and the truth, each with its IoU and existence.

    python evaluation/visualize.py --setting ego-exo
    python evaluation/visualize.py --setting ego-exo --order worst --num 20
    python evaluation/visualize.py --setting exo-ego --take 4674852c --object "milk carton_0" --frame 120
    python evaluation/visualize.py --setting exo-ego --take 4674852c --object "milk carton_0" --out track.mp4

Writes one picture per case and sheet.jpg with all of them; if --out names a .jpg or .png, the sheet alone; if it names
an .mp4, the whole track of the first object and camera pair that fit.
"""

import argparse
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.errors import run_script, say_errors

say_errors(__name__)

from common.arguments import Parser, add_num_workers, add_setting, at_least
from common.drawing import write_picture
from common.errors import UserError, counted
from common.files import claimed
from evaluation.case_pictures import CASE_ORDERS, case_sheet, choose, draw_cases, write_track
from evaluation.options import add_annotation_path, add_reading_options, add_split_options
from evaluation.outputs import beside, default_results, output_folder
from evaluation.score import Case, score_results
from evaluation.truth import GroundTruth
from formats.results import iter_results


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add_setting(parser)
    add_split_options(parser)
    add_annotation_path(parser, "every frame with a query mask counts")
    add_reading_options(parser)
    add = parser.add_argument
    add("--pred_file", type=Path, help="results (default: results/{setting}_{split}_results.json)")
    add("--order", choices=CASE_ORDERS, default="spread", help="which cases, by IoU; spread: from best to worst")
    add("--num", type=at_least(1), default=8, help="how many pictures")
    add("--seed", type=int, default=0, help="for --order random")
    add("--take", help="only this take: its uid or how it begins")
    add("--object", help="only this object")
    add("--camera", help="only with this camera as query or target")
    add("--frame", type=int, help="only this frame")
    add("--height", type=at_least(60), default=360, help="of the panels, pixels")
    add("--fps", type=at_least(1), default=3, help="of a video: annotated frames per second")
    add("--out", type=Path, help="folder, or .jpg, .png, .mp4 file (default: results/{setting}_{split}_pictures)")
    add_num_workers(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    results = args.pred_file or default_results(args.setting, args.split)
    out = args.out or beside(results, "pictures")
    where = (args.data_path, args.split, args.splits_path, args.annotation_path)
    truth = GroundTruth.of_split(*where, all_frames=not args.annotation_path)
    if args.take:
        uids = [uid for uid in truth.uids if uid.startswith(args.take)]
        if not uids:
            raise UserError(f"no processed take of split {args.split!r} begins with {args.take!r}")
        truth = truth.subset(uids)
    scores = score_results(truth, iter_results(results, args.setting), args.setting, args.num_workers, args.accept)
    if scores.problems:
        print(f"{counted(len(scores.problems), 'problem')} in {results}; evaluate.py lists them", file=sys.stderr)
    if not scores.cases:
        raise UserError(f"no prediction in {results} is of these takes; check --split and --take")
    cases, suffix = matching(scores.cases, args.object, args.camera, args.frame), out.suffix.lower()
    if suffix == ".mp4":
        cases = sorted((case for case in cases if case.track == cases[0].track), key=lambda case: case.frame)
    else:
        cases = choose(cases, args.order, args.num, args.seed)
    if not cases:
        raise UserError("none of these objects is visible in the target; --order random shows them all the same")

    pictures = draw_cases(truth, args.setting, {"": results}, [cases], args.height)
    if suffix == ".mp4":
        with claimed(out.parent, out.name, f"writes {out}"):
            write_track(out, pictures, args.fps)
        print(f"{counted(len(cases), 'frame')}: {out}")
    elif suffix in (".jpg", ".jpeg", ".png"):
        with claimed(out.parent, out.name, f"writes {out}"):
            write_picture(out, case_sheet(list(pictures)))
        print(f"{counted(len(cases), 'picture')}: {out}")
    else:
        with output_folder(out, "pictures") as folder:
            pictures = list(pictures)
            write_picture(folder / "sheet.jpg", case_sheet(pictures))
            for number, (case, picture) in enumerate(zip(cases, pictures, strict=True), 1):
                write_picture(folder / file_name(number, case), picture)
        print(f"{counted(len(cases), 'picture')}: {out / 'sheet.jpg'}")


def matching(cases: list[Case], object_name: str | None, camera: str | None, frame: int | None) -> list[Case]:
    """Cases of an object (with or without surrounding spaces), a query or target camera, a frame; None fits all.

    Raises UserError, which names some that exist, if there are none.
    """
    for flag, wanted, names in (
        ("object", object_name and object_name.strip(), lambda case: {case.object_name.strip()}),
        ("camera", camera, lambda case: {case.query_camera, case.target_camera}),
        ("frame", frame, lambda case: {case.frame}),
    ):
        if wanted is not None:
            fitting = [case for case in cases if wanted in names(case)]
            if not fitting:
                known = sorted(set().union(*map(names, cases)))[:10]
                raise UserError(f"no prediction fits --{flag} {wanted!r}; there are {', '.join(map(repr, known))}")
            cases = fitting
    return cases


def file_name(number: int, case: Case) -> str:
    score = f"iou{100 * case.mask.iou:05.2f}" if case.visible else "not-visible"
    words = f"{case.take_uid[:8]} {case.object_name.strip()[:60]} {case.target_camera[:60]} {case.frame}"
    return f"{number:03d}_{score}_{re.sub(r'[^A-Za-z0-9.-]+', '_', words)}.jpg"


if __name__ == "__main__":
    run_script(main)
