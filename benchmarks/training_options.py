"""What a recipe reaches, and what each of its options gives: rendered takes, equal training time, several seeds.

    python benchmarks/training_options.py                             # all variants, large objects, 192 pixels: hours
    python benchmarks/training_options.py --variants paper strong --object_size real --video_size medium
    python benchmarks/training_options.py --variants strong -- --mode small --precision bf16     # flags of train.py

This is the test bed for accuracy. It renders takes for training, validation and testing, in which no object of
one split occurs in another, trains each variant with each seed, predicts the test takes and scores them. `--steps` is
the length of a training for one setting; a network for both settings gets twice as many. Equal steps are equal time as
long as the samples per second agree. Prints mean and range over the seeds; figures.csv has each run, and its folder
all that evaluate.py writes. What is finished is kept, so a rerun continues.

Each training takes one thread, and --jobs run at once.
"""

import argparse
import csv
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root
from benchmarks.measure import make_takes, process_takes, run_script_apart
from common.arguments import SETTINGS, Parser, at_least
from common.errors import run_script
from common.files import read_json, write_json
from common.parallel import default_workers
from formats.pairs import BOTH
from formats.results import results_path
from synthetic.take import VIDEO_SIZES
from train.flags import STRONG
from train.log import LOG_NAME, read_log
from train.state import BEST

REAL = ("--num_objects", 6, "--clutter", 24, "--blur", 1.5, "--noise", 3)  # further options of takes with real sizes
CHAIN = ("similarity_prior", "zoom", "closer_look", "pointer", "fine_masks")  # each needs those before it
BATCH, EPOCHS, WARMUP = 8, 4, 50  # the rate drops after the last but one epoch
FIGURES = {  # title: where metrics.json has it
    "IoU": ("official", "iou"),
    "right object": ("extra", "right_object"),
    "existence": ("official", "balanced_accuracy"),
}


def variants() -> dict[str, dict[str, object]]:
    """Options of train.py by variant: both recipes, and `strong` without each of its options and what needs it."""
    strong = {"both": True, **STRONG}
    left_out = {}
    for name in strong:
        gone = CHAIN[CHAIN.index(name) :] if name in CHAIN else (name,)
        left_out[f"strong - {name}"] = {k: v for k, v in strong.items() if k not in gone}
    return {"paper": {}, "strong": strong} | left_out


class Run(NamedTuple):
    """One training. `setting` may be BOTH."""

    variant: str
    setting: str
    seed: int


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--out_dir", type=Path, default=Path("runs/training_options"), help="rendered takes, and a folder for each run")
    names = f"what to compare: {', '.join(variants())}"
    add("--variants", nargs="+", choices=variants(), default=list(variants()), metavar="NAME", help=names)
    add("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS), help="of variants with a network for each")
    text = "area of an object in a picture, as a share of it, or real, with other things around, as in Ego-Exo4D"
    add("--object_size", default="0.2", metavar="SIZE", help=text)
    text = "of the videos, before processing halves the ego video and quarters the others"
    add("--video_size", choices=VIDEO_SIZES, default="small", help=text)
    add("--input_size", type=at_least(48), default=192, help="pixels per side of the network's input")
    add("--seeds", nargs="+", type=at_least(0), default=[0, 1, 2], help="a run of each variant with each")
    add("--steps", type=at_least(WARMUP + EPOCHS), default=600, help="of 8 pairs, for one setting")
    add("--takes", type=at_least(1), default=96, help="rendered for training")
    add("--test_takes", type=at_least(2), default=72, help="rendered for testing; a sixth as many for validation")
    add("--jobs", type=at_least(1), default=default_workers(), help="runs at once")
    add("flags", nargs="*", metavar="-- FLAG", help="of train.py, for all runs")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    data = make_data(args)
    runs = [
        Run(variant, setting, seed)
        for variant in args.variants
        for setting in ([BOTH] if "both" in variants()[variant] else args.settings)
        for seed in args.seeds
    ]
    with ThreadPoolExecutor(args.jobs) as pool:
        longest_first = sorted(runs, key=lambda run: run.setting != BOTH)
        jobs = {run: pool.submit(train_and_score, args, data, run) for run in longest_first}
        report(args, {run: jobs[run].result() for run in runs})


def make_data(args: argparse.Namespace) -> Path:
    """Rendered and processed takes with their pairs -> the folder of processed takes. A rerun makes what is missing."""
    bed = args.out_dir / f"takes_{args.object_size}_{args.video_size}_{args.takes}"
    counts = ("--num_train", args.takes, "--num_val", -(-args.test_takes // 6), "--num_test", args.test_takes)
    size = ("--object_size", args.object_size, "--size", args.video_size)
    make_takes(bed, *size, *(REAL if args.object_size == "real" else ()), *counts)
    return process_takes(bed)


def train_and_score(args: argparse.Namespace, data: Path, run: Run) -> dict[str, dict[str, float]]:
    """Train, predict and score -> FIGURES in percent by setting. What is there from before is not repeated."""
    name = "_".join(map(str, (*run, args.input_size, args.steps, *args.flags)))
    folder = data.parent / name.replace(" ", "").replace("/", "_")
    record = folder / "figures.json"
    if record.exists():
        return read_json(record, "delete it")
    print(f"{folder}\n", end="", flush=True)  # in one piece: runs go side by side
    settings = SETTINGS if run.setting == BOTH else (run.setting,)
    epoch = (args.steps * len(settings) - WARMUP) // EPOCHS
    run_script_apart(
        "train/train.py",
        *("--train-dir", data, "--out-dir", folder, "--seed", run.seed, "--input_size", args.input_size),
        *("--backbone", "efficientnet_lite0", "--mode", "tiny", "--batch-pos", BATCH, "--lr", 5e-4),
        *("--warmUpIter", WARMUP, "--iter-epoch", epoch, "--n-epoch", EPOCHS, "--lr-schedule", EPOCHS - 1),
        *("--val_size", 0, "--save_every", 0, "--cache_features", 4, "--num_workers", 0),
        *["--reverse"] * (run.setting == "exo-ego"),
        *flags_of(variants()[run.variant]),
        *args.flags,
        OMP_NUM_THREADS="1",
    )
    rates = [line["samples_per_second"] for line in read_log(folder / LOG_NAME) if line["kind"] == "train"]
    figures = {}
    for setting in settings:
        about = ("--setting", setting, "--split", "test", "--data_path", data, "--num_workers", 0)
        network = ("--ckpt_path", folder / BEST, "--out_path", folder, "--overwrite")
        run_script_apart("eval_segswap.py", *about, *network, OMP_NUM_THREADS="1")
        results = results_path(folder, setting, "test")
        run_script_apart("evaluation/evaluate.py", *about, "--pred_file", results, "--out", folder / setting)
        metrics = read_json(folder / setting / "metrics.json", "delete it")
        figures[setting] = {title: 100 * metrics[group][name] for title, (group, name) in FIGURES.items()}
        figures[setting]["samples per second"] = median(rates[len(rates) // 2 :])  # when all features are cached
    write_json(record, figures)
    return figures


def flags_of(options: Mapping[str, object]) -> list[str]:
    """{"similarity_prior": True, "block": 0} -> --similarity_prior --block 0"""
    return [word for name, value in options.items() for word in (f"--{name}", *([str(value)] * (value is not True)))]


def report(args: argparse.Namespace, figures: dict[Run, dict[str, dict[str, float]]]) -> None:
    """Print mean and range over the seeds; figures.csv has every run."""
    rows = [
        {"tested in": setting, **run._asdict(), **values} for run in figures for setting, values in figures[run].items()
    ]
    with (args.out_dir / "figures.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for setting in dict.fromkeys(row["tested in"] for row in rows):
        print(f"{setting}: {', '.join(FIGURES)}; mean (lowest to highest) of {len(args.seeds)} seeds")
        for variant in args.variants:
            seeds = [row for row in rows if (row["tested in"], row["variant"]) == (setting, variant)]
            values = [[row[name] for row in seeds] for name in FIGURES]
            texts = (f"{mean(x):5.1f} ({min(x):.1f} to {max(x):.1f})" for x in values)
            print(f"  {variant:<28}", *texts, sep="  ")


if __name__ == "__main__":
    run_script(main)
