"""formats/mask_files.py reads masks of other programs in all usual layouts."""

import json

import cv2
import numpy as np
import pytest

from common.errors import UserError
from formats.mask_files import find_masks
from formats.masks import decode_mask, encode_mask

SIZE = (40, 60)
BOX = np.zeros(SIZE, np.uint8)
BOX[10:20, 15:40] = 1
FORMS = {
    "polygon": [[15, 10, 40, 10, 40, 20, 15, 20]],
    "compressed": encode_mask(BOX),
    "run lengths": {"size": list(SIZE), "counts": [15 * 40 + 10, *[10, 30] * 24, 10, 20 + 20 * 40]},
}


def coco_file(path, annotations, images=({"id": 7, "file_name": "match_mp4-0045_jpg.rf.68cb444fdb7b66da.jpg"},)):
    images = [{"height": SIZE[0], "width": SIZE[1], **image} for image in images]
    annotations = [{"image_id": 7, "category_id": 1, **annotation} for annotation in annotations]
    categories = [{"id": 1, "name": "cup"}]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def png_file(path, mask):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), mask)
    return path


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_coco_gives_the_mask_that_was_drawn(tmp_path, form):
    masks = find_masks(coco_file(tmp_path / "a.json", [{"segmentation": FORMS[form]}]))
    assert {name: list(frames) for name, frames in masks.objects.items()} == {"cup": [45]}
    assert np.array_equal(decode_mask(masks.read("cup", 45, SIZE)), BOX)
    masks = find_masks(coco_file(tmp_path / "a.json", [{"segmentation": [[15, 10, 90, 10, 90, 20, 15, 20]]}]))
    assert decode_mask(masks.read("cup", 45, SIZE)).sum() == 10 * 45  # a polygon may leave its image


@pytest.mark.parametrize("key", ["track_id", "instance_id", "attributes"])
def test_coco_tells_objects_of_a_category_apart_by_track(tmp_path, key):
    tracks = [{"segmentation": FORMS["polygon"], key: {"track_id": n} if key == "attributes" else n} for n in (1, 2)]
    images = [{"id": 7, "file_name": "1.jpg"}, {"id": 8, "file_name": "2.jpg"}]
    masks = find_masks(coco_file(tmp_path / "a.json", tracks, images))
    assert list(masks.objects) == ["cup_1", "cup_2"]
    assert masks.read("cup_1", 1, SIZE) and masks.read("cup_1", 2, SIZE) is None  # an image without it: not visible


def test_a_folder_and_a_single_file_are_read_by_object_and_frame(tmp_path):
    png_file(tmp_path / "m" / "red cup" / "00012.png", BOX)
    png_file(tmp_path / "m" / "red cup" / "00013.PNG", BOX * 0)
    masks = find_masks(tmp_path / "m")
    assert np.array_equal(decode_mask(masks.read("red cup", 12, SIZE)), BOX)
    assert masks.read("red cup", 13, SIZE) is None
    assert find_masks(tmp_path / "m" / "red cup" / "00012.png", 5).objects.keys() == {"00012"}
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "red cup").symlink_to(tmp_path / "m" / "red cup")
    assert find_masks(tmp_path / "links").objects["red cup"].keys() == {12, 13}


def test_a_mask_of_another_size_is_brought_to_its_videos(tmp_path):
    masks = find_masks(png_file(tmp_path / "cup.png", BOX * 255))
    double = decode_mask(masks.read("cup", 0, (80, 120)))
    assert np.array_equal(double, np.kron(BOX, np.ones((2, 2), np.uint8)))
    png_file(tmp_path / "cup.png", np.pad(np.ones((3, 4), np.uint8), ((1, 36), (1, 55))))
    assert decode_mask(masks.read("cup", 0, (10, 15))).sum() == 1  # nearest neighbour would pass all of it over
    with pytest.raises(UserError, match="cup.png: mask of 'cup' in frame 0: it is 60x40, its video 60x60"):
        masks.read("cup", 0, (60, 60))


BAD_SEGMENTATIONS = {
    "a polygon has fewer than three points": [[1, 2, 3, 4]],
    "runs add up to 3": {"size": list(SIZE), "counts": [1, 2]},
    "a polygon has a number that is not finite": [[15, 10, 40, 10, float("nan"), 20]],
    "or beyond 100,000": [[15, 10, 40, 10, 1e9, 20]],
    "an outline of 20,000,000 pixels, more than 1,000,000": [[0, 0, 1e5, 1e5] * 100],
}


@pytest.mark.parametrize("message", BAD_SEGMENTATIONS)
def test_a_segmentation_that_is_none_is_named(tmp_path, message):
    path = coco_file(tmp_path / "a.json", [{"segmentation": BAD_SEGMENTATIONS[message]}])
    with pytest.raises(UserError, match=f"^{path}: mask of 'cup' in frame 45: [^\n]*{message}[^\n]*$"):
        find_masks(path).read("cup", 45, SIZE)


UNUSABLE = [  # what is made at a place, and what is said of it
    (lambda path: None, "masks does not exist; give a folder of"),
    (lambda path: path.mkdir(), "holds no masks; give a folder of"),
    (lambda path: png_file(path / "cup" / "mask.png", BOX), "mask.png has no number in its name"),
    (lambda path: [png_file(path / "cup" / name, BOX) for name in ("1.png", "a1.png")], "both frame 1"),
    (lambda path: png_file(path / "-cup" / "1.png", BOX), "object '-cup' cannot be the name of a folder"),
    (lambda path: path.with_suffix(".json").write_text('{"images": [], "annotations": [{}]}'), "masks.json is no"),
    (lambda path: write_coco(path, [{"segmentation": FORMS["polygon"]}] * 2), "two masks of 'cup' in frame 45; give"),
    (lambda path: write_coco(path, [], [{"id": n, "file_name": "1.jpg"} for n in (7, 8)]), "or the same number in"),
]


def write_coco(path, *content):
    coco_file(path.with_suffix(".json"), *content)


@pytest.mark.parametrize(("make", "message"), UNUSABLE)
def test_what_holds_no_masks_or_several_of_one_frame_is_said_in_one_line(tmp_path, make, message):
    make(tmp_path / "masks")
    with pytest.raises(UserError, match=f"^[^\n]*{message}[^\n]*$"):
        find_masks(next(tmp_path.iterdir(), tmp_path / "masks"))
