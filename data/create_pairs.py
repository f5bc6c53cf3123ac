"""List the pairs of every split and both settings, with their masks, in a file that training opens at once.

    python data/create_pairs.py --data_dir data/egoexo/processed

Reads each take's annotation.json and writes {split}_pairs.npz into the data folder. A training does so, too, if this
file is missing, or if takes or the split have changed since.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.start import start

start(__name__)

import argparse
from collections import Counter

from common.arguments import Parser, add_data_path
from common.constants import SETTINGS
from common.errors import UserError, counted, first_few, run_script, warn_once
from formats.pairs import BOTH, open_pairs
from formats.pairs_file import listing_path
from formats.processed import is_processed
from formats.takes import SPLITS, find_split_path, read_split, read_splits


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    add_data_path(parser)
    add = parser.add_argument
    add("--split", choices=SPLITS, nargs="+", help="splits to list (default: all splits that have processed takes)")
    args = parser.parse_args()
    args.splits_path = args.splits_path or find_split_path(args.data_path)
    return args


def main() -> None:
    args = parse_args()
    splits = read_splits(args.splits_path)
    num_splits = Counter(uid for split in SPLITS for uid in set(splits.get(split, ())))
    shared = sorted(uid for uid in num_splits if num_splits[uid] > 1)
    if shared:
        takes = f"{counted(len(shared), 'take')} in more than one of {', '.join(SPLITS)}, the first is {shared[0]}"
        warn_once(f"{args.splits_path}: {takes}; scores on what was trained on say little")
    found_none, malformed = True, {}
    for split in args.split or [split for split in SPLITS if splits.get(split)] or SPLITS:
        uids = read_split(args.splits_path, split)
        missing = sorted(uid for uid in uids if not is_processed(args.data_path, uid))
        if missing:
            count = f"{len(missing)} of {counted(len(uids), 'take')}"
            print(f"{split} of {args.splits_path}: {count} not processed: {first_few(missing)}")
        if len(missing) == len(uids):
            continue
        found_none = False
        pairs = open_pairs([args.data_path], split, BOTH, args.splits_path, anew=True)
        malformed |= {uid: why for uid, why in pairs.store.left_out.items() if uid not in missing}
        counts = {setting: int(pairs.is_of(setting).sum()) for setting in SETTINGS}
        text = ", ".join(f"{counted(count, 'pair')} {setting}" for setting, count in counts.items())
        print(f"{listing_path(args.data_path, split)}: {text}")
        if not any(counts.values()) and not malformed:
            views = "of a head-worn camera (its name begins with aria) and of another camera"
            warn_once(f"split {split} has no pairs: no object in it has masks {views}; a pair needs both")
    if found_none:
        raise UserError(f"no take of {args.splits_path} is in {args.data_path}; run data/process_data.py first")
    if malformed:
        raise UserError(f"{counted(len(malformed), 'malformed take')} left out: {next(iter(malformed.values()))}")


if __name__ == "__main__":
    run_script(main)
