"""Put the results of both settings into one file for the challenge's server:

    python evaluation/make_submission.py
    python evaluation/make_submission.py --ego_exo a.json --exo_ego b.json --out submission.json

Checks first that every take, camera pair and query frame of the split has a usable prediction; target masks, which a
test split may keep secret, are not needed. The file:

    {"ego-exo": {"version": "xx", "challenge": "xx", "results": {take_uid: ..}}, "exo-ego": {..}}
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from tqdm import tqdm

from evaluation.inputs import RESULTS_DIR, add_split_options, refuse, split_uids
from evaluation.predictions import Problem, TakePredictions
from evaluation.truth import GroundTruth
from formats.arguments import Parser
from formats.errors import printable, run_script
from formats.files import write_json
from formats.results import iter_results, results_path
from formats.takes import SETTINGS

FILE_NAME = "submission.json"


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
        refuse([f"take {uid}: {why}" for uid, why in truth.missing.items()], f"split {args.split!r}")
    files = {
        setting: given or results_path(RESULTS_DIR, setting, args.split)
        for setting, given in zip(SETTINGS, (args.ego_exo, args.exo_ego), strict=True)
    }
    out = args.out if args.out.suffix == ".json" and not args.out.is_dir() else args.out / FILE_NAME
    with tqdm(total=len(files) * len(truth.uids), unit="take") as bar:
        write_json(out, both_settings(truth, files, bar))
    print(f"{out}: {out.stat().st_size / 1e6:,.1f} MB")


def both_settings(truth: GroundTruth, files: dict[str, Path], bar: tqdm) -> Iterator[tuple[str, dict]]:
    """The submission's members. After the last one, raises UserError if anything was missing or unusable."""
    problems: list[Problem] = []
    for setting, results in files.items():
        takes = checked_takes(truth, setting, results, bar, problems)
        yield setting, {"version": "xx", "challenge": "xx", "results": takes}
    if problems:
        refuse(problems, "the results")


def checked_takes(
    truth: GroundTruth, setting: str, results: Path, bar: tqdm, problems: list[Problem]
) -> Iterator[tuple[str, Any]]:
    """The ground truth's takes of a results file, one at a time; what is wrong with them is added to `problems`.

    Every query frame of every camera pair must have a usable prediction, whether or not the target's masks are known.
    """
    unseen = dict.fromkeys(truth.uids)
    others, predictions = [], 0
    for uid, raw in iter_results(results, setting):
        if uid not in unseen:
            others.append(uid)
            continue
        del unseen[uid]
        take, checked = truth.load(uid), TakePredictions(uid, raw)
        for pair in take.take.camera_pairs(setting):
            predictions += len(checked.read(pair, take.query_frames(pair), take.prediction_size(pair)))
        problems += checked.problems
        bar.update()
        yield uid, raw
    problems += [Problem(uid, None, None, (), f"missing in {results}", missing=True) for uid in unseen]
    bar.write(f"{setting}: {len(truth.uids) - len(unseen):,} takes, {predictions:,} predictions")
    if others:
        bar.write(f"  not of the split, left out: {printable(', '.join(others))}")


if __name__ == "__main__":
    run_script(main)
