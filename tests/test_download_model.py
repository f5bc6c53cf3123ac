"""model/pretrained/download_model.sh, fed with a small file of MoCo's form instead of the real one."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torchvision.models import resnet50

from model.backbone import MOCO_PATH, MOCO_RAW_PATH, moco_backbone

SCRIPT = Path(__file__).resolve().parents[1] / "model" / "pretrained" / "download_model.sh"
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl reads the file:// addresses used here")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """The file on the server. Its tensors are views of one number, to keep it small."""
    path = tmp_path_factory.mktemp("server") / "moco.pth.tar"
    with torch.device("meta"):
        tensors = resnet50().state_dict()
    state = {f"module.encoder_q.{name}": torch.ones((), dtype=t.dtype).expand(t.shape) for name, t in tensors.items()}
    torch.save({"epoch": 800, "arch": "resnet50", "state_dict": state, "optimizer": {}}, path)
    return path


def run(folder: Path, source: Path, **environment: str) -> subprocess.CompletedProcess:
    environment = {
        "MOCO_URL": source.as_uri(),
        "MOCO_MD5": hashlib.md5(source.read_bytes()).hexdigest()[:8],
        "MOCO_DIR": str(folder),
        "PYTHON": sys.executable,
        **environment,
    }
    return subprocess.run(["bash", SCRIPT], env=os.environ | environment, capture_output=True, text=True)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@needs_curl
def test_an_interrupted_download_is_continued_converted_and_not_repeated(source, tmp_path):
    half = source.read_bytes()[: source.stat().st_size // 2]
    (tmp_path / f"{MOCO_RAW_PATH.name}.part").write_bytes(half)
    first = run(tmp_path, source)
    assert first.returncode == 0, first.stderr
    assert names(tmp_path) == {MOCO_RAW_PATH.name, MOCO_PATH.name}
    assert (tmp_path / MOCO_RAW_PATH.name).read_bytes() == source.read_bytes()
    assert moco_backbone(tmp_path / MOCO_PATH.name).network[0].weight.eq(1).all()
    again = run(tmp_path, source, MOCO_URL="file:///nowhere")
    assert again.returncode == 0 and "there already" in again.stdout


@needs_curl
def test_a_file_with_another_md5_is_deleted_and_refused(source, tmp_path):
    result = run(tmp_path, source, MOCO_MD5="00000000")
    assert result.returncode != 0
    assert result.stderr.splitlines()[-1].startswith("error: the md5 of file://")
    assert names(tmp_path) == set()


@needs_curl
def test_an_address_that_does_not_answer_is_named(source, tmp_path):
    result = run(tmp_path, source, MOCO_URL=(tmp_path / "absent").as_uri())
    assert result.returncode != 0
    assert "absent; run again to continue" in result.stderr.splitlines()[-1]


@needs_curl
def test_a_file_that_is_no_moco_model_is_refused_without_a_traceback(tmp_path):
    other = tmp_path / "other.pth"
    torch.save({"model": {}}, other)
    result = run(tmp_path / "weights", other)
    assert result.returncode != 0
    assert result.stderr.splitlines()[-1].startswith("error: ") and "Traceback" not in result.stderr
    assert names(tmp_path / "weights") == {MOCO_RAW_PATH.name}


def commands(folder: Path, *wanted: str) -> str:
    """A PATH that has these commands only."""
    folder.mkdir()
    for command in wanted:
        (folder / command).symlink_to(shutil.which(command))
    return str(folder)


def test_wget_is_used_where_curl_is_missing(source, tmp_path):
    python = tmp_path / "python"  # which converts nothing, to be quick
    python.write_text(f'#!/bin/bash\n[ "$1" = convert_moco.py ] && cp "$2" "$3" || exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    path = commands(tmp_path / "bin", "bash", "dirname", "mkdir", "mv", "rm", "cp")
    wget = tmp_path / "bin" / "wget"
    wget.write_text(
        '#!/bin/bash\n[ "$1 $2 $3 $4" = "--tries 3 --continue --output-document" ] && cp "${6#file://}" "$5"\n'
    )
    wget.chmod(0o755)
    result = run(tmp_path / "weights", source, PATH=path, PYTHON=str(python))
    assert result.returncode == 0, result.stderr
    assert names(tmp_path / "weights") == {MOCO_RAW_PATH.name, MOCO_PATH.name}


def test_without_curl_and_wget_it_says_so(source, tmp_path):
    result = run(tmp_path, source, PATH=commands(tmp_path / "bin", "bash", "dirname", "mkdir", "mv", "rm"))
    assert result.returncode != 0
    assert "neither curl nor wget" in result.stderr.splitlines()[-1]
