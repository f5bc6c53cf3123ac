"""pyproject.toml: what `pip install -e .` makes importable from anywhere."""

import os
import subprocess
import sys
import zipfile

import pytest

from tests.made.checkout import copy_repository

BUILD = "from setuptools.build_meta import build_editable; print(build_editable('wheel'))"
USE = "import site, sys; site.addsitedir(sys.argv[1]); from inference.predictor import Predictor; print(Predictor)"


def test_an_editable_install_finds_the_modules_of_the_clone_from_anywhere(tmp_path):
    """As pip does it, without pip: it would ask a package registry."""
    pytest.importorskip("setuptools", "64")
    folder = copy_repository(tmp_path / "clone")
    built = subprocess.run([sys.executable, "-c", BUILD], cwd=folder, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (wheel,) = (folder / "wheel").glob("xsegtx-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
        (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        assert "Requires-Dist: torch>=2.3" in archive.read(metadata).decode()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [sys.executable, "-c", USE, str(tmp_path / "site")]
    used = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert used.stdout == "<class 'inference.predictor.Predictor'>\n", used.stderr
