"""create_pairs.py lists the reference's pairs, whatever the takes lack, and says in one line what is wrong."""

import json
import re
import shutil

import numpy as np
import pytest

from formats.errors import UserError
from formats.masks import encode_mask
from formats.pairs import Pair, PairSet, pairs_path
from tests.golden_takes import SPLITS, create_pairs, golden, write_data_set


@pytest.fixture(scope="module")
def golden_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("golden")
    data_dir = write_data_set(root, golden("annotations"), SPLITS)
    run = create_pairs(data_dir)
    assert run.returncode == 0, run.stderr
    return root


@pytest.fixture
def data_dir(golden_root, tmp_path):
    """A copy that a test may damage; files keep their times."""
    shutil.copytree(golden_root, tmp_path / "copy")
    return tmp_path / "copy" / "processed"


def test_a_rerun_writes_the_same_bytes(data_dir):
    files = {path: path.read_bytes() for path in data_dir.glob("*_*")}
    assert len(files) == 9
    assert create_pairs(data_dir).returncode == 0
    assert files == {path: path.read_bytes() for path in data_dir.glob("*_*")}


def test_only_frames_looked_at_in_the_target_can_be_kept(data_dir):
    annotations = golden("annotations")
    looked_at = {}
    for uid in SPLITS["train"]:
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
    assert f"error: {path} lacks take {SPLITS['train'][1]}" in run.stderr


def test_the_legacy_file_lists_four_paths_a_pair_and_training_refuses_it(data_dir):
    pairs = list(PairSet.open(data_dir, "val", "exo-ego"))
    assert create_pairs(data_dir, "--split", "val", "--legacy").returncode == 0
    rows = json.loads(pairs_path(data_dir, "val", "exo-ego").read_text())
    uid, name, query, target, frame = pairs[0]
    assert len(rows) == len(pairs)
    assert rows[0] == [
        f"{data_dir}//{uid}//{camera}//{name}//{kind}//{frame}"
        for camera in (query, target)
        for kind in ("rgb", "mask")
    ]
    with pytest.raises(UserError, match=r"reference's format of paths.*run `python data/create_pairs.py"):
        PairSet.open(data_dir, "val", "exo-ego")
    assert create_pairs(data_dir, "--split", "val").returncode == 0
    assert list(PairSet.open(data_dir, "val", "exo-ego")) == pairs


def test_splits_without_processed_takes_are_passed_over(tmp_path):
    uid = SPLITS["val"][0]
    data_dir = write_data_set(tmp_path, {uid: golden("annotations")[uid]}, SPLITS)
    run = create_pairs(data_dir)
    assert run.returncode == 0
    assert "train: 2 of 2 takes are not processed" in run.stdout
    assert sorted(path.name for path in data_dir.glob("*_*")) == [
        "val_egoexo_pairs.json",
        "val_exoego_pairs.json",
        "val_masks.index",
    ]


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
    pairs = PairSet.open(data_dir, "train", "ego-exo")
    assert list(pairs) == [
        Pair("uid", "never in sight of exo ", "aria01_214-1", "cam01", 30),
        Pair("uid", "never in sight of exo ", "aria01_214-1", "cam01", 60),
        Pair("uid", "two exos", "aria02_214-1", "cam01", 0),
        Pair("uid", "two exos", "aria02_214-1", "gp02", 0),
    ]
    assert not pairs.positive.any()
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
        (lambda root: (root / "split.json").write_text('{"train": []}'), "none of the takes"),
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
    assert not list((tmp_path / "processed").glob("*_*")), "nothing half-written"


def test_an_unknown_split_is_refused(golden_root):
    assert create_pairs(golden_root / "processed", "--split", "trial").returncode == 2
