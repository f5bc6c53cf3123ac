"""What tells later how a file was made: when, by which command, by which commit of this code."""

import shlex
import subprocess
import sys
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def provenance() -> dict[str, str | None]:
    """`{"date", "command", "commit"}` of this process. The commit ends with `+` if files differ from it; None without
    git."""
    command = shlex.join(["python", *sys.argv])
    return {"date": datetime.now().astimezone().isoformat(timespec="seconds"), "command": command, "commit": _commit()}


def _commit() -> str | None:
    commit = _git("rev-parse", "HEAD")
    changed = commit and _git("status", "--porcelain", "--untracked-files=no")
    return f"{commit}+" if changed else commit


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
