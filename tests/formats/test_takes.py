"""The data set is read in the layout of its downloader; an error names malformed parts in one line."""

import json

import numpy as np
import pytest

from common.errors import UserError
from formats import takes
from formats.masks import decode_mask, encode_mask
from formats.takes import Take, find_split_path, iter_takes, parse_take, read_split, read_splits
from tests.made.results import raw_mask

MASK = np.tri(6, 9, dtype=np.uint8)


def raw_take(**changes):
    entry = raw_mask(encode_mask(MASK))
    track = {"annotation": {"300": entry, "0": entry, "30": entry}, "annotated_frames": [0, 60, 30, 300]}
    masks = {"cup _0": {"aria01_214-1": track, "cam01": {"annotation": {}, "annotated_frames": [0]}}, "nowhere": {}}
    return {"take_name": "lab_1", "scenario": "Cooking", "object_masks": masks} | changes


def test_a_data_sets_own_split_file_comes_first(tmp_path, monkeypatch):
    monkeypatch.setattr(takes, "SPLIT_PATH", tmp_path / "downloaded.json")
    assert find_split_path(tmp_path) == tmp_path / "downloaded.json"
    (tmp_path / "split.json").symlink_to("nowhere")  # another split's takes would be a wrong result
    assert find_split_path(tmp_path) == tmp_path / "split.json"


def test_every_masked_frame_counts_as_looked_at():
    raw = raw_take()
    track = raw["object_masks"]["cup _0"]["aria01_214-1"]
    track["annotated_frames"] = [60]
    assert parse_take("uid", raw).objects["cup _0"]["aria01_214-1"].annotated_frames == [0, 30, 60, 300]
    del track["annotated_frames"]
    assert parse_take("uid", raw).objects["cup _0"]["aria01_214-1"].annotated_frames == [0, 30, 300]


CORRUPT = [{"encodedMask": value} for value in ("AAAA", None)] + [{"height": value} for value in (7, "6", -6, None)]


@pytest.mark.parametrize("change", CORRUPT)
def test_a_corrupt_mask_is_a_value_error_of_its_frame_alone(change):
    raw = raw_take()
    annotation = raw["object_masks"]["cup _0"]["aria01_214-1"]["annotation"]
    annotation["30"] = annotation["30"] | change
    track = parse_take("uid", raw).objects["cup _0"]["aria01_214-1"]
    with pytest.raises(ValueError, match="mask"):
        track.mask(30)
    np.testing.assert_array_equal(decode_mask(track.mask(0)), MASK)


BAD_NAMES = 5, "", "../elsewhere", "-rf", "lab\n1", 99 * "杯", "lab\ud800"
MALFORMED = [[], {}, raw_take(object_masks=[]), *(raw_take(take_name=name) for name in BAD_NAMES)]
MALFORMED += [
    raw_take(object_masks={"cup": cameras})
    for cameras in (
        {"..": {"annotation": {}}},
        {"cam01": {}},
        {"cam01": {"annotation": {"first": {}}}},
        {"cam01": {"annotation": {"0": {"width": 1}}}},
        *({"cam01": {"annotation": {}, "annotated_frames": frames}} for frames in (5, [30.9], ["3_0"])),
    )
]


def test_a_malformed_take_is_named():
    for raw in MALFORMED:
        with pytest.raises(UserError, match="annotation of take the-uid is malformed") as error:
            parse_take("the-uid", raw)
        assert len(str(error.value)) < 200


def test_malformed_takes_do_not_keep_others_from_being_read(tmp_path):
    path = tmp_path / "relations_val.json"
    path.write_text(json.dumps({"annotations": {"a": raw_take(), "b": {}, "c": raw_take(), "../d": raw_take()}}))
    takes = dict(iter_takes(path, ["a", "b", "../d", "e"]))
    assert {uid: type(take) for uid, take in takes.items()} == {"a": Take, "b": UserError, "../d": UserError}


def test_a_split_lists_each_take_once_in_order(tmp_path):
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"train": ["b", "a", "b"], "val": [], "trial": ["a"]}))
    assert read_split(path, "train") == ["b", "a"] and read_split(path, "trial") == ["a"]
    for split in ("test", "val"):
        remedy = f"choose another --split, add a take with data/import_take.py --split {split}"
        with pytest.raises(UserError, match=f"no take of split '{split}' in .*, which has 'train', 'trial'; {remedy}"):
            read_split(path, split)


@pytest.mark.parametrize("uid", ["../outside", "a/b", "", "-rf", ".hidden", "take\ud800"])
def test_a_uid_that_cannot_be_a_folder_is_named(tmp_path, uid):
    (tmp_path / "split.json").write_text(json.dumps({"train": ["a", uid]}))
    with pytest.raises(UserError) as error:
        read_splits(tmp_path / "split.json")
    assert str(error.value).endswith(f"split.json: take uid {uid!r} cannot be the name of a folder; remove it")


@pytest.mark.parametrize(
    ("name", "read", "remedy", "more"),
    [
        ("relations_val.json", lambda path: list(iter_takes(path, ["a"])), "import_take.py .*`egoexo", []),
        ("split.json", read_splits, "import_take.py .*download_split.sh", ['{"train": {}}', '{"train": [1]}']),
    ],
)
def test_an_unusable_annotation_or_split_file_is_one_line_with_the_remedy(tmp_path, name, read, remedy, more):
    for text in (None, "{", "[]", *more):
        if text:
            (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=rf"^[^\n]*{name}.*{remedy}[^\n]*$"):
            read(tmp_path / name)
