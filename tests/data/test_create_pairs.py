"""create_pairs.py lists the reference's pairs, even if takes lack something, and names faults in one line."""

import re
import threading
import zipfile

import numpy as np

import formats.pairs_file
from formats.frame_files import PACK, frames_of, pack_frames
from formats.masks import encode_mask
from formats.pairs import Pair, open_pairs
from formats.pairs_file import listing_path
from tests.made.golden import GOLDEN_SPLITS, golden
from tests.made.processed import create_pairs, make_data_set, write_data_set


def test_splits_without_processed_takes_are_passed_over_and_takes_of_two_splits_are_named(tmp_path):
    uid = GOLDEN_SPLITS["val"][0]
    splits = GOLDEN_SPLITS | {"test": [uid]}
    data_dir = write_data_set(tmp_path, {uid: golden("pipeline/annotations")[uid]}, splits)
    run = create_pairs(data_dir)
    assert run.returncode == 0
    assert f"1 take in more than one of train, val, test, the first is {uid}; " in run.stderr
    assert f"train of {tmp_path / 'split.json'}: 2 of 2 takes not processed" in run.stdout
    assert {path.name.partition("_")[0] for path in data_dir.glob("[!.]*_*")} == {"val", "test"}
    (tmp_path / "split.json").replace(splits_path := data_dir / "val_pairs.npz")
    refused = create_pairs(data_dir, "--splits_path", splits_path).stderr.splitlines()[-1]
    assert refused.startswith(f"error: cannot write {splits_path}: this command reads {splits_path}; ")
    splits_path.replace(tmp_path / "split.json")
    (data_dir / uid).rename(tmp_path / "elsewhere")
    assert re.match("error: no take of .* run data/process_data.py first\n$", create_pairs(data_dir).stderr)


def test_objects_and_cameras_without_masks_make_no_trouble(tmp_path):
    rle = encode_mask(np.eye(8, dtype=np.uint8))
    masks = {
        "nowhere": {},
        "ego only": {"aria01_214-1": {"0": rle}},
        "never in sight of exo ": {"aria01_214-1": {"60": rle, "30": rle}, "cam01": {}},
        "two exos": {"aria02_214-1": {"0": rle}, "cam01": {"30": rle}, "gp02": {}},
    }
    data_dir = write_data_set(tmp_path, {"uid": {"masks": masks, "subsample_idx": [0, 30]}}, {"train": ["uid"]})
    assert create_pairs(data_dir).returncode == 0
    train = open_pairs([data_dir], "train", "ego-exo")
    assert [(pair.object_name, pair.target_camera, pair.frame) for pair in map(train.named, range(len(train)))] == [
        *(("never in sight of exo ", "cam01", frame) for frame in (30, 60)),
        *(("two exos", camera, 0) for camera in ("cam01", "gp02")),
    ]
    assert not train.visible.any()
    other = open_pairs([data_dir], "train", "exo-ego")
    assert len(other) == 1 and other.named(0) == Pair("uid", "two exos", "cam01", "aria02_214-1", 30)


def test_takes_are_listed_at_the_same_time_packed_ones_to_the_same_bytes_and_a_damaged_pack_costs_its_take_only(
    tmp_path, monkeypatch, capsys
):
    data_dir, together = make_data_set(tmp_path, {"train": ["a", "b", "c"]}), threading.Barrier(3)

    def frames_when_three_ask(folder, sized):
        together.wait(timeout=60)
        return frames_of(folder, sized)

    monkeypatch.setattr(formats.pairs_file, "frames_of", frames_when_three_ask)
    assert create_pairs(data_dir).returncode == 0
    loose, pack = listing_path(data_dir, "train").read_bytes(), data_dir / "b" / PACK
    pack_frames(pack.parent)
    assert create_pairs(data_dir).returncode == 0
    monkeypatch.undo()
    assert listing_path(data_dir, "train").read_bytes() == loose
    whole = pack.read_bytes()
    pack.write_bytes(whole[:-50])
    run = create_pairs(data_dir)
    assert run.returncode == 1
    assert f"error: 1 malformed take left out: {pack} is damaged (" in run.stderr.splitlines()[-1]
    assert open_pairs([data_dir], "train", "ego-exo").store.takes == ["a", "c"]
    pack.write_bytes(whole)
    assert open_pairs([data_dir], "train", "ego-exo").store.takes == ["a", "b", "c"]
    assert "out of date: take b was left out, and can be read now; the pairs of" in capsys.readouterr().err


def test_a_pack_of_another_program_or_with_a_wrong_directory_costs_its_take_only(tmp_path):
    data_dir = make_data_set(tmp_path, {"train": ["a", "b"]})
    pack = data_dir / "b" / PACK
    pack_frames(pack.parent)
    whole, end = pack.read_bytes(), 0
    with zipfile.ZipFile(pack) as file, zipfile.ZipFile(tmp_path / "compressed", "w", zipfile.ZIP_DEFLATED) as other:
        for name in file.namelist():
            other.writestr(name, file.read(name))
        end = file.start_dir
    faults = {"compressed": (tmp_path / "compressed").read_bytes()}
    for place, what in ((24, "size"), (28, "length of the name"), (42, "offset")):
        content = bytearray(whole)
        content[end + place] ^= 1
        faults[what] = bytes(content)
    for what, content in faults.items():
        pack.write_bytes(content)
        run = create_pairs(data_dir)
        assert run.returncode == 1, what
        assert f"error: 1 malformed take left out: {pack} is damaged (" in run.stderr.splitlines()[-1]
        assert open_pairs([data_dir], "train", "ego-exo").store.takes == ["a"]


def test_a_malformed_take_does_not_keep_others_from_being_listed(data_dir):
    uid, other = GOLDEN_SPLITS["train"]
    path = data_dir / uid / "annotation.json"
    content = path.read_text()
    path.write_text(content.replace('"counts": "', '"counts": "~', 1))
    run = create_pairs(data_dir, "--split", "train")
    assert run.returncode == 1
    assert re.search(f"error: 1 malformed take left out: .*{uid}.* mask counts", run.stderr.splitlines()[-1])
    assert open_pairs([data_dir], "train", "ego-exo").store.takes == [other]
    path.write_text(content)
    assert open_pairs([data_dir], "train", "ego-exo").store.takes == [uid, other]
