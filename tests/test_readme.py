"""The blocks of all pages run in one copy of the repository, with tiny rendered takes, and quickstart.sh in another.

Differences: training gets a tiny network and two steps, and downloads are replaced or left out (SKIPPED gives the
reasons).
"""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from evaluation import evaluate
from formats.footage import open_footage
from formats.geometry import eval_size
from formats.processed import ProcessedTake
from tests.made import ROOT
from tests.made.processes import copy_repository
from tests.made.results import eval_mask, make_results_file

pytestmark = pytest.mark.slow

PAGES = ("README.md", *(f"docs/{name}.md" for name in ("own_data", "evaluation", "extending", "training")))
FILES = {"name": "pairs.csv", "object_name": "categories.csv"}  # by the first word of a block that is one
OUTLINE = [40, 30, 90, 30, 90, 70, 40, 70]  # x, y in pixels
SKIPPED = {  # beginning of a command -> why it is not run here
    "python3 -m venv": "installs; so does .ci/run",
    "(cd model/pretrained && bash download_model.sh)": "downloads; tests/data/test_download.py has a server for it",
    "bash data/download_split.sh": "downloads; tests/data/test_download.py has a server for it",
    "python inference/segment_pair.py --query_image assets/samples/pot": "the result tonight matches, too",
    "torchrun": "tests/inference/test_inference.py predicts with two processes",
    "bash train/run_ego.sh --recipe mine.py:OwnRecipe": "tests/recipes/test_own_recipe.py runs and predicts with it",
    "python eval_segswap.py --setting ego-exo --split test --ckpt_path": "predicts with a network that was not trained",
    "bash train/run_both.sh --init_weights": "quickstart.sh runs it, predicts before and after it, and compares",
    "python eval_segswap.py --setting ego-exo --split test --data_path data/own": "",
    "python evaluation/compare.py --setting ego-exo --split test --data_path data/own": "",
    "python evaluation/compare.py --setting ego-exo --split test --pred_file": "quickstart.sh compares",
    "python evaluation/paper_rows.py results/*": "README.md has rows of the results that are made here",
    "jq": "needs jq",
    "bash data/download_uids.sh --uids_path": "needs the split that jq writes",
    "bash train/run_ego.sh --gpu": "needs GPUs",
    "sbatch": "needs a cluster; tests/train/test_train.py calls both slurm.sh",
    "bash quickstart.sh": "another test runs it, in smaller",
    "bash tests/run.sh": "runs this test",
    "bash train/run_exo.sh": "run_ego.sh with another flag; run_both.sh makes a network for exo-ego, too",
}
TINY_TRAINING = (
    " --backbone efficientnet_lite0 --mode tiny --input_size 64 --batch-pos 2 --warmUpIter 2 --n-epoch 1 --iter-epoch 2"
    " --val_size 4 --num_workers 0 --device cpu"
)
ONE_EACH = ["--num_train", "1", "--num_val", "1", "--num_test", "1"]
SMALL_TAKES = [*ONE_EACH, "--size", "tiny", "--num_exo", "1", "--num_objects", "2", "--num_frames", "31"]


def blocks(page: Path) -> list[tuple[str, str]]:
    """The blocks of code in a page, each as (language, code)."""
    return re.findall(r"```(\w+)\n(.*?)```", page.read_text(), re.DOTALL)


def lines_of(block: str) -> list[str]:
    return [line.split(" #")[0].strip() for line in block.strip().replace("\\\n", "").splitlines()]


def make_house(tmp_path: Path, warm_python: Path) -> tuple[Path, dict[str, str]]:
    """A copy of the repository whose data/egoexo holds tiny rendered takes; an environment whose `egoexo` downloads
    nothing, and whose `python` is the one given.
    """
    folder, stand_ins = copy_repository(tmp_path / "house"), tmp_path / "bin"
    stand_ins.mkdir()
    (stand_ins / "egoexo").write_text('#!/bin/sh\ncase "$*" in *"-o "*) exit 0 ;; *) exit 1 ;; esac\n')
    for path in stand_ins.iterdir():
        path.chmod(0o755)
    subprocess.run([warm_python, "synthetic/make_takes.py", *SMALL_TAKES], cwd=folder, check=True)
    (folder / "data" / "correspondence_takes.txt").write_text("one-take-uid\n")
    path = os.pathsep.join([str(stand_ins), str(warm_python.parent), os.environ["PATH"]])
    shared = {"LOCAL_WORLD_SIZE": "999"}  # processes on this machine: each script starts no workers, which import
    return folder, {**os.environ, **shared, "PATH": path, "PYTHON": str(warm_python), "CUDA_VISIBLE_DEVICES": ""}


def make_inputs(folder: Path) -> None:
    """The reader's own files, of which the pages speak."""
    for name, sample in {
        **{"a.jpg": "query.jpg", "a.png": "query_mask.png", "a_cup.png": "query_mask.png"},
        **{"b.jpg": "target.jpg", "b_cup.png": "target_mask.png", "c.jpg": "target.jpg", "d.jpg": "target.jpg"},
    }.items():
        shutil.copy(ROOT / "assets" / "samples" / "pot" / sample, folder / name)
    cv2.imwrite(str(folder / "a_objects.png"), cv2.imread(str(folder / "a.png"), 0) // 85)  # of the value 3
    (take, *_) = sorted((folder / "data" / "egoexo" / "takes").iterdir())
    for camera, name in (("aria", "head"), ("cam", "left")):
        shutil.copy(next(take.glob(f"*/{camera}*.mp4")), folder / f"{name}.mp4")
    mask = np.zeros(open_footage(folder / "head.mp4").size, np.uint8)
    mask[20:60, 30:80] = 255
    (folder / "masks" / "head" / "cup").mkdir(parents=True)
    for path in ("masks/head/cup/00000.png", "masks/head/cup/00030.png", "cup.png"):
        cv2.imwrite(str(folder / path), mask)
    size = dict(zip(("height", "width"), open_footage(folder / "left.mp4").size, strict=True))
    images = [{"id": frame, "file_name": f"{frame}.jpg", **size} for frame in (0, 30)]
    boxes = [{"id": x["id"], "image_id": x["id"], "category_id": 1, "segmentation": [OUTLINE]} for x in images]
    coco = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cup"}]}
    (folder / "left.json").write_text(json.dumps(coco))
    (folder / "label_maps").mkdir()
    cv2.imwrite(str(folder / "label_maps" / "00007.png"), np.eye(8, dtype=np.uint8) * 2)
    for camera in ("aria_head", "left"):
        (folder / "recording_1" / camera).mkdir(parents=True)
        for frame in (0, 30, 60):
            path = folder / "recording_1" / camera / str(frame)
            cv2.imwrite(f"{path}.jpg", np.full((24, 32, 3), 90, np.uint8))
            if (camera, frame) != ("left", 60):
                cv2.imwrite(f"{path}_cup.png", np.eye(24, 32, dtype=np.uint8) * 255)


def adapted(command: str) -> str:
    if command.startswith("bash train/run_"):
        return command + TINY_TRAINING
    return command.replace("vit_large_patch16_dinov3.lvd1689m", "efficientnet_lite0")  # whose weights are here


def test_readme_holds_together_the_command_that_shows_everything_and_the_one_that_tests_it():
    assert ["bash quickstart.sh", "bash tests/run.sh"] in [lines_of(block) for _, block in blocks(ROOT / "README.md")]


def test_every_block_of_every_page_runs_after_the_ones_before_it_in_one_folder(tmp_path, warm_python, capsys):
    folder, environment = make_house(tmp_path, warm_python)
    make_inputs(folder)
    begun, printed = set(), {}

    def run(command: str) -> str:
        how = {"cwd": folder, "env": environment, "capture_output": True, "text": True, "timeout": 900}
        done = subprocess.run(["bash", "-c", command], **how)
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    for page in PAGES:
        printed[page] = ""
        if page == "docs/evaluation.md":
            write_masks_of_cases(folder)
        for _, block in blocks(folder / page):
            if file := FILES.get(block.split("\n")[0].partition(",")[0]):
                with (folder / file).open("a") as opened:
                    opened.write(block)
        for language, block in blocks(folder / page):
            if language == "python":
                (folder / "block.py").write_text(block)
                printed[page] += run("python block.py")
            for command in lines_of(block) if language == "bash" else ():
                skipped = [start for start in SKIPPED if command.startswith(start)]
                begun.update(skipped)
                printed[page] += "" if skipped else run(adapted(command))
    assert begun == {*SKIPPED}, "skips what is not there"
    written = [
        word for page in PAGES for word in re.findall(r"--out(?:-dir|_path)? ([\w./-]+)", (ROOT / page).read_text())
    ]
    assert len({*written}) == len(written) > 8, f"two blocks, or a block and a line, write to one of {written}"
    [shown] = [block for language, block in blocks(ROOT / "README.md") if language == "text"]
    assert re.search(re.sub(r"\d+", r"\\d+", re.escape(shown)), printed["README.md"]), (shown, printed["README.md"])
    for name in ("ego-exo_test_results.json", "exo-ego_test_results.json", "submission.json"):
        assert (folder / "results" / name).is_file()
    for name in (
        "b_mask.png",
        "found.png",
        "masks/tracked/kettle/00007.png",
        "answers/answers.csv",
        "in_left/video.mp4",
    ):
        assert (folder / name).is_file(), name
    assert re.search(r"^there \(9", printed["docs/own_data.md"], re.M)
    assert re.search(r"^IoU \(%\) +100\.00", printed["docs/evaluation.md"], re.M)
    data_dir = folder / "runs" / "processed"
    results = make_results_file(tmp_path, data_dir, ["recording_1"], "ego-exo", "test")
    where = ["--setting", "ego-exo", "--data_path", data_dir, "--split", "test", "--all_frames", "--num_workers", 0]
    evaluate.main([*map(str, where), "--pred_file", str(results), "--out", str(tmp_path / "report")])
    assert "1 take, 3 cases scored, 2 of them with a visible target" in capsys.readouterr().out


def write_masks_of_cases(folder: Path) -> None:
    """The true masks of the test split, as my_masks/{number of the listed case}.png."""
    data_dir = folder / "data" / "egoexo" / "processed"
    where = ["--setting", "ego-exo", "--split", "test", "--data_path", data_dir]
    evaluate.main([*map(str, where), "--list_cases", str(folder / "listed.csv")])
    (folder / "my_masks").mkdir()
    for number, case in enumerate(csv.DictReader((folder / "listed.csv").open())):
        take, camera, frame = ProcessedTake.read(data_dir, case["take_uid"]), case["target_camera"], int(case["frame"])
        rle = take.masks[case["object_name"]].get(camera, {}).get(frame)
        mask = np.zeros(eval_size(take.video_size(camera))) if rle is None else eval_mask(rle)
        cv2.imwrite(str(folder / "my_masks" / f"{number}.png"), mask * 255)


SMALL = """#!/bin/sh
case "$1" in
  *make_takes.py) set -- "$@" --size tiny --num_frames 31 --num_exo 1 --num_objects 2 ;;
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
    for name in ("ego-exo.jpg", "ego-exo_report/index.html", "exo-ego_comparison/index.html"):
        assert (tmp_path / "out" / name).stat().st_size > 1000
    names = [line.removeprefix("-> ") for line in done.stdout.splitlines() if line.startswith("-> ")]
    plain = [name for name in names if not re.search(r"[*{<]", name)]
    assert len(plain) > 5 and all(Path(name).exists() for name in plain)


def write_package(folder: Path) -> Path:
    """Write the wheel of an empty package named absent, and an index of packages that has it; returns the index."""
    wheel, page = folder / "absent-1.0-py3-none-any.whl", folder / "index" / "absent" / "index.html"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("absent-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: absent\nVersion: 1.0\n")
        archive.writestr("absent-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("absent-1.0.dist-info/RECORD", "")
    page.parent.mkdir(parents=True)
    page.write_text(f'<a href="{wheel.as_uri()}">{wheel.name}</a>')
    return folder / "index"


def test_the_active_environment_is_used_if_it_has_the_requirements_and_named(tmp_path):
    pytest.importorskip("pip")
    own = tmp_path / ".venv" / "bin" / "python"
    own.parent.mkdir(parents=True)
    own.write_text("#!/bin/sh\n")  # has pip, and installs whatever it is asked to
    own.chmod(0o755)
    script = f"source {ROOT}/tests/setup_env.sh; setup_env wanted.txt; command -v python; echo ${{PYTHON:-}}"
    active, how = f"{sys.prefix}/bin/python", {"cwd": tmp_path, "capture_output": True, "text": True}
    unset = ("PYTHON", "VIRTUAL_ENV", "CONDA_PREFIX")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    index = write_package(tmp_path)  # pip finds the package, and has not installed it
    environment |= {
        "PIP_INDEX_URL": index.as_uri(),
        "PIP_FIND_LINKS": str(tmp_path),
        "PIP_PREFIX": str(tmp_path / "other"),
    }
    for wanted, line, used in (
        ("numpy", f"using the active environment {sys.prefix}", f"python\n{active}"),
        ("absent", f"the active environment {sys.prefix} does not have all of wanted.txt; using .venv", f"{own}\n"),
    ):
        (tmp_path / "wanted.txt").write_text(wanted)
        done = subprocess.run(["bash", "-c", script], **how, env=environment | {"VIRTUAL_ENV": sys.prefix})
        assert done.returncode == 0 and done.stdout.startswith(f"{line}\n"), done
        assert done.stdout.removesuffix("\n").endswith(used), done.stdout
    version = tmp_path / ".venv/lib/python3.11/site-packages/torch/version.py"
    version.parent.mkdir(parents=True)
    for cuda, said in (("'12.8'", "with"), ("None", "without")):
        version.write_text(f"cuda: Optional[str] = {cuda}\n")
        done = subprocess.run(["bash", "-c", script], **how, env=environment)
        assert done.stdout.startswith(f"using .venv: PyTorch {said} CUDA\n"), done
