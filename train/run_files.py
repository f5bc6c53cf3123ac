"""The files of a run in its folder."""

import shutil
from pathlib import Path

from train.log import LOG_NAME

LAST, BEST, WARMUP = "netLast.pth", "netBest.pth", "net_warmup.pth"


def run_files(out_dir: Path) -> list[Path]:
    """The files of a run in its folder, except TensorBoard's files."""
    names = (LAST, BEST, WARMUP, "net[0-9][0-9][0-9]*.pth", LOG_NAME)
    return [path for name in names for path in sorted(out_dir.glob(name))]


def remove_run(out_dir: Path, keep: Path | None) -> None:
    """Delete the files of a run in its folder, except the checkpoint `keep`."""
    for path in run_files(out_dir):
        if not (keep and path.samefile(keep)):
            path.unlink()
    shutil.rmtree(out_dir / "tensorboard", ignore_errors=True)
