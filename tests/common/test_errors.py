"""Errors that a user can cause end in one line, and so do wrong options; --help names the defaults of a script."""

import ast
import os
import re
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from torch.distributed import TCPStore

from common import progress
from common.arguments import Parser, add_data_path, add_num_workers, add_setting, at_least
from common.errors import UserError, is_first_to_fail
from tests.made import ROOT
from tests.made.processes import exit_status
from tests.test_structure import SCRIPTS


def test_a_python_without_the_requirements_is_told_so_in_one_line_by_every_script(tmp_path):
    for script in SCRIPTS:
        words = [sys.executable, "-E", "-S", script, "--help"]  # -S: without installed packages
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 1, script
        assert re.match(rf"error: {re.escape(sys.executable)} has no module \w+; activate", done.stderr), script
        assert done.stderr.count("\n") == 1 and "pip install -r requirements.txt" in done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_an_older_python_is_told_so_in_one_line_by_every_script(script, monkeypatch):
    for path in (script, ROOT / "common" / "__init__.py", ROOT / "common" / "start.py"):
        ast.parse(path.read_text(), feature_version=(3, 6))  # a SyntaxError would come before any line
    tree = ast.parse(script.read_text()).body
    before = next(number for number, node in enumerate(tree) if ast.unparse(node) == "start(__name__)")
    imports = [ast.unparse(node) for node in tree[:before] if isinstance(node, ast.Import | ast.ImportFrom)]
    assert {*imports} <= {"import sys", "from pathlib import Path", "from common.start import start"}
    monkeypatch.setattr(sys, "version_info", (3, 9, 18, "final", 0))
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(script), run_name="__main__")
    assert end.value.code.startswith(f"error: {sys.executable} is Python 3.9, and this needs 3.10 or newer; activate")


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
    script = r"from common.errors import *; warn_once('cup\n\x1b[2J'); run_script(lambda: print('240\u00d7240 \ud800'))"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True)
    expected = "240\\xd7240 \\ud800\n", "warning: cup\\n\\x1b[2J\n"  # names of files may hold all of these
    assert (done.returncode, done.stdout, done.stderr) == (0, *expected)


def test_a_jobs_log_has_progress_and_the_time_left_in_lines(monkeypatch, capsys):
    assert list(progress.progress("abc", "segment", 3, "pair")) == [*"abc"] and capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "EVERY", 0)
    assert list(progress.progress("abc", "segment", 3, "pair")) == [*"abc"]
    lines = capsys.readouterr().err.splitlines()
    assert all(re.fullmatch(r"segment: \d of 3 pairs, [?\d:]+ left", line) for line in lines) and len(lines) >= 3


@pytest.mark.parametrize("lines", [1, 99999])
def test_a_script_whose_output_nobody_reads_ends_without_a_word(lines):
    reader, writer = os.pipe()
    os.close(reader)  # as `| tail -n 0` does
    script = f"from common.errors import run_script; run_script(lambda: print('line\\n' * {lines}))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.fixture
def torchrun(monkeypatch):
    """What processes of torchrun find; calling it begins another process."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    for name, value in (place | {"TORCHELASTIC_USE_AGENT_STORE": "True"}).items():
        monkeypatch.setenv(name, value)
    is_first_to_fail.cache_clear()
    yield is_first_to_fail.cache_clear
    is_first_to_fail.cache_clear()


def test_of_several_processes_the_first_that_fails_tells_why(torchrun, parser, capsys, monkeypatch):
    def fail():
        raise UserError("a GPU is full")

    for said in ("error: a GPU is full\n", ""):
        assert exit_status(fail) == 1 and capsys.readouterr().err == said
        assert is_first_to_fail() == bool(said)  # it stays so, since Python asks again before it shows a traceback
        torchrun()
    with pytest.raises(SystemExit):
        parser.parse_args(["--slow"])
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")  # they all were started again
    torchrun()
    assert exit_status(fail) == 1 and capsys.readouterr().err == "error: a GPU is full\n"


@pytest.fixture
def parser():
    parser = Parser("First line.\n\n    a command\n")
    add_setting(parser)
    add_data_path(parser)
    add_num_workers(parser)
    parser.add_argument("--out_path", type=Path, default=Path("results"), help="a folder")
    parser.add_argument("--ckpt_path", type=Path, help="a file")
    parser.add_argument("--batch-pos", type=int, nargs="+", default=[8, 16], help="in pairs")
    parser.add_argument("--accept", action="append", default=[], help="in words")
    parser.add_argument("--size", type=at_least(0, float), default=0, help="in pixels")
    parser.add_argument("--fast", action="store_true", help="or slow")
    return parser


def test_unknown_and_shortened_flags_are_named_in_one_line(parser, capsys):
    with pytest.raises(SystemExit) as end:
        parser.parse_args(["--settings", "ego-exo", "--out=3"])  # --setting is missing
    line = "error: there is no --settings, but --setting; there is no --out, but --out_path; see --help\n"
    assert capsys.readouterr().err == line and end.value.code == 2


def test_help_keeps_the_docstrings_lines_and_names_defaults_as_a_user_would_type_them(parser, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    text = parser.format_help()
    assert "First line.\n\n    a command\n" in text
    for line in ("in pixels (default: 0)", "a folder (default: results)", "in pairs (default: 8 16)", "in words\n"):
        assert line in text
    assert "None" not in text and "False" not in text


@pytest.mark.parametrize("flags", [["--size", "-1"], ["--size", "nan"], ["--size", "big"], ["--num_workers", "-2"]])
def test_a_number_out_of_range_is_refused_in_one_line(parser, flags, capsys):
    with pytest.raises(SystemExit):
        parser.parse_args(["--setting", "ego-exo", *flags])
    (line,) = capsys.readouterr().err.splitlines()
    assert f"argument {flags[0]}: " in line and flags[1] in line
