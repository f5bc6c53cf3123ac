"""Masks of pairs are those of the annotation files, in every process; files that do not fit are refused."""

import multiprocessing
import os
import pickle
import shutil

import numpy as np
import pytest

from formats.errors import UserError
from formats.mask_index import index_path
from formats.masks import decode_mask
from formats.pairs import PairSet, pairs_path
from formats.takes import SETTINGS
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


@pytest.fixture
def train(data_dir):
    return PairSet.open(data_dir, "train", "ego-exo")


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("split", ["train", "val"])
def test_pairs_equal_the_reference(golden_root, split, setting):
    expected = golden("pairs")[f"{split}_{setting.replace('-', '')}_pairs.json"]
    pairs = PairSet.open(golden_root / "processed", split, setting)
    turn = 1 if setting == "ego-exo" else -1
    rows = [(uid, name, *(query, target)[::turn], frame) for uid, name, query, target, frame in pairs]
    assert len(rows) == len(expected)
    assert set(rows) == set(map(tuple, expected))


@pytest.mark.parametrize("setting", SETTINGS)
def test_masks_of_a_pair_are_those_of_annotation_json(golden_root, setting):
    annotations = golden("annotations")
    pairs = PairSet.open(golden_root / "processed", "train", setting)
    negatives = 0
    for i, (uid, name, query, target, frame) in enumerate(pairs):
        cameras = annotations[uid]["masks"][name]
        assert pairs.query_mask(i) == cameras[query][str(frame)]
        assert pairs.target_mask(i) == cameras[target].get(str(frame))
        assert pairs.positive[i] == (str(frame) in cameras[target])
        negatives += pairs.target_mask(i) is None
    assert negatives > 0


def test_object_sizes_are_the_parts_of_the_image_that_the_masks_cover(train):
    query, target = train.object_sizes()
    for i in range(len(train)):
        assert query[i] == pytest.approx(decode_mask(train.query_mask(i)).mean())
        rle = train.target_mask(i)
        assert target[i] == pytest.approx(decode_mask(rle).mean() if rle else 0)


def test_pairs_of_a_take_are_neighbours(train):
    assert train.takes == SPLITS["train"]
    numbers = [i for uid in train.takes for i in train.pairs_of_take(uid)]
    assert numbers == list(range(len(train)))
    assert all(train[i].take_uid == uid for uid in train.takes for i in train.pairs_of_take(uid))
    assert len(train.pairs_of_take("another")) == 0


def test_all_objects_of_a_frame_can_be_asked_for(train):
    annotation = golden("annotations")[train[0].take_uid]["masks"]
    frame, camera = train[0].frame, train[0].query_camera
    expected = {
        name: cameras[camera][str(frame)]
        for name, cameras in annotation.items()
        if str(frame) in cameras.get(camera, {})
    }
    assert len(expected) > 1
    assert train.masks_at(train[0].take_uid, camera, frame) == expected
    assert train.masks_at(train[0].take_uid, camera, 10**6) == {}
    assert train.masks_at("another", camera, frame) == {}


def test_a_synthetic_negative_is_a_target_frame_of_another_take_and_object(golden_root):
    rng = np.random.default_rng(0)
    for setting in SETTINGS:
        pairs = PairSet.open(golden_root / "processed", "train", setting)
        for i in range(len(pairs)):
            other = pairs.unrelated(i, rng)
            assert other in set(pairs)
            assert other.take_uid != pairs[i].take_uid
            assert other.object_name != pairs[i].object_name
            assert other.target_camera.startswith("aria") == (setting == "exo-ego")


def test_a_single_take_has_no_synthetic_negative(golden_root):
    pairs = PairSet.open(golden_root / "processed", "val", "ego-exo")
    assert pairs.unrelated(0, np.random.default_rng(0)) is None


def first_pairs(pairs, queue):
    queue.put([(pairs[i], pairs.query_mask(i), pairs.target_mask(i)) for i in range(len(pairs))])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_loader_processes_read_the_same(train, method):
    context = multiprocessing.get_context(method)
    queue = context.SimpleQueue()
    process = context.Process(target=first_pairs, args=(train, queue))
    process.start()
    assert queue.get() == [(train[i], train.query_mask(i), train.target_mask(i)) for i in range(len(train))]
    process.join()


def test_a_pickled_set_is_small(train):
    data = pickle.dumps(train)
    assert len(data) < 1000
    assert list(pickle.loads(data)) == list(train)


def refused(data_dir, match):
    with pytest.raises(UserError, match=match) as error:
        PairSet.open(data_dir, "train", "ego-exo")
    assert f"run `python data/create_pairs.py --data_dir {data_dir} --split train`" in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_files_are_named(data_dir):
    index_path(data_dir, "train").unlink()
    refused(data_dir, "no file .*train_masks.index")
    pairs_path(data_dir, "train", "ego-exo").unlink()
    refused(data_dir, "no file .*train_egoexo_pairs.json")


@pytest.mark.parametrize("text", ["{", "7", '{"version": 2}', '{"version": 1, "index": "", "tracks": 5}'])
def test_a_malformed_pairs_file_is_refused(data_dir, text):
    pairs_path(data_dir, "train", "ego-exo").write_text(text)
    refused(data_dir, "train_egoexo_pairs.json is")


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.999])
def test_a_truncated_index_is_refused(data_dir, keep):
    path = index_path(data_dir, "train")
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    refused(data_dir, "cannot be read.*not a whole mask index")


def test_files_of_different_runs_are_refused(data_dir):
    shutil.copy(index_path(data_dir, "val"), index_path(data_dir, "train"))
    refused(data_dir, "are of different runs")


def test_a_changed_annotation_is_noticed_even_at_the_same_length(data_dir):
    path = data_dir / SPLITS["train"][0] / "annotation.json"
    path.write_text(path.read_text().replace("bread", "bRead"))
    refused(data_dir, f"out of date: {path} has changed")


def test_a_copied_data_set_is_not_out_of_date(data_dir):
    for path in data_dir.glob("*/annotation.json"):
        os.utime(path, (1, 1))
    assert len(PairSet.open(data_dir, "train", "ego-exo")) == 44


def test_a_removed_take_is_noticed(data_dir):
    shutil.rmtree(data_dir / SPLITS["train"][1])
    refused(data_dir, "annotation.json is gone")


def test_a_take_that_was_processed_since_is_noticed(data_dir):
    hidden = data_dir / "elsewhere"
    (data_dir / SPLITS["train"][1]).rename(hidden)
    run = create_pairs(data_dir, "--split", "train")
    assert "1 of 2 takes are not processed: 38382b7e" in run.stdout
    assert PairSet.open(data_dir, "train", "ego-exo").takes == SPLITS["train"][:1]
    hidden.rename(data_dir / SPLITS["train"][1])
    refused(data_dir, "has been processed")


def test_a_set_without_pairs_is_refused(tmp_path):
    data_dir = write_data_set(tmp_path, {"uid": {"masks": {}, "subsample_idx": []}}, {"train": ["uid"]})
    assert create_pairs(data_dir).returncode == 0
    refused(data_dir, "has no pairs")
