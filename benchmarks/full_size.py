"""Measure the steps that grow with the data set, on made takes with the counts of Ego-Exo4D's:

    python benchmarks/full_size.py --folder /disk/full_size                # 3 GB, 1.7 million files
    python benchmarks/full_size.py --folder /disk/small --takes 40
    python benchmarks/full_size.py --folder /disk/full_size --steps create_pairs first_step

The takes have as many objects, moments, cameras and masks as real takes, but the masks are drawn at random, and the
frames are links to photographs. The first run makes the takes in some minutes; later runs with the same --folder keep
them. Each step runs with half of the takes and with all. The table has the CPU seconds of all its processes, the peak
memory of its largest process, and how many times as many CPU seconds it needs when the takes double.
"""

import argparse
import functools
import itertools
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.cpu import tune_cpu

tune_cpu(__name__)

import cv2
import numpy as np

from benchmarks.measure import ROOT, run_script_apart
from common.arguments import Parser, at_least
from common.distributed import World
from common.errors import run_script
from common.files import write_json
from common.parallel import loader_options
from formats.geometry import Size, eval_size
from formats.masks import RLE, encode_lzstring, encode_mask, resize_mask
from formats.pairs import BOTH, PairSet
from formats.processed import ProcessedTake, read_frame
from formats.results import results_path, write_results
from formats.takes import ANNOTATION_TEMPLATE, FRAME_STEP, annotation_path, camera_kind, read_split
from inference.predictor import Predictor
from inference.resumable_run import TakePlan
from recipes.strong.recipe import Strong
from train.searches import search_pairs
from train.validation import Validation

TAKES = 1653  # that are annotated; 336 of them are in no split
SPLITS = {"train": 821, "val": 201, "test": 295}
EGO, *EXOS = "aria01_214-1", "cam01", "cam02", "cam03"
SETTING, SPLIT = "ego-exo", "val"  # of what is scored
LOADERS = 1, 7, 15
ONE_STEP = (  # of a small network: what is measured is all that comes before
    *("--both", "--recipe", "strong", "--mode", "tiny", "--input_size", 64, "--batch-pos", 1, "--num_workers", 0),
    *("--warmUpIter", 0, "--n-epoch", 1, "--iter-epoch", 1, "--val_size", 1, "--fit_pairs", 0, "--device", "cpu"),
)


class View(NamedTuple):
    """A kind of camera: (H, W) of its videos and frames, and the part of the image that the median object covers."""

    video: Size
    frame: Size
    share: float


VIEWS = {"ego": View((1408, 1408), (704, 704), 0.0043), "exo": View((2160, 3840), (540, 960), 0.00094)}


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--folder", type=Path, default=Path(tempfile.gettempdir()) / "full_size", help="where the made takes stay")
    add("--takes", type=at_least(6), default=TAKES, help="annotated takes; four fifths of them are in the splits")
    add("--pairs", type=at_least(1), default=3200, help="validation pairs to read")
    add("--mined", type=at_least(1), default=20_000, help="training pairs whose frames are read, as mining reads them")
    add("--steps", nargs="+", choices=list(commands(Path(), 0, 0)), help="measure only these (default: all)")
    add("--loaders", type=at_least(0), help=argparse.SUPPRESS)
    add("--here", choices=HERE, help=argparse.SUPPRESS)  # run a step of this script in this process, on --folder
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.here:
        HERE[args.here](args)
        return
    folders = {count: args.folder / str(count) for count in (args.takes // 2, args.takes)}
    for count, folder in folders.items():
        if not (folder / "split.json").exists():
            make_data_set(folder, count)
    title = "".join(f" | {count} takes: CPU s | GB" for count in folders)
    print(f"step{title} | times as long | read\n---|---|---|---|---|---|---")
    for name in args.steps or commands(Path(), 0, 0):
        runs = [run_script_apart(*commands(folder, args.pairs, args.mined)[name]) for folder in folders.values()]
        cells = [f"{run.cpu_seconds:.1f} | {run.memory / 1e9:.2f}" for run in runs]
        growth = runs[1].cpu_seconds / max(runs[0].cpu_seconds, 1e-9)
        read = runs[1].output.splitlines()[-1] if str(name).startswith(tuple(HERE)) else ""
        print(" | ".join([name, *cells, f"{growth:.1f}", read]), flush=True)


def commands(folder: Path, pairs: int, mined: int) -> dict[str, tuple]:
    """The command of each step, by its name: a script and its arguments."""
    data = folder / "processed"
    here = "benchmarks/full_size.py", "--folder", folder, "--pairs", pairs, "--mined", mined, "--here"
    results = "--pred_file", results_path(folder, SETTING, SPLIT)
    return {
        "create_pairs": ("data/create_pairs.py", "--data_dir", data),
        "first_step": ("train/train.py", "--train-dir", data, "--out-dir", folder / "run", "--overwrite", *ONE_STEP),
        **{f"validation_{count}": (*here, "validation", "--loaders", count) for count in LOADERS},
        "mining": (*here, "mining"),
        "plans": (*here, "plans"),
        "evaluate": ("evaluation/evaluate.py", "--setting", SETTING, "--split", SPLIT, "--data_path", data, *results),
    }


# The steps that are a part of a script


def shipped(loaders: int) -> Strong:
    """The recipe of the repository's network."""
    recipe = cast(Strong, Predictor.load().recipe)
    recipe.loading = loader_options(loaders)
    return recipe


def read_validation_frames(args: argparse.Namespace) -> None:
    """Read the frames of the validation pairs as training does before it predicts them."""
    pairs, log = PairSet([args.folder / "processed"], "val", BOTH), SimpleNamespace(world=World())
    frames = Validation(pairs, args.pairs, shipped(args.loaders), cast(Any, log)).frames
    print(sum(len(frame.pairs) for frame in frames), "pairs")


def read_frames_to_mine(args: argparse.Namespace) -> None:
    pairs = PairSet([args.folder / "processed"], "train", BOTH)
    found = search_pairs(shipped(0), pairs, 0, World(), lambda _, truths: truths, args.mined)
    print(len(found), "pairs")


def list_plans(args: argparse.Namespace) -> None:
    """List what eval_segswap.py has to predict, as it does at its start."""
    data_dir, uids = args.folder / "processed", read_split(args.folder / "split.json", "test")
    plans = [TakePlan.of(ProcessedTake.read(data_dir, uid, checked=False), SETTING) for uid in uids]
    print(sum(plan.pair_count for plan in plans), "pairs")


HERE: dict[str, Callable[[argparse.Namespace], None]] = {
    "validation": read_validation_frames,
    "mining": read_frames_to_mine,
    "plans": list_plans,
}

# The made takes


class Take(NamedTuple):
    masks: dict[str, dict[str, dict[int, RLE]]]
    looked_at: dict[tuple[str, str], list[int]]  # frames by object and camera
    moments: list[int]


def make_data_set(folder: Path, count: int) -> None:
    """Write `count` takes: annotations/, processed/, a results file of SETTING and SPLIT, and last split.json."""
    shutil.rmtree(folder, ignore_errors=True)
    rng, uids, splits = np.random.default_rng(0), [str(uuid.UUID(int=number)) for number in range(count)], {}
    masks = {kind: [draw_mask(rng, view) for _ in range(min(256, count))] for kind, view in VIEWS.items()}
    for split, of_split in SPLITS.items():
        size = max(1, round(count * of_split / TAKES))
        splits[split], uids = uids[:size], uids[size:]
    for split, of_split in splits.items():
        takes = make_takes(folder, of_split, uids if split == "train" else [], masks)
        write_json(annotation_path(folder / ANNOTATION_TEMPLATE, split), {"annotations": takes})
    entry = {"pred_mask": encode_mask(resize_mask(masks["exo"][0], eval_size(VIEWS["exo"].video))), "confidence": 0.6}
    taken = (ProcessedTake.read(folder / "processed", uid, checked=False) for uid in splits[SPLIT])
    write_results(results_path(folder, SETTING, SPLIT), SETTING, ((take.uid, answer(take, entry)) for take in taken))
    write_json(folder / "split.json", splits)


def draw_mask(rng: np.random.Generator, view: View) -> RLE:
    """A blob with a wavy outline; the sizes of blobs are spread like those of real masks."""
    angles, (height, width) = np.linspace(0, 2 * np.pi, 48), view.video
    radius = np.sqrt(view.share * height * width * rng.lognormal(0, 1.1) / np.pi) * rng.normal(1, 0.08, len(angles))
    middle = rng.uniform(0.2, 0.8, 2) * (width, height)
    outline = middle + radius[:, None] * np.stack((np.cos(angles), np.sin(angles)), 1)
    return encode_mask(cv2.fillPoly(np.zeros(view.video, np.uint8), [outline.astype(np.int32)], 1))


def make_takes(
    folder: Path, uids: list[str], unprocessed: list[str], masks: dict[str, list[RLE]]
) -> Iterator[tuple[str, dict]]:
    """Write the processed takes `uids`, and yield each take in the form of relations_{split}.json. A camera has one
    picture, to which its other frames are links.
    """
    pictures = itertools.cycle(read_frame(path) for path in sorted((ROOT / "assets" / "samples").glob("*/*.jpg")))
    for uid in (*uids, *unprocessed):
        take = draw_take(np.random.default_rng(uuid.UUID(uid).int), masks)
        processed = ProcessedTake(uid, folder / "processed" / uid, take.masks, take.moments)
        for camera, picture in zip(processed.cameras if uid in uids else (), pictures, strict=False):
            first, *others = (processed.frame_path(camera, frame) for frame in take.moments)
            first.parent.mkdir(parents=True)
            cv2.imwrite(str(first), cv2.resize(picture, VIEWS[camera_kind(camera)].frame[::-1]))
            for path in others:
                os.link(first, path)
        if uid in uids:
            processed.write_annotation()
        yield uid, raw_annotation(take, uid)


def draw_take(rng: np.random.Generator, masks: dict[str, list[RLE]]) -> Take:
    """About four objects and 290 moments. Three quarters of the objects are annotated in the ego camera and in one exo
    camera, the others in one of these; an object has masks at 245 moments in the ego camera, and at 83 % of these in
    the exo camera.
    """
    moments = FRAME_STEP * np.arange(np.clip(rng.lognormal(5.5, 0.7), 10, 1156), dtype=int)
    take, exos = Take({}, {}, moments.tolist()), EXOS[: rng.integers(1, 4)]
    for number in range(min(1 + rng.poisson(3), 18)):
        name, exo = f"object {number}_0", exos[rng.integers(len(exos))]
        frames = rng.permutation(moments[rng.random(len(moments)) < 0.79])  # files do not sort them
        looked_at = frames[rng.random(len(frames)) < 0.92]
        tracks = {EGO: (frames, frames), exo: (looked_at[rng.random(len(looked_at)) < 0.9], looked_at)}
        if rng.random() < 0.23:
            del tracks[(EGO, exo)[rng.integers(2)]]
        take.masks[name] = {}
        for camera, (shown, looked_at) in tracks.items():
            known = masks[camera_kind(camera)]
            take.masks[name][camera] = {frame: known[rng.integers(len(known))] for frame in shown.tolist()}
            take.looked_at[name, camera] = looked_at.tolist()
    return take


def raw_annotation(take: Take, uid: str) -> dict:
    objects: dict[str, dict] = {name: {} for name in take.masks}
    for (name, camera), looked_at in take.looked_at.items():
        encoded = {}
        for frame, rle in take.masks[name][camera].items():
            (height, width), text = rle["size"], lzstring(rle["counts"])
            encoded[frame] = {"width": width, "height": height, "encodedMask": text, "intSegClicks": []}
        objects[name][camera] = {"annotation": encoded, "annotation_fps": 1, "annotated_frames": looked_at}
    return {"take_name": f"take_{uid}", "scenario": "", "object_names": list(objects), "object_masks": objects}


lzstring = functools.cache(encode_lzstring)


def answer(take: ProcessedTake, entry: dict) -> dict:
    """A take in the form of the results file, with the same `entry` for each pair."""
    result = TakePlan.of(take, SETTING).empty_result()
    for entries in (entries for cameras in result["masks"].values() for entries in cameras.values()):
        entries.update(dict.fromkeys(entries, entry))
    return result


if __name__ == "__main__":
    run_script(main)
