"""check_processed.py finds every frame that a pair needs and that is missing or damaged; a whole data set has none."""

import json
import re

import pytest

from data import check_processed
from data.check_processed import check_take
from formats.frame_files import PACK, frame_bytes, pack_frames
from formats.processed import Failure, write_failures
from tests.made import EGO
from tests.made.processed import create_pairs, make_data_set
from tests.made.processes import run_main

TAKES = {"train": ["take-a", "take-b"], "val": ["take-c"]}


def check(data_dir, *flags, num_workers=1):
    return run_main(check_processed.main, "--data_dir", data_dir, "--num_workers", num_workers, *flags)


@pytest.fixture
def data_dir(tmp_path):
    return make_data_set(tmp_path, TAKES)


@pytest.fixture
def paired(data_dir):
    assert create_pairs(data_dir).returncode == 0
    return data_dir


def problems(data_dir):
    """What is wrong with take-a, without its name."""
    return [failure.describe("take-a").removeprefix("take take-a, ") for failure in check_take(data_dir, "take-a")[1]]


def test_a_whole_data_set_passes(paired):
    (paired / "take-a" / EGO / "._30.jpg").touch()  # as macOS leaves them
    result = check(paired)
    assert result.returncode == 0, result.stdout
    train, val = result.stdout.splitlines()
    assert train == "train: 2 takes, 2 processed, 18 frames, 16 pairs ego-exo, 14 pairs exo-ego, 0 missing, 0 problems"
    assert val.startswith("val: 1 takes, 1 processed, ")


def test_missing_frames_are_listed_by_any_number_of_processes(paired):
    (paired / "take-a" / EGO / "30.jpg").unlink()
    (paired / "take-a" / EGO / "0.jpg").unlink()
    (paired / "take-b" / "cam02").rename(paired / "elsewhere")
    result = check(paired)
    assert result.returncode == 1
    assert f"train, take take-a, camera {EGO}: 2 frames missing: 0, 30; run data/process_data.py" in result.stdout
    assert "train, take take-b, camera cam02: 3 frames missing: 0, 30, 60" in result.stdout
    assert check(paired, num_workers=3).stdout == result.stdout


def test_frames_that_no_pair_needs_may_be_missing(tmp_path):
    layout = {"pair_0": {EGO: [0, 30], "cam01": [0]}, "ego only_0": {EGO: [60, 90]}}
    data_dir = make_data_set(tmp_path, {"train": ["take-a"]}, layout)
    (data_dir / "take-a" / EGO / "60.jpg").unlink()
    assert problems(data_dir) == []


@pytest.mark.parametrize("length", [0, -1])
def test_frames_that_are_cut_off_are_found(data_dir, length):
    path = data_dir / "take-a" / "cam01" / "30.jpg"
    path.write_bytes(path.read_bytes()[:length])
    remedy = f"if its video is there, delete them (if packed, {PACK}) and run data/process_data.py"
    assert problems(data_dir) == [f"camera cam01: 1 frame cut off: 30; {remedy}"]


@pytest.mark.parametrize("packed", [False, True])
def test_only_the_end_of_a_frame_is_read(data_dir, packed, monkeypatch):
    read, path = [], data_dir / "take-a" / "cam01" / "30.jpg"
    path.write_bytes(bytes(100_000) + path.read_bytes())
    if packed:
        pack_frames(data_dir / "take-a")
    monkeypatch.setattr(check_processed, "frame_bytes", lambda *args: read.append(frame_bytes(*args)) or read[-1])
    assert problems(data_dir) == [] and max(map(len, read)) == 4096


def test_frames_of_packed_takes_are_checked_and_a_damaged_pack_is_one_line(paired):
    cut_off = paired / "take-a" / "cam01" / "30.jpg"
    cut_off.write_bytes(cut_off.read_bytes()[:-1])
    (paired / "take-a" / "cam02" / "0.jpg").unlink()
    for uid in TAKES["train"]:
        pack_frames(paired / uid)
        assert {path.name for path in (paired / uid).iterdir()} == {"annotation.json", PACK}
    cut, missing = check(paired).stdout.splitlines()[2:]
    remedy = f"if its video is there, delete them (if packed, {PACK}) and run data/process_data.py"
    assert cut == f"train, take take-a, camera cam01: 1 frame cut off: 30; {remedy}"
    assert missing == "train, take take-a, camera cam02: 1 frame missing: 0; run data/process_data.py"
    pack = paired / "take-a" / PACK
    pack.write_bytes(pack.read_bytes()[:-50])  # as a copy that was broken off
    [line] = check(paired).stdout.splitlines()[2:]
    assert line.startswith(f"train, take take-a: {pack} is damaged (") and line.endswith("with data/process_data.py")


@pytest.mark.parametrize(
    ("text", "message"), [("{", "is not valid JSON"), (None, "mask runs add up to .*; delete it and run")]
)
def test_a_malformed_annotation_is_a_problem_of_its_take(paired, text, message):
    path = paired / "take-a" / "annotation.json"
    path.write_text(text or re.sub('"size": \\[[0-9]+', '"size": [7', path.read_text(), count=1))
    (paired / "take-b" / EGO / "0.jpg").unlink()
    result = check(paired)
    assert result.returncode == 1
    assert re.search(f"train, take take-a: .*{message}", result.stdout)
    assert f"train, take take-b, camera {EGO}: 1 frame missing" in result.stdout
    assert "is out of date" in result.stdout


def test_what_the_data_set_lacks_is_listed_and_what_is_broken_or_not_processed_is_a_problem(data_dir):
    (data_dir / "take-b" / "annotation.json").unlink()
    splits = TAKES | {"train": [*TAKES["train"], *(f"take-{number}" for number in range(1265))]}
    (data_dir.parent / "split.json").write_text(json.dumps(splits))
    create_pairs(data_dir)
    result = check(data_dir, "--split", "train")
    numbers, problem = result.stdout.splitlines()
    assert (result.returncode, numbers[:32], numbers[-12:]) == (1, "train: 1,267 takes, 1 processed,", ", 1 problems")
    assert problem == "train, 1,266 takes not processed: take-b, take-0, take-1, ...; run data/process_data.py"
    (data_dir.parent / "split.json").write_text(json.dumps(TAKES))
    create_pairs(data_dir)
    write_failures(data_dir / "take-b", [Failure(None, "missing", "no folder name")])
    write_failures(data_dir / "take-a", [Failure("cam05", "missing", "no file cam05.mp4")])
    result = check(data_dir, "--split", "train")
    assert result.returncode == 0, result.stdout
    assert result.stdout.splitlines()[0].endswith(", 2 missing, 0 problems")
    assert "missing: train, take take-b: no folder name" in result.stdout
    assert "missing: train, take take-a, camera cam05: no file cam05.mp4" in result.stdout
    write_failures(data_dir / "take-a", [Failure("cam05", "broken", "cam05.mp4 has no moov atom")])
    result = check(data_dir, "--split", "train")
    assert result.returncode == 1
    assert "train, take take-a, camera cam05: cam05.mp4 has no moov atom" in result.stdout


def test_a_folder_without_takes_or_pairs_is_a_problem_that_names_the_command(tmp_path):
    unpaired = make_data_set(tmp_path / "unpaired", TAKES | {"test": ["take-d"]})
    assert check(unpaired, "--split", "test").returncode == 0  # prediction and scores need no pairs file
    lacking_pairs = check(unpaired)
    assert lacking_pairs.returncode == 1
    assert lacking_pairs.stdout.count("; run data/create_pairs.py") == 2  # one for each split of training
    (tmp_path / "split.json").write_text('{"train": ["a"]}')
    data_dir = tmp_path / "processed"
    assert check(data_dir).stderr.startswith(f"error: no folder {data_dir}; name the folder of processed takes")
    data_dir.mkdir()
    remedy = f"{data_dir} holds no take of {tmp_path / 'split.json'}; run data/process_data.py first"
    assert check(data_dir).stderr == f"error: {remedy}\n"
