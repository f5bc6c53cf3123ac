"""Check a processed data set: every frame that is needed is there and whole, masks fit, the pairs are complete.

    python data/check_processed.py --data_dir data/egoexo/processed

Prints a table of the splits, then what is wrong, then what is missing: takes and cameras that process_data.py did not
find in the data set. Exit status 0: nothing is wrong, though some may be missing. Status 1: something is.
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
from formats.errors import UserError, printable, run_script
from formats.pairs import PairSet, pairs_path
from formats.parallel import run_jobs
from formats.processed import is_processed
from formats.takes import SETTINGS, SPLITS, find_split_path, read_split, read_splits

COLUMNS = ("split", "takes", "processed", "frames", "masks", "pairs ego-exo", "pairs exo-ego", "missing", "problems")


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    add_data_path(parser, "--data_dir")
    add_splits_path(parser, "--split_path")
    add = parser.add_argument
    add("--split", nargs="+", help="default: all that have processed takes")
    add("--decode", action="store_true", help="decode every frame instead of looking at its header and end: some 50x")
    add("--skip_pairs", action="store_true", help="do not look at the pairs files, which create_pairs.py writes")
    add_num_workers(parser)
    add("--show", type=int, default=30, help="problems printed per split, and as many of what is missing")
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
    checks = {name: check_split(args, name, read_split(args.split_path, name)) for name in names}
    rows = [COLUMNS] + [row for row, _, _ in checks.values()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)))
    for name, uids in splits.items():
        if uids and name not in names and not args.split:
            print(f"{printable(name)}: none of its {len(uids)} takes is processed")
    for name, (_, problems, _) in checks.items():
        print_lines(name, problems, args.show)
    for name, (_, _, missing) in checks.items():
        print_lines(f"missing: {name}", missing, args.show)
    return int(any(problems for _, problems, _ in checks.values()))


def print_lines(start: str, lines: list[str], show: int) -> None:
    for line in lines[:show]:
        print(printable(f"{start}, {line}"))
    if len(lines) > show:
        print(printable(f"{start}: {len(lines) - show} more; --show {len(lines)} prints all"))


def check_split(args: argparse.Namespace, name: str, uids: list[str]) -> tuple[tuple[str, ...], list[str], list[str]]:
    """The split's row of the table, what is wrong with it, and what the data set lacks, a line each."""
    there = [uid for uid in uids if is_processed(args.data_dir, uid)]
    check = partial(check_take, args.data_dir, decode=args.decode)
    checks = dict(tqdm(run_jobs(check, there, args.num_workers), printable(name), total=len(there), unit="take"))
    problems, missing = [], []
    for uid in uids:
        found = (checks[uid].problems if uid in checks else []) + read_failures(args.data_dir / uid)
        problems += [failure.describe(uid) for failure in found if failure.kind == BROKEN]
        missing += [failure.describe(uid) for failure in found if failure.kind == MISSING]
        if uid not in checks and not found:
            problems.append(f"take {uid}: not processed; run data/process_data.py")
    counts = [sum(sum(checks[uid].pairs[setting].values()) for uid in there) for setting in SETTINGS]
    if any(counts) and not args.skip_pairs and name in SPLITS:
        problems += check_pairs(args.data_dir, name, [checks[uid] for uid in there])
    frames, masks = sum(checks[uid].frames for uid in there), sum(checks[uid].masks for uid in there)
    numbers = (len(uids), len(there), frames, masks, *counts, len(missing), len(problems))
    return (printable(name), *(f"{number:,}" for number in numbers)), problems, missing


def check_pairs(data_dir: Path, split: str, checks: list[TakeCheck]) -> list[str]:
    """Whether the pairs file is up to date and holds every pair of the takes, in both settings."""
    problems = []
    for setting in SETTINGS:
        if not any(any(check.pairs[setting].values()) for check in checks):
            continue
        try:
            pairs = PairSet.open(data_dir, split, setting)
        except UserError as error:
            return [str(error)]
        listed = {track[:4]: len(track.numbers) for track in pairs.tracks}
        for check in checks:
            lacking = 0
            for names, count in check.pairs[setting].items():
                found = listed.get((check.take_uid, *names), -1)
                if found < (0 if pairs.only_annotated else count):
                    lacking += count - max(found, 0)
            if lacking:
                path = pairs_path(data_dir, split)
                problems.append(
                    f"take {check.take_uid}: {path.name} lacks {lacking} of its {setting} pairs; run "
                    "data/create_pairs.py again"
                )
    return problems


if __name__ == "__main__":
    run_script(main)
