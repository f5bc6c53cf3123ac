"""Masks of pairs are those of the annotation files, in every process; files that do not fit are refused."""

import json
import multiprocessing
import os
import pickle
import shutil

import numpy as np
import pytest

from common.arguments import SETTINGS
from common.errors import UserError
from formats.pairs import BOTH, PairSet, pairs_path
from tests.made.golden import GOLDEN_SPLITS, golden
from tests.made.golden_pairs import data_dir, golden_root
from tests.made.processed import create_pairs, make_unreadable, write_data_set

__all__ = ["data_dir", "golden_root"]  # fixtures


@pytest.fixture
def train(data_dir):
    return PairSet.open(data_dir, "train", "ego-exo")


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("split", ["train", "val"])
def test_pairs_equal_the_reference(golden_root, split, setting):
    expected = golden("pipeline/pairs")[f"{split}_{setting.replace('-', '')}_pairs.json"]
    pairs = PairSet.open(golden_root / "processed", split, setting)
    turn = 1 if setting == "ego-exo" else -1
    rows = [(uid, name, *(query, target)[::turn], frame) for uid, name, query, target, frame in pairs]
    assert len(rows) == len(expected)
    assert set(rows) == set(map(tuple, expected))


@pytest.mark.parametrize("setting", SETTINGS)
def test_masks_of_a_pair_are_those_of_annotation_json(golden_root, setting):
    annotations = golden("pipeline/annotations")
    pairs = PairSet.open(golden_root / "processed", "train", setting)
    negatives = 0
    for i, (uid, name, query, target, frame) in enumerate(pairs):
        cameras = annotations[uid]["masks"][name]
        assert pairs.query_mask(i) == cameras[query][str(frame)]
        assert pairs.target_mask(i) == cameras[target].get(str(frame))
        assert pairs.visible[i] == (str(frame) in cameras[target])
        negatives += pairs.target_mask(i) is None
    assert negatives > 0


def test_the_pairs_of_both_settings_are_those_of_one_and_then_those_of_the_other(golden_root):
    both, *single = (PairSet.open(golden_root / "processed", "train", setting) for setting in (BOTH, *SETTINGS))
    assert list(both) == [pair for pairs in single for pair in pairs]
    assert both.visible.tolist() == [visible for pairs in single for visible in pairs.visible]
    assert [both.target_mask(i) for i in range(len(both))] == [
        pairs.target_mask(i) for pairs in single for i in range(len(pairs))
    ]
    assert list(pickle.loads(pickle.dumps(both))) == list(both)


def test_the_pairs_of_a_track_are_the_frames_of_its_object_and_cameras(train):
    assert train.takes == GOLDEN_SPLITS["train"]
    assert [i for track in train.tracks for i in track.numbers] == list(range(len(train)))
    for i in range(len(train)):
        track = train.track(i)
        assert i in track.numbers
        assert all(train[j][:4] == track[:4] for j in track.numbers)
        frames = [train[j].frame for j in track.numbers]
        assert frames == sorted(set(frames))


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
    assert "\n" not in str(error.value) and len(str(error.value)) < 900


def arrays(data_dir):
    return next(data_dir.glob("train_pairs_*"))


def test_missing_files_are_named(data_dir):
    (arrays(data_dir) / "masks.npy").unlink()
    refused(data_dir, "train_pairs.json cannot be used .*masks.npy")
    pairs_path(data_dir, "train").unlink()
    refused(data_dir, "no file .*train_pairs.json")


@pytest.mark.parametrize(
    "text", ["{", "7", '{"version": 2}', '{"version": 1, "tracks": 5}', '{"version": 1, "arrays": "../a"}']
)
def test_a_malformed_pairs_file_is_refused(data_dir, text):
    pairs_path(data_dir, "train").write_text(text)
    refused(data_dir, "train_pairs.json (cannot be used|is not valid JSON)")


@pytest.mark.parametrize("name", ["masks.npy", "ego-exo.npy", "counts.txt"])
@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.999])
def test_a_truncated_array_is_refused(data_dir, name, keep):
    path = arrays(data_dir) / name
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    refused(data_dir, "train_pairs.json cannot be used")


def set_track(index, value):
    return lambda about: about["tracks"]["ego-exo"][0].__setitem__(index, value)


DAMAGE = {  # of the pairs file
    "an endless version": lambda about: about.update(version="9" * 5000),
    "takes are a number": lambda about: about.update(takes=5),
    "takes are a list": lambda about: about.update(takes=list(about["takes"])),
    "a take is a number": lambda about: about["takes"].update(uid=5),
    "a take has one number more": lambda about: about["takes"].update(uid=[1, 2, 3, 4]),
    "a take outside the folder": lambda about: about["takes"].update({"../uid": [1, 2, 3]}),
    "missing is a number": lambda about: about.update(missing=5),
    "missing is a text": lambda about: about.update(missing="abc"),
    "missing holds a number": lambda about: about.update(missing=[5]),
    "missing holds no name": lambda about: about.update(missing=["a\0"]),
    "only_annotated is a text": lambda about: about.update(only_annotated="false"),
    "arrays is a number": lambda about: about.update(arrays=5),
    "arrays lie elsewhere": lambda about: about.update(arrays=".."),
    "tracks are a number": lambda about: about["tracks"].update({"ego-exo": 5}),
    "a track is a text": lambda about: about["tracks"]["ego-exo"].append("abcd0"),
    "a track is short": lambda about: about["tracks"]["ego-exo"].append(["a", 0]),
    "a take that is not listed": set_track(0, "other"),
    "a take that is no text": set_track(0, 7),
    "an object that is no text": set_track(1, None),
    "a camera that is no text": set_track(2, 7),
    "a camera that is a list": set_track(3, ["cam01"]),
    "a camera outside the folder": set_track(3, "../cam01"),
    "a count below zero": set_track(4, -1),
    "a fraction of a pair": set_track(4, 1.0),
    "true pairs": set_track(4, True),
    "endless pairs": set_track(4, 10**400),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_pairs_file_is_refused(data_dir, damage):
    path = pairs_path(data_dir, "train")
    about = json.loads(path.read_text())
    DAMAGE[damage](about)
    path.write_text(json.dumps(about))
    refused(data_dir, "train_pairs.json cannot be used")


def change(name, *place):
    """Sets an element of an array, or a field of it."""

    def damage(folder, value):
        array = np.load(folder / name)
        row = array[place[0]]
        row[place[1]] = value
        np.save(folder / name, array)

    return damage


ROWS, MASKS = "ego-exo.npy", "masks.npy"


@pytest.mark.parametrize("value", [-(2**31), -2, 10**6, 2**31 - 1])
@pytest.mark.parametrize("column", [0, 1])
def test_a_pair_of_masks_that_do_not_exist_is_refused(data_dir, column, value):
    change(ROWS, 3, column)(arrays(data_dir), value)
    refused(data_dir, "masks that do not exist")


def test_a_query_without_a_mask_is_refused(data_dir):
    change(ROWS, 3, 0)(arrays(data_dir), -1)
    refused(data_dir, "masks that do not exist")


def test_a_pair_of_masks_of_two_frames_is_refused(data_dir):
    rows = np.load(arrays(data_dir) / ROWS)
    number = int(np.flatnonzero(rows[:, 1] >= 0)[3])
    change(ROWS, number, 1)(arrays(data_dir), rows[number, 1] + 1)
    refused(data_dir, "masks of different frames")


@pytest.mark.parametrize("other", [[1, 0], [0, 0]])
def test_pairs_in_another_order_than_their_frames_are_refused(data_dir, train, other):
    rows = np.load(arrays(data_dir) / ROWS)
    first = next(track.numbers for track in train.tracks if len(track.numbers) > 1)[0]
    rows[first : first + 2] = rows[first + np.array(other)]
    np.save(arrays(data_dir) / ROWS, rows)
    refused(data_dir, "not in the order of their frames")


@pytest.mark.parametrize(
    ("field", "value"),
    [("start", -1), ("start", 2**62), ("length", 0), ("length", -5), ("length", 2**31 - 1)]
    + [(side, value) for side in ("height", "width") for value in (0, -1, 8193, 2**31 - 1, 1)],
)
@pytest.mark.parametrize("row", [0, -1])
def test_a_mask_in_another_place_or_of_an_absurd_size_is_refused(data_dir, row, field, value):
    change(MASKS, row, field)(arrays(data_dir), value)
    refused(data_dir, "do not fit together|sizes that no picture has")


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


@pytest.mark.parametrize("name", [ROWS, MASKS])
@pytest.mark.parametrize(
    "make",
    [
        lambda array: np.array([Bomb(), 1], object),
        lambda array: Bomb(),
        lambda array: array.view("<f4"),
        lambda array: array[:, None],
        lambda array: array.ravel()[0],
        lambda array: np.stack([array, array], axis=-1),
    ],
)
def test_another_array_is_refused_and_no_pickle_runs(data_dir, tmp_path, monkeypatch, name, make):
    monkeypatch.chdir(tmp_path)
    path = arrays(data_dir) / name
    made = make(np.load(path))
    if isinstance(made, np.ndarray):
        np.save(path, made)
    else:
        path.write_bytes(pickle.dumps(made))
    refused(data_dir, "is not an array|another array than expected")
    assert not (tmp_path / "exploded").exists()


def test_an_array_whose_columns_come_one_after_the_other_is_refused(data_dir):
    path = arrays(data_dir) / ROWS
    path.write_bytes(path.read_bytes().replace(b"'fortran_order': False", b"'fortran_order': True "))
    refused(data_dir, "another array than expected")


@pytest.mark.parametrize("name", [ROWS, MASKS])
@pytest.mark.parametrize(
    "header",
    [b"{'descr': '<i4', 'shape': (", b"(" * 110, b'"""', b"{}", b"\xff" * 50, b"{'descr': '<i4'}", b"\n  x\n y", b""],
)
def test_a_broken_array_header_is_refused(data_dir, name, header):
    path = arrays(data_dir) / name
    content = path.read_bytes()
    path.write_bytes(content[:10] + header.ljust(118)[:118] + content[128:])
    refused(data_dir, "is not an array")


def test_a_process_that_opens_the_pairs_of_a_later_run_is_told(data_dir, train):
    copy = pickle.dumps(train)
    assert create_pairs(data_dir, "--split", "train").returncode == 0
    with pytest.raises(UserError, match="was replaced while it was in use"):
        pickle.loads(copy)
    assert train.query_mask(0) == PairSet.open(data_dir, "train", "ego-exo").query_mask(0)  # its files stay open


def test_a_changed_annotation_is_noticed_even_at_the_same_length(data_dir):
    path = data_dir / GOLDEN_SPLITS["train"][0] / "annotation.json"
    path.write_text(path.read_text().replace("bread", "bRead"))
    refused(data_dir, f"out of date: {path} has changed")


def test_a_copied_data_set_is_not_out_of_date(data_dir):
    for path in data_dir.glob("*/annotation.json"):
        os.utime(path, (1, 1))
    assert len(PairSet.open(data_dir, "train", "ego-exo")) == 44


def test_a_removed_take_is_noticed(data_dir):
    shutil.rmtree(data_dir / GOLDEN_SPLITS["train"][1])
    refused(data_dir, "annotation.json is gone")


def test_a_take_that_was_processed_since_is_noticed(data_dir):
    hidden = data_dir / "elsewhere"
    (data_dir / GOLDEN_SPLITS["train"][1]).rename(hidden)
    run = create_pairs(data_dir, "--split", "train")
    assert "1 of 2 takes not processed: 38382b7e" in run.stdout
    assert PairSet.open(data_dir, "train", "ego-exo").takes == GOLDEN_SPLITS["train"][:1]
    hidden.rename(data_dir / GOLDEN_SPLITS["train"][1])
    refused(data_dir, "has been processed")


def test_a_take_that_cannot_be_read_is_left_out_alone_until_it_can_be_read(data_dir):
    first, second = GOLDEN_SPLITS["train"]
    path = data_dir / first / "annotation.json"
    content = path.read_bytes()
    make_unreadable(path)
    run = create_pairs(data_dir, "--split", "train")
    assert run.returncode == 1
    assert f"1 malformed take left out: {path} cannot be read (Input/output error); mend this" in run.stderr
    assert PairSet.open(data_dir, "train", "ego-exo").takes == [second]
    path.unlink()
    path.write_bytes(content)
    refused(data_dir, f"out of date: {path} has changed")


def test_a_take_that_can_no_longer_be_read_is_noticed(data_dir):
    path = data_dir / GOLDEN_SPLITS["train"][0] / "annotation.json"
    make_unreadable(path)
    refused(data_dir, f"out of date: {path} has changed")
    path.unlink()
    path.symlink_to(path)
    refused(data_dir, f"out of date: {path} has changed")


@pytest.mark.parametrize("name", ["masks.npy", "ego-exo.npy", "counts.txt"])
def test_an_array_that_is_a_pipe_or_a_device_is_refused(data_dir, put_special, name):
    put_special(arrays(data_dir) / name)
    refused(data_dir, f"cannot be used .*it is a pipe or a device.*{name}")


def test_a_set_without_pairs_is_refused(tmp_path):
    data_dir = write_data_set(tmp_path, {"uid": {"masks": {}, "subsample_idx": []}}, {"train": ["uid"]})
    assert create_pairs(data_dir).returncode == 0
    refused(data_dir, "has no pairs")
