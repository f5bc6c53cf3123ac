"""Plot loss and validation figures of trainings against steps, one curve per run.

python train/plot_log.py train/checkpoints/egoexo_v2_480x480 --out_path curve.png
python train/plot_log.py runs/plain runs/strong --out_path comparison.png
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.errors import run_script  # isort: split

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from common.arguments import Parser
from common.errors import UserError
from train.log import LOG_NAME, read_log

PANELS = (  # title, kind of line, figure
    ("training loss", "train", "loss"),
    ("validation IoU", "val", "iou"),
    ("existence balanced accuracy", "val", "existence_accuracy"),
)


def main(argv: list[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="output folders of train.py, or their log.jsonl files")
    parser.add_argument("--out_path", type=Path, default=Path("curve.png"), help="picture to write")
    args = parser.parse_args(argv)
    figure, axes = plt.subplots(1, len(PANELS), figsize=(5 * len(PANELS), 4), layout="constrained")
    for run in args.runs:
        lines = read_run(run)
        for axis, (title, kind, name) in zip(axes, PANELS, strict=True):
            points = [(line["step"], line[name]) for line in lines if line["kind"] == kind and name in line]
            if points:
                axis.plot(*zip(*points, strict=True), marker="o" if kind == "val" else None, ms=3, label=run.name)
            axis.set(title=title, xlabel="step")
    for axis in axes:
        axis.grid(alpha=0.3)
    if len(args.runs) > 1:
        axes[0].legend()
    args.out_path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out_path, dpi=120)
    plt.close(figure)
    print(args.out_path)


def read_run(run: Path) -> list[dict]:
    path = run / LOG_NAME if run.is_dir() else run
    if not path.is_file():
        raise UserError(f"no training log {path}; give the --out-dir of train.py")
    return read_log(path)


if __name__ == "__main__":
    run_script(main)
