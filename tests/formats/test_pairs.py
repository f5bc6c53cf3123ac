"""Masks of pairs are the masks of the annotation files; a pairs file that does not fit these files is made anew."""

import errno
import json
import os
import re
import shutil
from unittest.mock import Mock

import numpy as np
import pytest

import formats.pairs_file
from common.constants import SETTINGS
from common.errors import UserError
from formats.pairs import BOTH, open_pairs
from formats.pairs_file import listing_path
from tests.made.golden import GOLDEN_SPLITS, golden
from tests.made.processed import create_pairs, make_data_set, write_data_set


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("split", ["train", "val"])
def test_pairs_equal_the_reference(golden_root, split, setting):
    expected = golden("pipeline/pairs")[f"{split}_{setting.replace('-', '')}_pairs.json"]
    pairs = open_pairs([golden_root / "processed"], split, setting)
    turn = 1 if setting == "ego-exo" else -1
    named = map(pairs.named, range(len(pairs)))
    rows = [(uid, name, *(query, target)[::turn], frame) for uid, name, query, target, frame in named]
    assert len(rows) == len(expected)
    assert set(rows) == set(map(tuple, expected))


@pytest.mark.parametrize("setting", SETTINGS)
def test_masks_of_a_pair_are_those_of_annotation_json(golden_root, setting):
    annotations = golden("pipeline/annotations")
    pairs = open_pairs([golden_root / "processed"], "train", setting)
    negatives = 0
    for i in range(len(pairs)):
        uid, name, query, target, frame = pairs.named(i)
        cameras = annotations[uid]["masks"][name]
        assert pairs.query_mask(i) == cameras[query][str(frame)]
        assert pairs.target_mask(i) == cameras[target].get(str(frame))
        assert pairs.visible[i] == (str(frame) in cameras[target])
        negatives += pairs.target_mask(i) is None
    assert negatives > 0


def test_the_pairs_of_both_settings_and_of_two_data_sets_are_those_of_each_in_turn(golden_root, tmp_path):
    folders = [golden_root / "processed", make_data_set(tmp_path, {"train": ["a", "b"], "val": ["c"]})]
    assert create_pairs(folders[1]).returncode == 0
    joined, parts = open_pairs(folders, "train", BOTH), []
    for folder in folders:
        parts += [open_pairs([folder], "train", setting) for setting in SETTINGS]
    assert names(joined) == [pair for part in parts for pair in names(part)]
    assert joined.visible.tolist() == [visible for part in parts for visible in part.visible]
    assert joined.store.takes == [*GOLDEN_SPLITS["train"], "a", "b"]
    masks = [(part.query_mask(i), part.target_mask(i)) for part in parts for i in range(len(part))]
    assert [(joined.query_mask(i), joined.target_mask(i)) for i in range(len(joined))] == masks
    assert [path.parent for path in joined.store.folders] == [folder for folder in folders for _ in range(2)]
    with pytest.raises(UserError, match=f"take {GOLDEN_SPLITS['train'][0]} is in .* and in .*; drop one"):
        open_pairs(folders[:1] * 2, "train", BOTH)


def names(pairs):
    return [pairs.named(row) for row in range(len(pairs))]


@pytest.fixture
def listed_anew(data_dir, capsys):
    """Opens the training pairs, which are listed anew for this reason, and written, so that it happens once."""

    def open_twice(reason):
        capsys.readouterr()
        pairs, again = (open_pairs([data_dir], "train", "ego-exo") for _ in range(2))
        [line] = capsys.readouterr().err.splitlines()
        assert re.fullmatch(f".*{reason}.*; the pairs of train are listed now", line), line
        assert pairs.digest == again.digest
        return pairs

    return open_twice


def test_where_no_pairs_are_listed_or_their_file_is_damaged_they_are_listed_anew(data_dir, listed_anew):
    path = listing_path(data_dir, "train")
    data = path.read_bytes()
    at = data.index(b"counts.npy") + 1000
    for damaged in (data[:0], data[: len(data) // 2], b"{}", data[:at] + b"?" + data[at + 1 :]):
        path.write_bytes(damaged)
        listed_anew("train_pairs.npz cannot be used")
        assert path.read_bytes() == data
    path.unlink()
    listed_anew("no file .*train_pairs.npz")
    assert path.read_bytes() == data


@pytest.mark.parametrize("name", ["masks", "counts", "files", "about", "digest"])
def test_a_pairs_file_with_another_array_is_noticed(data_dir, name, listed_anew):
    path = listing_path(data_dir, "train")
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    changed = arrays[name].copy()
    changed.view(np.uint8).flat[-1] ^= 1
    for other in ({}, {name: np.zeros(3)}, {name: arrays[name][1:]}, {name: changed}):
        np.savez(path, **{key: array for key, array in arrays.items() if key != name}, **other)
        listed_anew("train_pairs.npz cannot be used")


def test_a_changed_annotation_of_the_same_length_and_a_removed_take_are_noticed_and_a_copied_set_is_not(
    data_dir, listed_anew, capsys
):
    for path in data_dir.glob("*/annotation.json"):
        os.utime(path, (1, 1))
    assert len(open_pairs([data_dir], "train", "ego-exo")) == 44 and capsys.readouterr().err == ""
    path = data_dir / GOLDEN_SPLITS["train"][0] / "annotation.json"
    path.write_text(path.read_text().replace("bread", "bRead"))
    pairs = listed_anew(f"out of date: {path} has changed")
    assert "bRead" in "".join(pairs.store.objects)
    path.unlink()
    assert listed_anew("annotation.json is gone").store.takes == GOLDEN_SPLITS["train"][1:]


def test_a_take_whose_frames_were_made_anew_is_noticed(tmp_path, capsys):
    data_dir = make_data_set(tmp_path, {"train": ["a", "b"]})
    before = open_pairs([data_dir], "train", "ego-exo")
    take, frame = int(before.take[-1]), int(before.frame[-1])
    path = data_dir / "b" / "cam02" / f"{frame}.jpg"
    path.write_bytes(path.read_bytes() + bytes(1))
    (data_dir / "b" / "annotation.json").touch()  # process_data.py writes it last
    capsys.readouterr()
    after = open_pairs([data_dir], "train", "ego-exo")
    assert f"frame {path} was replaced after its pairs were listed" in capsys.readouterr().err
    after.store.compare_frames([take])


def test_pairs_that_cannot_be_kept_are_listed_for_this_run_alone(data_dir, tmp_path, monkeypatch, capsys):
    path, other = listing_path(data_dir, "train"), tmp_path / "mine.json"
    kept = path.read_bytes()
    other.write_text(json.dumps({"train": GOLDEN_SPLITS["train"][:1]}))
    assert open_pairs([data_dir], "train", "ego-exo", other).store.takes == GOLDEN_SPLITS["train"][:1]
    assert capsys.readouterr().err.endswith(f"in {other}; the pairs of train are listed for this run alone\n")
    assert path.read_bytes() == kept
    path.unlink()
    monkeypatch.setattr(formats.pairs_file, "is_writable", lambda folder: False)  # root may write anywhere
    assert len(open_pairs([data_dir], "train", "ego-exo")) == 44 and not path.exists()
    assert capsys.readouterr().err == f"no file {path}; the pairs of train are listed for this run alone\n"
    monkeypatch.undo()
    monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
    assert len(open_pairs([data_dir], "train", "ego-exo")) == 44 and not path.exists()
    assert f"{path} cannot be written (No space left on device)" in capsys.readouterr().err
    assert create_pairs(data_dir).returncode == 1


def test_a_take_that_was_processed_since_is_noticed(data_dir, listed_anew):
    hidden = data_dir / "elsewhere"
    (data_dir / GOLDEN_SPLITS["train"][1]).rename(hidden)
    run = create_pairs(data_dir, "--split", "train")
    assert "1 of 2 takes not processed: 38382b7e" in run.stdout
    assert open_pairs([data_dir], "train", "ego-exo").store.takes == GOLDEN_SPLITS["train"][:1]
    hidden.rename(data_dir / GOLDEN_SPLITS["train"][1])
    assert listed_anew("has been processed").store.takes == GOLDEN_SPLITS["train"]


def test_a_set_without_pairs_cannot_be_trained_on(tmp_path):
    data_dir = write_data_set(tmp_path, {"uid": {"masks": {}, "subsample_idx": []}}, {"train": ["uid"], "val": ["b"]})
    run = create_pairs(data_dir)
    assert run.returncode == 0 and "warning: split train has no pairs: no object" in run.stderr
    for split, reason in (
        ("train", "no object in it has masks of a head-worn camera"),
        ("val", "no file .*/b/annotation"),
    ):
        with pytest.raises(UserError, match=f"^{data_dir} has no pairs of {split}: {reason}"):
            open_pairs([data_dir], split, "ego-exo").check_sets([data_dir], split)


def test_takes_that_moved_to_another_split_are_noticed(data_dir, tmp_path, listed_anew, capsys):
    path, moved = data_dir.parent / "split.json", GOLDEN_SPLITS["train"][1]
    content = path.read_text()
    path.write_text(json.dumps({"train": GOLDEN_SPLITS["train"][:1], "val": GOLDEN_SPLITS["val"], "test": [moved]}))
    listed_anew(f"train_pairs.npz is out of date: its takes are not the takes of train in {path}")
    path.write_text(content)
    listed_anew(f"train_pairs.npz is out of date: its takes are not the takes of train in {path}")
    shutil.copy(listing_path(data_dir, "train"), listing_path(data_dir, "val"))
    assert open_pairs([data_dir], "val", "ego-exo").store.takes == GOLDEN_SPLITS["val"]
    assert "val_pairs.npz is out of date: its takes are not the takes of val" in capsys.readouterr().err
    path.unlink()  # with no split there is nothing to compare with
    assert len(open_pairs([data_dir], "train", "ego-exo")) == 44


def test_pairs_of_a_split_from_elsewhere_are_compared_with_it(data_dir, tmp_path, listed_anew):
    path = tmp_path / "my splits.json"
    path.write_text(json.dumps({"train": GOLDEN_SPLITS["train"][:1]}))
    assert create_pairs(data_dir, "--splits_path", path).returncode == 0
    assert open_pairs([data_dir], "train", "ego-exo").store.takes == GOLDEN_SPLITS["train"][:1]
    path.write_text(json.dumps({"train": GOLDEN_SPLITS["train"]}))
    pairs = listed_anew("its takes are not the takes of train in .*my splits.json")
    assert pairs.store.takes == GOLDEN_SPLITS["train"]
    path.unlink()
    assert open_pairs([data_dir], "train", "ego-exo").store.takes == GOLDEN_SPLITS["train"]
