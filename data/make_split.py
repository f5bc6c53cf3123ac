"""Make a split.json from the annotation files at hand, for data without the paper's split.

    python data/make_split.py --annotationpath "data/egoexo/annotations/relations_{split}.json"

The takes of a file make up its split. A take in several files goes to the last of train, val, test that has it, so
that no take of the evaluation is used for training. The paper's own split: `bash data/download_split.sh`.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.errors import run_script  # isort: split

from common.arguments import DEFAULT_ROOT, Parser
from common.errors import UserError, counted, printable
from common.files import only_writer, read_json, write_json
from formats.takes import (
    ANNOTATION_REMEDY,
    ANNOTATION_TEMPLATE,
    SPLITS,
    annotation_path,
    iter_annotations,
)


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--annotationpath", type=Path, default=DEFAULT_ROOT / ANNOTATION_TEMPLATE, help="{split} is filled in")
    add("--output", type=Path, help="file to write (default: split.json beside the folder of --annotationpath)")
    args = parser.parse_args()
    args.output = args.output or args.annotationpath.absolute().parent.parent / "split.json"
    return args


def main() -> None:
    args = parse_args()
    splits = make_split(args.annotationpath)
    with only_writer(args.output):
        if args.output.exists() and read_json(args.output, "delete it first") != splits:
            raise UserError(f"{args.output} exists and holds another split; give another --output or delete it first")
        write_json(args.output, splits, indent=1)
    counts = ", ".join(f"{counted(len(uids), 'take')} in {split}" for split, uids in splits.items())
    print(f"{args.output}: {counts}")


def make_split(template: Path) -> dict[str, list[str]]:
    """Take uids by split, in the order of the annotation files. Raises UserError if there is no file, or no take."""
    paths = {split: annotation_path(template, split) for split in SPLITS}
    if len(set(paths.values())) < len(paths):
        raise UserError(f"--annotationpath {template} has no {{split}} in it, so all splits would be one file")
    split_of: dict[str, str] = {}
    for split, path in paths.items():
        if not path.exists():
            print(f"no file {path}: {split} stays empty")
            continue
        for uid, _ in iter_annotations(path):
            former = split_of.pop(uid, split)
            if former != split:
                print(printable(f"take {uid} is in {former} and {split}: it goes to {split}"))
            split_of[uid] = split
    if not split_of:
        raise UserError(f"no take in any of {template}; {ANNOTATION_REMEDY}")
    return {split: [uid for uid in split_of if split_of[uid] == split] for split in SPLITS}


if __name__ == "__main__":
    run_script(main)
