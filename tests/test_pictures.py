"""inference/pictures.py: what people give as images and masks, read as they mean it or refused in one line."""

import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from inference.pictures import as_image, as_mask

SIZE = (6, 9)
RGB = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
OBJECT = np.zeros(SIZE, bool)
OBJECT[2:5, 3:7] = True


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (RGB, RGB),
        (Image.fromarray(RGB), RGB),
        (Image.fromarray(np.dstack([RGB, RGB[..., 0]])), RGB),
        (np.dstack([RGB, RGB[..., 0]]), RGB),
        (RGB[..., 1], np.dstack([RGB[..., 1]] * 3)),
        (RGB[..., 1:2], np.dstack([RGB[..., 1]] * 3)),
        (Image.fromarray(RGB[..., 1]), np.dstack([RGB[..., 1]] * 3)),
    ],
    ids=["array", "PIL", "PIL RGBA", "RGBA", "gray", "one channel", "PIL gray"],
)
def test_images_of_any_usual_form_are_rgb(image, expected):
    assert np.array_equal(as_image(image, "image"), expected)


def test_a_photograph_is_turned_as_its_camera_says():
    image = Image.fromarray(RGB)
    image.getexif()[0x0112] = 6  # turn clockwise
    assert np.array_equal(as_image(image, "image"), np.rot90(RGB, -1))


@pytest.mark.parametrize(
    ("message", "read"),
    {
        "image is an array of float64; give uint8": lambda: as_image(RGB / 255, "image"),
        "image is NoneType; give a path, a PIL image or a numpy array": lambda: as_image(None, "image"),
        "a.jpg does not exist": lambda: as_image("a.jpg", "image"),
        r"image has the shape \(6, 9, 2\)": lambda: as_image(RGB[..., :2], "image"),
        "mask holds floats other than 0 and 1": lambda: as_mask(OBJECT * 0.7, "mask", SIZE),
        "mask is 6x9, its image 9x6; it may be larger": lambda: as_mask(OBJECT.T, "mask", SIZE),
        "mask is empty": lambda: as_mask(OBJECT & False, "mask", SIZE),
        "mask has the shape": lambda: as_mask(OBJECT[None, None], "mask", SIZE),
        "mask is list": lambda: as_mask([[0, 1]], "mask", SIZE),
    }.items(),
)
def test_other_images_and_masks_are_refused_in_one_line(message, read):
    with pytest.raises(UserError, match=message):
        read()
