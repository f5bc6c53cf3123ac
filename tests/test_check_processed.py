"""check_processed.py finds everything that is missing or damaged, and nothing in a whole data set."""

import json
import re

import cv2
import numpy as np
import pytest

from common.arguments import SETTINGS
from common.errors import UserError
from data import check_processed
from data.check_processed import announced_size, check_take
from data.failures import BROKEN, MISSING, Failure, read_failures, write_failures
from formats.processed import ProcessedTake, pair_frames
from formats.stored_frames import store_frames, stored_path
from tests.made import EGO
from tests.made.processed import LAYOUT, MASK_AND_FRAME_SIZES, create_pairs, make_data_set
from tests.made.scripts import run_main

TAKES = {"train": ["take-a", "take-b"], "val": ["take-c"]}
PAIRS = {"ego-exo": 3 + 3 + 2, "exo-ego": 2 + 3 + 2}


def check(data_dir, *flags, num_workers=1):
    return run_main(check_processed.main, "--data_dir", data_dir, "--num_workers", num_workers, *flags)


@pytest.fixture
def data_dir(tmp_path):
    return make_data_set(tmp_path, TAKES)


@pytest.fixture
def paired(data_dir):
    assert create_pairs(data_dir).returncode == 0
    return data_dir


def problems(data_dir, uid="take-a", decode=False):
    """What is wrong with a take, without the names of take and camera."""
    return [problem.partition(": ")[2] for problem in check_take(data_dir, uid, decode).problems]


@pytest.mark.parametrize("flags", [[], ["--decode"]])
def test_a_whole_data_set_passes(paired, flags):
    result = check(paired, *flags)
    assert result.returncode == 0, result.stdout
    table = [re.split(r"\s{2,}", line.strip()) for line in result.stdout.splitlines()]
    masks = sum(len(frames) for cameras in LAYOUT.values() for frames in cameras.values())
    assert table[1] == ["train", "2", "2", "18", str(2 * masks), str(2 * 8), str(2 * 7), "0", "0"]
    assert table[2][:2] == ["val", "1"]


def test_processes_find_the_same(paired):
    (paired / "take-b" / EGO / "30.jpg").unlink()
    assert check(paired).stdout == check(paired, num_workers=3).stdout


def test_pairs_are_counted_by_object_and_cameras(data_dir):
    found = check_take(data_dir, "take-a")
    assert {setting: sum(found.pairs[setting].values()) for setting in SETTINGS} == PAIRS
    assert found.problems == []


def test_missing_frames_are_listed(paired):
    (paired / "take-a" / EGO / "30.jpg").unlink()
    (paired / "take-a" / EGO / "0.jpg").unlink()
    assert problems(paired) == ["2 frames missing: 0, 30"]
    result = check(paired)
    assert result.returncode == 1
    assert f"train, take take-a, camera {EGO}: 2 frames missing: 0, 30" in result.stdout


def test_what_cannot_be_read_is_a_problem_and_the_other_takes_are_checked(paired):
    frame, failures = paired / "take-a" / EGO / "30.jpg", paired / "take-b" / "failed.json"
    frame.unlink()
    frame.mkdir()
    failures.mkdir()
    (paired / "take-c" / EGO / "0.jpg").unlink()
    result = check(paired)
    assert result.returncode == 1
    assert f"take take-a, camera {EGO}: Is a directory: {frame}" in result.stdout
    assert f"take take-b: {failures} cannot be read (Is a directory)" in result.stdout
    assert f"val, take take-c, camera {EGO}: 1 frame missing: 0" in result.stdout


@pytest.mark.parametrize("decode", [False, True])
def test_a_frame_or_list_that_is_a_pipe_or_a_device_is_a_problem(paired, put_special, decode):
    frame = put_special(paired / "take-a" / EGO / "30.jpg")
    failures = put_special(paired / "take-b" / "failed.json")
    result = check(paired, *["--decode"] * decode)
    assert result.returncode == 1
    assert f"take take-a, camera {EGO}: it is a pipe or a device: {frame}" in result.stdout
    assert f"take take-b: {failures} cannot be read (it is a pipe or a device)" in result.stdout


@pytest.mark.parametrize("text", ["{", "[1]", '{"take_name": "x", "failures": [5]}', "[" * 200_000])
def test_an_unusable_list_of_failures_is_one_line(tmp_path, text):
    (tmp_path / "failed.json").write_text(text)
    with pytest.raises(UserError, match="failed.json is malformed"):
        read_failures(tmp_path)


def test_a_missing_camera_folder_is_its_frames_missing(data_dir):
    (data_dir / "take-a" / "cam02").rename(data_dir / "elsewhere")
    assert problems(data_dir) == ["3 frames missing: 0, 30, 60"]


def test_frames_that_no_pair_needs_may_be_missing_if_all_are(tmp_path):
    layout = {"pair_0": {EGO: [0, 30], "cam01": [0]}, "ego only_0": {EGO: [60, 90]}}
    data_dir = make_data_set(tmp_path, {"train": ["take-a"]}, layout)
    folder = data_dir / "take-a" / EGO
    (folder / "60.jpg").unlink()
    assert problems(data_dir) == ["1 frame missing: 60"]
    (folder / "90.jpg").unlink()
    assert problems(data_dir) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:3],
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: b"\x89PNG" + data[4:],
        lambda data: data[:2] + bytes(len(data) - 4) + data[-2:],
        lambda data: data[:2] + data[-2:],
    ],
)
def test_damaged_frames_are_found_without_decoding(data_dir, damage):
    path = data_dir / "take-a" / "cam01" / "30.jpg"
    path.write_bytes(damage(path.read_bytes()))
    assert problems(data_dir) == ["1 frame broken: 30"]


def test_zeros_behind_the_end_of_a_frame_are_no_damage(data_dir):
    path = data_dir / "take-a" / "cam01" / "30.jpg"
    path.write_bytes(path.read_bytes() + bytes(7))  # which some encoders add, and read_frame accepts
    assert problems(data_dir) == problems(data_dir, decode=True) == []


def test_damage_behind_the_header_is_found_by_decoding(data_dir):
    path = data_dir / "take-a" / "cam01" / "30.jpg"
    data = path.read_bytes()
    tables = data.index(b"\xff\xc4")
    path.write_bytes(data[:tables] + b"\xff\xd9")
    assert problems(data_dir) == []
    assert problems(data_dir, decode=True) == ["1 frame broken: 30"]


@pytest.mark.parametrize("decode", [False, True])
def test_a_frame_that_announces_a_size_that_none_has_is_found_and_never_decoded(data_dir, decode):
    path = data_dir / "take-a" / "cam01" / "30.jpg"
    data = bytearray(path.read_bytes())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = (65500).to_bytes(2, "big") * 2
    path.write_bytes(data)
    assert problems(data_dir, decode=decode) == ["1 frame broken: 30"]


@pytest.mark.parametrize("flag", [cv2.IMWRITE_JPEG_QUALITY, cv2.IMWRITE_JPEG_PROGRESSIVE, cv2.IMWRITE_JPEG_OPTIMIZE])
def test_the_size_in_the_header_is_that_of_the_image_however_it_was_encoded(tmp_path, flag):
    path = str(tmp_path / "0.jpg")
    cv2.imwrite(path, np.zeros((37, 61, 3), np.uint8), [flag, 1])
    assert announced_size(path) == (37, 61)


def test_a_frame_of_another_size_is_found(data_dir):
    path = data_dir / "take-a" / "cam01" / "30.jpg"
    cv2.imwrite(str(path), np.zeros((45, 80, 3), np.uint8))
    assert problems(data_dir) == ["frames of 2 sizes: 160x90 (frame 0); 80x45 (frame 30)"]


def test_frames_of_another_shape_than_their_masks_are_found(data_dir):
    for path in (data_dir / "take-a" / "cam01").iterdir():
        cv2.imwrite(str(path), np.zeros((90, 90, 3), np.uint8))
    assert problems(data_dir) == ["frames of 90x90 have another shape than their masks of 320x180"]


def change_annotation(data_dir, change):
    path = data_dir / "take-a" / "annotation.json"
    annotation = json.loads(path.read_text())
    change(annotation["masks"])
    path.write_text(json.dumps(annotation))


@pytest.mark.parametrize(
    "rle", [{"size": [180, 320], "counts": "1"}, {"size": [180, 320]}, {}, 5, {"size": 1, "counts": ""}]
)
def test_corrupt_masks_are_found(data_dir, rle):
    change_annotation(data_dir, lambda masks: masks["cup_0"]["cam01"].update({"30": rle}))
    assert problems(data_dir) == ["1 corrupt mask of object 'cup_0': 30"]


def test_masks_of_two_sizes_are_found(data_dir):
    height, width = MASK_AND_FRAME_SIZES[False][0]
    rle = {"size": [2 * height, 2 * width], "counts": ""}
    rle["counts"] = ProcessedTake.read(data_dir, "take-a").masks["cup_0"]["cam01"][0]["counts"]
    empty = {"size": [1, 20], "counts": "d0"}
    change_annotation(data_dir, lambda masks: masks["cup_0"]["cam01"].update({"30": empty}))
    assert problems(data_dir) == ["masks of 2 sizes: 320x180 ('cup_0', frame 0); 20x1 ('cup_0', frame 30)"]


def test_a_malformed_annotation_is_a_problem_of_its_take(paired):
    (paired / "take-a" / "annotation.json").write_text("{")
    result = check(paired)
    assert result.returncode == 1
    assert "train, take take-a: " in result.stdout
    assert "is not valid JSON" in result.stdout
    assert "train_pairs.json is out of date" in result.stdout


def test_what_the_data_set_lacks_is_listed_and_unprocessed_takes_are_problems(data_dir):
    (data_dir / "take-b" / "annotation.json").unlink()
    create_pairs(data_dir)
    result = check(data_dir, "--split", "train")
    assert result.returncode == 1
    assert "train, take take-b: not processed; run data/process_data.py" in result.stdout
    write_failures(data_dir / "take-b", "name", [Failure(None, MISSING, "no folder name")])
    result = check(data_dir, "--split", "train")
    assert result.returncode == 0, result.stdout
    assert result.stdout.splitlines()[1].split()[-2:] == ["1", "0"]
    assert "missing: train, take take-b: no folder name" in result.stdout
    write_failures(data_dir / "take-a", "name", [Failure("cam05", MISSING, "no file cam05.mp4")])
    result = check(data_dir, "--split", "train")
    assert result.returncode == 0, result.stdout
    assert result.stdout.splitlines()[1].split()[-2:] == ["2", "0"]
    assert "missing: train, take take-a, camera cam05: no file cam05.mp4" in result.stdout


def test_splits_without_a_processed_take_are_named_if_they_have_any(paired):
    (paired / "take-c" / "annotation.json").unlink()
    (paired / "split.json").write_text(json.dumps({**TAKES, "test": []}))
    result = check(paired)
    assert result.returncode == 0, result.stdout
    assert "val: 0 of 1 take processed" in result.stdout and "test:" not in result.stdout
    assert check(paired, "--split", "val").returncode == 1


def test_names_with_escape_sequences_and_newlines_are_printed_harmlessly(data_dir):
    hostile = "cup\n\x1b[2J\u202e"
    change_annotation(data_dir, lambda masks: masks.update({hostile: {EGO: {"0": {"size": [1, 1], "counts": "?"}}}}))
    write_failures(data_dir / "take-b", "name", [Failure(None, BROKEN, f"corrupt masks of {hostile}")])
    out = check(data_dir, "--skip_pairs").stdout
    assert out.count("cup\\n\\x1b[2J\\u202e") == 2
    assert "\x1b" not in out and "\u202e" not in out


def test_what_process_data_found_broken_is_a_problem(paired):
    write_failures(paired / "take-b", "name", [Failure("cam05", BROKEN, "cam05.mp4 has no moov atom")])
    result = check(paired)
    assert result.returncode == 1
    assert "train, take take-b, camera cam05: cam05.mp4 has no moov atom" in result.stdout


def test_missing_and_outdated_pairs_are_found(data_dir):
    result = check(data_dir)
    assert result.returncode == 1
    assert result.stdout.count("train_pairs.json; run `python data/create_pairs.py") == 1
    assert check(data_dir, "--skip_pairs").returncode == 0
    create_pairs(data_dir)
    assert check(data_dir).returncode == 0
    change_annotation(data_dir, lambda masks: masks["cup_0"]["cam01"].pop("30"))
    assert "out of date" in check(data_dir).stdout


def test_lost_pairs_are_found(paired):
    path = paired / "val_pairs.json"
    raw = json.loads(path.read_text())
    raw["tracks"]["exo-ego"][-1][-1] -= 1
    path.write_text(json.dumps(raw))
    rows = paired / raw["arrays"] / "exo-ego.npy"
    np.save(rows, np.load(rows)[:-1])
    result = check(paired)
    assert result.returncode == 1
    assert "val, take take-c: val_pairs.json lacks 1 of its exo-ego pairs" in result.stdout


def test_only_so_many_problems_are_printed(data_dir):
    for path in data_dir.glob("take-?/*/*.jpg"):
        path.unlink()
    lines = check(data_dir, "--skip_pairs", "--show", "2", "--split", "train").stdout.splitlines()
    assert len(lines) == 2 + 2 + 1
    assert lines[-1] == "train: 4 more; --show 6 prints all"


def test_a_folder_without_takes_is_refused_in_one_line(tmp_path):
    (tmp_path / "split.json").write_text('{"train": ["a"]}')
    result = check(tmp_path / "processed")
    assert result.returncode == 1
    assert re.match(r"error: no folder .*run data/process_data.py first\n$", result.stderr)
    (tmp_path / "processed").mkdir()
    result = check(tmp_path / "processed")
    assert re.match(r"error: .* holds no take of .*split.json; run data/process_data.py first\n$", result.stderr)


def test_stored_frames_that_do_not_fit_are_found(data_dir):
    take = ProcessedTake.read(data_dir, "take-a")
    store_frames(take.folder / EGO, pair_frames(take.masks, take.is_ego)[EGO], 48)
    assert not problems(data_dir)
    path = stored_path(take.folder / EGO, 48)
    path.write_bytes(path.read_bytes()[:-1])
    (problem,) = problems(data_dir)
    assert problem.endswith(f"{EGO}.48.frames is not whole; run data/store_frames.py --side 48 again or delete it")
