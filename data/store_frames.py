"""Store frames as the network reads them, beside their JPEG files, so that training and prediction decode nothing.

    python data/store_frames.py --data_dir data/egoexo/processed

Writes <take_uid>/<camera>.<side>.frames for each camera that is part of a pair: 0.39 MB for a frame of 16:9, 0.69 MB
for a square one. Training and prediction with this input size use them. A rerun continues, and replaces what is out of
date. Cameras with a frame that is missing or unreadable are left out and listed; the exit status is then 1.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.errors import run_script  # isort: split

from tqdm import tqdm

from common.arguments import Parser, add_data_path, add_num_workers, add_splits_path, at_least
from common.errors import UserError, counted, printable
from common.files import only_one, remove_leftovers
from common.parallel import run_jobs
from formats.processed import ProcessedTake, is_processed, pair_frames
from formats.stored_frames import problem_of, store_frames, stored_path
from formats.takes import find_split_path, read_split, read_splits


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    add_data_path(parser, "--data_dir")
    add_splits_path(parser, "--split_path")
    parser.add_argument("--split", nargs="+", help="default: all that have processed takes")
    parser.add_argument("--side", type=at_least(1), default=480, help="the network's input size in pixels")
    add_num_workers(parser)
    args = parser.parse_args()
    args.split_path = args.split_path or find_split_path(args.data_dir)
    return args


def main() -> int:
    args = parse_args()
    names = args.split or [name for name, uids in read_splits(args.split_path).items() if uids]
    uids = dict.fromkeys(uid for name in names for uid in read_split(args.split_path, name))
    there = [uid for uid in uids if is_processed(args.data_dir, uid)]
    if not there:
        raise UserError(f"{args.data_dir} holds no take of {', '.join(names)}; run data/process_data.py first")
    with only_one(args.data_dir / ".store_frames.lock", "stores frames"):
        store = partial(store_take, args.data_dir, args.side)
        done = [found for _, found in tqdm(run_jobs(store, there, args.num_workers), total=len(there), unit="take")]
    sizes, failures = (sum(lists, []) for lists in zip(*done, strict=True))
    what = f"{counted(len(sizes), 'camera')} of {counted(len(there), 'take')}"
    print(f"stored frames: {what}, {sum(sizes) / 1e9:.1f} GB")
    for failure in failures:
        print(printable(f"left out: {failure}"), file=sys.stderr)
    return int(bool(failures))


def store_take(data_dir: Path, side: int, uid: str) -> tuple[list[int], list[str]]:
    """Store the frames of a take's cameras; the bytes of each camera's file, and why other cameras are left out."""
    try:
        take = ProcessedTake.read(data_dir, uid)
    except UserError as error:
        return [], [str(error)]
    sizes, failures = [], []
    needed = pair_frames(take.masks, take.is_ego)
    for folder, frames in [(take.folder / camera, needed[camera]) for camera in sorted(needed) if needed[camera]]:
        path = stored_path(folder, side)
        remove_leftovers(path.parent, path.name)
        try:
            if problem_of(folder, frames, side):
                store_frames(folder, frames, side)
            sizes.append(path.stat().st_size)
        except UserError as error:
            failures.append(f"take {uid}, camera {folder.name}: {error}")
    return sizes, failures


if __name__ == "__main__":
    run_script(main)
