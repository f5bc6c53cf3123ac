"""quickstart.sh runs with one short take of each split and a few steps, in the environment of the tests."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.made.checkout import copy_repository

SMALL = """#!/bin/sh
case "$1" in
  *make_takes.py) set -- "$@" --size tiny --num_frames 31 --num_exo 1 ;;
  *train.py) set -- "$@" --n-epoch 1 --batch-pos 2 --val_size 4 ;;
esac
exec "{}" "$@"
"""


@pytest.mark.slow
def test_the_quickstart_goes_through_every_stage_and_installs_nothing_where_it_is_given_an_interpreter(
    tmp_path, warm_python
):
    folder = copy_repository(tmp_path / "house")
    python = tmp_path / "bin" / "python3-small"  # beside which no `python` lies
    python.parent.mkdir()
    python.write_text(SMALL.format(warm_python))
    python.chmod(0o755)
    small = {"QUICKSTART_TAKES": "1", "QUICKSTART_STEPS": "1", "QUICKSTART_DIR": str(tmp_path / "out")}
    environment = {**os.environ, **small, "PYTHON": str(python), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(["bash", "quickstart.sh"], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert not (folder / ".venv").exists() and "pip install" not in done.stdout
    for name in ("ego-exo.jpg", "exo-ego.jpg", "ego-exo_report/index.html", "exo-ego_report/index.html"):
        assert (tmp_path / "out" / name).stat().st_size > 1000
    names = [line.removeprefix("-> ") for line in done.stdout.splitlines() if line.startswith("-> ")]
    plain = [name for name in names if not re.search(r"[*{<]", name)]
    assert len(plain) > 5 and all(Path(name).exists() for name in plain)
