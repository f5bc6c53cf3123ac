"""Pictures and masks that users give are read as they are meant, or refused."""

import itertools

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from common.errors import UserError, warn_once
from formats.picture_files import label_values, read_mask, read_picture, to_mask
from inference.predictor import as_image, as_mask
from tests.made import ROOT

SIZE = (6, 9)
RGB = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
DRAWN = np.zeros(SIZE, bool)
DRAWN[2:5, 3:7] = True


IMAGES = [RGB, Image.fromarray(RGB), np.dstack([RGB, RGB[..., 0]]), torch.from_numpy(RGB).permute(2, 0, 1)]
GRAY_IMAGES = [RGB[..., 1], Image.fromarray(RGB[..., 1]), RGB[..., 1][None]]


def test_images_of_any_usual_form_are_rgb():
    for image in IMAGES:
        assert np.array_equal(as_image(image, "image"), RGB)
    for image in GRAY_IMAGES:
        assert np.array_equal(as_image(image, "image"), np.dstack([RGB[..., 1]] * 3))


@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.int64, torch.float32, torch.bfloat16], ids=str)
def test_a_mask_may_be_a_tensor_and_have_a_leading_1_as_sam_2_gives_it(kind):
    for shape in (SIZE, (1, *SIZE)):
        mask = torch.from_numpy(DRAWN).to(kind).reshape(shape).requires_grad_(kind.is_floating_point)
        assert np.array_equal(as_mask(mask, "mask", SIZE), DRAWN)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_turned_as_its_camera_says(tmp_path, orientation):
    image = Image.fromarray(RGB)
    image.getexif()[0x0112] = orientation
    image.save(tmp_path / "turned.png", exif=image.getexif())
    turned = np.asarray(ImageOps.exif_transpose(image))
    for picture in (image, tmp_path / "turned.png"):
        assert np.array_equal(as_image(picture, "image"), turned)
    image.save(tmp_path / "turned.avif", exif=image.getexif(), quality=100, subsampling="4:4:4")
    assert np.allclose(as_image(tmp_path / "turned.avif", "image"), turned, atol=12)


GRAY = np.tile(np.arange(0, 256, 5, dtype=np.uint8), (9, 1))
DEEP = GRAY.astype(np.uint16) * 257
DEPTHS = {"8.png": GRAY, "16.png": DEEP, "16.tif": DEEP, "rgb16.png": np.dstack([DEEP] * 3)}
DEPTHS |= {"rgba16.png": np.dstack([DEEP] * 4), "16.pgm": DEEP}


@pytest.mark.filterwarnings("ignore")  # Pillow also warns
def test_a_photograph_with_damaged_exif_data_is_read_with_a_warning(tmp_path, capsys):
    exif, path = Image.Exif(), tmp_path / "photo.jpg"
    exif[0x0112], exif[0x011A], exif[0x0132] = 6, 72.5, "2026:01:01"  # orientation, resolution, date
    Image.fromarray(RGB).save(path, exif=exif)
    content = path.read_bytes()
    for place, value in itertools.product(range(content.index(b"MM"), content.index(b"2026")), (2, 5, 255)):
        path.write_bytes(content[:place] + bytes([value]) + content[place + 1 :])
        assert read_picture(path).size == RGB.size
    assert f"warning: {path} has damaged EXIF data" in capsys.readouterr().err


@pytest.mark.parametrize("name", DEPTHS)
def test_16_bits_are_read_by_their_range(tmp_path, name):
    cv2.imwrite(str(tmp_path / name), DEPTHS[name])
    assert np.array_equal(read_picture(tmp_path / name), np.dstack([GRAY] * 3))
    with Image.open(tmp_path / name) as image:
        assert np.array_equal(as_image(image, "image"), np.dstack([GRAY] * 3))


@pytest.mark.parametrize(("kind", "message"), [(np.float32, "holds floats"), (np.int32, "holds 32 bits")])
def test_what_has_no_range_of_its_own_is_refused(tmp_path, kind, message):
    Image.fromarray(GRAY.astype(kind)).save(tmp_path / "gray.tif")
    with pytest.raises(UserError, match=f"gray.tif {message}, and nobody says which value is white"):
        read_picture(tmp_path / "gray.tif")


def test_a_picture_that_is_too_large_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3_000_000)
    for height in (1500, 1501, 4000):  # of the second Pillow warns, the third it refuses
        Image.new("RGB", (2000, height)).save(tmp_path / f"{height}.jpg")
    assert read_picture(tmp_path / "1500.jpg").shape == (1500, 2000, 3)
    for height in (1501, 4000):
        with pytest.raises(UserError, match=f"{height}.jpg has more than 3 million pixels; reduce it"):
            read_picture(tmp_path / f"{height}.jpg")


@pytest.mark.parametrize("read", [read_mask, read_picture], ids=lambda read: read.__name__)
def test_a_file_that_is_no_picture_is_refused_in_one_whole_line(tmp_path, read):
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:3000])
    (tmp_path / "text.png").write_text("no picture")
    messages = {
        "cut": r"cut.png cannot be read as a picture \(.*\); give JPEG, PNG, TIFF, WEBP, BMP, GIF, PPM, AVIF",
        "text": "text.png cannot be read as a picture; give JPEG, PNG, TIFF, WEBP, BMP, GIF, PPM, AVIF",
        "none": "none.png does not exist",
    }
    for name, message in messages.items():
        with pytest.raises(UserError, match=f"^[^\n]*/{message}$"):
            read(tmp_path / f"{name}.png")
    with pytest.raises(UserError, match="is no file"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("message", "read"),
    {
        "image is an array of float64; give uint8": lambda: as_image(RGB / 255, "image"),
        r"image has the shape \(1, 6, 9, 3\)": lambda: as_image(torch.from_numpy(RGB)[None], "image"),
        "image is 21 pixels long and 1 wide; cut it": lambda: as_image(Image.new("L", (1, 21)), "image"),
        "mask holds floats other than 0 and 1": lambda: as_mask(DRAWN * 0.7, "mask", SIZE),
        "mask is 6x9, its image 9x6; it may be larger": lambda: as_mask(DRAWN.T & False, "mask", SIZE),
        "mask is empty": lambda: as_mask(DRAWN & False, "mask", SIZE),
        "mask is list": lambda: as_mask([[0, 1]], "mask", SIZE),
    }.items(),
)
def test_other_images_and_masks_are_refused_in_one_line(message, read):
    with pytest.raises(UserError, match=message):
        read()


def test_a_mask_that_could_be_inverted_is_asked_about(capsys):
    warn_once.cache_clear()
    inverted = np.pad(np.zeros((4, 5), bool), ((1, 1), (2, 2)), constant_values=True)  # 63 % of the picture
    frame = np.pad(np.zeros((5, 6), bool), ((0, 1), (1, 2)), constant_values=True)  # 44 %
    for mask in (DRAWN, frame, inverted & (np.arange(9) > 0)):  # the last is a thing that nearly fills its picture
        as_mask(mask, "query mask", mask.shape)
    assert not capsys.readouterr().err
    as_mask(inverted, "query mask", inverted.shape)
    assert capsys.readouterr().err == (
        "warning: query mask covers most of its picture, up to all four edges; "
        "is it inverted? The object must be white\n"
    )


LARGE = cv2.ellipse(np.zeros((800, 1200), np.uint8), (500, 400), (300, 170), 20, 0, 360, 255, -1)
SOFT = cv2.resize(LARGE, (300, 200), interpolation=cv2.INTER_AREA)  # with edges as editors draw them
OBJECT = np.uint8(SOFT > 127)
with Image.open(ROOT / "assets" / "samples" / "motorcycle" / "query.jpg") as photo:
    PHOTOGRAPH = photo.convert("RGB")
MASKS = {
    "0 and 1.png": OBJECT,
    "soft.png": SOFT,
    "palette.png": Image.fromarray(SOFT).convert("P"),
    "gray.jpg": SOFT,
    "on gray.png": np.maximum(SOFT, 100),
    "blue.png": SOFT[..., None] * np.uint8([0, 0, 1]),
    "painted with half a brush.png": np.dstack([SOFT * 0 + 90] * 3 + [SOFT // 2]),
    "cut out.png": np.dstack([np.asarray(PHOTOGRAPH.resize((300, 200))), SOFT]),
}


@pytest.mark.parametrize("name", MASKS)
def test_what_is_brighter_than_half_or_opaque_is_the_object(tmp_path, name):
    image = MASKS[name] if isinstance(MASKS[name], Image.Image) else Image.fromarray(MASKS[name])
    image.save(tmp_path / name)
    for mask in (read_mask(tmp_path / name), to_mask(MASKS[name])):
        assert mask.dtype == np.uint8 and mask.max() == 1
        assert (mask & OBJECT).sum() / (mask | OBJECT).sum() > 0.98


LABELS = np.zeros((40, 60), np.uint8)
LABELS[10:20, 15:40], LABELS[30:36, 5:50], LABELS[2, 3:9] = 2, 1, 3  # the third is one pixel thin
PALETTE = Image.fromarray(LABELS, "P")
PALETTE.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
COLORS = np.zeros((4, 3), np.uint8)
COLORS[1:] = (0, 128, 255), (255, 0, 0), (255, 128, 0)
LABEL_MAPS = {
    "gray": (Image.fromarray(LABELS), "1, 2, 3", 2),
    "palette": (PALETTE, "1, 2, 3", 2),
    "16 bits": (Image.fromarray(LABELS * np.uint16(1000)), "1000, 2000, 3000", 2000),
    "colors": (Image.fromarray(COLORS[LABELS]), "0x0080ff, 0xff0000, 0xff8000", 0xFF0000),
}


@pytest.mark.parametrize("kind", LABEL_MAPS)
def test_of_a_label_map_one_object_is_chosen_or_its_values_are_named(tmp_path, kind):
    image, values, value = LABEL_MAPS[kind]
    image.save(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png", value), LABELS == 2)
    assert np.array_equal(to_mask(np.asarray(image), value=value), LABELS == 2)
    with pytest.raises(UserError, match=f"mask.png holds the values {values}, .* --object, .* mask == value"):
        read_mask(tmp_path / "mask.png")
    with pytest.raises(UserError, match=f"mask.png holds the values {values}, not 77"):
        read_mask(tmp_path / "mask.png", 77)


def test_a_label_map_may_have_a_hundred_values_and_a_photograph_is_none(tmp_path):
    for count in (100, 101):
        values = np.pad(np.arange(count, dtype=np.uint8), (0, 4))
        Image.fromarray(np.tile(values, (9, 1))).save(tmp_path / f"{count}.png")
    assert label_values(tmp_path / "100.png") == list(range(1, 100))
    with pytest.raises(UserError, match="101.png is no label map: it has 101 values"):
        label_values(tmp_path / "101.png")


def test_a_picture_of_floats_is_a_mask_if_it_has_no_values_but_0_and_1(tmp_path):
    for name, values in {"mask": OBJECT, "probability": OBJECT * 0.9 + 0.05 * (SOFT > 0)}.items():
        Image.fromarray(np.float32(values)).save(tmp_path / f"{name}.tif")
    assert np.array_equal(read_mask(tmp_path / "mask.tif"), OBJECT)
    with pytest.raises(UserError, match="holds floats other than 0 and 1"):
        read_mask(tmp_path / "probability.tif")


@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_a_photograph_is_no_mask(mode):
    with pytest.raises(UserError, match="mask looks like a photograph, not a mask; draw the object in white on black"):
        to_mask(PHOTOGRAPH.convert(mode))


def test_a_photograph_with_a_white_sky_is_no_mask_of_the_sky():
    gray = np.random.default_rng(0).integers(0, 256, (90, 120), np.uint8)
    gray[:30] = 255
    with pytest.raises(UserError, match="mask looks like a photograph"):
        to_mask(gray)
