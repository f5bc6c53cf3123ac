"""formats/mask_pictures.py: what counts as one object's mask, and what is refused."""

import cv2
import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from formats.mask_pictures import read_mask, to_mask
from tests.made import ROOT

SIZE = (40, 60)
BOX = np.zeros(SIZE, np.uint8)
BOX[10:20, 15:40] = 1
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
        assert np.array_equal(to_mask(Image.open(tmp_path / "mask.png")), BOX)


def test_masks_are_not_turned(tmp_path):
    Image.fromarray(BYTES).save(tmp_path / "turned.png", exif=ORIENTED)
    assert np.array_equal(read_mask(tmp_path / "turned.png"), BOX)


LARGE = cv2.ellipse(np.zeros((800, 1200), np.uint8), (500, 400), (300, 170), 20, 0, 360, 255, -1)
SOFT = cv2.resize(LARGE, (300, 200), interpolation=cv2.INTER_AREA)  # with edges as editors draw them
SOFT_MASKS = {
    "gray.png": Image.fromarray(SOFT),
    "blurred.png": Image.fromarray(cv2.GaussianBlur(SOFT, (0, 0), 2)),
    "palette.png": Image.fromarray(SOFT).convert("P"),
    "yellow.png": Image.fromarray(SOFT[..., None] // np.uint8([1, 1, 8])),
    "alpha.png": Image.fromarray(np.dstack([np.full_like(SOFT, 90)] * 3 + [SOFT // 2])),
    "16 bits.png": Image.fromarray(SOFT.astype(np.uint16) * 257),
    "gray.jpg": Image.fromarray(SOFT),
    "red.jpg": Image.fromarray(SOFT[..., None] * np.uint8([1, 0, 0])),
}


@pytest.mark.parametrize("name", SOFT_MASKS)
def test_soft_edges_and_the_noise_of_jpeg_are_cut_in_the_middle(tmp_path, name):
    SOFT_MASKS[name].save(tmp_path / name)
    found, expected = read_mask(tmp_path / name), SOFT > 127
    assert (found & expected).sum() / (found | expected).sum() > 0.98


LABELS = BOX * 2
LABELS[30:36, 5:50], LABELS[2, 3:9] = 1, 3  # the third is one pixel thin
PALETTE = Image.fromarray(LABELS, "P")
PALETTE.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
COLORS = np.zeros((4, 3), np.uint8)
COLORS[1:] = (0, 128, 255), (255, 0, 0), (255, 128, 0)
LABEL_MAPS = {
    "gray": (Image.fromarray(LABELS), "1, 2, 3", 2),
    "palette": (PALETTE, "1, 2, 3", 2),
    "bright": (Image.fromarray(LABELS * 85), "85, 170, 255", 170),
    "near": (Image.fromarray(LABELS + (LABELS > 0) * np.uint8(252)), "253, 254, 255", 254),
    "16 bits": (Image.fromarray(LABELS * np.uint16(1000)), "1000, 2000, 3000", 2000),
    "colors": (Image.fromarray(COLORS[LABELS]), "0x0080ff, 0xff0000, 0xff8000", 0xFF0000),
}


@pytest.mark.parametrize("kind", LABEL_MAPS)
def test_of_a_label_map_one_object_is_chosen_or_its_values_are_named(tmp_path, kind):
    image, values, value = LABEL_MAPS[kind]
    image.save(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png", value), BOX)
    assert np.array_equal(to_mask(np.asarray(image), value=value), BOX)
    with pytest.raises(UserError, match=f"mask.png holds the values {values}; .* --object .* mask == "):
        read_mask(tmp_path / "mask.png")
    with pytest.raises(UserError, match=f"mask.png holds the values {values}, not 77"):
        read_mask(tmp_path / "mask.png", 77)


@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_photograph_is_no_mask(tmp_path, mode, suffix):
    with Image.open(ROOT / "assets" / "samples" / "motorcycle" / "query.jpg") as image:
        photograph = image.convert(mode)
    if (mode, suffix) == ("P", "jpg"):
        photograph = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (100, 1)))  # a gradient
    photograph.save(tmp_path / f"mask.{suffix}")
    with pytest.raises(UserError, match="holds many values, as photographs do; give a mask, whose object has one"):
        read_mask(tmp_path / f"mask.{suffix}")


@pytest.mark.parametrize("channels", [3, 4])
def test_a_mask_of_16_bits_a_color_is_refused_as_small_values_would_get_lost(tmp_path, channels):
    cv2.imwrite(str(tmp_path / "deep.png"), np.dstack([BOX] * channels).astype(np.uint16))
    with pytest.raises(UserError, match="deep.png has 16 bits a color"):
        read_mask(tmp_path / "deep.png")
