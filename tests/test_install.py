"""pyproject.toml and setup.py: the modules that `pip install -e .` makes importable anywhere; hubconf.py."""

import importlib.metadata
import importlib.util
import os
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.constants import SHIPPED
from tests.made import ROOT
from tests.made.processes import copy_repository

BUILD = "from setuptools.build_meta import build_editable; print(build_editable('wheel'))"
FIND = """
import importlib.util, site, sys
site.addsitedir(sys.argv[1])
print(importlib.util.find_spec("inference.predictor").origin)
"""
COMMIT = "from common.provenance import provenance; print(provenance()['commit'])"
HUB = """
import common  # the caller's
import sys, torch
repository, network, *pair = sys.argv[1:]
for _ in range(2):
    predictor = torch.hub.load(repository, "xsegtx_tiny", source="local", device="cpu")
mask, existence = predictor.segment(*pair)
predictor = torch.hub.load(repository, "xsegtx", source="local", checkpoint=network, device="cpu")
assert 0 < predictor.segment(*pair)[1] < 1 and predictor.recipe.config.input_size == 96
content = torch.load(network, weights_only=True)
torch.save({**content, "recipe": "mine.py:Mine"}, "mine.pth")
own = {"checkpoint": "mine.pth", "recipe": "mine.py:Mine"}
predictor = torch.hub.load(repository, "xsegtx", source="local", device="cpu", **own)
assert 0 < predictor.segment(*pair)[1] < 1 and type(predictor.recipe).__name__ == "Mine"
import evaluation.own
assert common.VALUE + evaluation.own.VALUE == 3 and sys.modules["common"] is common
print(round(mask.mean(), 6), round(existence, 3))
"""
OWN_RECIPE = """
from recipes.strong.recipe import Strong
from recipes.strong.training import StrongTraining

class Mine(Strong):
    Training = StrongTraining
"""
SAMPLE = ROOT / "assets" / "samples" / "jar"
PAIR = [str(SAMPLE / name) for name in ("query.jpg", "query_mask.png", "target.jpg")]


def run(folder: Path, *words: object, python: str | Path = sys.executable, **variables: str) -> str:
    """What a Python that is started in `folder` prints."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
    command = [python, *map(str, words)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_finds_the_jar(said: str) -> None:
    share, existence = map(float, said.split())
    truth = np.asarray(Image.open(SAMPLE / "target_mask.png").convert("L")) > 0
    assert abs(share / truth.mean() - 1) < 0.2 and existence > 0.9


def has_setuptools() -> bool:
    """Not by importing it: it would replace the distutils of Python, which another test may have imported."""
    try:
        return int(importlib.metadata.version("setuptools").split(".")[0]) >= 77
    except importlib.metadata.PackageNotFoundError:
        return False


needs_setuptools = pytest.mark.skipif(not has_setuptools(), reason="needs setuptools 77")


@needs_setuptools
def test_an_editable_install_finds_the_modules_of_the_clone_from_anywhere(tmp_path):
    """As pip does it, without pip: it would ask a package registry."""
    folder = copy_repository(tmp_path / "clone")
    run(folder, "-c", BUILD)
    (wheel,) = (folder / "wheel").glob("xsegtx-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
        (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        text = archive.read(metadata).decode()
    assert "Requires-Dist: torch>=" in text and 'Requires-Dist: gradio<7,>=6.24; extra == "demo"' in text
    assert run(tmp_path, "-c", FIND, tmp_path / "site") == f"{folder / 'inference' / 'predictor.py'}\n"


@needs_setuptools
def test_a_plain_install_is_refused_because_its_packages_have_names_of_others(tmp_path):
    pytest.importorskip("pip")
    folder, site = copy_repository(tmp_path / "clone"), tmp_path / "site"
    how = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--target", site]
    command = [sys.executable, "-m", "pip", "install", "--quiet", *how, folder]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode and "XSegTx runs from its clone: give `pip install -e .`, or" in done.stderr
    assert not site.exists() or not list(site.iterdir())


def test_a_copy_without_git_names_no_commit_of_whose_folder_it_is_in(tmp_path):
    shutil.copytree(ROOT / "common", tmp_path / "common")
    committer = "-c", "user.name=you", "-c", "user.email=you@there"
    for words in (("init",), (*committer, "commit", "--allow-empty", "-m", "Begin")):
        subprocess.run(["git", "-C", tmp_path, *words], check=True, capture_output=True)
    assert run(tmp_path / "common", "-c", COMMIT, PYTHONPATH=str(tmp_path)) != "None\n"
    (tmp_path / "xsegtx").mkdir()
    (tmp_path / "common").rename(tmp_path / "xsegtx" / "common")
    assert run(tmp_path, "-c", COMMIT, PYTHONPATH=str(tmp_path / "xsegtx")) == "None\n"


def test_what_the_hub_lacks_is_said_in_one_line_before_anything_is_imported(monkeypatch):
    hubconf = ROOT / "hubconf.py"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("cv2", "timm") else name)
    with pytest.raises(ImportError, match="^cv2, timm not installed; run pip install -r .*requirements.txt$"):
        runpy.run_path(str(hubconf))


def test_torch_hub_loads_the_predictor_beside_modules_of_the_callers_with_names_of_ours(
    strong_checkpoint, tmp_path, warm_python
):
    (tmp_path / "common.py").write_text("VALUE = 1")
    (tmp_path / "mine.py").write_text(OWN_RECIPE)
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "own.py").write_text("VALUE = 2")

    assert SHIPPED.stat().st_size < 5e6
    assert_finds_the_jar(run(tmp_path, "-c", HUB, ROOT, strong_checkpoint, *PAIR, python=warm_python))


PYTHON = """#!/bin/sh
case "$*" in
  "-m pip config list") cat pip_config ;;
  -) exec {python} -S - ;; # which sees no packages but those of .venv
  *uv) exit 1 ;;
  "-m pip install"*) echo "${{0##*/}} $*" && cat pip_errors >&2 && ! [ -s pip_errors ] ;;
esac
"""
UV = """#!/bin/sh
if [ "$1" = cache ]; then echo "$PWD/cache" && exit; fi
echo "uv $*" && env | sort | grep -E "^(UV_|SSL_CERT_FILE)" && exit "$(cat uv_status)"
"""


@pytest.fixture
def set_up(tmp_path):
    """Runs setup_env with these settings of pip; Python, pip and uv are stand-ins that print how they are called."""
    stand_ins = {".venv/bin/python": PYTHON.format(python=sys.executable), "bin/uv": UV, "requirements.txt": "absent"}
    for name, text in stand_ins.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    theirs = ("PYTHON", "VIRTUAL_ENV", "CONDA_PREFIX", "SSL_CERT_FILE", "PYTHONDONTWRITEBYTECODE")
    environment = {
        name: value for name, value in os.environ.items() if name not in theirs and not name.startswith("UV_")
    }
    environment["PATH"] = f"{tmp_path}/bin:/usr/bin:/bin"
    script = f"set -eu; source {ROOT}/tests/setup_env.sh; setup_env requirements.txt"

    def run_it(pip_config="", pip_errors="", uv_status=0):
        for name, text in (("pip_config", pip_config), ("pip_errors", pip_errors), ("uv_status", str(uv_status))):
            (tmp_path / name).write_text(text)
        for stamp in (tmp_path / ".venv").glob(".installed*"):
            stamp.unlink()
        how = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
        return subprocess.run(["bash", "-c", script], **how)

    return run_it


UV_INSTALLS = "uv pip install -r requirements.txt\n"
PIP_INSTALLS = "python -m pip install --quiet --no-compile --disable-pip-version-check -r requirements.txt\n"


def test_uv_installs_with_what_pip_is_configured_with_else_pip_does(set_up):
    assert UV_INSTALLS in set_up().stdout
    strongest_first = (
        ":env:.index-url='https://a'\n:env:.cert=''\nglobal.index-url='https://b'\nglobal.constraint='/c'\n"
    )
    links = "global.find-links='/opt/wheels'\nglobal.cert='/d.crt'\n:env:.disable-pip-version-check='1'\n"
    said = set_up(strongest_first + links).stdout
    told = [line.strip() for line in said.partition(UV_INSTALLS)[2].splitlines() if "=" in line]
    assert [line for line in told if not line.startswith("UV_CACHE_DIR")] == [
        *("SSL_CERT_FILE=/d.crt", "UV_CONSTRAINT=/c", "UV_DEFAULT_INDEX=https://a", "UV_FIND_LINKS=/opt/wheels"),
        "UV_PYTHON=.venv/bin/python",
    ]
    for unknown in ("extra-index-url='https://c'", "no-index='1'", "find-links='/a /b'", "constraint='/a\\n/b'"):
        said = set_up(f":env:.{unknown}\n").stdout
        assert PIP_INSTALLS in said and UV_INSTALLS not in said, said
    assert PIP_INSTALLS in set_up(uv_status=2).stdout.partition(UV_INSTALLS)[2]


def test_what_keeps_the_requirements_out_of_venv_is_said_in_one_line(set_up, tmp_path):
    done = set_up(":env:.target='/opt/site'\nglobal.index-url='https://a'\n")
    said = (
        "error: pip is set to install elsewhere than into .venv (PIP_TARGET='/opt/site'); unset this and run this again"
    )
    assert (done.returncode, done.stderr) == (1, f"{said}\n") and PIP_INSTALLS not in done.stdout
    venv = tmp_path / ".venv"
    venv.rename(tmp_path / "elsewhere")
    for make, what in (
        (venv.touch, "a file, and"),
        (lambda: venv.symlink_to("gone"), "a link to gone, which is not there"),
    ):
        make()
        done = set_up()
        assert done.returncode == 1 and done.stderr.startswith(f"error: .venv is {what}"), done.stderr
        assert done.stderr.count("\n") == 1
        venv.unlink()


def test_without_network_one_line_says_so(set_up):
    broken = "WARNING: Retrying after connection broken by 'NewConnectionError(...)': /simple/absent\n"
    done = set_up(pip_errors=broken * 5 + "ERROR: No matching distribution found for absent\n", uv_status=2)
    assert done.returncode == 1
    assert done.stderr == "error: no network: pip cannot reach its package index; connect, and run this again\n"
    done = set_up(pip_errors="ERROR: No space left on device\n", uv_status=2)
    assert done.stderr == "ERROR: No space left on device\nerror: pip could not install requirements.txt\n"


def test_what_a_killed_installation_left_in_part_is_installed_again(set_up, tmp_path):
    site = tmp_path / ".venv" / "lib" / "python3.11" / "site-packages"
    for name, installer, text in (("whole", "uv", "1234"), ("short", "uv", "12"), ("early", "", "1234")):
        record = site / f"{name}-1.0.dist-info"
        record.mkdir(parents=True)
        (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (record / "RECORD").write_text(f"{name}.py,,4\n{name}-1.0.dist-info/METADATA,,\n")
        (record / "INSTALLER").write_text(installer)
        (site / f"{name}.py").write_text(text)
    set_up()
    assert len([*site.glob("*.dist-info")]) == 3  # nothing was killed: they are left alone
    (tmp_path / ".venv" / ".installing").touch()
    assert UV_INSTALLS in set_up().stdout
    assert [path.name for path in site.glob("*.dist-info")] == ["whole-1.0.dist-info"]
    assert not (tmp_path / ".venv" / ".installing").exists()
