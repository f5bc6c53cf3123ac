"""The commands of the README and quickstart.sh run in a copy of the repository, with tiny rendered takes.

Differences: training gets a tiny network and two steps, eight GPUs become one process, and downloads are replaced or
left out (SKIPPED gives the reasons).
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from evaluation import evaluate
from tests.made import ROOT
from tests.made.processes import copy_repository
from tests.made.results import make_results_file

pytestmark = pytest.mark.slow

README = (ROOT / "README.md").read_text()
SKIPPED = {  # beginning of a command -> why it is not run here
    "python3 -m venv": "installs; so does .ci/run",
    "(cd model/pretrained && bash download_model.sh)": "downloads; tests/data/test_download.py has a server for it",
    "bash data/download_split.sh": "downloads; tests/data/test_download.py has a server for it",
    "bash quickstart.sh": "another test runs it, in smaller",
    "bash tests/run.sh": "is what runs this test",
    "bash train/run_exo.sh": "run_ego.sh with another flag; run_both.sh makes a network for exo-ego, too",
}
TINY_TRAINING = (
    " --backbone efficientnet_lite0 --mode tiny --input_size 64 --batch-pos 2 --warmUpIter 2 --n-epoch 1 --iter-epoch 2"
    " --val_size 4 --num_workers 0 --device cpu"
)
ONE_EACH = ["--num_train", "1", "--num_val", "1", "--num_test", "1"]
SMALL_TAKES = [*ONE_EACH, "--size", "tiny", "--num_exo", "1", "--num_frames", "31"]
PICTURES = """
from PIL import Image
query_image, query_mask, target_image = (
    Image.open(f"assets/samples/motorcycle/{name}") for name in ("query.jpg", "query_mask.png", "target.jpg")
)
"""


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def lines_of(block: str) -> list[str]:
    return [line.split(" #")[0].strip() for line in block.strip().replace("\\\n", "").splitlines()]


def make_house(tmp_path: Path, warm_python: Path) -> tuple[Path, dict[str, str]]:
    """A copy of the repository whose data/egoexo holds tiny rendered takes; an environment whose `egoexo` downloads
    nothing, and whose `python` is the one given.
    """
    folder, stand_ins = copy_repository(tmp_path / "house"), tmp_path / "bin"
    stand_ins.mkdir()
    (stand_ins / "egoexo").write_text('#!/bin/sh\ncase "$*" in *"-o "*) exit 0 ;; *) exit 1 ;; esac\n')
    (stand_ins / "torchrun").write_text('#!/bin/sh\nexec python -m torch.distributed.run "$@"\n')
    for path in stand_ins.iterdir():
        path.chmod(0o755)
    subprocess.run([warm_python, "synthetic/make_takes.py", *SMALL_TAKES], cwd=folder, check=True)
    (folder / "data" / "correspondence_takes.txt").write_text("one-take-uid\n")
    path = os.pathsep.join([str(stand_ins), str(warm_python.parent), os.environ["PATH"]])
    return folder, {**os.environ, "PATH": path, "PYTHON": str(warm_python), "CUDA_VISIBLE_DEVICES": ""}


def adapted(command: str) -> str:
    if command.startswith("bash train/run_"):
        return command + TINY_TRAINING
    return command.replace("--nproc_per_node 8", "--nproc_per_node 1")


def test_every_command_of_the_readme_runs(tmp_path, warm_python):
    folder, environment = make_house(tmp_path, warm_python)

    def run(command: str) -> str:
        how = {"cwd": folder, "env": environment, "capture_output": True, "text": True, "timeout": 900}
        done = subprocess.run(["bash", "-c", command], **how)
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    commands = [command for block in blocks("bash") for command in lines_of(block)]
    printed = "".join(run(adapted(command)) for command in commands if not command.startswith(tuple(SKIPPED)))
    [shown] = blocks("text")
    assert re.search(re.sub(r"\d+", r"\\d+", re.escape(shown)), printed), (
        f"the README shows {shown}, printed is {printed}"
    )
    assert all(any(command.startswith(start) for command in commands) for start in SKIPPED), "skips what is not there"
    for setting in ("ego-exo", "exo-ego"):
        assert (folder / "results" / f"{setting}_test_results.json").is_file()
    assert (folder / "results" / "submission.json").is_file()

    for code in blocks("python"):
        code = f"{PICTURES}{code}\nprint(mask.shape, 0 <= existence <= 1)\n"
        assert run(f"python - <<'END'\n{code}END").endswith("True\n")


SMALL = """#!/bin/sh
case "$1" in
  *make_takes.py) set -- "$@" --size tiny --num_frames 31 --num_exo 1 ;;
  *train.py) set -- "$@" --n-epoch 1 --batch-pos 2 --val_size 4 ;;
esac
exec "{}" "$@"
"""


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


def test_the_active_environment_is_used_if_it_has_the_requirements_and_named(tmp_path):
    pytest.importorskip("pip")
    own = tmp_path / ".venv" / "bin" / "python"
    own.parent.mkdir(parents=True)
    own.write_text("#!/bin/sh\n")  # has pip, and installs whatever it is asked to
    own.chmod(0o755)
    script = f"source {ROOT}/tests/setup_env.sh; setup_env wanted.txt; command -v python; echo ${{PYTHON:-}}"
    active = f"{sys.prefix}/bin/python"
    for wanted, line, used in (
        ("numpy", f"using the active environment {sys.prefix}", f"python\n{active}"),
        ("numpy>=999", f"the active environment {sys.prefix} does not have all of wanted.txt; using .venv", f"{own}\n"),
    ):
        (tmp_path / "wanted.txt").write_text(wanted)
        environment = {name: value for name, value in os.environ.items() if name != "PYTHON"}
        environment |= {"VIRTUAL_ENV": sys.prefix}
        how = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
        done = subprocess.run(["bash", "-c", script], **how)
        assert done.returncode == 0 and done.stdout.startswith(f"{line}\n"), done
        assert done.stdout.removesuffix("\n").endswith(used), done.stdout


def test_the_python_of_own_data_runs(tmp_path, warm_python):
    samples = ROOT / "assets" / "samples"
    for name, sample in {"a.jpg": "query.jpg", "a.png": "query_mask.png", "b.jpg": "target.jpg"}.items():
        (tmp_path / name).symlink_to(samples / "pot" / sample)
    (tmp_path / "label_maps").mkdir()
    cv2.imwrite(str(tmp_path / "label_maps" / "00007.png"), np.eye(8, dtype=np.uint8) * 2)
    (tmp_path / "data" / "egoexo" / "annotations").mkdir(parents=True)
    code = "\n".join(blocks("python", (ROOT / "docs" / "own_data.md").read_text()))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([warm_python, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(("0.9", "1.0"))
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert {"found.png", "masks/head/kettle/00007.png"} <= written


def test_another_data_sets_annotation_is_written_as_extending_says(tmp_path, warm_python, capsys):
    for camera in ("aria_head", "left"):
        (tmp_path / "recording_1" / camera).mkdir(parents=True)
        for frame in (0, 30, 60):
            path = tmp_path / "recording_1" / camera / str(frame)
            cv2.imwrite(f"{path}.jpg", np.full((24, 32, 3), 90, np.uint8))
            if (camera, frame) != ("left", 60):
                cv2.imwrite(f"{path}_cup.png", np.eye(24, 32, dtype=np.uint8) * 255)
    code = "\n".join(blocks("python", (ROOT / "docs" / "extending.md").read_text()))
    subprocess.run([warm_python, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    data_dir = tmp_path / "runs" / "processed"
    results = make_results_file(tmp_path, data_dir, ["recording_1"], "ego-exo", "test")
    where = ["--setting", "ego-exo", "--data_path", data_dir, "--split", "test", "--all_frames", "--num_workers", 0]
    evaluate.main([*map(str, where), "--pred_file", str(results)])
    assert "1 take, 3 cases scored, 2 of them with a visible target" in capsys.readouterr().out
