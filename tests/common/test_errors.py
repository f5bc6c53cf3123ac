"""common/errors.py: what a user can cause ends in one line."""

import os
import re
import signal
import subprocess
import sys

from tests.made import ROOT
from tests.test_structure import SCRIPTS


def test_a_python_without_the_requirements_is_told_so_in_one_line_by_every_script(tmp_path):
    for script in SCRIPTS:
        if script.parent.name == "benchmarks":
            continue
        words = [sys.executable, "-E", "-S", script, "--help"]  # -S: without installed packages
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 1, script
        assert re.match(rf"error: {re.escape(sys.executable)} has no module \w+; activate", done.stderr), script
        assert done.stderr.count("\n") == 1 and "pip install -r requirements.txt" in done.stderr


def test_ctrl_c_during_the_imports_of_a_script_shows_no_traceback(tmp_path):
    for name in ("torch", "numpy", "cv2"):
        (tmp_path / f"{name}.py").write_text("import time; print('importing', flush=True); time.sleep(60)")
    for script in ("eval_segswap.py", "train/train.py", "data/process_data.py"):
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen([sys.executable, ROOT / script], env=environment, **pipes) as process:
            assert process.stdout.readline() == "importing\n"
            process.send_signal(signal.SIGINT)
            assert process.communicate()[1] == "interrupted; run the same command again to continue\n", script


def test_what_the_terminal_cannot_show_is_escaped():
    script = r"from common.errors import run_script; run_script(lambda: print('240\u00d7240 \ud800'))"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "240\\xd7240 \\ud800\n", "")
