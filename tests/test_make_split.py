"""make_split.py puts every annotated take into one split, the same way each time."""

import json

import pytest

from data import make_split as script
from tests.made.scripts import run_main


@pytest.fixture
def make_split(tmp_path):
    def call(takes, *flags):
        folder = tmp_path / "annotations"
        folder.mkdir(exist_ok=True)
        for split, uids in takes.items():
            path = folder / f"relations_{split}.json"
            path.write_text(json.dumps({"annotations": {uid: {"take_name": uid} for uid in uids}}))
        return run_main(script.main, "--annotationpath", folder / "relations_{split}.json", *flags)

    return call


def test_each_file_makes_up_its_split_in_its_order(make_split, tmp_path):
    result = make_split({"train": ["c", "a"], "val": ["d"], "test": ["b"]})
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "split.json").read_text()) == {"train": ["c", "a"], "val": ["d"], "test": ["b"]}
    assert "2 takes in train, 1 take in val, 1 take in test" in result.stdout


def test_a_take_in_two_files_is_kept_out_of_training(make_split, tmp_path):
    result = make_split({"train": ["a", "b", "c"], "val": ["d", "b", "c"], "test": ["c"]})
    assert "take b is in train and val: it goes to val" in result.stdout
    assert json.loads((tmp_path / "split.json").read_text()) == {"train": ["a"], "val": ["d", "b"], "test": ["c"]}


def test_uids_with_control_characters_are_printed_harmlessly(make_split):
    result = make_split({"train": ["\x1b[2J"], "val": ["\x1b[2J"]})
    assert result.returncode == 0 and "take \\x1b[2J is in train and val" in result.stdout


def test_splits_without_a_file_stay_empty(make_split, tmp_path):
    result = make_split({"val": ["a"]}, "--output", tmp_path / "my.json")
    assert result.returncode == 0
    assert "relations_train.json: train stays empty" in result.stdout
    assert json.loads((tmp_path / "my.json").read_text()) == {"train": [], "val": ["a"], "test": []}


def test_another_split_is_not_overwritten(make_split, tmp_path):
    takes = {"train": ["a"]}
    assert make_split(takes).returncode == 0
    assert make_split(takes).returncode == 0
    (tmp_path / "split.json").write_text('{"train": ["paper"]}')
    result = make_split(takes)
    assert result.returncode == 1
    assert "split.json exists and holds another split" in result.stderr
    assert "paper" in (tmp_path / "split.json").read_text()


@pytest.mark.parametrize(
    ("takes", "flags", "message"),
    [
        ({}, [], "no take in any of"),
        ({"train": []}, [], "no take in any of"),
        ({"train": ["a"]}, ["--annotationpath", "relations_train.json"], "has no {split} in it"),
    ],
)
def test_nothing_to_go_by_is_one_line(make_split, takes, flags, message):
    result = make_split(takes, *flags)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
