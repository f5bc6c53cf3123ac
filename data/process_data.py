"""Extract the frames and masks of the annotated takes: from Ego-Exo4D's videos to the processed data set.

    python data/process_data.py --split val

Run it again to continue, or to retry what failed: it does only what is missing. A take or camera whose video is missing
or broken is left out and listed with the reason in <outputpath>/failed_takes.json.

Exit status 0: everything that the data set holds is there; videos may be missing, as some were withdrawn from it.
Status 1: a video or mask is broken (download it again), or nothing could be processed.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from data.extraction import Extraction
from data.failures import NOTE, Failure, write_failures
from data.processing import add_options, chosen_splits, estimated_work, process_takes, read_split_takes, sum_up
from formats.arguments import Parser, add_num_workers
from formats.errors import UserError, printable, run_script
from formats.parallel import split_by_work
from formats.processed import claim_data_dir
from formats.takes import ANNOTATION_TEMPLATE, DEFAULT_ROOT, find_split_path, read_splits


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--takepath", type=Path, default=DEFAULT_ROOT / "takes", help="folder of the takes, usually <root>/takes")
    add("--annotationpath", type=Path, help=f"default: {ANNOTATION_TEMPLATE} beside the folder of --takepath")
    add("--outputpath", type=Path, help="processed takes (default: processed beside the folder of --takepath)")
    add_options(parser)
    add_num_workers(parser, "processes, each decoding one camera on one thread in up to 0.4 GB")
    shard = "do the I-th of N shares of about equal work, I from 1 (default: 1/1, all of it)"
    add("--shard", type=_shard, default=(1, 1), metavar="I/N", help=shard)
    add("--strict", action="store_true", help="stop at the first missing or broken video or mask")
    args = parser.parse_args()
    root = args.takepath.absolute().parent
    args.annotationpath = args.annotationpath or root / ANNOTATION_TEMPLATE
    args.outputpath = args.outputpath or root / "processed"
    args.split_path = args.split_path or find_split_path(args.outputpath, root)
    return args


def _shard(text: str) -> tuple[int, int]:
    try:
        share, shares = map(int, text.split("/"))
    except ValueError:
        share, shares = 0, 0
    if not 1 <= share <= shares:
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with I from 1 to N, as in 3/16")
    return share, shares


def main() -> int:
    args = parse_args()
    if not args.takepath.is_dir():
        raise UserError(f"no folder {args.takepath}; make {DEFAULT_ROOT} a link to the data set or give --takepath")
    if (args.takepath / "takes").is_dir():
        raise UserError(f"--takepath {args.takepath} holds a folder takes; did you mean {args.takepath / 'takes'}?")
    splits = read_splits(args.split_path)
    chosen = chosen_splits(args.split_path, args.split)
    claim_data_dir(args.outputpath, args.downscaled)
    _warn_of_leaks(args, splits, chosen)
    status, seen = 0, set()
    for name, uids in chosen.items():
        status = max(status, process_split(args, name, [uid for uid in uids if uid not in seen], splits))
        seen.update(uids)
    return status


def process_split(args: argparse.Namespace, split: str, uids: list[str], splits: dict[str, list[str]]) -> int:
    """Process this shard of the takes `uids`, which are annotated in the file of `split`; returns the exit status."""
    takes, unusable, others = read_split_takes(args.annotationpath, split, uids, args.split_path)
    if homeless := set(others).difference(*splits.values()):
        where = f"in no split of {args.split_path}"
        print(f"{printable(split)}: {len(homeless)} annotated takes are {where} and are left out")
    share, shares = args.shard
    work = {uid: estimated_work(takes[uid]) if uid in takes else 0 for uid in uids}
    names = {uid: takes[uid].name if uid in takes else "" for uid in split_by_work(work, shares)[share - 1]}
    title = printable(split) if shares == 1 else f"{printable(split)} {share}/{shares}"
    failures: dict[str, list[Failure]] = {}

    def done(uid: str, found: list[Failure]) -> None:
        failures[uid] = found
        serious = [failure for failure in found if failure.kind != NOTE]
        if args.strict and serious:
            raise UserError(f"{serious[0].describe(uid, names[uid])} (fatal by --strict)")

    for uid in names:
        if uid in unusable:
            write_failures(args.outputpath / uid, "", [unusable[uid]])
            done(uid, [unusable[uid]])
    extraction = Extraction(args.takepath, args.outputpath, args.frames, args.downscaled)
    process_takes([takes[uid] for uid in names if uid in takes], extraction, args.num_workers, title, done)
    return sum_up(args.outputpath, title, names, failures)


def _warn_of_leaks(args: argparse.Namespace, splits: dict[str, list[str]], chosen: dict[str, list[str]]) -> None:
    """Say which takes are in two splits; they are processed once, in the first of them."""
    count = Counter(uid for uids in splits.values() for uid in set(uids))
    twice = [uid for uids in chosen.values() for uid in uids if count[uid] > 1]
    if twice:
        where = " and ".join(name for name, uids in splits.items() if twice[0] in uids)
        message = f"{len(set(twice))} takes are in more than one split of {args.split_path}: {twice[0]} is in {where}"
        if args.strict:
            raise UserError(f"{message} (fatal by --strict)")
        print(f"warning: {printable(message)}", file=sys.stderr)


if __name__ == "__main__":
    run_script(main)
