"""Render takes in the layout of Ego-Exo4D, to try every stage without the data set:

    python synthetic/make_takes.py --outputpath data/egoexo

Solids with printed patterns stand on a table, each beside one that has its colors in another pattern, so that color
alone does not find it. A person with a head-worn camera looks along them and picks some up; static cameras record the
hand and the table. The script writes `split.json`, `takes/<take_name>/frame_aligned_videos/*.mp4` and
`annotations/relations_{train,val,test}.json` (docs/formats.md). An object of one split never occurs in another split.
The same options give the same takes; a rerun keeps finished takes.

By default there are many takes with few annotated frames each, because a network learns more from more objects than
from more frames of the same objects. For objects as large as in the real data set, among others that look alike, use
`--object_size real --size medium --clutter 24 --num_objects 6 --blur 1.5 --noise 3`; for videos as large and as long as
the real ones, `--size native --hold 1 --num_frames 900`; for your own models, `--things models --models FOLDER`; for
the default takes up to version 3.0, which color alone solves, `--things patterned`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.start import start

start(__name__)

import argparse
import math
import os
from dataclasses import fields
from functools import partial

from tqdm import tqdm

from common.arguments import Parser, add_fields, add_num_workers, at_least
from common.constants import DEFAULT_ROOT
from common.errors import UserError, counted, run_script
from common.files import claimed, read_record, write_json
from common.parallel import run_jobs
from formats.takes import ANNOTATION_TEMPLATE, SPLITS, annotation_path
from synthetic.models import import_trimesh, models_by_split, pictures_below
from synthetic.options import REAL, ObjectSizes, TakeOptions
from synthetic.take import TakeId, make_take

MARKER = "synthetic_takes.json"  # a folder with this file was made by this script, which may write into it


def make_takes(out: Path, counts: dict[str, int], options: TakeOptions, num_workers: int) -> list[TakeId]:
    """Render `counts[split]` takes of each split and write the annotation files and split.json.

    Raises UserError if `out` holds takes that were not made here, such as the real data set.
    """
    takes = [TakeId(split, index) for split, count in counts.items() for index in range(count)]
    marker = out / MARKER
    others = [path for path in (out / "takes").glob("[!.]*") if not path.name.startswith("synthetic_")]
    if not marker.exists():
        others = [path for path in (out / "takes", out / "annotations", out / "split.json") if os.path.lexists(path)]
    if others:
        raise UserError(f"{others[0]} was not made by this script; choose another --outputpath")
    with claimed(out, "make_takes", f"renders takes into {out}"):
        record = options.record()
        before = read_record(marker, {}, "delete it") if marker.exists() else record
        changed = [f"{name} {before.get(name)} -> {x}" for name, x in record.items() if before.get(name) != x]
        if changed:
            print(f"takes in {out} that have other options are replaced: {', '.join(changed)}")
        write_json(marker, record, indent=1)
        jobs = run_jobs(partial(make_take, out, options=options), takes, num_workers)
        annotations = dict(tqdm(jobs, "render", len(takes), unit="take", disable=None))
        uids = {}
        for split in SPLITS:
            mine = {take.uid(options): annotations[take] for take in takes if take.split == split}
            write_json(annotation_path(out / ANNOTATION_TEMPLATE, split), {"annotations": mine})
            uids[split] = list(mine)
        write_json(out / "split.json", uids)
    return takes


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--outputpath", type=Path, default=DEFAULT_ROOT, help="root folder of the takes")
    for split, count, purpose in (("train", 100, "training"), ("val", 12, "validation"), ("test", 12, "testing")):
        add(f"--num_{split}", type=at_least(0, most=100_000), default=count, help=f"takes for {purpose}")
    add_fields(parser, TakeOptions, "what the takes show")
    add_num_workers(parser, "processes; the takes do not depend on it")
    args = parser.parse_args(argv)
    args.counts = {split: getattr(args, f"num_{split}") for split in SPLITS}
    if not any(args.counts.values()):
        raise UserError("--num_train, --num_val and --num_test are all 0; nothing to render")
    if (args.things == "models") != bool(args.models):
        raise UserError("--things models and --models FOLDER go together; one of them is missing")
    args.object_size = parse_object_sizes(args.object_size)
    return args


def parse_object_sizes(words: list[str]) -> ObjectSizes:
    """The words of `--object_size` -> ObjectSizes. Raises UserError if they are not what --help says."""
    if words == ["real"]:
        return REAL
    try:
        low, high = float(words[0]), float(words[-1])
    except ValueError:
        low = high = -1.0
    if len(words) > 2 or not 0 < low <= high <= 0.4:
        what = "is not real, nor one or two fractions between 0 and 0.4 of the picture"
        raise UserError(f"--object_size {' '.join(words)} {what}")
    median = (low * high) ** 0.5
    # Nine of ten normal values lie in a range of 3.29 standard deviations.
    return ObjectSizes(ego=median, exo=median, spread=math.log(high / low) / 3.29)


def main() -> None:
    args = parse_args()
    if args.models:  # errors of the models are to come before anything is rendered
        import_trimesh()
        models_by_split(args.models)
    if args.photos:
        pictures_below(args.photos)
    options = TakeOptions(**{field.name: getattr(args, field.name) for field in fields(TakeOptions)})
    takes = make_takes(args.outputpath, args.counts, options, args.num_workers)
    print(f"{counted(len(takes), 'take')} in {args.outputpath}")


if __name__ == "__main__":
    run_script(main)
