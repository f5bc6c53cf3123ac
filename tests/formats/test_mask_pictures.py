"""formats/mask_pictures.py: what counts as one object's mask, and what is refused."""

import cv2
import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from formats.mask_pictures import read_mask, to_mask
from tests.made import ROOT

LARGE = cv2.ellipse(np.zeros((800, 1200), np.uint8), (500, 400), (300, 170), 20, 0, 360, 255, -1)
SOFT = cv2.resize(LARGE, (300, 200), interpolation=cv2.INTER_AREA)  # with edges as editors draw them
OBJECT = np.uint8(SOFT > 127)
TRANSPARENT = Image.fromarray(OBJECT + 254)  # its background is a color that is transparent
TRANSPARENT.info["transparency"] = 254
with Image.open(ROOT / "assets" / "samples" / "motorcycle" / "query.jpg") as photo:
    PHOTOGRAPH = photo.convert("RGB")
MASKS = {
    "0 and 1.png": OBJECT,
    "bool.png": OBJECT > 0,
    "16 bits.png": OBJECT * np.uint16(200),
    "soft.png": SOFT,
    "blurred.png": cv2.GaussianBlur(SOFT, (0, 0), 3),
    "of 16 bits.png": SOFT.astype(np.uint16) * 257,
    "palette.png": Image.fromarray(SOFT).convert("P"),
    "yellow.png": SOFT[..., None] // np.uint8([1, 1, 8]),
    "gray.jpg": SOFT,
    "red.jpg": SOFT[..., None] * np.uint8([1, 0, 0]),
    "opaque everywhere.png": np.dstack([SOFT] * 3 + [SOFT * 0 + 255]),
    "painted with half a brush.png": np.dstack([SOFT * 0 + 90] * 3 + [SOFT // 2]),
    "black on nothing.png": np.dstack([SOFT * 0, SOFT]),
    "cut out.png": np.dstack([np.asarray(PHOTOGRAPH.resize((300, 200))), SOFT]),
    "white is transparent.png": TRANSPARENT,
}


@pytest.mark.parametrize("name", MASKS)
def test_what_is_brighter_than_half_or_opaque_is_the_object(tmp_path, name):
    image = MASKS[name] if isinstance(MASKS[name], Image.Image) else Image.fromarray(MASKS[name])
    exif = Image.Exif()
    exif[0x0112] = 6  # a viewer turns such a picture by 90 degrees
    image.save(tmp_path / name, exif=exif)
    for found in (read_mask(tmp_path / name), to_mask(MASKS[name])):
        assert found.dtype == np.uint8 and found.max() == 1
        assert (found & OBJECT).sum() / (found | OBJECT).sum() > 0.98


LABELS = np.zeros((40, 60), np.uint8)
LABELS[10:20, 15:40], LABELS[30:36, 5:50], LABELS[2, 3:9] = 2, 1, 3  # the third is one pixel thin
PALETTE = Image.fromarray(LABELS, "P")
PALETTE.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
COLORS = np.zeros((4, 3), np.uint8)
COLORS[1:] = (0, 128, 255), (255, 0, 0), (255, 128, 0)
LABEL_MAPS = {
    "gray": (Image.fromarray(LABELS), "1, 2, 3", 2),
    "palette": (PALETTE, "1, 2, 3", 2),
    "near": (Image.fromarray(LABELS + (LABELS > 0) * np.uint8(252)), "253, 254, 255", 254),
    "16 bits": (Image.fromarray(LABELS * np.uint16(1000)), "1000, 2000, 3000", 2000),
    "colors": (Image.fromarray(COLORS[LABELS]), "0x0080ff, 0xff0000, 0xff8000", 0xFF0000),
}


@pytest.mark.parametrize("kind", LABEL_MAPS)
def test_of_a_label_map_one_object_is_chosen_or_its_values_are_named(tmp_path, kind):
    image, values, value = LABEL_MAPS[kind]
    image.save(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png", value), LABELS == 2)
    assert np.array_equal(to_mask(np.asarray(image), value=value), LABELS == 2)
    with pytest.raises(UserError, match=f"mask.png holds the values {values}; .* --object .* mask == "):
        read_mask(tmp_path / "mask.png")
    with pytest.raises(UserError, match=f"mask.png holds the values {values}, not 77"):
        read_mask(tmp_path / "mask.png", 77)


@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_a_photograph_is_no_mask(mode):
    with pytest.raises(UserError, match="mask holds many values, as photographs do; give a mask, whose object has one"):
        to_mask(PHOTOGRAPH.convert(mode))
