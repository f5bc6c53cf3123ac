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

from data.extraction import FRAME_CHOICES, Options
from data.failures import BROKEN, FAILED_TAKES, MISSING, NOTE, Failure, gather_failures, write_failures
from data.workers import estimated_work, process_takes
from formats.errors import UserError, run_script
from formats.parallel import default_workers, split_by_work
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

SHOWN = 10  # failures printed in the end


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--takepath", type=Path, default=DEFAULT_ROOT / "takes", help="folder of the takes (default: %(default)s)"
    )
    beside = "beside the folder of --takepath"
    parser.add_argument("--annotationpath", type=Path, help=f"default: {ANNOTATION_TEMPLATE} {beside}")
    parser.add_argument("--split_path", type=Path, help=f"default: split.json {beside}, or else data/split.json")
    parser.add_argument("--split", nargs="+", default=["all"], help="splits of --split_path, or all (default: all)")
    parser.add_argument("--outputpath", type=Path, help=f"default: processed {beside}")
    parser.add_argument(
        "--frames",
        choices=FRAME_CHOICES,
        default="all",
        help="one frame a second, or only those that a pair needs: less disk, and less time where annotations are "
        "sparse (default: %(default)s)",
    )
    parser.add_argument(
        "--downscaled",
        action="store_true",
        help="read frame_aligned_videos/downscaled/448/<camera>.mp4 and keep frames at that size: tens of times less "
        "to download and decode, slightly softer images",
    )
    parser.add_argument(
        "--num_workers",
        type=int,
        default=default_workers(),
        help="processes, each decoding one camera on one thread in up to 0.4 GB (default: the CPUs, here %(default)s)",
    )
    parser.add_argument(
        "--shard",
        type=_shard,
        default=(1, 1),
        metavar="I/N",
        help="do the I-th of N shares of about equal work, I from 1",
    )
    parser.add_argument("--strict", action="store_true", help="stop at the first missing or broken video or mask")
    args = parser.parse_args()
    if args.num_workers < 1:
        parser.error(f"--num_workers {args.num_workers} must be at least 1")
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
    splits = read_splits(args.split_path)
    names = list(splits) if args.split == ["all"] else list(dict.fromkeys(args.split))
    for name in names:
        read_split(args.split_path, name)  # a wrong name must not come up after hours of work
    claim_data_dir(args.outputpath, args.downscaled)
    _warn_of_leaks(args, splits, names)
    status, seen = 0, set()
    for name in names:
        uids = [uid for uid in read_split(args.split_path, name) if uid not in seen]
        seen.update(uids)
        status = max(status, process_split(args, name, uids, splits))
    return status


def process_split(args: argparse.Namespace, split: str, uids: list[str], splits: dict[str, list[str]]) -> int:
    """Process this shard of the takes `uids`, which are annotated in the file of `split`; returns the exit status."""
    takes, unusable = _read_takes(args, split, uids, splits)
    share, shares = args.shard
    work = {uid: estimated_work(takes[uid]) if uid in takes else 0 for uid in uids}
    mine = split_by_work(work, shares)[share - 1]
    done: dict[str, list[Failure]] = {}

    def close(uid: str, name: str, failures: list[Failure]) -> None:
        done[uid] = failures
        if args.strict and (serious := [failure for failure in failures if failure.kind != NOTE]):
            raise UserError(f"{_describe(uid, name, serious[0])} (fatal by --strict)")

    for uid in filter(unusable.get, mine):
        write_failures(args.outputpath / uid, "", [unusable[uid]])
        close(uid, "", [unusable[uid]])
    title = split if shares == 1 else f"{split} {share}/{shares}"
    process_takes(
        [takes[uid] for uid in filter(takes.get, mine)],
        Options(args.takepath, args.outputpath, args.frames, args.downscaled),
        args.num_workers,
        title,
        lambda take, failures: close(take.uid, take.name, failures),
    )
    names = {uid: takes[uid].name if uid in takes else "" for uid in mine}
    return _sum_up(args.outputpath, title, names, done)


def _read_takes(
    args: argparse.Namespace, split: str, uids: list[str], splits: dict[str, list[str]]
) -> tuple[dict[str, Take], dict[str, Failure]]:
    """The annotations of the takes, and the reason for each take that has none that can be used."""
    path = annotation_path(args.annotationpath, split)
    takes, malformed, others = read_takes(path, uids)
    unusable = {
        uid: Failure.broken(None, malformed[uid])
        if uid in malformed
        else Failure(None, MISSING, f"{path} does not annotate it")
        for uid in uids
        if uid not in takes
    }
    homeless = len(set(others) - {uid for others in splits.values() for uid in others})
    if homeless:
        print(f"{split}: {homeless} annotated takes are in no split of {args.split_path} and are left out")
    if uids and not takes:
        raise UserError(
            f"{path} annotates none of the {len(uids)} takes of {split} in {args.split_path}; do they match?"
        )
    return takes, unusable


def _warn_of_leaks(args: argparse.Namespace, splits: dict[str, list[str]], names: list[str]) -> None:
    """Say which takes are in two splits; they are processed once, in the first of them."""
    count = Counter(uid for uids in splits.values() for uid in set(uids))
    twice = [uid for name in names for uid in dict.fromkeys(splits[name]) if count[uid] > 1]
    if twice:
        where = " and ".join(name for name, uids in splits.items() if twice[0] in uids)
        message = f"{len(set(twice))} takes are in more than one split of {args.split_path}: {twice[0]} is in {where}"
        if args.strict:
            raise UserError(f"{message} (fatal by --strict)")
        print(f"warning: {message}", file=sys.stderr)


def _sum_up(data_dir: Path, title: str, names: dict[str, str], lists: dict[str, list[Failure]]) -> int:
    """Write failed_takes.json, print what the takes of `names` lack (`lists`), and return the exit status."""
    gather_failures(data_dir)
    there = {uid for uid in lists if (data_dir / uid / ANNOTATION).exists()}
    complete = sum(all(failure.kind == NOTE for failure in lists[uid]) for uid in there)
    print(
        f"{title}: {complete} of {len(lists)} takes complete, {len(there) - complete} in part, "
        f"{len(lists) - len(there)} left out; in {data_dir}"
    )
    lines = [_describe(uid, names[uid], failure) for uid in names for failure in lists[uid]]
    if lines:
        print("\n".join(f"  {line}" for line in lines[:SHOWN]))
        more = f"{len(lines) - SHOWN} more are" if len(lines) > SHOWN else "all this is"
        print(f"  {more} in {data_dir / FAILED_TAKES}")
    broken = any(failure.kind == BROKEN for failures in lists.values() for failure in failures)
    return int(broken or (bool(lists) and not there))


def _describe(uid: str, name: str, failure: Failure) -> str:
    camera = f", camera {failure.camera}" if failure.camera else ""
    return f"take {uid}{f' ({name})' if name else ''}{camera}: {failure.reason}"


if __name__ == "__main__":
    run_script(main)
