"""List the pairs of every split and both settings, and copy their masks into an index that training opens at once.

    python data/create_pairs.py --data_dir data/egoexo/processed

Reads each take's annotation.json once. Writes, into the data folder, {split}_{egoexo,exoego}_pairs.json and
{split}_masks.index (README, Formats). Run it again whenever more takes have been processed.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from tqdm import tqdm

from formats.errors import UserError, run_script
from formats.mask_index import index_path, write_index
from formats.pairs import PairTrack, pairs_path, write_legacy_pairs, write_pairs
from formats.processed import ANNOTATION, DEFAULT_DATA_DIR, ProcessedTake
from formats.takes import (
    ANNOTATION_TEMPLATE,
    SETTINGS,
    SPLITS,
    annotation_path,
    find_split_path,
    iter_annotations,
    parse_take,
    read_split,
    read_splits,
)

Pairs = dict[str, list[PairTrack]]  # by setting
Annotated = dict[tuple[str, str, str], frozenset[int]]  # frames by take uid, object, camera


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--data_dir", type=Path, default=DEFAULT_DATA_DIR, help="processed takes; the files go there")
    add("--split_path", type=Path, help="None: split.json beside the folder of --data_dir, or else data/split.json")
    add("--split", choices=SPLITS, nargs="+", help="None: all that have processed takes")
    add("--setting", choices=SETTINGS, nargs="+", default=SETTINGS, help="directions")
    add(
        "--only_annotated",
        action="store_true",
        help="keep only frames that the annotators looked at in the target camera too, the ones that the evaluation "
        "scores; reads --annotationpath",
    )
    add(
        "--annotationpath",
        type=Path,
        help="for --only_annotated; None: annotations/relations_{split}.json beside the folder of --data_dir",
    )
    add(
        "--legacy",
        action="store_true",
        help="write the reference's lists of four paths a pair, under the same names, for other programs; training "
        "needs the files without this flag",
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    root = args.data_dir.absolute().parent
    args.split_path = args.split_path or find_split_path(args.data_dir)
    args.annotationpath = args.annotationpath or root / ANNOTATION_TEMPLATE
    splits = read_splits(args.split_path)
    names = args.split or [split for split in SPLITS if splits.get(split)]
    done = [split for split in names if create_pairs(args, split)]
    if not done:
        raise UserError(
            f"none of the takes in {args.split_path} has an {ANNOTATION} in {args.data_dir}; "
            "run data/process_data.py first"
        )


def create_pairs(args: argparse.Namespace, split: str) -> bool:
    """Write the pairs of one split; False if none of its takes is processed."""
    uids = read_split(args.split_path, split)
    there = [uid for uid in uids if (args.data_dir / uid / ANNOTATION).exists()]
    missing = sorted(set(uids) - set(there))
    if missing:
        print(f"{split}: {len(missing)} of {len(uids)} takes are not processed: {', '.join(missing[:3])}", end="")
        print(", ..." if len(missing) > 3 else "")
    if not there:
        return False
    looked_at = _read_annotated(annotation_path(args.annotationpath, split), there) if args.only_annotated else None
    pairs: Pairs = {setting: [] for setting in args.setting}
    with tqdm(there, split, unit="take") as progress:
        takes = _read_takes(args.data_dir, progress, pairs, looked_at)
        identity = "" if args.legacy else write_index(index_path(args.data_dir, split), takes, missing)
        for _ in takes:  # nothing is left of them, except for --legacy, which has no index
            pass
    for setting, tracks in pairs.items():
        path = pairs_path(args.data_dir, split, setting)
        if args.legacy:
            write_legacy_pairs(path, args.data_dir, tracks)
        else:
            write_pairs(path, setting, args.only_annotated, identity, tracks)
        print(f"{path}: {sum(len(track.frames) for track in tracks)} pairs of {len(tracks)} tracks")
    return True


def _read_takes(
    data_dir: Path, uids: Iterable[str], pairs: Pairs, looked_at: Annotated | None
) -> Iterator[ProcessedTake]:
    """Each take in turn, after its pairs have been added to `pairs`."""
    for uid in uids:
        take = ProcessedTake.read(data_dir, uid)
        for setting, tracks in pairs.items():
            for object_name, query, target in take.camera_pairs(setting):
                frames = sorted(take.masks[object_name][query])
                if looked_at is not None:
                    annotated = looked_at.get((uid, object_name, target), frozenset())
                    frames = [frame for frame in frames if frame in annotated]
                tracks.append(PairTrack(uid, object_name, query, target, frames))
        yield take


def _read_annotated(path: Path, uids: list[str]) -> Annotated:
    """The frames that were looked at, of the takes that are processed."""
    lacking = set(uids)
    annotated: Annotated = {}
    for uid, raw in iter_annotations(path):
        if uid in lacking:
            lacking.remove(uid)
            for object_name, cameras in parse_take(uid, raw).objects.items():
                for camera, track in cameras.items():
                    annotated[uid, object_name, camera] = frozenset(track.annotated_frames)
    if lacking:
        raise UserError(f"{path} lacks take {min(lacking)} (and {len(lacking) - 1} more); give the file of its split")
    return annotated


if __name__ == "__main__":
    run_script(main)
