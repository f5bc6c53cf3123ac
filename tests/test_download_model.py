"""model/pretrained/download_model.sh, fed with a small file instead of the real one."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from model.backbone import MOCO_PATH, MOCO_RAW_PATH

SCRIPT = Path(__file__).resolve().parents[1] / "model" / "pretrained" / "download_model.sh"
CONTENT = bytes(range(256)) * 100
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl reads the file:// addresses used here")


@pytest.fixture
def source(tmp_path) -> Path:
    """The file on the server."""
    path = tmp_path / "server" / "moco.pth.tar"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    return path


def run(folder: Path, source: Path, **environment: str) -> subprocess.CompletedProcess:
    environment = {
        "MOCO_URL": source.as_uri(),
        "MOCO_MD5": hashlib.md5(CONTENT).hexdigest()[:8],
        "MOCO_DIR": str(folder),
        "PYTHON": sys.executable,
        **environment,
    }
    return subprocess.run(["bash", SCRIPT], env=os.environ | environment, capture_output=True, text=True)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@needs_curl
def test_an_interrupted_download_is_continued_and_not_repeated(source, tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / f"{MOCO_RAW_PATH.name}.part").write_bytes(CONTENT[:9000])
    first = run(folder, source)
    assert first.returncode == 0, first.stderr
    assert files(folder) == {MOCO_RAW_PATH.name: CONTENT}
    again = run(folder, source, MOCO_URL="file:///nowhere")
    assert again.returncode == 0 and "already" in again.stdout


def test_the_originals_converted_file_does_as_well(source, tmp_path):
    (source.parent / MOCO_PATH.name).touch()
    assert run(source.parent, source, MOCO_URL="file:///nowhere").returncode == 0


@needs_curl
def test_a_file_with_another_md5_is_deleted_and_refused(source, tmp_path):
    result = run(tmp_path / "weights", source, MOCO_MD5="00000000")
    assert result.returncode != 0
    assert result.stderr.splitlines()[-1].startswith("error: the md5 of file://")
    assert files(tmp_path / "weights") == {}


def test_wget_is_used_where_curl_is_missing(source, tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    for command in ("bash", "dirname", "mkdir", "mv", "rm", "cp"):
        (tools / command).symlink_to(shutil.which(command))
    result = run(tmp_path / "weights", source, PATH=str(tools))
    assert result.returncode != 0 and "neither curl nor wget" in result.stderr.splitlines()[-1]
    wget = tools / "wget"
    wget.write_text(
        '#!/bin/bash\n[ "$1 $2 $3 $4" = "--tries 3 --continue --output-document" ] && cp "${6#file://}" "$5"\n'
    )
    wget.chmod(0o755)
    result = run(tmp_path / "weights", source, PATH=str(tools))
    assert result.returncode == 0, result.stderr
    assert files(tmp_path / "weights") == {MOCO_RAW_PATH.name: CONTENT}
