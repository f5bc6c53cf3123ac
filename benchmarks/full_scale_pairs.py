"""Pairs and masks at the size of the real benchmark: 1,317 takes, 5.5 objects each, 173 frames an object.

    python benchmarks/full_scale_pairs.py

Writes processed takes without frames (2.2 million masks, 2 GB; kept in --folder for the next run), then measures
create_pairs.py on all splits and both settings, opening the training set, and what a loader worker adds. Linux only.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # repository root

import numpy as np
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from formats.arguments import Parser
from formats.files import write_json
from formats.masks import encode_mask
from formats.pairs import PairSet

TAKES = {"train": 821, "val": 201, "test": 295}
MEAN_OBJECTS, MEAN_FRAMES, VISIBLE = 5.5, 173, 0.83
EGO, EXO = ("aria01_214-1", (1408, 1408), 120), ("cam01", (2160, 3840), 93)  # camera, video (H, W), radius of an object


def random_masks(rng: np.random.Generator, size: tuple[int, int], radius: float, count: int) -> list[str]:
    """`count` wobbly blobs as JSON text, like masks drawn by hand: about two runs a column."""
    rows, cols = np.ogrid[: size[0], : size[1]]
    masks = []
    for _ in range(count):
        y, x = rng.uniform(0.2, 0.8, 2) * size
        angle = np.arctan2(rows - y, cols - x)
        a, b, c = rng.uniform(0, 0.2, 3)
        edge = radius * rng.lognormal(0, 0.4) * (1 + a * np.sin(3 * angle + a) + b * np.sin(11 * angle) + c / 3)
        masks.append(json.dumps(encode_mask((rows - y) ** 2 + (cols - x) ** 2 < edge**2)))
    return masks


def write_takes(data_dir: Path, seed: int = 0) -> None:
    """One annotation.json a take, and split.json beside the folder."""
    rng = np.random.default_rng(seed)
    pools = {camera: np.array(random_masks(rng, size, radius, 200), object) for camera, size, radius in (EGO, EXO)}
    uids = {
        split: [f"{split}-{number:04d}-0000-0000-000000000000" for number in range(n)] for split, n in TAKES.items()
    }
    for uid in tqdm([uid for split in uids.values() for uid in split], "writing", unit="take"):
        objects = []
        for number in range(1 + rng.poisson(MEAN_OBJECTS - 1)):
            frames = 30 * np.arange(max(1, int(rng.gamma(2, MEAN_FRAMES / 2))))
            seen = {EGO[0]: frames, EXO[0]: frames[rng.random(len(frames)) < VISIBLE]}
            cameras = []
            for camera, pool in pools.items():
                masks = zip(seen[camera], rng.choice(pool, len(seen[camera])), strict=True)
                cameras.append(f'"{camera}": {{{", ".join(f"{chr(34)}{f}{chr(34)}: {mask}" for f, mask in masks)}}}')
            objects.append(f'"object {number}_0": {{{", ".join(cameras)}}}')
        (data_dir / uid).mkdir(parents=True, exist_ok=True)
        (data_dir / uid / "annotation.json").write_text(f'{{"masks": {{{", ".join(objects)}}}, "subsample_idx": [0]}}')
    write_json(data_dir.parent / "split.json", uids)


def measure(command: list[str]) -> tuple[float, float]:
    """Run a command -> (wall seconds, peak memory in MB)."""
    start, peak = time.perf_counter(), 0.0
    process = subprocess.Popen(command)
    while process.poll() is None:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, StopIteration):  # it has just ended
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            peak = max(peak, next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")))
        time.sleep(0.02)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed")
    return time.perf_counter() - start, peak


def private_memory() -> float:
    """Memory that belongs to this process alone, in MB."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private")) / 1024


class Masks(Dataset):
    """What a training sample looks up, without the frames; returns the worker's memory before and after it."""

    def __init__(self, pairs: PairSet) -> None:
        self.pairs = pairs
        self.before: float | None = None

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, i: int) -> np.ndarray:
        if self.before is None:
            self.before = private_memory()
        self.pairs.query_mask(i), self.pairs.target_mask(i), self.pairs[i]
        return np.array([os.getpid(), self.before, private_memory()]) if i % 100 == 0 else np.zeros(3)


def open_training_set(data_dir: Path) -> None:
    """Print time and memory of opening the pairs, of reading masks at random, and of loader workers that do so."""
    start, before = time.perf_counter(), private_memory()
    pairs = PairSet.open(data_dir, "train", "ego-exo")
    opened, used = time.perf_counter() - start, private_memory() - before
    print(f"opening {len(pairs):,} pairs: {opened:.1f} s, {used:.0f} MB")
    numbers = np.random.default_rng(0).permutation(len(pairs))
    start = time.perf_counter()
    for i in numbers[:100_000]:
        pairs.query_mask(i), pairs.target_mask(i)
    print(f"query and target mask of a random pair: {(time.perf_counter() - start) * 10:.0f} microseconds")
    sample = numbers[:200_000].tolist()
    for method in ("fork", "spawn"):
        loader = DataLoader(
            Masks(pairs),
            batch_size=32,
            num_workers=2,
            multiprocessing_context=method,
            sampler=sample,
        )
        rows = np.concatenate([batch.numpy() for batch in loader])
        rows = rows[rows[:, 0] > 0]
        growth = max(np.ptp(rows[rows[:, 0] == pid, 1:]) for pid in np.unique(rows[:, 0]))
        print(f"a worker ({method}) grows by {growth:.1f} MB while it reads the masks of 100,000 pairs")


def main() -> None:
    parser = Parser(__doc__)
    default = Path(tempfile.gettempdir()) / "full_scale_pairs"
    parser.add_argument("--folder", type=Path, default=default, help="the takes, kept for the next run")
    parser.add_argument("--open", action="store_true", help=argparse.SUPPRESS)  # the second step, on its own
    args = parser.parse_args()
    data_dir = args.folder / "processed"
    if args.open:
        return open_training_set(data_dir)
    if not (args.folder / "split.json").exists():
        write_takes(data_dir)
    wall, memory = measure([sys.executable, str(ROOT / "data/create_pairs.py"), "--data_dir", str(data_dir)])
    print(f"create_pairs.py, all splits and both settings: {wall:.1f} s, peak {memory:.0f} MB (limits: 60 s, 1000 MB)")
    _, memory = measure([sys.executable, __file__, "--folder", str(args.folder), "--open"])
    print(f"peak of that process, libraries included: {memory:.0f} MB (limits: 10 s, 500 MB)")


if __name__ == "__main__":
    main()
