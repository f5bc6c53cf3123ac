"""Extract the frames and masks of the annotated takes: from Ego-Exo4D's videos to the processed data set.

    python data/process_data.py --split val

Run the script again to continue or to retry what failed. It makes missing files, and makes those anew whose annotation
or video has changed since, which it names. A take or camera whose video is missing or broken is left out. The reasons
are printed, and data/check_processed.py lists all reasons again.

Exit status 0: everything that the data set holds was made; videos may be missing, as some of Ego-Exo4D were withdrawn.
Exit status 1: a video or mask is broken (download it again), or no take could be processed and --uids was not given.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.start import start

start(__name__)

import argparse
import re
from functools import partial

from common.arguments import Parser, add_annotations, add_num_workers, add_splits_path
from common.constants import DEFAULT_ROOT
from common.errors import UserError, counted, run_script, warn_once
from common.files import check_outputs, claimed, read_record, write_json
from common.parallel import run_jobs
from common.progress import progress
from data.extraction import process_take
from formats.processed import SOURCE_REMEDY, VIDEOS, Failure, is_processed, read_failures, write_failures
from formats.takes import SPLITS, Take, annotation_path, find_split_path, iter_takes, read_split, read_splits

MAX_PRINTED = 10  # at most so many failures of a split are printed


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--takepath", type=Path, default=DEFAULT_ROOT / "takes", help="folder of the videos, usually <root>/takes")
    add_annotations(parser, "annotation file or its folder (default: annotations, beside the folder of --takepath)")
    add("--outputpath", type=Path, help="processed takes (default: processed beside the folder of --takepath)")
    add_splits_path(parser)
    add("--split", nargs="+", default=["all"], help="splits of --splits_path, or all (default: all)")
    add("--uids", nargs="+", metavar="UID", help="process only these takes (default: all takes of the splits)")
    text = "use the videos of 448 pixels on the short side and keep this size: tens of times less data, softer images"
    add("--downscaled", action="store_true", help=text)
    text = "how many times as long and wide as the benchmark's frames may be, but no larger than the video: 2 and 4 "
    text += "show more of small objects to the strong recipe (docs/training.md); the paper's network does not gain"
    add("--detail", type=int, choices=(1, 2, 4), default=1, help=text)
    text = "move the frames of each take, also of one that is processed already, into one file, frames.zip"
    add("--pack", action="store_true", help=text)
    add_num_workers(parser, "processes, each with a take (or some of its cameras, if takes are few) and up to 0.4 GB")
    shard = "process only the I-th of every N takes, to share the work among jobs, all with the same N (default: 1/1)"
    add("--shard", type=_shard, default=(1, 1), metavar="I/N", help=shard)
    args = parser.parse_args()
    if args.downscaled and args.detail > 1:
        raise UserError(f"--detail {args.detail}: --downscaled videos have no such detail; leave out one of the two")
    root = args.takepath.absolute().parent
    args.annotation_path = args.annotation_path or root / "annotations"
    args.outputpath = args.outputpath or root / "processed"
    args.splits_path = args.splits_path or find_split_path(args.outputpath, root)
    return args


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    shard, shards = map(int, match.groups()) if match else (0, 0)
    if not 1 <= shard <= shards:
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with I from 1 to N, as in 3/16")
    return shard, shards


def main() -> int:
    args = parse_args()
    if not args.takepath.is_dir():
        raise UserError(f"no folder {args.takepath}; make {DEFAULT_ROOT} a link to the data set or give --takepath")
    if (args.takepath / "takes").is_dir():
        raise UserError(f"--takepath {args.takepath} holds a folder takes; did you mean {args.takepath / 'takes'}?")
    splits = read_splits(args.splits_path)
    uids_by_split = choose_takes(args, splits)
    there = [split for split in uids_by_split if annotation_path(args.annotation_path, split).exists()]
    absent = uids_by_split.keys() - there
    if there and absent:  # those of test were withheld at times
        others = f"to process the others, give --split {' '.join(there)}"
        raise UserError(f"no annotations of {min(absent)} in {args.annotation_path}; {others}")
    folders = {uid: args.outputpath / uid for uids in uids_by_split.values() for uid in uids}
    annotations = [annotation_path(args.annotation_path, split) for split in uids_by_split]
    check_outputs([args.outputpath / VIDEOS, *folders.values()], [args.splits_path, *annotations])
    status, done_uids = 0, set()
    doing = f"processes takes into {args.outputpath}"
    part = args.uids[0] if args.uids else "{}_of_{}".format(*args.shard)  # jobs with a take each need not wait
    with claimed(args.outputpath, f"process_data_{part}", doing):
        with claimed(args.outputpath, VIDEOS, doing):
            claim_data_dir(args.outputpath, args.downscaled, args.detail)
            write_split(args, splits)
        for split, uids in uids_by_split.items():
            status = max(status, process_split(args, split, [uid for uid in uids if uid not in done_uids]))
            done_uids.update(uids)
    return status


def choose_takes(args: argparse.Namespace, splits: dict[str, list[str]]) -> dict[str, list[str]]:
    """The uids of the takes to process, by split: the takes of --split; with --uids, only takes that --uids names.

    Raises UserError if --uids names a take that is in none of these splits.
    """
    names = args.split
    if names == ["all"]:
        names = [name for name, uids in splits.items() if uids] or SPLITS
    uids_by_split = {name: read_split(args.splits_path, name) for name in names}
    if args.uids is None:
        return uids_by_split
    unknown = set(args.uids).difference(*uids_by_split.values())
    if unknown:
        where = f"{', '.join(uids_by_split)} of {args.splits_path}"
        raise UserError(f"no take {min(unknown)} in {where}; see --uids and --split")
    named = {name: [uid for uid in uids if uid in args.uids] for name, uids in uids_by_split.items()}
    return {name: uids for name, uids in named.items() if uids}


def claim_data_dir(data_dir: Path, downscaled: bool, detail: int = 1) -> None:
    """Write of which videos the frames are, and their `detail` if it is not the benchmark's. Raises UserError if a job
    before wrote another kind.
    """
    kind = "downscaled/448" if downscaled else "full size" if detail == 1 else f"full size, detail {detail}"
    path = data_dir / VIDEOS
    if not path.exists():
        write_json(path, {"videos": kind})
    before = read_record(path, {"videos": str}, SOURCE_REMEDY)["videos"]
    if before != kind:
        remedy = f"give another --outputpath, or the same --downscaled and --detail; if it has no frames, delete {path}"
        raise UserError(f"{data_dir} was made of videos {before}, not {kind}; {remedy}")


def write_split(args: argparse.Namespace, splits: dict[str, list[str]]) -> None:
    """Write split.json into the output folder, where later stages look first, unless they find the same split anyway.

    An existing split.json in the output folder is kept, because a training may use it.
    """
    default, path = find_split_path(args.outputpath), args.outputpath / "split.json"
    if default.exists() and read_splits(default) == splits:
        return
    if path.exists():
        remedy = f"delete it, or give --splits_path {args.splits_path} to later stages too"
        warn_once(f"{path} is another split and stays; {remedy}")
    else:
        write_json(path, splits, indent=1)


def process_split(args: argparse.Namespace, split: str, uids: list[str]) -> int:
    """Process this job's shard of the takes `uids`, annotated in the file of `split`; returns the exit status."""
    path = annotation_path(args.annotation_path, split)
    shard, shards = args.shard
    shard_uids = uids[shard - 1 :: shards]
    annotated = dict(iter_takes(path, shard_uids))
    if uids and not (annotated or args.uids or shards > 1):
        count = counted(len(uids), "take")
        raise UserError(f"{path} annotates no take of {split} in {args.splits_path}, which has {count}; do they match?")
    takes = {uid: take for uid, take in annotated.items() if isinstance(take, Take)}
    for uid in set(shard_uids) - takes.keys():
        failure = Failure(None, "missing", f"{path} does not annotate it")
        if uid in annotated:  # as a text that says why it cannot be read
            failure = Failure(None, "broken", str(annotated[uid]))
        with claimed(args.outputpath, uid, f"processes take {uid}"):
            write_failures(args.outputpath / uid, [failure])
    title = split if shards == 1 else f"{split} {shard}/{shards}"
    threads = max(1, args.num_workers // max(1, len(takes)))
    folders = {"takes_dir": args.takepath, "data_dir": args.outputpath}
    how = {"downscaled": args.downscaled, "detail": args.detail, "pack": args.pack}
    job = partial(process_take, **folders, **how, threads=threads)
    for _ in progress(run_jobs(job, takes.values(), args.num_workers), title, len(takes), "take"):
        pass
    return print_summary(args, title, {uid: takes[uid].name if uid in takes else "" for uid in shard_uids})


def print_summary(args: argparse.Namespace, title: str, names: dict[str, str]) -> int:
    """Print how many takes are complete, and the failures of the others; returns the exit status. `names`: by uid."""
    failures_of = {uid: read_failures(args.outputpath / uid) for uid in names}
    processed = [uid for uid in names if is_processed(args.outputpath, uid)]
    complete = sum(not failures_of[uid] for uid in processed)
    counts = f"{complete} of {counted(len(names), 'take')} complete, {len(processed) - complete} in part"
    print(f"{title}: {counts}, {len(names) - len(processed)} left out; in {args.outputpath}")
    lines = [failure.describe(uid, names[uid]) for uid, failures in failures_of.items() for failure in failures]
    for line in lines[:MAX_PRINTED]:
        print(f"  {line}")
    if len(lines) > MAX_PRINTED:
        print(f"  and {len(lines) - MAX_PRINTED} more, which data/check_processed.py lists")
    broken = any(failure.kind == "broken" for failures in failures_of.values() for failure in failures)
    return int(broken or bool(names and not processed and not args.uids))


if __name__ == "__main__":
    run_script(main)
