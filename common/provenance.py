"""The record of how a file was made, to be written into it: the date, the command and the commit of this code."""

import contextlib
import os
import shlex
import subprocess
import sys
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def provenance() -> dict[str, str | None]:
    """`{"date", "command", "commit"}`. The commit ends with `+` if files differ from the commit. The commit is None
    without git, and if this code lies inside another repository.
    """
    date, commit = datetime.now().astimezone().isoformat(timespec="seconds"), None
    # git must take no lock: if this process were killed, the lock would stay and stop the user's next git command.
    status = ["git", "--no-optional-locks", "-C", ROOT, "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(ROOT.parent)}  # git does not look for .git above ROOT
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(status, capture_output=True, text=True, timeout=10, check=True, env=environment)
        first, *others = done.stdout.splitlines()
        is_changed = any(line[0] != "#" for line in others)
        commit = first.removeprefix("# branch.oid ") + ("+" if is_changed else "")
    return {"date": date, "command": shlex.join(["python", *sys.argv]), "commit": commit}
