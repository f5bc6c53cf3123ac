"""Put the results of both settings into one file for the challenge's server:

    python evaluation/make_submission.py
    python evaluation/make_submission.py --ego_exo a.json --exo_ego b.json --out submission.json

Checks first that every take, camera pair and query frame of the split has a usable prediction; target masks, which a
test split may keep secret, are not needed.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from tqdm import tqdm

from evaluation.options import RESULTS_DIR, make_parser, split_uids
from evaluation.submission import UnfitResults, write_submission
from evaluation.truth import GroundTruth
from formats.errors import UserError, run_script
from formats.results import results_path
from formats.takes import SETTINGS


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__, split="test")
    add = parser.add_argument
    for setting in SETTINGS:
        name = f"--{setting.replace('-', '_')}"
        add(name, type=Path, help=f"results (default: results/{setting}_{{split}}_results.json)")
    add("--gt_file", type=Path, help="check against this ground-truth JSON instead of the processed takes")
    add("--out", type=Path, default=RESULTS_DIR / "submission.json", help="default: results/submission.json")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.gt_file:
        truth = GroundTruth.from_official(args.gt_file, args.data_path)
    else:
        truth = GroundTruth.from_processed(args.data_path, split_uids(args), None)
    if truth.missing:
        print("\n".join(f"take {uid}: {why}" for uid, why in truth.missing.items()), file=sys.stderr)
        raise UserError(f"{len(truth.missing)} takes of split {args.split!r} are not processed; see above")
    given = (args.ego_exo, args.exo_ego)
    files = {s: path or results_path(RESULTS_DIR, s, args.split) for s, path in zip(SETTINGS, given, strict=True)}
    try:
        with tqdm(total=len(files) * len(truth.uids), unit="take") as bar:
            submitted = write_submission(args.out, truth, files, bar.update)
    except UnfitResults as error:
        print("\n".join(map(str, error.problems)), file=sys.stderr)
        raise
    for part in submitted:
        print(f"{part.setting}: {part.takes:,} takes, {part.predictions:,} predictions")
        if part.left_out:
            print(f"  not of the split, left out: {', '.join(part.left_out)}")
    print(f"{args.out}: {args.out.stat().st_size / 1e6:,.1f} MB")


if __name__ == "__main__":
    run_script(main)
