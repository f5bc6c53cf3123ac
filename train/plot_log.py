"""Plot loss and validation figures of trainings against steps, one curve per run.

python train/plot_log.py train/checkpoints/egoexo_v2_480x480 --out_path curve.png
python train/plot_log.py runs/plain runs/strong --out_path comparison.png
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.errors import run_script, say_errors

say_errors(__name__)

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from common.arguments import Parser
from common.errors import UserError
from train.log import LOG_NAME, read_log

PANELS = {  # title: kind of line, figure
    "training loss": ("train", "loss"),
    "Dice loss": ("train", "dice_loss"),
    "validation IoU": ("val", "iou"),
    "existence balanced accuracy": ("val", "existence_accuracy"),
}


def main(argv: list[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="output folders of train.py, or their log.jsonl files")
    parser.add_argument("--out_path", type=Path, default=Path("curve.png"), help="picture to write")
    args = parser.parse_args(argv)
    logs = {run: read_run(run) for run in args.runs}
    curves = {
        title: {
            run: [(line["step"], line[figure]) for line in lines if line["kind"] == kind and figure in line]
            for run, lines in logs.items()
        }
        for title, (kind, figure) in PANELS.items()
    }
    drawn = [title for title, of_run in curves.items() if max(map(len, of_run.values())) > 1]
    if not drawn:
        raise UserError(f"{args.runs[0]}: a curve needs two points, and there is one at most; wait for the next line")
    figure, axes = plt.subplots(1, len(drawn), figsize=(5 * len(drawn), 4), layout="constrained", squeeze=False)
    for axis, title in zip(axes[0], drawn, strict=True):
        for run, points in curves[title].items():
            if points:
                axis.plot(*zip(*points, strict=True), marker="o" if len(points) < 50 else None, ms=3, label=run.name)
        axis.set(title=title, xlabel="step")
        axis.grid(alpha=0.3)
    if len(args.runs) > 1:
        axes[0, 0].legend()
    args.out_path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out_path, dpi=120)
    plt.close(figure)
    for title in curves.keys() - drawn:
        print(f"not drawn, less than two points yet: {title}")
    print(args.out_path)


def read_run(run: Path) -> list[dict]:
    path = run / LOG_NAME if run.is_dir() else run
    if not path.is_file():
        raise UserError(f"no training log {path}; give the --out-dir of train.py")
    return read_log(path)


if __name__ == "__main__":
    run_script(main)
