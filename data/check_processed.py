"""Check a processed data set: every frame that is needed is there and whole, masks fit, the pairs are complete.

    python data/check_processed.py --data_dir data/egoexo/processed

Prints a table of the splits and lists what is wrong. Exit status 0: all is right, but for takes and videos that the
data set itself lacks, which process_data.py has listed. Status 1: something is wrong.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from tqdm import tqdm

from data.checking import TakeCheck, check_take
from data.failures import BROKEN, MISSING, read_failures
from formats.arguments import Parser, add_data_path, add_num_workers, add_splits_path
from formats.errors import UserError, run_script
from formats.pairs import PairSet, pairs_path
from formats.parallel import run_jobs
from formats.processed import is_processed
from formats.takes import SETTINGS, SPLITS, find_split_path, read_split, read_splits

COLUMNS = ("split", "takes", "processed", "no video", "frames", "masks", "pairs ego-exo", "pairs exo-ego", "problems")


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    add_data_path(parser, "--data_dir")
    add_splits_path(parser, "--split_path")
    add = parser.add_argument
    add("--split", nargs="+", help="default: all that have processed takes")
    add("--decode", action="store_true", help="decode every frame instead of looking at its header and end: some 50x")
    add("--skip_pairs", action="store_true", help="do not look at the pairs files, which create_pairs.py writes")
    add_num_workers(parser)
    add("--show", type=int, default=30, help="problems printed per split")
    args = parser.parse_args()
    args.split_path = args.split_path or find_split_path(args.data_dir)
    return args


def main() -> int:
    args = parse_args()
    if not args.data_dir.is_dir():
        raise UserError(f"no folder {args.data_dir}; run data/process_data.py first")
    splits = read_splits(args.split_path)
    names = args.split or [name for name in splits if any(is_processed(args.data_dir, uid) for uid in splits[name])]
    if not names:
        raise UserError(f"{args.data_dir} holds no take of {args.split_path}; run data/process_data.py first")
    rows, problems_of = [COLUMNS], {}
    for name in names:
        row, problems_of[name] = check_split(args, name, read_split(args.split_path, name))
        rows.append(row)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)))
    for name, problems in problems_of.items():
        for problem in problems[: args.show]:
            print(f"{name}, {problem}")
        if len(problems) > args.show:
            print(f"{name}: {len(problems) - args.show} more; --show {len(problems)} prints all")
    return int(any(problems_of.values()))


def check_split(args: argparse.Namespace, name: str, uids: list[str]) -> tuple[tuple[str, ...], list[str]]:
    """The split's row of the table, and what is wrong with it, a line each."""
    there = [uid for uid in uids if is_processed(args.data_dir, uid)]
    problems, withdrawn = [], 0
    for uid in sorted(set(uids) - set(there)):
        failures = read_failures(args.data_dir / uid)
        if failures and all(failure.kind == MISSING for failure in failures):
            withdrawn += 1
        elif failures:
            problems.append(failures[0].describe(uid))
        else:
            problems.append(f"take {uid}: not processed; run data/process_data.py")
    check = partial(check_take, args.data_dir, decode=args.decode)
    done = dict(tqdm(run_jobs(check, there, args.num_workers), name, total=len(there), unit="take"))
    checks = [done[uid] for uid in there]
    for check in checks:
        broken = [failure for failure in read_failures(args.data_dir / check.take_uid) if failure.kind == BROKEN]
        problems += [failure.describe(check.take_uid) for failure in check.problems + broken]
    counts = []
    for setting in SETTINGS:
        expected = sum(sum(check.pairs.get(setting, {}).values()) for check in checks)
        counts.append(expected)
        if expected and not args.skip_pairs and name in SPLITS:
            problems += check_pairs(args.data_dir, name, setting, checks)
    frames, masks = sum(check.frames for check in checks), sum(check.masks for check in checks)
    numbers = (len(uids), len(there), withdrawn, frames, masks, *counts, len(problems))
    return (name, *(f"{number:,}" for number in numbers)), problems


def check_pairs(data_dir: Path, split: str, setting: str, checks: list[TakeCheck]) -> list[str]:
    """Whether the pairs file and its mask index are up to date and hold every pair of the takes."""
    try:
        pairs = PairSet.open(data_dir, split, setting)
    except UserError as error:
        return [str(error)]
    listed = {track[:4]: len(track.numbers) for track in pairs.tracks}
    problems = []
    for check in checks:
        lacking = 0
        for names, count in check.pairs.get(setting, {}).items():
            found = listed.get((check.take_uid, *names), -1)
            if found < (0 if pairs.only_annotated else count):
                lacking += count - max(found, 0)
        if lacking:
            path = pairs_path(data_dir, split)
            problems.append(
                f"take {check.take_uid}: {path.name} lacks {lacking} of its pairs; run data/create_pairs.py again"
            )
    return problems


if __name__ == "__main__":
    run_script(main)
