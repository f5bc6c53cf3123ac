"""Process a data set that does not fit on the disk: download, process, check and delete the videos take by take.

    python data/stream_takes.py --split val

Needs the annotation files and the `egoexo` command (pip install ego4d). While one take is processed the next one is
downloaded, so there is room to be for two: some 20 GB. Stop it at any time and run it again to continue. The videos
of takes that were there before are used and kept.

Exit status 0: every take is processed, as far as the data set has it. Status 1: a take failed; run it again.
"""

import argparse
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from data.extraction import FRAME_CHOICES, Options
from data.failures import BROKEN, FAILED_TAKES, Failure, gather_failures, write_failures
from data.streaming import Downloader, Streamer, only_one
from data.workers import process_takes
from formats.errors import UserError, run_script
from formats.parallel import default_workers
from formats.processed import ANNOTATION, claim_data_dir
from formats.takes import (
    ANNOTATION_TEMPLATE,
    DEFAULT_ROOT,
    Take,
    annotation_path,
    find_split_path,
    read_split,
    read_splits,
    read_takes,
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--root", type=Path, default=DEFAULT_ROOT, help="the data set: takes/ and annotations/ are below it")
    add("--annotationpath", type=Path, help="None: annotations/relations_{split}.json below --root")
    add("--split_path", type=Path, help="None: split.json below --root, or else data/split.json")
    add("--split", nargs="+", default=["all"], help="one or more splits of --split_path, or all")
    add("--outputpath", type=Path, help="None: processed below --root")
    add("--frames", choices=FRAME_CHOICES, default="all", help="one of each second, or only those that a pair needs")
    add("--downscaled", action="store_true", help="videos of 448 pixels on the short side: tens of times less to get")
    add("--num_workers", type=int, default=default_workers(), help="processes, each decoding one camera")
    add("--retry", action="store_true", help="once more for takes that are done but lack a camera or a mask")
    add("egoexo_flags", nargs="*", help="after --: passed to egoexo as they are, as in -- --s3_profile work")
    args = parser.parse_args()
    if args.num_workers < 1:
        parser.error(f"--num_workers {args.num_workers} must be at least 1")
    args.annotationpath = args.annotationpath or args.root / ANNOTATION_TEMPLATE
    args.outputpath = args.outputpath or args.root / "processed"
    args.split_path = args.split_path or find_split_path(args.outputpath, args.root)
    return args


def main() -> int:
    args = parse_args()
    if not shutil.which("egoexo"):
        raise UserError("no egoexo command; pip install ego4d, and set up the data set's AWS credentials")
    splits = read_splits(args.split_path)
    names = list(splits) if args.split == ["all"] else args.split
    uids = {name: read_split(args.split_path, name) for name in names}
    claim_data_dir(args.outputpath, args.downscaled)
    takes = [take for name in names for take in _read_annotated(args, name, uids[name])]
    takes = list({take.uid: take for take in takes}.values())  # a take in two splits is done once
    options = Options(args.root / "takes", args.outputpath, args.frames, args.downscaled)

    def process(take: Take) -> list[Failure]:
        failures: list[Failure] = []
        process_takes([take], options, args.num_workers, take.name, lambda _, found: failures.extend(found))
        return failures

    part = "downscaled_takes/448" if args.downscaled else "takes"
    with only_one(args.root) as lock, Downloader(args.root, part, args.egoexo_flags, lock) as downloader:
        streamer = Streamer(options, downloader, process, args.retry)
        for number, (take, outcome) in enumerate(streamer.run(takes), 1):
            print(f"[{number}/{len(takes)}] {take.name} ({take.uid}): {outcome}", flush=True)
    return _sum_up(args.outputpath, {uid for name in names for uid in uids[name]})


def _read_annotated(args: argparse.Namespace, split: str, uids: list[str]) -> list[Take]:
    """The takes of a split that can be used; writes down what is wrong with malformed ones."""
    path = annotation_path(args.annotationpath, split)
    takes, malformed, _ = read_takes(path, uids)
    for uid, reason in malformed.items():
        write_failures(args.outputpath / uid, "", [Failure.broken(None, reason)])
    if lacking := [uid for uid in uids if uid not in takes and uid not in malformed]:
        print(f"{path} lacks {len(lacking)} of the {len(uids)} takes of {split}: {', '.join(lacking[:3])} ...")
    if not takes:
        raise UserError(f"{path} has none of the {len(uids)} takes of {split} in {args.split_path}; do they match?")
    return [takes[uid] for uid in uids if uid in takes]


def _sum_up(data_dir: Path, uids: set[str]) -> int:
    """Write failed_takes.json, print the totals and return the exit status."""
    rows = [row for row in gather_failures(data_dir) if row["take_uid"] in uids]
    there = {uid for uid in uids if (data_dir / uid / ANNOTATION).exists()}
    broken = {row["take_uid"] for row in rows if row["kind"] == BROKEN}
    print(
        f"{len(uids)} takes: {len(there)} processed, {len(uids) - len(there)} not, {len(broken)} with something broken"
    )
    if rows:
        print(f"what is missing, and why: {data_dir / FAILED_TAKES}")
    return int(bool(broken))


if __name__ == "__main__":
    run_script(main)
