"""What a recipe reaches, and what each of its options gives: rendered takes, equal training time, several seeds.

    python benchmarks/training_options.py --list                      # the variants and their flags
    python benchmarks/training_options.py                             # all of them, large objects, 192 pixels: hours
    python benchmarks/training_options.py --variants paper strong --object_size 0.02 0.004 --input_size 192 320
    python benchmarks/training_options.py --variants strong --backbones efficientnet_lite0 random

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
from itertools import product
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root
from benchmarks.measure import run_script_apart
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

PROCESSED = "processed"
REAL = ("--num_objects", 6, "--clutter", 24, "--blur", 1.5, "--noise", 3)  # further options of takes with real sizes
NEEDED_BY = {"similarity_prior": ("zoom", "closer_look"), "zoom": ("closer_look",)}  # what goes with an option
BATCH, EPOCHS, WARMUP = 8, 4, 50  # the rate drops after the last but one epoch
FIGURES = {  # title: where metrics.json has it
    "IoU": ("official", "iou"),
    "right object": ("extra", "right_object"),
    "existence": ("official", "balanced_accuracy"),
}

BY_SIZE = {"IoU": "iou", "right object": "right_object"}  # likewise, of each size of the target

CURVES = {  # figure of a validation in log.jsonl: title
    "iou": "validation IoU",
    "existence_accuracy": "validation, existence balanced accuracy",
}


def variants() -> dict[str, dict[str, object]]:
    """Options of train.py by variant: both recipes, and `strong` without each of its options and what needs it."""
    strong = {"both": True, **STRONG}
    left_out = {}
    for name in strong:
        gone = {name, *NEEDED_BY.get(name, ())}
        left_out[f"strong - {name}"] = {k: v for k, v in strong.items() if k not in gone}
    return {"paper": {}, "strong": strong} | left_out


class Run(NamedTuple):
    """One training. `setting` may be BOTH."""

    variant: str
    setting: str
    object_size: str
    input_size: int
    backbone: str
    seed: int
    steps: int
    precision: str
    mode: str

    @property
    def folder(self) -> str:
        """Its name within the folder of the takes."""
        return "_".join(str(value) for name, value in self._asdict().items() if name != "object_size").replace(" ", "")


def main() -> None:
    args = parse_args()
    if args.list:
        print("\n".join(f"{name:<30} {' '.join(flags_of(options))}" for name, options in variants().items()))
        return
    beds = {size: make_bed(args, size) for size in args.object_size}
    common = [args.steps], [args.precision], [args.mode]
    cells = list(product(args.object_size, args.input_size, args.backbones, args.seeds, *common))
    runs = [
        Run(variant, setting, *cell)
        for variant in args.variants
        for setting in ([BOTH] if "both" in variants()[variant] else args.settings)
        for cell in cells
    ]
    with ThreadPoolExecutor(args.jobs) as pool:
        longest_first = sorted(runs, key=lambda run: run.setting != BOTH)
        jobs = {run: pool.submit(train_and_score, run, beds[run.object_size]) for run in longest_first}
        figures = {run: jobs[run].result() for run in runs}
    report(args, figures)
    draw_curves(args.out_dir, {run: beds[run.object_size] / run.folder for run in runs})


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--out_dir", type=Path, default=Path("runs/training_options"), help="rendered takes, and a folder for each run")
    add("--list", action="store_true", help="print the variants and end")
    add("--variants", nargs="+", choices=variants(), default=list(variants()), metavar="NAME", help="what to compare")
    add("--settings", nargs="+", choices=SETTINGS, default=SETTINGS, help="of variants with a network for each")
    text = "area of an object in a picture, as a share of it, or real, with other things around, as in Ego-Exo4D"
    add("--object_size", nargs="+", default=["0.2"], metavar="SIZE", help=text)
    text = "of the videos, before processing halves the ego video and quarters the others"
    add("--video_size", choices=VIDEO_SIZES, default="small", help=text)
    add("--input_size", nargs="+", type=at_least(48), default=[192], help="pixels per side of the network's input")
    add("--mode", choices=MODES, default="tiny", help="size of the network")
    add("--backbones", nargs="+", default=["efficientnet_lite0"], metavar="NAME", help="as train.py has them")
    add("--seeds", nargs="+", type=at_least(0), default=[0, 1, 2], help="a run of each variant with each")
    add("--steps", type=at_least(WARMUP + EPOCHS), default=600, help="of 8 pairs, for one setting")
    add("--takes", type=at_least(1), default=96, help="rendered for training")
    add("--test_takes", type=at_least(2), default=72, help="rendered for testing; a sixth as many for validation")
    precision = {"type": lambda text: "fp32" if text == "off" else text, "choices": PRECISIONS, "default": "fp32"}
    add("--precision", "--amp", **precision, help="of training; bf16 is faster where the CPU has it; off: fp32")
    add("--jobs", type=at_least(1), default=default_workers(), help="runs at once")
    return parser.parse_args()


def make_bed(args: argparse.Namespace, object_size: str) -> Path:
    """Rendered and processed takes with their pairs -> their folder. A rerun makes what is missing."""
    bed = args.out_dir / f"takes_{object_size}_{args.video_size}_{args.takes}"
    counts = ("--num_train", args.takes, "--num_val", -(-args.test_takes // 6), "--num_test", args.test_takes)
    picture = ("--object_size", object_size, "--size", args.video_size, *(REAL if object_size == "real" else ()))
    run_script_apart("synthetic/make_takes.py", "--outputpath", bed, *picture, *counts)
    split, processed = ("--split_path", bed / "split.json"), bed / PROCESSED
    run_script_apart("data/process_data.py", "--takepath", bed / "takes", *split, "--outputpath", processed)
    run_script_apart("data/create_pairs.py", "--data_dir", processed)
    return bed


def train_and_score(run: Run, bed: Path) -> dict[str, dict[str, float]]:
    """Train, predict and score -> FIGURES in percent by setting. What is there from before is not repeated."""
    folder, data = bed / run.folder, bed / PROCESSED
    record = folder / "figures.json"
    if record.exists():
        return read_json(record, "delete it")
    print(f"{folder}\n", end="", flush=True)  # in one piece: runs go side by side
    settings = SETTINGS if run.setting == BOTH else (run.setting,)
    epoch = (run.steps * len(settings) - WARMUP) // EPOCHS
    run_script_apart(
        "train/train.py",
        *("--train-dir", data, "--out-dir", folder, "--backbone", run.backbone, "--seed", run.seed),
        *("--mode", run.mode, "--input_size", run.input_size, "--batch-pos", BATCH),
        *("--lr", 5e-4, "--warmUpIter", WARMUP),
        *("--iter-epoch", epoch, "--n-epoch", EPOCHS, "--lr-schedule", EPOCHS - 1, "--val_size", 0, "--save_every", 0),
        *("--cache_features", 4, "--num_workers", 0, "--precision", run.precision),
        *["--reverse"] * (run.setting == "exo-ego"),
        *flags_of(variants()[run.variant]),
        OMP_NUM_THREADS="1",
    )
    figures = {}
    for setting in settings:
        about = ("--setting", setting, "--split", "test", "--data_path", data, "--num_workers", 0)
        run_script_apart(
            *("eval_segswap.py", *about, "--ckpt_path", folder / BEST, "--out_path", folder, "--overwrite"),
            OMP_NUM_THREADS="1",
        )
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
    return {
        f"{title}, {group['label']}": 100 * group[name]
        for group in groups
        for title, name in BY_SIZE.items()
        if group.get(name) is not None
    }


def flags_of(options: Mapping[str, object]) -> list[str]:
    """{"similarity_prior": True, "block": 0} -> --similarity_prior --block 0"""
    return [word for name, value in options.items() for word in (f"--{name}", *([str(value)] * (value is not True)))]


def report(args: argparse.Namespace, figures: dict[Run, dict[str, dict[str, float]]]) -> None:
    """Print mean and range over the seeds; figures.csv has every run."""
    rows = [
        {"tested in": setting, **run._asdict(), **values} for run in figures for setting, values in figures[run].items()
    ]
    with (args.out_dir / "figures.csv").open("w", newline="", encoding="utf-8") as file:
        names = dict.fromkeys(name for row in rows for name in row)  # not every size occurs everywhere
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    groups = defaultdict(lambda: defaultdict(list))  # test -> variant -> a row for each seed
    for row in rows:
        title = f"{row['tested in']}, objects of {row['object_size']}, {row['input_size']} px, {row['backbone']}"
        groups[title][row["variant"]].append(row)
    for title in sorted(groups):
        print(f"{title}: {', '.join(FIGURES)}; mean (lowest to highest) of {len(args.seeds)} seeds")
        for variant, seeds in groups[title].items():
            print(f"  {variant:<28}", *spreads([[row[name] for row in seeds] for name in FIGURES]), sep="  ")
            for label in SIZE_LABELS:
                parts = [[row[f"{name}, {label}"] for row in seeds if f"{name}, {label}" in row] for name in BY_SIZE]
                if all(parts):
                    print(f"    {label:<26}", *spreads(parts), sep="  ")


def spreads(values: list[list[float]]) -> list[str]:
    """Of each figure the mean, the least and the largest of the seeds."""
    return [f"{mean(x):5.1f} ({min(x):.1f} to {max(x):.1f})" for x in values]


def draw_curves(out_dir: Path, folders: Mapping[Run, Path]) -> None:
    """Validation figures against training time per setting, mean and range over the seeds; a picture per object size,
    input size and backbone. A network for both settings is validated in both.
    """
    curves = defaultdict(lambda: defaultdict(list))  # picture -> curve -> logs of its seeds
    for run, folder in folders.items():
        picture = f"curves_{run.object_size}_{run.input_size}_{run.backbone}.png"
        curves[picture][run.variant, run.setting].append(read_log(folder / LOG_NAME))
    for name, of_picture in curves.items():
        rates = defaultdict(float)  # samples per second; other jobs only slow a run, and both settings cost the same
        for (variant, _), logs in of_picture.items():
            rates[variant] = max(rates[variant], *map(samples_per_second, logs))
        picture, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
        for axis, (figure, title) in zip(axes, CURVES.items(), strict=True):
            for (variant, setting), logs in of_picture.items():
                lines = [[line for line in log if line["kind"] == "val" and figure in line] for log in logs]
                rate = rates[variant] * (2 if setting == BOTH else 1)
                minutes = np.array([line["step"] for line in lines[0]]) * BATCH / rate / 60
                values = np.array([[line[figure] for line in log] for log in lines])  # (seeds, validations)
                axis.plot(minutes, values.mean(0), label=f"{variant}, {setting}")
                axis.fill_between(minutes, values.min(0), values.max(0), alpha=0.15)
            about = "minutes of training per setting, one thread"
            axis.set(title=title, xlabel=about)
            axis.grid(alpha=0.3)
        axes[0].legend()
        path = out_dir / name
        picture.savefig(path, dpi=100)
        plt.close(picture)
        print(path)


def samples_per_second(log: list[dict]) -> float:
    """When the features of all images are cached."""
    rates = [line["samples_per_second"] for line in log if line["kind"] == "train"]
    return median(rates[len(rates) // 2 :])


if __name__ == "__main__":
    run_script(main)
