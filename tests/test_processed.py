"""A processed take is read back as it was written; what is malformed is named in one line."""

import json

import cv2
import numpy as np
import pytest

from formats.errors import UserError
from formats.masks import encode_mask
from formats.processed import CameraPair, ProcessedTake, pair_frames, read_frame
from tests.golden_takes import golden

RLE = encode_mask(np.tri(6, 9, dtype=np.uint8))
MASKS = {
    "cup _0": {"aria01_214-1": {60: RLE, 0: RLE}, "cam01": {30: RLE}, "gp02": {}},
    "two egos": {"aria02_214-1": {0: RLE}, "aria01_214-1": {}, "gp02": {90: RLE}},
    "ego only": {"aria01_214-1": {300: RLE}},
    "nowhere": {},
}


def test_annotation_json_of_the_golden_takes_is_written_as_it_was_read(tmp_path):
    for uid, annotation in golden("annotations").items():
        take = ProcessedTake.parse(uid, tmp_path / uid, annotation)
        take.write_annotation()
        assert ProcessedTake.read(tmp_path, uid) == take
        again = (tmp_path / uid / "annotation.json").read_text()
        assert json.loads(again) == annotation


def test_every_object_pairs_each_ego_with_each_exo():
    take = ProcessedTake("uid", None, MASKS, [0])
    assert list(take.camera_pairs("ego-exo")) == [
        CameraPair("cup _0", "aria01_214-1", "cam01"),
        CameraPair("cup _0", "aria01_214-1", "gp02"),
        CameraPair("two egos", "aria02_214-1", "gp02"),
        CameraPair("two egos", "aria01_214-1", "gp02"),
    ]
    assert list(take.camera_pairs("exo-ego")) == [
        CameraPair(name, exo, ego) for name, ego, exo in take.camera_pairs("ego-exo")
    ]


def test_pairs_need_the_query_frames_of_both_settings_on_both_sides():
    assert pair_frames(MASKS) == {
        "aria01_214-1": {0, 30, 60, 90},
        "aria02_214-1": {0, 90},
        "cam01": {0, 30, 60},
        "gp02": {0, 60, 90},
    }


def test_the_video_size_is_that_of_the_masks(tmp_path):
    take = ProcessedTake("uid", tmp_path / "uid", MASKS, [0])
    assert take.video_size("cam01") == (6, 9)
    assert take.video_size("cam05") is None
    assert take.cameras == {"aria01_214-1", "aria02_214-1", "cam01", "gp02"}
    assert take.frame_path("cam01", 30) == tmp_path / "uid" / "cam01" / "30.jpg"


@pytest.mark.parametrize(
    "text",
    [None, "", "[]", "{}", '{"masks": {}}', '{"masks": [], "subsample_idx": []}', '{"masks": {"a": {"c": {"x": 1}}}}'],
)
def test_an_unusable_annotation_json_is_one_line_with_the_remedy(tmp_path, text):
    if text is not None:
        (tmp_path / "uid").mkdir()
        (tmp_path / "uid" / "annotation.json").write_text(text)
    with pytest.raises(UserError, match="uid/annotation.json.*run data/process_data.py") as error:
        ProcessedTake.read(tmp_path, "uid")
    assert "\n" not in str(error.value)


def test_frames_are_read_as_rgb(tmp_path):
    image = np.zeros((16, 24, 3), np.uint8)
    image[..., 0] = 200  # blue, in OpenCV's order
    cv2.imwrite(str(tmp_path / "0.jpg"), image)
    frame = read_frame(tmp_path / "0.jpg")
    assert frame.shape == (16, 24, 3)
    assert frame[..., 2].mean() > 190
    assert frame[..., 0].mean() < 10


@pytest.mark.parametrize(("content", "what"), [(None, "is missing"), (b"", "cannot be decoded"), (b"x", "cannot be")])
def test_a_frame_that_cannot_be_read_is_named(tmp_path, content, what):
    path = tmp_path / "30.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"frame {path} {what}"):
        read_frame(path)
