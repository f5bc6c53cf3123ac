"""What a recipe reaches, and what each of its options gives: rendered takes, equal training time, several seeds.

    python benchmarks/training_options.py                             # all variants, large objects, 192 pixels: hours
    python benchmarks/training_options.py --variants paper strong --object_size real --video_size medium

This is the test bed for accuracy. It renders takes for training, validation and testing, in which no object of
one split occurs in another, trains each variant with each seed, predicts the test takes and scores them. `--steps` is
the length of a training for one setting; a network for both settings gets twice as many. Equal steps are equal time as
long as the samples per second agree, which figures.csv has for each run. Prints mean and range over the seeds and draws
validation figures against training time. What is finished is kept, so a rerun continues.

Each training takes one thread, and --jobs run at once.
"""

import argparse
import csv
import sys
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root
from benchmarks.measure import PROCESSED, make_takes, process_takes, run_script_apart
from common.arguments import SETTINGS, Parser, at_least
from common.errors import run_script
from common.files import read_json, write_json
from common.parallel import default_workers
from evaluation.summary import SIZE_LABELS
from formats.pairs import BOTH
from formats.results import results_path
from model.device import PRECISIONS
from model.xsegtx import MODES
from synthetic.take import VIDEO_SIZES
from train.flags import STRONG
from train.log import LOG_NAME, read_log
from train.state import BEST

REAL = ("--num_objects", 6, "--clutter", 24, "--blur", 1.5, "--noise", 3)  # further options of takes with real sizes
NEEDED_BY = {"similarity_prior": ("zoom", "closer_look"), "zoom": ("closer_look",)}  # what goes with an option
BATCH, EPOCHS, WARMUP = 8, 4, 50  # the rate drops after the last but one epoch
FIGURES = {  # title: where metrics.json has it
    "IoU": ("official", "iou"),
    "right object": ("extra", "right_object"),
    "existence": ("official", "balanced_accuracy"),
}
BY_SIZE = {"IoU": "iou", "right object": "right_object"}  # likewise, of each size of the target
CURVES = {"iou": "validation IoU", "existence_accuracy": "validation, existence balanced accuracy"}


def variants() -> dict[str, dict[str, object]]:
    """Options of train.py by variant: both recipes, and `strong` without each of its options and what needs it."""
    strong = {"both": True, **STRONG}
    gone = {name: {name, *NEEDED_BY.get(name, ())} for name in strong}
    left_out = {f"strong - {name}": {k: v for k, v in strong.items() if k not in gone[name]} for name in strong}
    return {"paper": {}, "strong": strong} | left_out


class Run(NamedTuple):
    """One training. `setting` may be BOTH."""

    variant: str
    setting: str
    seed: int


def main() -> None:
    args = parse_args()
    bed = make_bed(args)
    runs = [
        Run(variant, setting, seed)
        for variant in args.variants
        for setting in ([BOTH] if "both" in variants()[variant] else args.settings)
        for seed in args.seeds
    ]
    with ThreadPoolExecutor(args.jobs) as pool:
        longest_first = sorted(runs, key=lambda run: run.setting != BOTH)
        jobs = {run: pool.submit(train_and_score, args, bed, run) for run in longest_first}
        figures = {run: jobs[run].result() for run in runs}
    report(args, figures)
    draw_curves(args.out_dir / "curves.png", {run: read_log(folder_of(args, bed, run) / LOG_NAME) for run in runs})


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--out_dir", type=Path, default=Path("runs/training_options"), help="rendered takes, and a folder for each run")
    names = f"what to compare: {', '.join(variants())}"
    add("--variants", nargs="+", choices=variants(), default=list(variants()), metavar="NAME", help=names)
    add("--settings", nargs="+", choices=SETTINGS, default=SETTINGS, help="of variants with a network for each")
    text = "area of an object in a picture, as a share of it, or real, with other things around, as in Ego-Exo4D"
    add("--object_size", default="0.2", metavar="SIZE", help=text)
    text = "of the videos, before processing halves the ego video and quarters the others"
    add("--video_size", choices=VIDEO_SIZES, default="small", help=text)
    add("--input_size", type=at_least(48), default=192, help="pixels per side of the network's input")
    add("--mode", choices=MODES, default="tiny", help="size of the network")
    add("--backbone", default="efficientnet_lite0", help="as train.py has it")
    add("--seeds", nargs="+", type=at_least(0), default=[0, 1, 2], help="a run of each variant with each")
    add("--steps", type=at_least(WARMUP + EPOCHS), default=600, help="of 8 pairs, for one setting")
    add("--takes", type=at_least(1), default=96, help="rendered for training")
    add("--test_takes", type=at_least(2), default=72, help="rendered for testing; a sixth as many for validation")
    add("--precision", choices=PRECISIONS, default="fp32", help="of training; bf16 is faster where the CPU has it")
    add("--jobs", type=at_least(1), default=default_workers(), help="runs at once")
    return parser.parse_args()


def make_bed(args: argparse.Namespace) -> Path:
    """Rendered and processed takes with their pairs -> their folder. A rerun makes what is missing."""
    bed = args.out_dir / f"takes_{args.object_size}_{args.video_size}_{args.takes}"
    counts = ("--num_train", args.takes, "--num_val", -(-args.test_takes // 6), "--num_test", args.test_takes)
    size = ("--object_size", args.object_size, "--size", args.video_size)
    make_takes(bed, *size, *(REAL if args.object_size == "real" else ()), *counts)
    process_takes(bed)
    return bed


def folder_of(args: argparse.Namespace, bed: Path, run: Run) -> Path:
    about = (args.input_size, args.backbone, args.steps, args.precision, args.mode)
    return bed / "_".join(map(str, (*run, *about))).replace(" ", "")


def train_and_score(args: argparse.Namespace, bed: Path, run: Run) -> dict[str, dict[str, float]]:
    """Train, predict and score -> FIGURES in percent by setting. What is there from before is not repeated."""
    folder, data = folder_of(args, bed, run), bed / PROCESSED
    record = folder / "figures.json"
    if record.exists():
        return read_json(record, "delete it")
    print(f"{folder}\n", end="", flush=True)  # in one piece: runs go side by side
    settings = SETTINGS if run.setting == BOTH else (run.setting,)
    epoch = (args.steps * len(settings) - WARMUP) // EPOCHS
    run_script_apart(
        "train/train.py",
        *("--train-dir", data, "--out-dir", folder, "--backbone", args.backbone, "--seed", run.seed),
        *("--mode", args.mode, "--input_size", args.input_size, "--batch-pos", BATCH),
        *("--lr", 5e-4, "--warmUpIter", WARMUP),
        *("--iter-epoch", epoch, "--n-epoch", EPOCHS, "--lr-schedule", EPOCHS - 1, "--val_size", 0, "--save_every", 0),
        *("--cache_features", 4, "--num_workers", 0, "--precision", args.precision),
        *["--reverse"] * (run.setting == "exo-ego"),
        *flags_of(variants()[run.variant]),
        OMP_NUM_THREADS="1",
    )
    figures = {}
    for setting in settings:
        about = ("--setting", setting, "--split", "test", "--data_path", data, "--num_workers", 0)
        network = ("--ckpt_path", folder / BEST, "--out_path", folder, "--overwrite")
        run_script_apart("eval_segswap.py", *about, *network, OMP_NUM_THREADS="1")
        results = results_path(folder, setting, "test")
        run_script_apart("evaluation/evaluate.py", *about, "--pred_file", results, "--out", folder / setting)
        metrics = read_json(folder / setting / "metrics.json", "delete it")
        figures[setting] = {title: 100 * metrics[group][name] for title, (group, name) in FIGURES.items()}
        figures[setting] |= by_size(metrics["breakdown"]["object size"])
        figures[setting]["samples per second"] = samples_per_second(read_log(folder / LOG_NAME))
    write_json(record, figures)
    return figures


def by_size(groups: list[dict]) -> dict[str, float]:
    """IoU and right object in percent by the size of the target, where there are any."""
    sizes = [(f"{title}, {group['label']}", group.get(name)) for group in groups for title, name in BY_SIZE.items()]
    return {title: 100 * value for title, value in sizes if value is not None}


def flags_of(options: Mapping[str, object]) -> list[str]:
    """{"similarity_prior": True, "block": 0} -> --similarity_prior --block 0"""
    return [word for name, value in options.items() for word in (f"--{name}", *([str(value)] * (value is not True)))]


def report(args: argparse.Namespace, figures: dict[Run, dict[str, dict[str, float]]]) -> None:
    """Print mean and range over the seeds; figures.csv has every run."""
    rows = [
        {"tested in": setting, **run._asdict(), **values} for run in figures for setting, values in figures[run].items()
    ]
    with (args.out_dir / "figures.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(
            file, dict.fromkeys(name for row in rows for name in row)
        )  # not every size is everywhere
        writer.writeheader()
        writer.writerows(rows)
    for setting in dict.fromkeys(row["tested in"] for row in rows):
        print(f"{setting}: {', '.join(FIGURES)}; mean (lowest to highest) of {len(args.seeds)} seeds")
        for variant in args.variants:
            seeds = [row for row in rows if (row["tested in"], row["variant"]) == (setting, variant)]
            print(f"  {variant:<28}", *spreads(seeds, FIGURES), sep="  ")
            for label in SIZE_LABELS:
                names = [f"{name}, {label}" for name in BY_SIZE]
                if all(name in row for row in seeds for name in names):
                    print(f"    {label:<26}", *spreads(seeds, names), sep="  ")


def spreads(rows: list[dict], names: list[str]) -> list[str]:
    """Of each figure the mean, the least and the largest of the seeds."""
    values = [[row[name] for row in rows] for name in names]
    return [f"{mean(x):5.1f} ({min(x):.1f} to {max(x):.1f})" for x in values]


def draw_curves(path: Path, logs: Mapping[Run, list[dict]]) -> None:
    """Validation figures against training time, mean and range over the seeds; a network for both settings is validated
    in both.
    """
    curves, rates = defaultdict(list), defaultdict(float)
    for run, log in logs.items():
        curves[run.variant, run.setting].append(log)
        # Other jobs only slow a run, and both settings cost the same.
        rates[run.variant] = max(rates[run.variant], samples_per_second(log))
    picture = Figure(figsize=(11, 4), layout="constrained")
    axes = picture.subplots(1, 2)
    for axis, (figure, title) in zip(axes, CURVES.items(), strict=True):
        for (variant, setting), seeds in curves.items():
            lines = [[line for line in log if line["kind"] == "val" and figure in line] for log in seeds]
            rate = rates[variant] * (2 if setting == BOTH else 1)
            minutes = np.array([line["step"] for line in lines[0]]) * BATCH / rate / 60
            values = np.array([[line[figure] for line in log] for log in lines])  # (seeds, validations)
            axis.plot(minutes, values.mean(0), label=f"{variant}, {setting}")
            axis.fill_between(minutes, values.min(0), values.max(0), alpha=0.15)
        axis.set(title=title, xlabel="minutes of training per setting, one thread")
        axis.grid(alpha=0.3)
    axes[0].legend()
    picture.savefig(path, dpi=100)
    print(path)


def samples_per_second(log: list[dict]) -> float:
    """When the features of all images are cached."""
    rates = [line["samples_per_second"] for line in log if line["kind"] == "train"]
    return median(rates[len(rates) // 2 :])


if __name__ == "__main__":
    run_script(main)
