"""What a run leaves in its folder, and which checkpoint a training into that folder starts from."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from formats.errors import UserError
from model.weights import read_torch
from train.log import LOG_NAME

LAST, BEST, WARMUP = "netLast.pth", "netBest.pth", "net_warmup.pth"


def find_start(
    out_dir: Path, resume_pth: str | None, recipe: dict[str, Any], defaults: Mapping[str, Any]
) -> Path | None:
    """The checkpoint that a training into `out_dir` starts from; None if from none.

    The folder's own last one, if that run is of the same recipe, else the one that is named. `auto` continues whatever
    is there. A run from before an option came has `defaults` for it. Raises UserError if the folder holds another run,
    which would be lost.
    """
    last, named = out_dir / LAST, None if resume_pth in (None, "auto") else Path(resume_pth)
    held = [path for path in run_files(out_dir) if path.name not in (WARMUP, LOG_NAME)]
    if not held:
        return named
    ways = "give another --out-dir, or --overwrite to lose it"
    if not last.exists():
        raise UserError(
            f"{out_dir} holds {held[0].name} of a run and no {LAST} to continue: {ways}; or --resume-pth it"
        )
    if resume_pth == "auto" or (named and named.exists() and named.samefile(last)):
        return last
    content = read_torch(last, ways)
    before = arguments_of(content if isinstance(content, dict) else {}, last)
    if before:  # a published checkpoint tells nothing
        before = {**defaults, **before}
    if named:
        recipe = recipe | {"resume_pth": resume_pth}
    changes = [
        f"{name} {before[name]} -> {value}" for name, value in recipe.items() if before.get(name, value) != value
    ]
    if changes:
        what = f"a run of another recipe ({', '.join(changes[:3])})"
        raise UserError(f"{out_dir} holds {what}: continue it with --resume-pth auto, {ways}")
    return last


def arguments_of(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The flags of the training that wrote the checkpoint `path`; a published one does not tell."""
    arguments = content.get("arguments", {})
    if not isinstance(arguments, dict):
        raise UserError(f"{path} does not hold the state of a training: its arguments are malformed")
    return arguments


def run_files(out_dir: Path) -> list[Path]:
    """What a run has left in its folder, but for what TensorBoard reads."""
    names = (LAST, BEST, WARMUP, "net[0-9][0-9][0-9]*.pth", LOG_NAME)
    return [path for name in names for path in sorted(out_dir.glob(name))]


def remove_run(out_dir: Path, keep: Path | None) -> None:
    """Delete what a run has left in its folder, but for a checkpoint to start from."""
    for path in run_files(out_dir):
        if not (keep and path.samefile(keep)):
            path.unlink()
    shutil.rmtree(out_dir / "tensorboard", ignore_errors=True)
