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

from data.checking import Problem, TakeCheck, check_take
from data.failures import BROKEN, MISSING, read_failures
from formats.errors import UserError, run_script
from formats.pairs import PairSet, pairs_path
from formats.parallel import default_workers, run_jobs
from formats.processed import ANNOTATION, DEFAULT_DATA_DIR
from formats.takes import SETTINGS, SPLITS, find_split_path, read_split, read_splits

COLUMNS = ("split", "takes", "processed", "no video", "frames", "masks", "pairs ego-exo", "pairs exo-ego", "problems")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--data_dir", type=Path, default=DEFAULT_DATA_DIR, help="processed takes")
    add("--split_path", type=Path, help="None: split.json beside the folder of --data_dir, or else data/split.json")
    add("--split", nargs="+", help="None: all that have processed takes")
    add("--decode", action="store_true", help="decode every frame instead of looking at its header and end: some 50x")
    add("--skip_pairs", action="store_true", help="do not look at the pairs files, which create_pairs.py writes")
    add("--num_workers", type=int, default=default_workers(), help="processes")
    add("--show", type=int, default=30, help="problems printed a split")
    args = parser.parse_args()
    if args.num_workers < 1:
        parser.error(f"--num_workers {args.num_workers} must be at least 1")
    args.split_path = args.split_path or find_split_path(args.data_dir)
    return args


def main() -> int:
    args = parse_args()
    if not args.data_dir.is_dir():
        raise UserError(f"no folder {args.data_dir}; run data/process_data.py first")
    splits = read_splits(args.split_path)
    names = args.split or [
        name for name in splits if any((args.data_dir / uid / ANNOTATION).exists() for uid in splits[name])
    ]
    if not names:
        raise UserError(f"{args.data_dir} holds no take of {args.split_path}; run data/process_data.py first")
    rows, faults = [COLUMNS], []
    for name in names:
        row, problems = check_split(args, name, read_split(args.split_path, name))
        rows.append(row)
        faults.append((name, problems))
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    print("\n".join("  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) for row in rows))
    for name, problems in faults:
        print_problems(name, problems, args.show)
    return int(any(problems for _, problems in faults))


def check_split(args: argparse.Namespace, name: str, uids: list[str]) -> tuple[tuple[str, ...], list[Problem]]:
    """The split's row of the table, and what is wrong with it."""
    there = [uid for uid in uids if (args.data_dir / uid / ANNOTATION).exists()]
    problems, withdrawn = [], 0
    for uid in sorted(set(uids) - set(there)):
        failures = read_failures(args.data_dir / uid)
        if failures and all(failure.kind == MISSING for failure in failures):
            withdrawn += 1
        else:
            reason = failures[0].reason if failures else "not processed; run data/process_data.py"
            problems.append(Problem(uid, None, reason))
    check = partial(check_take, args.data_dir, decode=args.decode)
    done = dict(tqdm(run_jobs(check, there, args.num_workers), name, total=len(there), unit="take"))
    checks = [done[uid] for uid in there]
    for check in checks:
        problems += check.problems
        broken = [failure for failure in read_failures(args.data_dir / check.take_uid) if failure.kind == BROKEN]
        problems += [Problem(check.take_uid, failure.camera, failure.reason) for failure in broken]
    counts = []
    for setting in SETTINGS:
        expected = sum(sum(check.pairs.get(setting, {}).values()) for check in checks)
        counts.append(f"{expected:,}")
        if expected and not args.skip_pairs and name in SPLITS:
            problems += check_pairs(args.data_dir, name, setting, checks)
    frames, masks = sum(check.frames for check in checks), sum(check.masks for check in checks)
    numbers = (f"{number:,}" for number in (len(uids), len(there), withdrawn, frames, masks))
    return (name, *numbers, *counts, f"{len(problems):,}"), problems


def check_pairs(data_dir: Path, split: str, setting: str, checks: list[TakeCheck]) -> list[Problem]:
    """Whether the pairs file and its mask index are up to date and hold every pair of the takes."""
    path = pairs_path(data_dir, split, setting)
    try:
        pairs = PairSet.open(data_dir, split, setting)
    except UserError as error:
        return [Problem(None, None, str(error))]
    listed = {track[:4]: len(track.frames) for track in pairs.tracks}
    problems = []
    for check in checks:
        lacking = {
            names: count - listed.get((check.take_uid, *names), 0)
            for names, count in check.pairs.get(setting, {}).items()
            if listed.get((check.take_uid, *names), -1) < (0 if pairs.only_annotated else count)
        }
        if lacking:
            reason = f"{path.name} lacks {sum(lacking.values())} of its pairs; run data/create_pairs.py again"
            problems.append(Problem(check.take_uid, None, reason))
    return problems


def print_problems(split: str, problems: list[Problem], show: int) -> None:
    for problem in problems[:show]:
        print(f"{split}, {problem}")
    if len(problems) > show:
        print(f"{split}: {len(problems) - show} more; --show {len(problems)} prints all")


if __name__ == "__main__":
    run_script(main)
