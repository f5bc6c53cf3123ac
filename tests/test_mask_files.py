"""formats/mask_files.py and picture_files.py: masks and pictures of other programs, in every form that people have."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from formats.mask_files import find_masks
from formats.mask_pictures import read_mask, to_mask
from formats.masks import decode_mask, encode_mask
from formats.picture_files import open_picture, read_picture

SIZE = (40, 60)
BOX = np.zeros(SIZE, np.uint8)
BOX[10:20, 15:40] = 1
FORMS = {
    "polygon": [[15, 10, 40, 10, 40, 20, 15, 20]],
    "compressed": encode_mask(BOX),
    "run lengths": {"size": list(SIZE), "counts": [15 * 40 + 10, *[10, 30] * 24, 10, 20 + 20 * 40]},
}


def coco_file(path, annotations, images=({"id": 7, "file_name": "frame_000045.png"},)):
    images = [{"height": SIZE[0], "width": SIZE[1], **image} for image in images]
    annotations = [{"image_id": 7, "category_id": 1, **annotation} for annotation in annotations]
    categories = [{"id": 1, "name": "cup"}]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def png_file(path, mask):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), mask)
    return path


ORIENTED = Image.Exif()
ORIENTED[0x0112] = 6  # a viewer turns such a picture by 90 degrees
BYTES, OPAQUE = BOX * 255, np.full((*SIZE, 1), 255, np.uint8)
WHITE = np.full((*SIZE, 3), 255, np.uint8)
LEFT = np.broadcast_to(np.uint8(np.arange(SIZE[1]) < 40), SIZE)
PICTURES = {
    "16 bits, small values": Image.fromarray(BOX.astype(np.uint16) * 200),
    "16 bits, whole hundreds of 256": Image.fromarray(BOX.astype(np.uint16) * 0x6400),
    "0 and 1": Image.fromarray(BOX),
    "0 and 255": Image.fromarray(BYTES),
    "1 bit": Image.fromarray(BOX.astype(bool)),
    "colors": Image.fromarray(BOX[..., None] * np.uint8([0, 3, 0])),
    "palette": Image.fromarray(BYTES).convert("P"),
    "opaque everywhere": Image.fromarray(np.dstack([BYTES] * 3 + [OPAQUE])),
    "gray, opaque everywhere": Image.fromarray(BYTES).convert("LA"),
    "white on a transparent background": Image.fromarray(np.dstack([WHITE, BYTES])),
    "gray on a transparent background": Image.fromarray(np.dstack([WHITE[..., :1], BYTES])),
    "black on a transparent background": Image.fromarray(np.dstack([WHITE * 0, BYTES])),
    "white, but transparent on the right": Image.fromarray(np.dstack([np.where(LEFT, BYTES, 255)] * 3 + [LEFT * 255])),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_what_is_neither_black_nor_transparent_is_the_object(tmp_path, kind):
    for suffix in ("png", "tif"):
        PICTURES[kind].save(tmp_path / f"mask.{suffix}")
        found = read_mask(tmp_path / f"mask.{suffix}")
        assert found.dtype == np.uint8 and np.array_equal(found, BOX)
    array = np.asarray(PICTURES[kind])
    for given in (PICTURES[kind], array, array.astype(int), (array > 0).astype(np.float32)):
        assert np.array_equal(to_mask(given), BOX)


def test_a_transparent_color_of_a_palette_or_of_gray_is_background(tmp_path):
    palette = Image.fromarray(BOX, "P")
    palette.putpalette([255, 255, 255, 9, 9, 9])
    for image, transparent in ((palette, 0), (Image.fromarray(254 + BOX), 254)):
        image.save(tmp_path / "mask.png", transparency=transparent)
        assert np.array_equal(read_mask(tmp_path / "mask.png"), BOX)
        assert np.array_equal(to_mask(open_picture(tmp_path / "mask.png")), BOX)


def test_masks_are_not_turned(tmp_path):
    Image.fromarray(BYTES).save(tmp_path / "turned.png", exif=ORIENTED)
    assert np.array_equal(read_mask(tmp_path / "turned.png"), BOX)


@pytest.mark.parametrize("read", [read_mask, read_picture], ids=lambda read: read.__name__)
def test_a_file_that_is_no_picture_is_refused_in_one_whole_line(tmp_path, read):
    noise = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:3000])
    (tmp_path / "text.png").write_text("no picture")
    messages = {
        "cut": r"cut.png is no picture that can be read \(.*\); give JPEG or PNG",
        "text": "text.png is no picture that can be read; give JPEG or PNG",
        "none": "none.png does not exist",
    }
    for name, message in messages.items():
        with pytest.raises(UserError, match=f"^[^\n]*/{message}$"):
            read(tmp_path / f"{name}.png")
    with pytest.raises(UserError, match="is no file"):
        read(tmp_path)


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_coco_gives_the_mask_that_was_drawn(tmp_path, form):
    masks = find_masks([coco_file(tmp_path / "a.json", [{"segmentation": FORMS[form]}])])
    assert {name: list(frames) for name, frames in masks.objects.items()} == {"cup": [45]}
    assert np.array_equal(decode_mask(masks.read("cup", 45, SIZE)), BOX)


@pytest.mark.parametrize("key", ["track_id", "instance_id", "attributes"])
def test_coco_tells_objects_of_a_category_apart_by_track(tmp_path, key):
    tracks = [{"segmentation": FORMS["polygon"], key: {"track_id": n} if key == "attributes" else n} for n in (1, 2)]
    images = [{"id": 7, "file_name": "1.jpg"}, {"id": 8, "file_name": "2.jpg"}]
    masks = find_masks([coco_file(tmp_path / "a.json", tracks, images)])
    assert list(masks.objects) == ["cup_1", "cup_2"]
    assert masks.read("cup_1", 1, SIZE) and masks.read("cup_1", 2, SIZE) is None  # an image without it: not visible


def test_a_folder_and_a_single_file_are_read_by_object_and_frame(tmp_path):
    png_file(tmp_path / "m" / "red cup" / "00012.png", BOX)
    png_file(tmp_path / "m" / "red cup" / "00013.png", BOX * 0)
    masks = find_masks([tmp_path / "m"])
    assert np.array_equal(decode_mask(masks.read("red cup", 12, SIZE)), BOX)
    assert masks.read("red cup", 13, SIZE) is None
    assert find_masks([tmp_path / "m" / "red cup" / "00012.png"], 5).objects.keys() == {"00012"}


def test_a_mask_of_another_size_is_brought_to_its_videos(tmp_path):
    masks = find_masks([png_file(tmp_path / "cup.png", BOX * 255)])
    double = decode_mask(masks.read("cup", 0, (80, 120)))
    assert np.array_equal(double, np.kron(BOX, np.ones((2, 2), np.uint8)))
    with pytest.raises(UserError, match="cup.png: mask of 'cup' in frame 0: it is 60x40, its video 60x60"):
        masks.read("cup", 0, (60, 60))


def test_a_segmentation_that_is_none_is_named(tmp_path):
    runs = {"size": list(SIZE), "counts": [1, 2]}
    for segmentation, message in (([[1, 2, 3, 4]], "a polygon has fewer"), (runs, "runs add up to 3"), (5, "")):
        masks = find_masks([coco_file(tmp_path / "a.json", [{"segmentation": segmentation}])])
        with pytest.raises(UserError, match=f"mask of 'cup' in frame 45: .*{message}"):
            masks.read("cup", 45, SIZE)


def test_two_masks_of_one_object_are_not_mixed(tmp_path):
    with pytest.raises(UserError, match="two masks of 'cup' in frame 45; give each object a track_id"):
        find_masks([coco_file(tmp_path / "a.json", [{"segmentation": FORMS["polygon"]}] * 2)])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "masks does not exist; give a folder of"),
        (lambda folder: folder.mkdir(), "holds no masks; give a folder of"),
        (lambda folder: png_file(folder / "cup" / "mask.png", BOX), "mask.png has no number in its name"),
        (lambda folder: [png_file(folder / "cup" / name, BOX) for name in ("1.png", "a1.png")], "both frame 1"),
        (lambda folder: png_file(folder / "-cup" / "1.png", BOX), "object '-cup' cannot be the name of a folder"),
    ],
)
def test_what_holds_no_masks_is_said_in_one_line(tmp_path, make, message):
    make(tmp_path / "masks")
    with pytest.raises(UserError, match=message):
        find_masks([tmp_path / "masks"])


@pytest.mark.parametrize("text", ["[]", '{"images": [], "annotations": [{}], "categories": []}', "no"])
def test_json_that_is_no_coco_is_said_in_one_line(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match="a.json is no"):
        find_masks([tmp_path / "a.json"])
