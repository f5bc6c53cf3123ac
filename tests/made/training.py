"""A small data set for training, and a recipe that takes seconds."""

import json
import os
import subprocess
from pathlib import Path

import tests.made.networks  # noqa: F401, which reads the backbone once
from tests.made import EGO, ROOT
from tests.made.processed import create_pairs, make_take
from train import train

TRAINING_SPLITS = {"train": ["uid-a", "uid-b", "uid-c"], "val": ["uid-d"]}
FRAMES = [0, 30, 60, 90]
RECIPE = (
    "--backbone efficientnet_lite0 --mode tiny --input_size 48 --batch-pos 2 --warmUpIter 3 --iter-epoch 4 --n-epoch 1"
    " --val_size 4 --num_workers 0 --log_every 1 --save_every 0 --device cpu"
)


def layout(uid: str) -> dict:
    """Each take has two objects that no other take has, and a knife, which all takes have. The lid is out of each exo
    camera's view at some frames.
    """
    return {
        f"{uid} cup_0": {EGO: FRAMES, "cam01": FRAMES},
        f"{uid} lid_0": {EGO: FRAMES, "cam01": FRAMES[:2], "cam02": FRAMES[1:]},
        "knife_0": {EGO: FRAMES[:3], "cam02": FRAMES},
    }


def make_training_set(root: Path, splits: dict[str, list[str]] = TRAINING_SPLITS) -> Path:
    """Write processed takes and their pairs; returns the data folder."""
    for seed, uid in enumerate(uid for uids in splits.values() for uid in uids):
        make_take(root / "processed", uid, layout(uid), seed)
    (root / "split.json").write_text(json.dumps(splits))
    run = create_pairs(root / "processed")
    assert run.returncode == 0, run.stderr
    return root / "processed"


def arguments(data_dir: Path, out_dir: Path, *flags: object) -> list[str]:
    """The words of the command line; the strong recipe fits its choice to few pairs and mines nothing, unless `flags`
    say otherwise.
    """
    for name, *values in (("--fit_share", 0.1), ("--mine_epochs",)) if "strong" in flags else ():
        if name not in flags:
            flags = (*flags, name, *values)
    return [*RECIPE.split(), *map(str, ["--train-dir", data_dir, "--out-dir", out_dir, *flags])]


def run_training(data_dir: Path, out_dir: Path, *flags: object) -> int | None:
    """Run train.py in this process."""
    return train.main(arguments(data_dir, out_dir, *flags))


def start_training(python: Path, data_dir: Path, out_dir: Path, *flags: object, processes: int = 1) -> subprocess.Popen:
    """Start run_ego.sh with the interpreter `python` and this number of processes. To wait for all of them, also the
    loader processes, read its output to the end.
    """
    command = ["bash", str(ROOT / "train/run_ego.sh"), *arguments(data_dir, out_dir, *flags)]
    environment = {**os.environ, "PYTHON": str(python), "NPROC": str(processes)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def log_lines(out_dir: Path, kind: str) -> list[dict]:
    lines = [json.loads(line) for line in (out_dir / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def losses(out_dir: Path) -> dict[int, float]:
    """Training loss by step."""
    lines = log_lines(out_dir, "train")
    assert len({line["step"] for line in lines}) == len(lines)
    return {line["step"]: line["loss"] for line in lines}
