"""Check a processed data set: frames that pairs need must be there and whole, masks and pairs files up to date.

    python data/check_processed.py --data_dir data/egoexo/processed

Prints the numbers of each split, a line for each problem, and a line for each take or camera that process_data.py did
not find in the data set ("missing"). Exit status 0: no problem, though takes may be missing. Exit status 1: a problem.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.start import start

start(__name__)

import argparse
from collections import Counter
from functools import partial
from typing import NamedTuple

from common.arguments import Parser, add_annotations, add_data_path, add_num_workers
from common.constants import SETTINGS
from common.errors import UserError, counted, first_few, run_script
from common.parallel import run_jobs
from common.progress import progress
from formats.frame_files import PACK, frame_bytes, frame_path, frames_of
from formats.pairs_file import find_listing, listing_path
from formats.processed import Failure, ProcessedTake, annotation_change, has_jpeg_end, is_processed, read_failures
from formats.takes import Take, annotation_path, find_split_path, iter_takes, read_split, read_splits

PAIR_NUMBERS = {setting: f"pairs {setting}" for setting in SETTINGS}
NUMBERS = "takes", "processed", "frames", *PAIR_NUMBERS.values(), "missing", "problems"


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    add_data_path(parser)
    add = parser.add_argument
    text = "annotations to compare the takes with, if the file exists"
    add_annotations(parser, f"{text} (default: annotations/relations_{{split}}.json beside --data_path)")
    add("--split", nargs="+", help="splits to check (default: all splits that have processed takes)")
    add_num_workers(parser)
    args = parser.parse_args()
    args.splits_path = args.splits_path or find_split_path(args.data_path)
    args.annotation_path = args.annotation_path or args.data_path.absolute().parent / "annotations"
    return args


def main() -> int:
    args = parse_args()
    splits = read_splits(args.splits_path)
    names = args.split or [name for name in splits if any((args.data_path / uid).is_dir() for uid in splits[name])]
    if not names:
        raise UserError(f"{args.data_path} holds no take of {args.splits_path}; run data/process_data.py first")
    checks = {name: check_split(args, name, read_split(args.splits_path, name)) for name in names}
    for split, check in checks.items():
        print(f"{split}: " + ", ".join(f"{check.numbers[name]:,} {name}" for name in NUMBERS))
    others = [] if args.split else [name for name in splits if splits[name] and name not in names]
    lines = [f"{name}: 0 of {counted(len(splits[name]), 'take')} processed" for name in others]
    lines += [f"{name}, {problem}" for name, check in checks.items() for problem in check.problems]
    lines += [f"missing: {name}, {line}" for name, check in checks.items() for line in check.missing]
    for line in lines:
        print(line)
    return int(any(check.problems for check in checks.values()))


class SplitCheck(NamedTuple):
    """What was found in a split: the NUMBERS, and a line for each problem and each missing thing."""

    numbers: Counter[str]
    problems: list[str]
    missing: list[str]


def check_split(args: argparse.Namespace, split: str, uids: list[str]) -> SplitCheck:
    """Check a split's takes and pairs."""
    job = partial(check_take, args.data_path)
    checks = dict(progress(run_jobs(job, uids, args.num_workers), split, len(uids), "take"))
    found = [(failure, uid) for uid in uids for failure in checks[uid][1]]
    problems, missing = (
        [failure.describe(uid) for failure, uid in found if failure.kind == kind] for kind in ("broken", "missing")
    )
    unprocessed = [uid for uid in uids if checks[uid][0]["unprocessed"]]
    if unprocessed:
        what = f"{counted(len(unprocessed), 'take')} not processed: {first_few(unprocessed)}"
        problems.append(f"{what}; run data/process_data.py")
    problems += changed_annotations(args, split, uids)
    numbers = sum((of_take for of_take, _ in checks.values()), Counter(takes=len(uids)))
    if split in ("train", "val") or listing_path(args.data_path, split).exists():  # no training reads pairs of test
        fault = find_listing(args.data_path, split)[1]
        if fault and any(numbers[name] for name in PAIR_NUMBERS.values()):
            problems.append(f"{fault}; run data/create_pairs.py")
    return SplitCheck(numbers + Counter(missing=len(missing), problems=len(problems)), problems, missing)


def changed_annotations(args: argparse.Namespace, split: str, uids: list[str]) -> list[str]:
    """A line for each take whose annotation has changed since it was processed, if the annotations are there."""
    path = annotation_path(args.annotation_path, split)
    takes = iter_takes(path, uids) if path.is_file() else ()
    changes = {uid: annotation_change(args.data_path, take) for uid, take in takes if isinstance(take, Take)}
    return [f"take {uid}: {change}" for uid, change in changes.items() if change]


def check_take(data_dir: Path, uid: str) -> tuple[Counter[str], list[Failure]]:
    """Check that a take is processed. All frames that its pairs need must exist, and no frame may be cut off."""
    known = read_failures(data_dir / uid)
    if not is_processed(data_dir, uid):
        return Counter(unprocessed=not known), known
    found, numbers = [], Counter(processed=1)
    try:
        take, there = ProcessedTake.read(data_dir, uid), frames_of(data_dir / uid, sized=True)
    except UserError as error:
        return numbers, [Failure(None, "broken", str(error)), *known]
    for camera, needed in sorted(take.needed_frames().items()):
        numbers["frames"] += len(needed)
        faults = frame_faults(take.folder / camera, needed, there.get(camera, {}))
        found += [Failure(camera, "broken", fault) for fault in faults]
    for setting, number in PAIR_NUMBERS.items():
        numbers[number] = sum(len(take.masks[name][query]) for name, query, _ in take.correspondences(setting))
    return numbers, found + known


def frame_faults(folder: Path, needed: set[int], sizes: dict[int, int]) -> list[str]:
    """What is wrong with the frames that pairs need of a camera, whose frames there have these sizes in bytes."""
    present = sorted(needed & sizes.keys())
    # Behind the end mark, there are at most some zeros.
    ends = [frame_bytes(frame_path(folder, frame), max(0, sizes[frame] - 4096)) for frame in present]
    cut_off = [frame for frame, end in zip(present, ends, strict=True) if not has_jpeg_end(end)]
    delete = f"if its video is there, delete them (if packed, {PACK}) and "
    faults = ("missing", sorted(needed - sizes.keys()), ""), ("cut off", cut_off, delete)
    return [
        f"{counted(len(frames), 'frame')} {fault}: {first_few(frames, 5)}; {remedy}run data/process_data.py"
        for fault, frames, remedy in faults
        if frames
    ]


if __name__ == "__main__":
    run_script(main)
