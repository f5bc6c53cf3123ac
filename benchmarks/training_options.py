"""What each training option is worth: several seeds of each, from the same start, on the same data.

    python benchmarks/training_options.py --train-dir data/egoexo/processed --reverse

Trains every variant with every seed (a finished run is not repeated, a stopped one continues, one of other options in
its folder is refused), then prints validation IoU, existence balanced accuracy and training loss at the end, mean and
range over the seeds, and draws them against steps. The defaults are small enough for a CPU: 192-pixel input, 600 steps
of 8 pairs, a frozen random backbone. Each run takes one thread, and --jobs run at once.
"""

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root
from formats.arguments import Parser, at_least
from formats.errors import UserError, run_script
from formats.parallel import default_workers
from train.log import LOG_NAME, read_log

ROOT = Path(__file__).resolve().parents[1]
VALIDATIONS = 6
CACHE = ("--cache_features", "3")
VARIANTS = {  # name: options of train.py
    "reference recipe": CACHE,
    "mask_position": (*CACHE, "--mask_position"),
    "+ hard_negatives": (*CACHE, "--mask_position", "--hard_negatives"),
    "+ cosine, ema": (*CACHE, "--mask_position", "--cosine", "--ema", "0.99"),
    "+ augment": ("--mask_position", "--augment", "--num_workers", "0"),
}
FIGURES = (  # title, kind of line, name
    ("validation IoU", "val", "iou"),
    ("existence balanced accuracy", "val", "existence_accuracy"),
    ("training loss", "train", "loss"),
)


def main() -> None:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--train-dir", type=Path, required=True, help="processed takes with pair files")
    add("--reverse", action="store_true", help="exo-ego instead of ego-exo")
    add("--out_dir", type=Path, default=Path("runs/training_options"), help="a folder for each run, and curves.png")
    add("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), metavar="NAME", help="what to compare")
    add("--seeds", type=at_least(0), nargs="+", default=[0, 1, 2], help="a run of each variant with each")
    add("--steps", type=at_least(10), default=600, help="a tenth of them warm-up")
    add("--batch_size", type=at_least(1), default=8, help="pairs per step")
    add("--input_size", type=at_least(48), default=192, help="pixels per side")
    add("--val_size", type=at_least(0), default=150, help="validation pairs")
    add("--jobs", type=at_least(1), default=default_workers(), help="runs at once")
    args = parser.parse_args()
    runs = [(variant, seed) for seed in args.seeds for variant in args.variants]
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(lambda run: train(args, *run), runs))
    report(args)


def folder(args: argparse.Namespace, variant: str, seed: int) -> Path:
    return args.out_dir / f"{variant.strip('+ ').replace(', ', '_').replace(' ', '_')}_seed{seed}"


def train(args: argparse.Namespace, variant: str, seed: int) -> None:
    out_dir = folder(args, variant, seed)
    warmup, epoch = args.steps // 10, (args.steps - args.steps // 10) // VALIDATIONS
    command = [sys.executable, ROOT / "train/train.py", "--train-dir", args.train_dir, "--out-dir", out_dir]
    command += ["--backbone", "random", "--seed", seed, "--input_size", args.input_size, "--batch-pos", args.batch_size]
    command += ["--warmUpIter", warmup, "--iter-epoch", epoch, "--n-epoch", VALIDATIONS, "--val_size", args.val_size]
    command += ["--reverse"] * args.reverse + ["--save_every", 0, *VARIANTS[variant]]
    print(f"{variant}, seed {seed}: {out_dir / LOG_NAME}", flush=True)
    run = subprocess.run(
        list(map(str, command)), env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    if run.returncode:
        raise UserError(f"{variant}, seed {seed}: {(run.stderr.strip() or 'failed').splitlines()[-1]}")


def report(args: argparse.Namespace) -> None:
    picture, axes = plt.subplots(1, len(FIGURES), figsize=(5 * len(FIGURES), 4), layout="constrained")
    for axis, (title, kind, name) in zip(axes, FIGURES, strict=True):
        print(f"{title} at the end, mean (lowest to highest) of {len(args.seeds)} seeds")
        for variant in args.variants:
            steps, values = curves(args, variant, kind, name)
            last = values[:, -1]
            print(f"  {variant:<20} {last.mean():.4f} ({last.min():.4f} to {last.max():.4f})")
            axis.plot(steps, values.mean(0), label=variant)
            axis.fill_between(steps, values.min(0), values.max(0), alpha=0.15)
        axis.set(title=title, xlabel="step")
        axis.grid(alpha=0.3)
    axes[0].legend()
    picture.savefig(args.out_dir / "curves.png", dpi=100)
    print(args.out_dir / "curves.png")


def curves(args: argparse.Namespace, variant: str, kind: str, name: str) -> tuple[list[int], np.ndarray]:
    """Steps, and the figure at each: (seeds, steps)."""
    lines = [read_log(folder(args, variant, seed) / LOG_NAME) for seed in args.seeds]
    points = [{line["step"]: line[name] for line in run if line["kind"] == kind and name in line} for run in lines]
    steps = sorted(set.intersection(*map(set, points)))
    return steps, np.array([[run[step] for step in steps] for run in points])


if __name__ == "__main__":
    run_script(main)
