"""Masks and their texts survive every round trip; sampling from run lengths gives the bits of decoding and resizing."""

import contextlib
import random

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lzstring import LZString

from formats.crop import Crop, put_back
from formats.geometry import EVAL_SIDE, eval_size, letterbox, nearest_axes, unletterbox
from formats.masks import (
    check_rle,
    decode_lzstring,
    decode_mask,
    encode_mask,
    fit_mask,
    letterbox_mask,
    resize_mask,
    run_lengths,
)
from tests.made.golden import GOLDEN


@st.composite
def masks(draw, max_side=90):
    """Noise, boxes, nothing or everything."""
    height, width = draw(st.integers(1, max_side)), draw(st.integers(1, max_side))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    density = draw(st.sampled_from([0, 0.02, 0.5, 1]))
    mask = (rng.random((height, width)) < density).astype(np.uint8)
    if draw(st.booleans()):
        (top, bottom), (left, right) = np.sort(rng.integers(0, height + 1, 2)), np.sort(rng.integers(0, width + 1, 2))
        mask[:] = 0
        mask[top:bottom, left:right] = 1
    return mask


@given(masks())
def test_encoding_and_decoding_gives_the_mask_back(mask):
    rle = encode_mask(mask)
    assert rle["size"] == list(mask.shape)
    np.testing.assert_array_equal(decode_mask(rle), mask)
    assert run_lengths(rle)[1::2].sum() == mask.sum()


@settings(max_examples=300)
@given(masks(), st.integers(1, 120))
def test_letterboxing_from_the_runs_equals_decoding_padding_and_resizing(mask, side):
    np.testing.assert_array_equal(letterbox_mask(encode_mask(mask), side), letterbox(mask, side))


@settings(max_examples=300)
@given(masks(), st.integers(1, 200), st.integers(1, 200))
def test_resizing_from_the_runs_equals_opencvs_nearest_neighbour(mask, height, width):
    expected = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
    np.testing.assert_array_equal(resize_mask(encode_mask(mask), (height, width)), expected)


@given(masks(), st.floats(0.05, 2))
def test_a_mask_that_is_brought_to_another_size_is_its_nearest_neighbour_but_never_vanishes(mask, scale):
    size = tuple(max(1, round(length * scale)) for length in mask.shape)
    fitted, nearest = fit_mask(mask, size), resize_mask(encode_mask(mask), size)
    assert fitted.any() == mask.any() and (not nearest.any() or np.array_equal(fitted, nearest))
    np.testing.assert_array_equal(fit_mask(encode_mask(mask), size), fitted)


NO_MASKS = {
    "has no size and counts": [None, 5, "mask", [], {"size": [2, 2]}, {"counts": "4"}],
    "mask size .{,40} is not": [
        {"size": size, "counts": "4"} for size in (None, "22", [2], [2, 2.0], [0, 2], [-2, -2])
    ],
    "mask of 30000x30000 pixels has more than 89 million": [{"size": [30000, 30000], "counts": "PXjYjj0"}],
    # A number that goes on after the text's end, a sign below the alphabet, one above it.
    "are not COCO run-length text": [{"size": [40, 40], "counts": counts} for counts in ("", "P", "!!", "~", "4é", 7)],
    # 36 pixels, twice; -1 and 5; thrice 2^62 and so many that the sum is 2^64 + 16.
    "runs add up to .* pixels, not to": [
        *({"size": size, "counts": "T1"} for size in ([7, 6], [5, 6])),
        {"size": [2, 2], "counts": "O5"},
        {"size": [4, 4], "counts": "PPPPPPPPPPPP4PPPPPPPPPPPP4PPPPPPPPPPPP4`0"},
    ],
}


@pytest.mark.parametrize("message", NO_MASKS)
def test_what_is_no_mask_is_refused_in_one_line(message):
    for rle in NO_MASKS[message]:
        with pytest.raises(ValueError, match=message):
            check_rle(rle)


@given(masks(max_side=40), st.data())
def test_damaged_counts_decode_to_something_or_raise_one_kind_of_error(mask, data):
    counts = list(encode_mask(mask)["counts"])
    counts[data.draw(st.integers(0, len(counts) - 1))] = data.draw(st.characters(max_codepoint=255))
    with contextlib.suppress(ValueError):
        rle = check_rle({"size": list(mask.shape), "counts": "".join(counts)})
        assert decode_mask(rle).max() <= 1


@given(st.text(st.characters(min_codepoint=1, max_codepoint=0x2FF), min_size=1, max_size=300))
@example("".join(random.Random(64).choices([chr(48 + k) for k in range(64)], k=5000)))  # codes of many bits
def test_whatever_the_package_compresses_comes_back(text):
    assert decode_lzstring(LZString().compressToEncodedURIComponent(text)) == text


def test_cut_off_text_is_an_error_wherever_it_is_cut():
    encoded = LZString().compressToEncodedURIComponent("PWXl0123ohmn" * 9)
    for length in range(len(encoded) - 2):  # the last two may hold nothing but the zeros behind the end mark
        with pytest.raises(ValueError):
            decode_lzstring(encoded[:length])


def test_text_that_is_not_lzstring_is_an_error_that_quotes_it():
    for text in ("", "A", "%%%", "ÄÖ", "////", "N4Ig" * 3 + "é", None, 7, ["NoA"]):
        with pytest.raises(ValueError, match="is not LZString text") as error:
            decode_lzstring(text)
        assert "object has no attribute" not in str(error.value)


def test_letterboxed_masks_equal_the_reference_bit_for_bit():
    expected = np.load(GOLDEN / "square_pad.npz")
    rng = np.random.default_rng(5)
    for key in ["540x960", "704x704", "960x540", "541x960", "480x640", "123x457", "1408x1408", "2160x3840"]:
        height, width = map(int, key.split("x"))
        coarse = rng.integers(0, 2, (height // 8 + 1, width // 8 + 1), dtype=np.uint8)
        mask = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST)
        if key == "541x960":  # the reference fails on odd differences
            assert letterbox(mask, EVAL_SIDE).shape == (480, 480)
            continue
        golden_mask = np.unpackbits(expected[key]).reshape(480, 480)
        np.testing.assert_array_equal(letterbox(mask, EVAL_SIDE), golden_mask)
        np.testing.assert_array_equal(letterbox_mask(encode_mask(mask), EVAL_SIDE), golden_mask)


@pytest.mark.parametrize(
    ("size", "small"),
    [((2160, 3840), (270, 480)), ((1408, 1408), (480, 480)), ((540, 960), (270, 480)), ((960, 540), (480, 270))],
)
def test_the_long_side_is_scaled_to_480_and_a_letterboxed_pixel_is_the_one_that_the_benchmark_keeps(size, small):
    assert eval_size(size) == small
    image = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    rows, cols = nearest_axes(size, small)
    letterboxed = letterbox(image, 480).astype(np.float32)
    for kept in put_back(letterboxed, Crop.whole(small), small), unletterbox(letterboxed, size)[rows[:, None], cols]:
        np.testing.assert_array_equal(kept, image[rows[:, None], cols])
