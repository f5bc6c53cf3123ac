"""--memory: what other frames of a take say about an object."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import eval_segswap
from common.errors import UserError
from formats.masks import decode_mask
from formats.processed import ProcessedTake
from tests.made import EGO, ROOT
from tests.made.networks import write_network
from tests.made.processed import make_data_set
from tests.made.results import read_results

TAKES = {"val": ["take-a", "take-b"]}
FRAMES = [0, 30, 60, 90]
LAYOUT = {"cup_0": {EGO: FRAMES, "cam01": FRAMES}, "tin_0": {EGO: FRAMES[1:], "cam01": FRAMES[:2]}}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return write_network(tmp_path_factory.mktemp("checkpoint") / "net.pth", strong=True)


@pytest.fixture(scope="module")
def data_path(tmp_path_factory) -> Path:
    return make_data_set(tmp_path_factory.mktemp("data"), TAKES, LAYOUT)


def words(checkpoint: Path, data_path: Path, out: Path, *more: str) -> list[str]:
    paths = ["--ckpt_path", str(checkpoint), "--data_path", str(data_path), "--out_path", str(out)]
    return ["--setting", "ego-exo", *paths, "--num_workers", "0", "--device", "cpu", *more]


def predict(*args) -> dict:
    """The takes of the results file, and of its record what it says about the memory."""
    assert eval_segswap.main(words(*args)) == 0
    record = json.loads((args[2] / "ego-exo_val_run.json").read_text())
    return read_results(args[2] / "ego-exo_val_results.json") | {"memory": record["provenance"].get("memory", "none")}


def answers(takes: dict, frame: int) -> list[dict]:
    return [takes[uid]["masks"][name][f"{EGO}_cam01"].get(str(frame)) for uid in TAKES["val"] for name in LAYOUT]


def differences(some: list[dict], others: list[dict]) -> float:
    """The largest of existence."""
    return max(abs(a["confidence"] - b["confidence"]) for a, b in zip(some, others, strict=True) if a)


@pytest.fixture(scope="module")
def past(checkpoint, data_path, tmp_path_factory) -> Path:
    """The results file of a run with the memory that is there by default. Do not change it."""
    folder = tmp_path_factory.mktemp("past")
    assert predict(checkpoint, data_path, folder)["memory"] == "past"
    return folder / "ego-exo_val_results.json"


def test_a_memory_changes_later_frames_and_no_first_one_and_the_record_says_which(
    checkpoint, data_path, past, tmp_path
):
    none, past = predict(checkpoint, data_path, tmp_path, "--memory", "none"), read_results(past)
    assert none["memory"] == "none"
    first, later = (differences(answers(past, frame), answers(none, frame)) for frame in (0, 60))
    assert first < 1e-5 < later


STOPPED = """
import os, signal, sys
import eval_segswap
from inference.crop_matcher import CropMatcher

predict, left = CropMatcher.predict, int(sys.argv.pop())

def counted(*given):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return predict(*given)

CropMatcher.predict = counted
eval_segswap.main(sys.argv[1:])
"""


def test_results_do_not_depend_on_batches_workers_ranks_or_stops(checkpoint, data_path, past, tmp_path):
    expected, content = read_results(past), past.read_bytes()
    given = words(checkpoint, data_path, tmp_path / "killed")
    killed = subprocess.run([sys.executable, "-c", STOPPED, *given, "6"], cwd=ROOT, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr  # in the second take
    predict(checkpoint, data_path, tmp_path / "killed")
    assert (tmp_path / "killed" / past.name).read_bytes() == content

    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    given = words(checkpoint, data_path, tmp_path / "ranks")
    subprocess.run([*command, str(ROOT / "eval_segswap.py"), *given], check=True, capture_output=True, timeout=300)
    assert (tmp_path / "ranks" / past.name).read_bytes() == content

    one = predict(checkpoint, data_path, tmp_path / "one", "--batch_size", "1", "--num_workers", "2")
    for frame in FRAMES:
        some, others = answers(expected, frame), answers(one, frame)
        assert differences(some, others) < 1e-5
        for a, b in zip(some, others, strict=True):
            assert not a or (decode_mask(a["pred_mask"]) == decode_mask(b["pred_mask"])).mean() > 0.999


def test_a_query_frame_that_cannot_be_read_is_not_remembered(checkpoint, tmp_path):
    """The answers to other frames are those of takes without a mask in it."""
    found = []
    for name in ("broken", "without"):
        layout = {"cup_0": {EGO: FRAMES, "cam01": FRAMES}, "tin_0": {EGO: FRAMES, "cam01": FRAMES[:2]}}
        data_path = make_data_set(tmp_path / name, TAKES, layout)
        for take in (ProcessedTake.read(data_path, uid) for uid in TAKES["val"]):
            if name == "broken":
                take.frame_path(EGO, 30).write_bytes(b"no picture")
            else:
                for cameras in take.masks.values():
                    del cameras[EGO][30]
                take.write_annotation()
        given = words(checkpoint, data_path, tmp_path / name / "out")
        assert eval_segswap.main(given) == (eval_segswap.INCOMPLETE_STATUS if name == "broken" else 0)
        results = read_results(tmp_path / name / "out" / "ego-exo_val_results.json")
        found.append([answers(results, frame) for frame in FRAMES])
    assert found[0] == found[1] and found[0][1] == [None] * 4 and all(found[0][2])


def test_a_network_has_the_options_of_its_recipe_and_of_no_other(checkpoint, data_path, tmp_path):
    plain = write_network(tmp_path / "plain.pth")
    assert predict(plain, data_path, tmp_path / "plain")["memory"] == "none"
    for network, flags, message in (
        (plain, ("--memory", "past"), "--memory past is for networks of the strong recipe; leave it out"),
        (plain, ("--looks", "2"), f"--looks is for networks of the strong recipe, and {plain} is none"),
        (checkpoint, ("--compile",), f"--compile is for the paper's network, and {checkpoint} is of the strong recipe"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            eval_segswap.main(words(network, data_path, tmp_path / "refused", *flags))
    assert not (tmp_path / "refused").exists()


def test_the_number_of_looks_is_in_the_record(checkpoint, data_path, tmp_path):
    predict(checkpoint, data_path, tmp_path, "--looks", "1")
    assert json.loads((tmp_path / "ego-exo_val_run.json").read_text())["provenance"]["looks"] == 1
    with pytest.raises(UserError, match="was made by another run .looks 1 -> 2.;"):
        predict(checkpoint, data_path, tmp_path, "--looks", "2")
