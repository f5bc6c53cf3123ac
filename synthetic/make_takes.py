"""Render takes in the layout of Ego-Exo4D, to try every stage without the data set:

    python synthetic/make_takes.py --outputpath data/egoexo

Solids with printed patterns stand on a table. A person with a head-worn camera looks along them and picks some up;
static cameras record the hand and the table. The script writes `split.json`,
`takes/<take_name>/frame_aligned_videos/*.mp4` and `annotations/relations_{train,val,test}.json` (docs/formats.md). An
object of one split never occurs in another split. The same options give the same takes; a rerun keeps finished takes.

By default there are many takes with few annotated frames each, because a network learns more from more objects than
from more frames of the same objects. For objects as large as in the real data set, among others that look alike, use
`--object_size real --size medium --clutter 24 --num_objects 6 --blur 1.5 --noise 3`; for videos as large and as long as
the real ones, `--size native --hold 1 --num_frames 900`; for your own models, `--things models --models FOLDER`.
"""

import argparse
import math
import sys
from dataclasses import fields
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.errors import run_script, say_errors

say_errors(__name__)

from tqdm import tqdm

from common.arguments import Parser, add_num_workers, at_least
from common.constants import DEFAULT_ROOT
from common.errors import UserError, counted
from common.files import claimed, remove_leftovers, write_json
from common.parallel import run_jobs
from formats.takes import ANNOTATION_TEMPLATE, FRAME_STEP, SPLITS, annotation_path
from synthetic.models import import_trimesh, models_by_split, pictures_below
from synthetic.options import REAL, VIDEO_SIZES, ObjectSizes, TakeOptions
from synthetic.take import LEAST_GRAY, LEAST_VISIBLE_SHARE, TakeId, make_take

MARKER = "synthetic_takes.json"  # a folder with this file was made by this script, which may write into it


def make_takes(out: Path, counts: dict[str, int], options: TakeOptions, num_workers: int) -> list[TakeId]:
    """Render `counts[split]` takes of each split and write the annotation files and split.json.

    Raises UserError if `out` holds takes that were not made here, such as the real data set.
    """
    takes = [TakeId(split, index) for split, count in counts.items() for index in range(count)]
    marker = out / MARKER
    is_ours = all(path.name.startswith("synthetic_") for path in (out / "takes").glob("[!.]*"))
    if not is_ours or not marker.exists() and ((out / "annotations").exists() or (out / "takes").exists()):
        raise UserError(f"{out} holds takes that this script did not make; choose another --outputpath")
    with claimed(out, "make_takes", f"renders takes into {out}"):
        for folder in (out, out / "annotations"):
            remove_leftovers(folder)
        write_json(marker, options.record(), indent=1)
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
    text = "frames of each video, which has 30 frames a second; every 30th frame is annotated"
    add("--num_frames", type=at_least(1, most=1_000_000), default=61, help=text)
    add("--size", choices=VIDEO_SIZES, default="small", help="size of the videos; native is 3840x2160, ego 1408x1408")
    add("--num_exo", type=at_least(1, most=99), default=2, help="number of static cameras")
    text = "objects on the table, at most 18; each camera sees about two at a time"
    add("--num_objects", type=at_least(1, most=18), default=4, help=text)
    text = "area of an object as a fraction of the picture, up to 0.4. One number: all objects have this area; two: "
    text += "nine of ten lie between them; real: areas as in Ego-Exo4D, smaller in exo than in ego pictures"
    add("--object_size", nargs="+", default=["0.2"], metavar="SIZE", help=text)
    text = "patterned: solids with one pattern each. models: those of --models, some touching each other, in dim and "
    text += "colored light; some cameras are turned, and people walk by"
    add("--things", choices=("patterned", "models"), default="patterned", help=text)
    text = "folder of OBJ and GLB files in meters for --things models (needs requirements-models.txt); "
    text += "takes that are rendered already keep what they show when its files change"
    add("--models", type=Path, help=text)
    add("--photos", type=Path, help="folder of pictures for table tops, walls and floors (default: painted ones)")
    text = "largest number of further things on the table, which are never annotated"
    add("--clutter", type=at_least(0, most=1000), default=0, help=text)
    add("--blur", type=at_least(0, float, 100), default=0, help="each video's Gaussian blur has up to this many pixels")
    add("--noise", type=at_least(0, float, 255), default=0, help="standard deviation of Gaussian noise, in gray levels")
    text = "probability that an object is not rendered, drawn for each object, camera and second; all other things, "
    text += "such as its twins, stay"
    add("--left_out", type=at_least(0, float, 0.9), default=0, help=text)
    text = "fraction of the takes whose cameras may be unusual: all static, turned by any angle, or gray"
    add("--odd_cameras", type=at_least(0, float, 1), default=0, help=text)
    text = f"annotate only what an annotator would see: {LEAST_VISIBLE_SHARE:.0%}% of an object are visible, and its "
    text += f"brightest tenth has a gray value of {LEAST_GRAY} or more"
    add("--seen_only", action="store_true", help=text)
    add("--touching", action="store_true", help="every second object touches the object before it")
    divisors = [n for n in range(1, FRAME_STEP + 1) if FRAME_STEP % n == 0]  # so that annotated frames are rendered
    add("--hold", type=int, choices=divisors, default=30, help="render only every n-th frame and repeat it")
    add("--seed", type=at_least(0), default=0, help="other seeds give other takes")
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
