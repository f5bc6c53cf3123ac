"""A processed take is read as it was written; an error names malformed parts in one line."""

import json
import resource
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from common.errors import UserError
from data.process_data import claim_data_dir
from formats.frame_files import PACK, _open, frame_bytes, pack_frames
from formats.masks import encode_mask
from formats.processed import ProcessedTake, read_frame
from tests.made.golden import golden
from tests.made.processed import make_take

RLE = encode_mask(np.tri(6, 9, dtype=np.uint8))


def test_annotation_json_of_the_golden_takes_is_written_as_it_was_read(tmp_path):
    for uid, annotation in golden("pipeline/annotations").items():
        take = ProcessedTake.parse(uid, tmp_path / uid, annotation)
        take.write_annotation()
        assert json.loads((tmp_path / uid / "annotation.json").read_text()) == annotation
        assert ProcessedTake.read(tmp_path, uid) == take


def test_what_the_original_writes_for_a_mask_that_it_cannot_decode_is_no_mask(tmp_path):
    take = ProcessedTake.parse(
        "uid", tmp_path, {"masks": {"cup": {"cam01": {"0": None, "30": RLE}}}, "subsample_idx": []}
    )
    assert take.masks == {"cup": {"cam01": {30: RLE}}}


MALFORMED = [
    {"subsample_idx": [30.9]},
    {"masks": []},
    *({"masks": {"a": {name: {}}}} for name in ("../c", "c\x1b[2J", "c" * 300, "c\ud800")),
    {"masks": {"a": {"c": {str(1 << 31): RLE}}}},
    {"masks": {"a": {"c": {"0": {"size": [2, 2], "counts": "3"}}}}},
]
UNUSABLE = [None, "", "[]", '{"masks": {}}', *(json.dumps({"masks": {}, "subsample_idx": []} | x) for x in MALFORMED)]


@pytest.mark.parametrize("text", UNUSABLE)
def test_an_unusable_annotation_json_is_one_line_with_the_remedy(tmp_path, text):
    if text is not None:
        (tmp_path / "uid").mkdir()
        (tmp_path / "uid" / "annotation.json").write_text(text)
    with pytest.raises(UserError, match=r"^[^\n]*uid/annotation.json.*run data/process_data.py[^\n]*$"):
        ProcessedTake.read(tmp_path, "uid")


def test_a_damaged_record_of_which_videos_were_read_is_refused(tmp_path):
    (tmp_path / "uid" / "cam01").mkdir(parents=True)
    (tmp_path / "uid" / "cam01" / "0.jpg").touch()
    for damaged in ("", "[]", "5", '{"videos": {}}'):
        (tmp_path / "videos.json").write_text(damaged)
        with pytest.raises(UserError, match="videos.json is not .*; delete it if its frames may stay, else its folder"):
            claim_data_dir(tmp_path, downscaled=False)


def jpeg(height=160, width=240):
    return bytearray(cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))[1])


@pytest.mark.parametrize("content", [None, b"", b"x", b"\xff\xd9"], ids=range(4))
def test_a_frame_that_cannot_be_read_is_named(tmp_path, content):
    path = tmp_path / "30.jpg"
    if content is not None:
        path.write_bytes(content)
    what = "is missing; " if content is None else "is cut off or damaged; delete it, then "
    with pytest.raises(UserError, match=f"frame {path} {what}process its take again"):
        read_frame(path)


@pytest.mark.parametrize("keep", [0.3, 0.99, -1])
@pytest.mark.parametrize("padding", [b"", bytes(512)])
def test_a_frame_that_is_cut_off_is_refused_though_it_can_be_decoded(tmp_path, monkeypatch, keep, padding):
    content = bytes(jpeg())
    keep = keep if keep < 0 else int(keep * len(content))
    (tmp_path / "0.jpg").write_bytes(content[:keep] + padding)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: np.zeros((160, 240, 3), np.uint8))  # as OpenCV 4.10 does
    with pytest.raises(UserError, match="is cut off or damaged"):
        read_frame(tmp_path / "0.jpg")


def test_frames_are_read_as_rgb_and_zeros_behind_their_end_are_no_damage(tmp_path):
    blue = np.full((16, 24, 3), (200, 0, 0), np.uint8)  # in OpenCV's order
    (tmp_path / "0.jpg").write_bytes(cv2.imencode(".jpg", blue)[1].tobytes() + bytes(4096))
    frame = read_frame(tmp_path / "0.jpg")
    assert frame.shape == (16, 24, 3) and frame[..., 2].mean() > 190 and frame[..., 0].mean() < 10


def test_a_pack_is_asked_first_and_once_and_found_by_a_process_that_read_single_files_before(tmp_path, monkeypatch):
    take, opened, open_file = make_take(tmp_path, "uid"), [], Path.open
    paths = sorted(take.folder.glob("*/*.jpg"))
    before = [frame_bytes(path) for path in paths]
    (paths[0].parent / "0060.jpg").write_bytes(b"no frame of ours")
    pack_frames(take.folder)
    with zipfile.ZipFile(take.folder / PACK) as file:
        assert len(file.namelist()) == len(paths)
    monkeypatch.setattr(Path, "open", lambda path, *args, **more: opened.append(path) or open_file(path, *args, **more))
    assert [frame_bytes(path) for path in 3 * paths] == 3 * before
    assert [path.name for path in opened].count(PACK) == len(opened) == 1
    assert _open.cache_parameters()["maxsize"] <= resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4
