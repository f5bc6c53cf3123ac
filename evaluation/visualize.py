"""Look at predictions: pictures of the query, the prediction and the truth, each with its IoU and confidence.

    python evaluation/visualize.py --setting ego-exo
    python evaluation/visualize.py --setting ego-exo --order worst --num 20
    python evaluation/visualize.py --setting exo-ego --take 4674852c --object "milk carton_0" --frame 120
    python evaluation/visualize.py --setting exo-ego --take 4674852c --object "milk carton_0" --out track.mp4

Writes one picture a case and sheet.jpg with all of them; if --out names a .jpg or .png, the sheet alone; if it names an
.mp4, the whole track of the first object and camera pair that fit.
"""

import argparse
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from tqdm import tqdm

from evaluation.options import add_setting_option, add_workers_option, default_out, make_parser, pred_file, split_uids
from evaluation.pictures import Predicted, contact_sheet, draw_case, predicted_masks
from evaluation.score import Case, score_results
from evaluation.selection import ORDERS, choose, matching
from evaluation.truth import GroundTruth
from evaluation.write_video import write_video
from formats.drawing import write_picture
from formats.errors import UserError, run_script
from formats.results import iter_results


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    add_setting_option(parser)
    add = parser.add_argument
    add("--order", choices=ORDERS, default="spread", help="which cases, by IoU (default: spread from best to worst)")
    add("--num", type=int, default=8, help="how many pictures (default: 8)")
    add("--seed", type=int, default=0, help="for --order random (default: 0)")
    add("--take", help="only this take: its uid or how it begins")
    add("--object", help="only this object")
    add("--camera", help="only with this camera as query or target")
    add("--frame", type=int, help="only this frame")
    add("--columns", type=int, default=2, help="of the contact sheet (default: 2)")
    add("--height", type=int, default=360, help="of the panels, pixels (default: 360)")
    add("--fps", type=int, default=3, help="of a video: annotated frames a second (default: 3)")
    add("--out", type=Path, help="folder, or .jpg, .png, .mp4 file (default: results/{setting}_{split}_pictures)")
    add_workers_option(parser)
    args = parser.parse_args(argv)
    for name, least in (("num", 1), ("columns", 1), ("fps", 1), ("height", 60)):
        if getattr(args, name) < least:
            parser.error(f"--{name} {getattr(args, name)} must be at least {least}")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    out = args.out or default_out(args, "pictures")
    truth = open_takes(args)
    with tqdm(total=len(truth.uids), unit="take", desc="score") as bar:
        results = iter_results(pred_file(args), args.setting)
        scores = score_results(truth, results, args.setting, args.num_workers, bar.update)
    if scores.problems:
        print(f"{len(scores.problems)} problems in {pred_file(args)}; evaluate.py lists them", file=sys.stderr)
    cases = matching(scores.cases, object_name=args.object, camera=args.camera, frame=args.frame)
    if not cases:
        raise UserError(f"no prediction in {pred_file(args)} fits; check --take, --object, --camera, --frame")
    if out.suffix.lower() == ".mp4":
        cases = sorted((case for case in cases if case.key[:4] == cases[0].key[:4]), key=lambda case: case.frame)
    else:
        cases = choose(cases, args.order, args.num, args.seed)
    if not cases:
        raise UserError("none of these objects is visible in the target; --order random shows them all the same")
    draw(truth, cases, predicted_masks(pred_file(args), args.setting, cases), out, args)


def open_takes(args: argparse.Namespace) -> GroundTruth:
    """The takes to look at. Which frames the annotators looked at does not matter here."""
    uids = [uid for uid in split_uids(args) if uid.startswith(args.take or "")]
    if not uids:
        raise UserError(f"no take of split {args.split!r} begins with {args.take!r}; name another --take or --split")
    truth = GroundTruth.from_processed(args.data_path, uids, None)
    if not truth.uids:
        raise UserError(f"no take of split {args.split!r} is in {args.data_path}; run data/process_data.py first")
    return truth


def draw(truth: GroundTruth, cases: list[Case], masks: dict[tuple, dict], out: Path, args: argparse.Namespace) -> None:
    """Write the pictures of `cases` in the form that the name `out` asks for."""
    takes = {uid: truth.load(uid) for uid in {case.take_uid for case in cases}}
    pictures = (draw_case(takes[case.take_uid], [Predicted(case, masks[case.key])], args.height) for case in cases)
    if out.suffix.lower() == ".mp4":
        print(f"{write_video(out, tqdm(pictures, total=len(cases), unit='frame'), args.fps)} frames: {out}")
        return
    pictures = list(pictures)
    sheet_only = out.suffix.lower() in (".jpg", ".jpeg", ".png")
    sheet = out if sheet_only else out / "sheet.jpg"
    write_picture(sheet, contact_sheet(pictures, args.columns))
    if not sheet_only:
        for number, (case, picture) in enumerate(zip(cases, pictures, strict=True), 1):
            write_picture(out / file_name(number, case), picture)
    print(f"{len(pictures)} pictures: {sheet}")


def file_name(number: int, case: Case) -> str:
    score = f"iou{case.iou:.2f}" if case.visible else "not-visible"
    words = f"{case.take_uid[:8]} {case.object_name.strip()} {case.target_camera} {case.frame}"
    return f"{number:03d}_{score}_{re.sub(r'[^A-Za-z0-9.-]+', '_', words)}.jpg"


if __name__ == "__main__":
    run_script(main)
