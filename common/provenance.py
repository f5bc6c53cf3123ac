"""How a file was made, to be written into it: when, by which command, by which commit of this code."""

import contextlib
import os
import shlex
import subprocess
import sys
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def provenance() -> dict[str, str | None]:
    """`{"date", "command", "commit"}`. The commit ends with `+` if files differ from it, and is None without git, or
    where this code is a part of another repository.
    """
    date, commit = datetime.now().astimezone().isoformat(timespec="seconds"), None
    # Without locks, because a lock that a killed process left would stop git's user.
    status = ["git", "--no-optional-locks", "-C", ROOT, "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(ROOT.parent)}  # git does not look for .git above ROOT
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(status, capture_output=True, text=True, timeout=10, check=True, env=environment)
        first, *others = done.stdout.splitlines()
        commit = first.removeprefix("# branch.oid ") + "+" * any(line[0] != "#" for line in others)
    return {"date": date, "command": shlex.join(["python", *sys.argv]), "commit": commit}
