"""How a file was made, to be written into it: when, by which command, by which commit of this code."""

import shlex
import subprocess
import sys
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def provenance() -> dict[str, str | None]:
    """`{"date", "command", "commit"}`. The commit ends with `+` if files differ from it, and is None without git."""
    date = datetime.now().astimezone().isoformat(timespec="seconds")
    commit = _git("rev-parse", "HEAD")
    if commit and _git("status", "--porcelain", "--untracked-files=no"):
        commit += "+"
    return {"date": date, "command": shlex.join(["python", *sys.argv]), "commit": commit}


def _git(*arguments: str) -> str | None:
    try:
        # Without locks, because a lock that a killed process left would stop git's user.
        command = ["git", "--no-optional-locks", "-C", str(ROOT), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
