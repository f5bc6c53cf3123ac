"""common/errors.py: what a user can cause ends in one line."""

import os
import signal
import subprocess
import sys

import pytest

from tests.made import ROOT
from tests.test_structure import SCRIPTS

SLOW_IMPORT = "import time; print('importing', flush=True); time.sleep(60)"


@pytest.mark.parametrize(
    "script", [path for path in SCRIPTS if path.parent.name != "benchmarks"], ids=lambda path: path.name
)
def test_ctrl_c_while_a_script_imports_what_it_needs_is_one_line(tmp_path, script):
    for name in ("cv2", "matplotlib", "numpy", "torch", "tqdm"):
        (tmp_path / f"{name}.py").write_text(SLOW_IMPORT)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, script, "--help"], env=environment, **pipes)
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert (process.returncode, stderr) == (130, "interrupted; run the same command again to continue\n")


def test_a_program_that_is_not_ours_keeps_its_way_with_ctrl_c():
    script = "import signal, formats.takes; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "True\n"


def test_what_the_terminal_cannot_show_is_escaped():
    script = r"from common.errors import run_script; run_script(lambda: print('240\u00d7240 \ud800'))"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "240\\xd7240 \\ud800\n", "")
