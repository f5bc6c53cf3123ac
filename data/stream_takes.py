"""Process a data set that does not fit on the disk: download, process, check and delete the videos take by take.

    python data/stream_takes.py --split val

Needs the annotation files, the `egoexo` command (pip install ego4d) and room for the videos of two takes, some 20 GB:
while one take is processed the next one is downloaded. Stop it at any time and run it again to continue. Videos that
were there before are used and kept.

Exit status 0: every take is processed, as far as the data set has it. Status 1: a take failed; run it again.
"""

import argparse
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from data.extraction import Extraction
from data.failures import Failure, read_failures, write_failures
from data.processing import add_options, chosen_splits, read_split_takes, sum_up
from data.streaming import LOCK, Downloader, stream_takes
from formats.arguments import Parser, add_num_workers
from formats.errors import UserError, printable, run_script
from formats.files import only_one
from formats.processed import claim_data_dir
from formats.takes import ANNOTATION_TEMPLATE, DEFAULT_ROOT, Take, find_split_path


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--root", type=Path, default=DEFAULT_ROOT, help="the data set: takes/ and annotations/ are below it")
    add("--annotationpath", type=Path, help=f"default: {ANNOTATION_TEMPLATE} below --root")
    add("--outputpath", type=Path, help="processed takes (default: processed below --root)")
    add_options(parser)
    add_num_workers(parser, "processes, each decoding one camera")
    add("--retry", action="store_true", help="once more for takes that are done but lack a camera or a mask")
    add("egoexo_flags", nargs="*", help="after --: passed to egoexo as they are, as in -- --s3_profile work")
    args = parser.parse_args()
    args.annotationpath = args.annotationpath or args.root / ANNOTATION_TEMPLATE
    args.outputpath = args.outputpath or args.root / "processed"
    args.split_path = args.split_path or find_split_path(args.outputpath, args.root)
    return args


def main() -> int:
    args = parse_args()
    if not shutil.which("egoexo"):
        raise UserError("no egoexo command; pip install ego4d, and set up the data set's AWS credentials")
    chosen = chosen_splits(args.split_path, args.split)
    claim_data_dir(args.outputpath, args.downscaled)
    takes: dict[str, Take] = {}  # a take in two splits is done once
    unusable: dict[str, Failure] = {}
    for name, uids in chosen.items():
        found, lacking, _ = read_split_takes(args.annotationpath, name, uids, args.split_path)
        takes |= found
        unusable |= lacking
    uids = list(dict.fromkeys(uid for uids in chosen.values() for uid in uids))
    for uid in uids:
        if uid not in takes:
            write_failures(args.outputpath / uid, "", [unusable[uid]])
    extraction = Extraction(args.root / "takes", args.outputpath, args.frames, args.downscaled)
    part = "downscaled_takes/448" if args.downscaled else "takes"
    with (
        only_one(args.root / LOCK, "works on this data set, perhaps a killed run's download") as lock,
        Downloader(args.root, part, args.egoexo_flags, lock) as downloader,
    ):
        in_order = [takes[uid] for uid in uids if uid in takes]
        outcomes = stream_takes(in_order, extraction, downloader, args.num_workers, args.retry)
        for number, (take, outcome) in enumerate(outcomes, 1):
            line = printable(f"{take.name} ({take.uid}): {outcome}")
            print(f"[{number}/{len(takes)}] {line}", flush=True)
    take_names = {uid: takes[uid].name if uid in takes else "" for uid in uids}
    return sum_up(args.outputpath, "all", take_names, {uid: read_failures(args.outputpath / uid) for uid in uids})


if __name__ == "__main__":
    run_script(main)
