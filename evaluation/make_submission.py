"""Put the results of both settings into one file for the challenge's server:

    python evaluation/make_submission.py
    python evaluation/make_submission.py --ego_exo a.json --exo_ego b.json --out submission.json

Checks first that every take, camera pair and query frame of the split has a usable prediction; target masks, which a
test split may keep secret, are not needed. The file:

    {"ego-exo": {"version": "xx", "challenge": "xx", "results": {take_uid: ..}}, "exo-ego": {..}}
"""

import argparse
import json
import sys
from pathlib import Path
from typing import IO

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from tqdm import tqdm

from evaluation.inputs import RESULTS_DIR, add_split_options, split_uids
from evaluation.predictions import Problem, TakePredictions
from evaluation.truth import GroundTruth
from formats.arguments import Parser
from formats.errors import UserError, run_script
from formats.files import atomic_write
from formats.results import iter_results, results_path
from formats.takes import SETTINGS

FILE_NAME = "submission.json"
HEAD = '{"version": "xx", "challenge": "xx", "results": {'


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add_split_options(parser, "test")
    add = parser.add_argument
    for setting in SETTINGS:
        name = f"--{setting.replace('-', '_')}"
        add(name, type=Path, help=f"results (default: results/{setting}_{{split}}_results.json)")
    add("--gt_file", type=Path, help="check against this ground-truth JSON instead of the processed takes")
    add(
        "--out",
        type=Path,
        default=RESULTS_DIR,
        help=f"file ending in .json, or folder for {FILE_NAME} (default: results)",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.gt_file:
        truth = GroundTruth.from_official(args.gt_file, args.data_path)
    else:
        uids = split_uids(args.data_path, args.splits_path, args.split)
        truth = GroundTruth.from_processed(args.data_path, uids, None)
    if truth.missing:
        print("\n".join(f"take {uid}: {why}" for uid, why in truth.missing.items()), file=sys.stderr)
        raise UserError(f"{len(truth.missing)} takes of split {args.split!r} are not processed; see above")
    files = {
        setting: given or results_path(RESULTS_DIR, setting, args.split)
        for setting, given in zip(SETTINGS, (args.ego_exo, args.exo_ego), strict=True)
    }
    out = args.out if args.out.suffix == ".json" and not args.out.is_dir() else args.out / FILE_NAME
    problems = write_submission(out, truth, files)
    if problems:
        print("\n".join(map(str, problems)), file=sys.stderr)
        raise UserError(f"{len(problems)} problem{'' if len(problems) == 1 else 's'} in the results, nothing written")
    print(f"{out}: {out.stat().st_size / 1e6:,.1f} MB")


def write_submission(path: Path, truth: GroundTruth, files: dict[str, Path]) -> list[Problem]:
    """Write `files`, results by setting, as one submission, holding a take at a time.

    Returns what is missing or unusable, and writes nothing then.
    """
    problems: list[Problem] = []
    try:
        with atomic_write(path) as file, tqdm(total=len(files) * len(truth.uids), unit="take") as bar:
            for number, (setting, results) in enumerate(files.items()):
                file.write(f"{', ' if number else '{'}{json.dumps(setting)}: {HEAD}")
                problems += copy_results(file, truth, setting, results, bar)
                file.write("}}")
            file.write("}\n")
            if problems:
                raise _Unfit
    except _Unfit:
        pass
    return problems


class _Unfit(Exception):
    """Ends `atomic_write` without a file."""


def copy_results(file: IO[str], truth: GroundTruth, setting: str, results: Path, bar: tqdm) -> list[Problem]:
    """Copy the takes of the ground truth from a results file, as members of a JSON object; returns what is wrong.

    Every query frame of every camera pair must have a usable prediction, whether or not the target's masks are known.
    """
    unseen = dict.fromkeys(truth.uids)
    problems, others, predictions, takes = [], [], 0, 0
    for uid, raw in iter_results(results, setting):
        if uid not in unseen:
            others.append(uid)
            continue
        del unseen[uid]
        take, checked = truth.load(uid), TakePredictions(uid, raw)
        for pair in take.take.camera_pairs(setting):
            predictions += len(checked.read(pair, take.query_frames(pair), take.prediction_size(pair)))
        problems += checked.problems
        file.write(f"{', ' if takes else ''}{json.dumps(uid)}: {json.dumps(raw)}")
        takes += 1
        bar.update()
    bar.write(f"{setting}: {takes:,} takes, {predictions:,} predictions")
    if others:
        bar.write(f"  not of the split, left out: {', '.join(others)}")
    return problems + [Problem(uid, None, None, (), f"missing in {results}", missing=True) for uid in unseen]


if __name__ == "__main__":
    run_script(main)
