"""A copy of the repository, for tests that run its commands with their default paths."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.made import ROOT


def copy_repository(folder: Path) -> Path:
    """Copy all files that git tracks, in their present state."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("needs a git checkout")
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():  # it may be deleted
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder
