"""The README's commands, run as they stand there in a copy of the repository with tiny rendered takes.

What differs: training gets a tiny network and two steps, eight GPUs become one process, and what downloads is replaced
by a stand-in or left out (SKIPPED says why).
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.made.checkout import ROOT, copy_repository

pytestmark = pytest.mark.slow

README = (ROOT / "README.md").read_text()
SKIPPED = {  # beginning of a command -> why it is not run here
    "conda env create": "installs; .ci/run installs the same requirements.txt with pip",
    "python3 -m venv": "installs; so does .ci/run",
    "(cd model/pretrained && bash download_model.sh)": "downloads; tests/test_download_model.py has a server for it",
    "bash data/download_split.sh": "downloads; tests/test_download.py has a server for it",
    "bash quickstart.sh": "tests/test_quickstart.py runs it",
    "bash tests/run.sh": "is what runs this test",
    "python inference/demo.py": "serves until it is stopped; tests/test_demo.py opens its page",
}
TINY_TRAINING = (
    " --backbone efficientnet_lite0 --mode tiny --input_size 64 --batch-pos 2 --warmUpIter 2 --n-epoch 1 --iter-epoch 2"
    " --val_size 4 --num_workers 0 --device cpu"
)
SMALL_TAKES = ["--size", "tiny", "--num_train", "2", "--num_val", "1", "--num_test", "1", "--num_frames", "31"]


def section(title: str) -> str:
    level = re.search(rf"^(#+) {re.escape(title)}", README, re.MULTILINE)[1]
    return re.search(rf"^{level} {re.escape(title)}.*?\n(.*?)(?=^#{{1,{len(level)}}} |\Z)", README, re.M | re.S)[1]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def lines_of(block: str) -> list[str]:
    return [line.split(" #")[0].strip() for line in block.strip().replace("\\\n", "").splitlines()]


class Shell:
    """Runs commands one after the other; `cd` holds for those that follow."""

    def __init__(self, folder: Path, stand_ins: Path) -> None:
        self.folder = folder
        path = os.pathsep.join([str(stand_ins), str(Path(sys.executable).parent), os.environ["PATH"]])
        self.environment = {**os.environ, "PATH": path, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}

    def run(self, command: str) -> str:
        if command.startswith("cd "):
            self.folder /= command.removeprefix("cd ")
            return ""
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A copy of the repository whose data/egoexo holds tiny rendered takes, and an `egoexo` that downloads nothing."""
    folder = copy_repository(tmp_path_factory.mktemp("house"))
    stand_ins = tmp_path_factory.mktemp("bin")
    (stand_ins / "egoexo").write_text('#!/bin/sh\ncase "$*" in *"-o "*) exit 0 ;; *) exit 1 ;; esac\n')
    (stand_ins / "egoexo").chmod(0o755)
    subprocess.run([sys.executable, "synthetic/make_takes.py", *SMALL_TAKES], cwd=folder, check=True)
    (folder / "data" / "correspondence_takes.txt").write_text("one-take-uid\n")
    return folder, stand_ins


def adapted(command: str) -> str:
    if command.startswith("bash train/run_"):
        return command + TINY_TRAINING
    return command.replace("--nproc_per_node 8", "--nproc_per_node 1")


def test_every_command_of_the_readme_runs(house):
    folder, stand_ins = house
    done = set()
    shell = Shell(folder, stand_ins)  # one for all blocks, as for someone who pastes them one after the other
    for block in blocks(section("Reproduce Ego-Exo4D"), "bash"):
        for command in lines_of(block):
            if not command.startswith(tuple(SKIPPED)):
                shell.run(adapted(command))
            done.add(command)
    for setting in ("ego-exo", "exo-ego"):
        assert (folder / "results" / f"{setting}_test_results.json").is_file()
    assert (folder / "results" / "submission.json").is_file()
    assert (folder / "curve.png").is_file()

    (take,) = json.loads((folder / "data/egoexo/split.json").read_text())["test"]
    make_pictures(folder, take)
    shell = Shell(folder, stand_ins)
    pictures = section("Two pictures")
    for block in blocks(pictures, "bash"):
        for command in lines_of(block):
            if not command.startswith(tuple(SKIPPED)):
                shell.run(command)
            done.add(command)
    (code,) = blocks(pictures, "python")
    code = f"{PRELUDE}{code}\nprint(mask.shape, 0 <= existence <= 1)\n"
    assert shell.run(f"python - <<'END'\n{code}END").endswith("True\n")

    everything = {command for block in blocks(README, "bash") for command in lines_of(block)}
    left = {command for command in everything - done if not command.startswith(tuple(SKIPPED))}
    assert not left, "neither run nor skipped with a reason"
    assert all(any(command.startswith(start) for command in everything) for start in SKIPPED), "skips what is not there"


PRELUDE = """
import cv2
query_image, target_image = (cv2.imread(name)[..., ::-1] for name in ("ego.jpg", "exo.jpg"))
query_mask = cv2.imread("mask.png", cv2.IMREAD_GRAYSCALE) > 0
"""


def make_pictures(folder: Path, take: str) -> None:
    """ego.jpg, mask.png and exo.jpg out of a processed take."""
    frames = folder / "data/egoexo/processed" / take
    ego = cv2.imread(str(frames / "aria01_214-1" / "0.jpg"))
    cv2.imwrite(str(folder / "ego.jpg"), ego)
    cv2.imwrite(str(folder / "exo.jpg"), cv2.imread(str(next((frames).glob("cam*/0.jpg")))))
    mask = np.zeros(ego.shape[:2], np.uint8)
    cv2.imwrite(str(folder / "mask.png"), cv2.circle(mask, (mask.shape[1] // 2, mask.shape[0] // 2), 20, 255, -1))
