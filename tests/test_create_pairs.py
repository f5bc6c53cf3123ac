"""create_pairs.py lists the reference's pairs, whatever the takes lack, and says in one line what is wrong."""

import json
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest

from common.arguments import SETTINGS
from common.errors import UserError
from formats import pairs
from formats.masks import encode_mask
from formats.pairs import Pair, PairSet, pairs_path
from tests.made import ROOT
from tests.made.golden import GOLDEN_SPLITS, golden
from tests.made.golden_pairs import data_dir, golden_root
from tests.made.processed import create_pairs, write_data_set

__all__ = ["data_dir", "golden_root"]  # fixtures


def contents(data_dir, split="train"):
    """What the pairs of a split say, whatever the name of the folder with the arrays."""
    about = json.loads(pairs_path(data_dir, split).read_text())
    folder = data_dir / about.pop("arrays")
    return about, {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_rerun_writes_the_same_and_leaves_nothing_of_the_former_run(data_dir):
    former = contents(data_dir)
    assert set(former[1]) == {"counts.txt", "masks.npy", "ego-exo.npy", "exo-ego.npy"}
    names = {path.name for path in data_dir.iterdir()}
    assert create_pairs(data_dir).returncode == 0
    assert contents(data_dir) == former
    assert len(names - {path.name for path in data_dir.iterdir()}) == 3
    assert len(list(data_dir.glob("*_pairs_*"))) == 3


def test_what_a_killed_run_left_is_removed_and_nothing_of_the_users(data_dir):
    (data_dir / "train_pairs_0000aaaa").mkdir()
    (data_dir / "train_pairs_backup").mkdir()
    assert create_pairs(data_dir).returncode == 0
    assert not (data_dir / "train_pairs_0000aaaa").exists()
    assert (data_dir / "train_pairs_backup").exists()
    assert len(list(data_dir.glob("*_pairs_*"))) == 4


def questions(data_dir):
    """Every pair of a setting and its masks, whether or not they are up to date."""
    found = PairSet(data_dir, "train", "exo-ego")
    return [(pair, found.query_mask(i), found.target_mask(i)) for i, pair in enumerate(found)]


def remove_a_mask(data_dir):
    path = data_dir / GOLDEN_SPLITS["train"][0] / "annotation.json"
    annotation = json.loads(path.read_text())
    next(masks for tracks in annotation["masks"].values() for masks in tracks.values() if masks).popitem()
    path.write_text(json.dumps(annotation))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"arrays": 5}', '{"arrays": "uid"}'])
def test_a_damaged_pairs_file_is_replaced_whatever_folder_it_names(data_dir, text):
    former, text = questions(data_dir), text.replace("uid", GOLDEN_SPLITS["train"][0])
    pairs_path(data_dir, "train").write_text(text)
    pairs.write_pairs(data_dir, "train", GOLDEN_SPLITS["train"], [])
    assert questions(data_dir) == former


STEPS = {"_copy_masks": "former", "sync_files": "former", "write_json": "former", "shutil.rmtree": "new"}


@pytest.mark.parametrize("step", STEPS)
def test_a_killed_run_leaves_the_former_pairs_or_the_new_ones_never_a_mixture(data_dir, step):
    former = questions(data_dir)
    remove_a_mask(data_dir)
    kill = f"import os; from formats import pairs; pairs.{step} = lambda *_, **__: os._exit(9)"
    write = f"pairs.write_pairs({str(data_dir)!r}, 'train', {GOLDEN_SPLITS['train']}, [])"
    assert subprocess.run([sys.executable, "-c", f"{kill}; {write}"], cwd=ROOT).returncode == 9
    left = questions(data_dir)
    assert create_pairs(data_dir).returncode == 0
    new = questions(data_dir)
    assert new != former
    assert left == (former if STEPS[step] == "former" else new)


def test_of_two_runs_at_once_one_waits_for_the_other(data_dir):
    former = questions(data_dir)
    wait = "import time; from formats import pairs; pairs.sync_files = lambda _: (print(flush=True), time.sleep(0.5))"
    write = f"pairs.write_pairs({str(data_dir)!r}, 'train', {GOLDEN_SPLITS['train'][1:]}, [])"
    first = subprocess.Popen([sys.executable, "-c", f"{wait}; {write}"], cwd=ROOT, stdout=subprocess.PIPE)
    first.stdout.readline()  # it is about to name its folder
    second = create_pairs(data_dir)
    assert first.wait() == 0
    assert f"waiting for process {first.pid} on " in second.stderr
    assert questions(data_dir) == former
    assert len(list(data_dir.glob("train_pairs_*"))) == 1


@pytest.mark.parametrize("step", ["sync_files", "write_json"])
def test_a_run_that_fails_leaves_the_former_pairs_and_nothing_else(data_dir, monkeypatch, step):
    def fail(*_):
        raise OSError("disk full")

    former, before = contents(data_dir), {path.name for path in data_dir.iterdir()}
    monkeypatch.setattr(pairs, step, fail)
    with pytest.raises(OSError, match="disk full"):
        pairs.write_pairs(data_dir, "train", GOLDEN_SPLITS["train"], [])
    assert contents(data_dir) == former
    assert {path.name for path in data_dir.iterdir()} == before


def test_only_frames_looked_at_in_the_target_can_be_kept(data_dir):
    annotations = golden("pipeline/annotations")
    looked_at = {}
    for uid in GOLDEN_SPLITS["train"]:
        object_masks = {}
        for name, cameras in annotations[uid]["masks"].items():
            tracks = {}
            for camera, frames in cameras.items():
                looked_at[uid, name, camera] = [int(frame) for frame in list(frames)[::2]]
                tracks[camera] = {"annotation": {}, "annotated_frames": looked_at[uid, name, camera]}
            object_masks[name] = tracks
        annotations[uid] = {"take_name": uid, "object_masks": object_masks}
    folder = data_dir.parent / "annotations"
    folder.mkdir()
    (folder / "relations_train.json").write_text(json.dumps({"annotations": annotations}))
    everything = list(PairSet.open(data_dir, "train", "ego-exo"))
    assert create_pairs(data_dir, "--split", "train", "--only_annotated").returncode == 0
    kept = [pair for pair in everything if pair.frame in looked_at[pair[0], pair[1], pair.target_camera]]
    assert 0 < len(kept) < len(everything)
    assert list(PairSet.open(data_dir, "train", "ego-exo")) == kept


def test_an_annotation_file_of_another_split_is_refused(data_dir):
    path = data_dir / "relations.json"
    path.write_text('{"annotations": {}}')
    run = create_pairs(data_dir, "--split", "train", "--only_annotated", "--annotationpath", path)
    assert run.returncode == 1
    assert f"error: {path} lacks take {GOLDEN_SPLITS['train'][1]}" in run.stderr


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_legacy_lists_name_the_ego_view_first_in_both_settings(data_dir, setting):
    expected_pairs = list(PairSet.open(data_dir, "val", setting))
    assert create_pairs(data_dir, "--split", "val", "--legacy").returncode == 0
    rows = json.loads((data_dir / f"val_{setting.replace('-', '')}_pairs.json").read_text())
    expected = []
    for uid, name, query, target, frame in expected_pairs:
        ego, exo = (query, target) if setting == "ego-exo" else (target, query)
        assert ego.startswith("aria")
        expected.append(
            [f"{data_dir}//{uid}//{c}//{name}//{kind}//{frame}" for c in (ego, exo) for kind in ("rgb", "mask")]
        )
    assert rows == expected
    assert list(PairSet.open(data_dir, "val", setting)) == expected_pairs  # these are still there


def test_where_only_the_legacy_lists_are_training_names_a_command_that_works(data_dir):
    data_dir = data_dir.parent.rename(data_dir.parents[1] / "a set") / "processed"
    for path in data_dir.glob("val_pairs*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert create_pairs(data_dir, "--split", "val", "--legacy").returncode == 0
    with pytest.raises(UserError, match="run `python (.*)`") as error:
        PairSet.open(data_dir, "val", "exo-ego")
    command = re.search("`python (.*)`", str(error.value))[1]
    subprocess.run([sys.executable, *shlex.split(command)], cwd=ROOT, check=True)
    assert len(PairSet.open(data_dir, "val", "exo-ego"))


def test_splits_without_processed_takes_are_passed_over(tmp_path):
    uid = GOLDEN_SPLITS["val"][0]
    data_dir = write_data_set(tmp_path, {uid: golden("pipeline/annotations")[uid]}, GOLDEN_SPLITS)
    run = create_pairs(data_dir)
    assert run.returncode == 0
    assert f"train of {tmp_path / 'split.json'}: 2 of 2 takes not processed" in run.stdout
    assert {path.name.partition("_")[0] for path in data_dir.glob("[!.]*_*")} == {"val"}


def test_objects_and_cameras_without_masks_make_no_trouble(tmp_path):
    rle = encode_mask(np.eye(8, dtype=np.uint8))
    masks = {
        "nowhere": {},
        "ego only": {"aria01_214-1": {"0": rle}},
        "exo only": {"cam01": {"0": rle}},
        "never in sight of exo ": {"aria01_214-1": {"60": rle, "30": rle}, "cam01": {}},
        "two exos": {"aria02_214-1": {"0": rle}, "cam01": {"30": rle}, "gp02": {}},
    }
    data_dir = write_data_set(tmp_path, {"uid": {"masks": masks, "subsample_idx": [0, 30]}}, {"train": ["uid"]})
    assert create_pairs(data_dir).returncode == 0
    train = PairSet.open(data_dir, "train", "ego-exo")
    assert list(train) == [
        Pair("uid", "never in sight of exo ", "aria01_214-1", "cam01", 30),
        Pair("uid", "never in sight of exo ", "aria01_214-1", "cam01", 60),
        Pair("uid", "two exos", "aria02_214-1", "cam01", 0),
        Pair("uid", "two exos", "aria02_214-1", "gp02", 0),
    ]
    assert not train.visible.any()
    assert list(PairSet.open(data_dir, "train", "exo-ego")) == [Pair("uid", "two exos", "cam01", "aria02_214-1", 30)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "split.json").unlink(), "no file .*split.json"),
        (lambda root: (root / "split.json").write_text("[]"), "does not map split names"),
        (
            lambda root: (root / "split.json").write_text('{"train": ["x"]}'),
            "none of the takes .* run data/process",
        ),
        (
            lambda root: (root / "split.json").write_text('{"train": []}'),
            "add one with data/import_take.py --split train",
        ),
        (lambda root: (root / "processed/uid/annotation.json").write_text("{"), "annotation.json is not valid JSON"),
        (
            lambda root: (root / "processed/uid/annotation.json").write_text(
                '{"masks": {"a": {"cam01": {"30": {"size": [2, 2], "counts": "P"}}}}, "subsample_idx": []}'
            ),
            "mask of 'a' in .*cam01, frame 30: mask counts 'P'",
        ),
    ],
)
def test_bad_input_ends_in_one_line(tmp_path, change, message):
    write_data_set(tmp_path, {"uid": {"masks": {}, "subsample_idx": []}}, {"train": ["uid"]})
    change(tmp_path)
    run = create_pairs(tmp_path / "processed", "--split_path", tmp_path / "split.json")
    assert run.returncode == 1
    last = run.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert "Traceback" not in run.stderr
    assert re.search(message, last), last


def test_a_malformed_take_does_not_keep_others_from_being_listed(data_dir):
    uid, other = GOLDEN_SPLITS["train"]
    path = data_dir / uid / "annotation.json"
    content = path.read_text()
    path.write_text(content.replace('"counts": "', '"counts": "~', 1))
    run = create_pairs(data_dir, "--split", "train")
    assert run.returncode == 1
    assert re.search(f"error: 1 malformed take left out: mask of .*{uid}", run.stderr.splitlines()[-1])
    expected = [question for question in questions(data_dir) if question[0].take_uid == other]
    assert questions(data_dir) == expected != []
    path.write_text(content)
    with pytest.raises(UserError, match="has changed"):
        PairSet.open(data_dir, "train", "ego-exo")


def test_a_malformed_take_does_not_keep_others_from_the_legacy_lists(data_dir):
    uid, other = GOLDEN_SPLITS["train"]
    (data_dir / uid / "annotation.json").write_text("{")
    run = create_pairs(data_dir, "--split", "train", "--legacy")
    assert run.returncode == 1 and "error: 1 malformed take left out" in run.stderr.splitlines()[-1]
    rows = json.loads((data_dir / "train_egoexo_pairs.json").read_text())
    assert rows and all(f"//{other}//" in path for row in rows for path in row)


@pytest.mark.parametrize("flags, name", [([], "train_pairs.json"), (["--legacy"], "train_egoexo_pairs.json")])
def test_half_written_lists_of_killed_runs_are_removed(data_dir, flags, name):
    (data_dir / f".{name}.0123abcd.tmp").touch()
    assert create_pairs(data_dir, "--split", "train", *flags).returncode == 0
    assert not list(data_dir.glob("*.tmp"))


def test_an_unknown_split_is_refused(golden_root):
    assert create_pairs(golden_root / "processed", "--split", "trial").returncode == 2
