"""Masks of pairs are the masks of the annotation files; a pairs file that does not fit these files is refused."""

import json
import os
import shutil

import numpy as np
import pytest

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


def refused(data_dir, match, flags=""):
    remedy = f"run `python data/create_pairs.py --data_dir {data_dir} --split train{flags}`"
    with pytest.raises(UserError, match=f"^[^\n]*{match}[^\n]*{remedy}[^\n]*$"):
        open_pairs([data_dir], "train", "ego-exo")


def test_a_missing_or_damaged_pairs_file_is_named(data_dir):
    path = listing_path(data_dir, "train")
    data = path.read_bytes()
    at = data.index(b"counts.npy") + 1000
    for damaged in (data[:0], data[: len(data) // 2], b"{}", data[:at] + b"?" + data[at + 1 :]):
        path.write_bytes(damaged)
        refused(data_dir, "train_pairs.npz cannot be used")
    path.unlink()
    refused(data_dir, "no file .*train_pairs.npz")


@pytest.mark.parametrize("name", ["masks", "counts", "files", "about", "digest"])
def test_a_pairs_file_with_another_array_is_named(data_dir, name):
    path = listing_path(data_dir, "train")
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    changed = arrays[name].copy()
    changed.view(np.uint8).flat[-1] ^= 1
    for other in ({}, {name: np.zeros(3)}, {name: arrays[name][1:]}, {name: changed}):
        np.savez(path, **{key: array for key, array in arrays.items() if key != name}, **other)
        refused(data_dir, "train_pairs.npz cannot be used")


def test_a_changed_annotation_of_the_same_length_and_a_removed_take_are_noticed_and_a_copied_set_is_not(data_dir):
    for path in data_dir.glob("*/annotation.json"):
        os.utime(path, (1, 1))
    assert len(open_pairs([data_dir], "train", "ego-exo")) == 44
    path = data_dir / GOLDEN_SPLITS["train"][0] / "annotation.json"
    path.write_text(path.read_text().replace("bread", "bRead"))
    refused(data_dir, f"out of date: {path} has changed")
    path.unlink()
    refused(data_dir, "annotation.json is gone")


def test_a_take_that_was_processed_since_is_noticed(data_dir):
    hidden = data_dir / "elsewhere"
    (data_dir / GOLDEN_SPLITS["train"][1]).rename(hidden)
    run = create_pairs(data_dir, "--split", "train")
    assert "1 of 2 takes not processed: 38382b7e" in run.stdout
    assert open_pairs([data_dir], "train", "ego-exo").store.takes == GOLDEN_SPLITS["train"][:1]
    hidden.rename(data_dir / GOLDEN_SPLITS["train"][1])
    refused(data_dir, "has been processed")


def test_a_set_without_pairs_is_refused(tmp_path):
    data_dir = write_data_set(tmp_path, {"uid": {"masks": {}, "subsample_idx": []}}, {"train": ["uid"]})
    run = create_pairs(data_dir)
    assert run.returncode == 0 and "warning: split train has no pairs: no object" in run.stderr
    refused(data_dir, "has no pairs")


def test_takes_that_moved_to_another_split_are_noticed(data_dir, tmp_path):
    path, moved = data_dir.parent / "split.json", GOLDEN_SPLITS["train"][1]
    content = path.read_text()
    path.write_text(json.dumps({"train": GOLDEN_SPLITS["train"][:1], "val": GOLDEN_SPLITS["val"], "test": [moved]}))
    refused(data_dir, f"train_pairs.npz is out of date: its takes are not the takes of train in {path}")
    path.write_text(content)
    shutil.copy(listing_path(data_dir, "train"), listing_path(data_dir, "val"))
    with pytest.raises(UserError, match="val_pairs.npz is out of date: its takes are not the takes of val"):
        open_pairs([data_dir], "val", "ego-exo")
    path.unlink()  # with no split there is nothing to compare with
    assert len(open_pairs([data_dir], "train", "ego-exo")) == 44


def test_pairs_of_a_split_from_elsewhere_are_compared_with_it(data_dir, tmp_path):
    path = tmp_path / "my splits.json"
    path.write_text(json.dumps({"train": GOLDEN_SPLITS["train"][:1]}))
    assert create_pairs(data_dir, "--splits_path", path).returncode == 0
    assert open_pairs([data_dir], "train", "ego-exo").store.takes == GOLDEN_SPLITS["train"][:1]
    path.write_text(json.dumps({"train": GOLDEN_SPLITS["train"]}))
    refused(data_dir, "its takes are not the takes of train in .*my splits.json", f" --splits_path '{path}'")
    path.unlink()
    assert open_pairs([data_dir], "train", "ego-exo").store.takes == GOLDEN_SPLITS["train"][:1]
