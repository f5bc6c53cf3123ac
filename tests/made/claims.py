"""Another process that writes where the tested one wants to."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.made import ROOT

HOLD = """import sys
from pathlib import Path
from common.files import claimed
with claimed(Path(sys.argv[1]), sys.argv[2], ""):
    print("claimed", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def claimed_elsewhere(folder: Path, name: str) -> Iterator[subprocess.Popen]:
    """Within the block another process, which is given, has claimed `name` in `folder`."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", HOLD, folder, name], cwd=ROOT, **pipes) as process:
        assert process.stdout.readline() == "claimed\n"
        yield process
        process.stdin.close()
