"""Masks survive every round trip, and sampling from the runs gives the bits of decoding and resizing."""

import contextlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formats.geometry import EVAL_SIDE, eval_size, letterbox
from formats.masks import (
    decode_lzstring,
    decode_mask,
    encode_lzstring,
    encode_mask,
    eval_mask,
    letterbox_mask,
    resize_mask,
    run_lengths,
    sample_mask,
)


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


@given(masks())
def test_lzstring_gives_the_counts_back(mask):
    counts = encode_mask(mask)["counts"]
    assert decode_lzstring(encode_lzstring(counts)) == counts


@settings(max_examples=300, deadline=None)
@given(masks(), st.integers(1, 120))
def test_letterboxing_from_the_runs_equals_decoding_padding_and_resizing(mask, side):
    np.testing.assert_array_equal(letterbox_mask(encode_mask(mask), side), letterbox(mask, side))


@settings(max_examples=300, deadline=None)
@given(masks(), st.integers(1, 200), st.integers(1, 200))
def test_resizing_from_the_runs_equals_opencvs_nearest_neighbour(mask, height, width):
    expected = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
    np.testing.assert_array_equal(resize_mask(encode_mask(mask), (height, width)), expected)


@given(masks(), st.data())
def test_any_rows_and_columns_can_be_sampled_in_order(mask, data):
    rows, cols = (
        np.array(sorted(data.draw(st.lists(st.integers(0, length - 1), max_size=20))), np.int64)
        for length in mask.shape
    )
    np.testing.assert_array_equal(sample_mask(encode_mask(mask), rows, cols), mask[rows[:, None], cols])


@pytest.mark.parametrize("size", [(2160, 3840), (1408, 1408), (541, 960), (1001, 450), (123, 457), (480, 480)])
def test_masks_of_real_sizes_are_letterboxed_and_scaled_bit_for_bit(size):
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 2, (size[0] // 40, size[1] // 40), dtype=np.uint8)
    mask = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_NEAREST)
    rle = encode_mask(mask)
    np.testing.assert_array_equal(letterbox_mask(rle, EVAL_SIDE), letterbox(mask, EVAL_SIDE))
    expected = cv2.resize(mask, eval_size(size)[::-1], interpolation=cv2.INTER_NEAREST)
    np.testing.assert_array_equal(eval_mask(rle), expected)


def test_a_mask_starting_with_the_object_has_a_first_run_of_no_zeros():
    assert run_lengths(encode_mask(np.ones((3, 2), np.uint8))).tolist() == [0, 6]


def test_an_empty_mask_is_one_run():
    rle = encode_mask(np.zeros((4, 5), np.uint8))
    assert run_lengths(rle).tolist() == [20]
    assert not letterbox_mask(rle, 7).any()


@pytest.mark.parametrize("change", [(1, 0), (0, 1), (-1, 0), (1000, 1000)])
def test_runs_that_do_not_fill_the_image_are_refused(change):
    rle = encode_mask(np.eye(6, dtype=np.uint8))
    rle["size"] = [rle["size"][0] + change[0], rle["size"][1] + change[1]]
    for read in (run_lengths, decode_mask, eval_mask, lambda rle: letterbox_mask(rle, 10)):
        with pytest.raises(ValueError, match="runs add up to 36 pixels, not to"):
            read(rle)


@pytest.mark.parametrize(
    "counts",
    [
        "",
        "P",  # a number that goes on after the text's end
        "4é",
        "!!",  # below the alphabet
        "~",  # above it
        "o" * 40 + "0",  # a number of 200 bits
        None,
        7,
        b"4",
    ],
)
def test_text_that_is_no_run_lengths_is_refused(counts):
    with pytest.raises(ValueError, match="are not COCO run-length text"):
        run_lengths({"size": [40, 40], "counts": counts})


@pytest.mark.parametrize("runs", [[1], [1, 1, 18, 1], [1, 1, 1, 18, 18, 1], [17, 1], [1, 530, 530, 1]])
@pytest.mark.parametrize("side", [1, 2, 5, 64])
def test_no_mask_is_longer_than_masks_may_be(runs, side):
    pixels = np.repeat(np.resize([0, 1], 10_000), np.resize(runs, 10_000))[: side * side]
    for mask in (pixels.reshape(side, side).T, 1 - pixels.reshape(side, side).T):
        np.testing.assert_array_equal(decode_mask(encode_mask(mask)), mask)


@pytest.mark.parametrize(("size", "length"), [([1, 1], 18), ([2, 2], 21), ([64, 64], 4625), ([8192, 8192], 5_000_000)])
def test_counts_that_are_longer_than_those_of_any_mask_of_their_size_are_refused(size, length):
    for read in (run_lengths, decode_mask, eval_mask, lambda rle: letterbox_mask(rle, 10)):
        with pytest.raises(ValueError, match=f"longer than those of any mask of {size[0]}x{size[1]}$"):
            read({"size": size, "counts": "0" * length})


def test_negative_runs_are_refused():
    with pytest.raises(ValueError, match="add up to"):
        run_lengths({"size": [2, 2], "counts": "O5"})  # -1, 5


def coco_number(number):
    """A number as COCO's text has it: five bits a character, the lowest first, and whether more follow."""
    digit, rest = number & 31, number >> 5
    more = rest != (-1 if digit & 16 else 0)
    return chr(48 + digit + 32 * more) + (coco_number(rest) if more else "")


def test_runs_whose_sum_is_right_only_in_64_bits_are_refused():
    pixels, rise, tail = 8192 * 8192, 4096, 2**15

    def differences(level, tail_shift=0, last_shift=0):
        """Of the runs of one parity: a rise to 2^46, a plateau that two shifts fit to the pixel, an end."""
        shifts = [tail_shift, *[0] * (tail - 1), last_shift]
        return np.array([0] + [2**34 - 1] * rise + [0] * level + shifts, object)

    def total(differences):
        return int(np.add.accumulate(differences).sum())

    wanted = 2**64 + pixels
    level = (wanted - 2 * total(differences(0))) // (2 * rise * (2**34 - 1))
    tail_shift, last_shift = divmod(wanted - 2 * total(differences(level)), tail + 1)
    zeros, ones = differences(level, tail_shift, last_shift), differences(level)
    assert total(zeros) + total(ones) == wanted
    counts = "".join(map(coco_number, np.stack([zeros, ones], axis=1).ravel().tolist()))
    with pytest.raises(ValueError, match="add up to"):
        decode_mask({"size": [8192, 8192], "counts": counts})


@given(masks(max_side=40), st.data())
def test_damaged_counts_decode_to_something_or_raise_one_kind_of_error(mask, data):
    rle = encode_mask(mask)
    counts = list(rle["counts"])
    counts[data.draw(st.integers(0, len(counts) - 1))] = data.draw(st.characters(max_codepoint=255))
    rle["counts"] = "".join(counts)
    with contextlib.suppress(ValueError):
        assert decode_mask(rle).max() <= 1


SIZES = [None, 5, "22", [], [2], [2, 2, 2], [2, "2"], [2, None], [2, 2.0], [0, 2], [-2, -2], [10**6, 1], [1, 8000]]
SIZES += [[float("inf"), 2], [10**400, 10**400], {"0": 2}, [True, 4]]


@pytest.mark.parametrize("rle", [None, 5, "mask", [], {}, {"size": [2, 2]}, {"counts": "4"}])
def test_what_is_no_mask_is_refused_in_one_line(rle):
    for read in (run_lengths, decode_mask, eval_mask, lambda rle: letterbox_mask(rle, 10)):
        with pytest.raises(ValueError, match="has no size and counts"):
            read(rle)


@pytest.mark.parametrize("size", SIZES)
def test_sizes_that_no_picture_has_are_refused(size):
    for read in (run_lengths, decode_mask, eval_mask, lambda rle: letterbox_mask(rle, 10)):
        with pytest.raises(ValueError, match="^mask size .{,40} is not"):
            read({"size": size, "counts": "4"})


@settings(max_examples=1000, deadline=None)
@given(st.text(st.characters(max_codepoint=0x2FF), max_size=40), st.lists(st.integers(-3, 10_000), max_size=3))
def test_any_text_and_size_decode_to_a_mask_of_that_size_or_raise_one_kind_of_error(counts, size):
    with contextlib.suppress(ValueError):
        assert list(decode_mask({"size": size, "counts": counts}).shape) == size


@settings(max_examples=1000, deadline=None)
@given(st.text(st.characters(min_codepoint=48, max_codepoint=111), min_size=1, max_size=40))
def test_text_of_the_right_alphabet_decodes_or_raises_one_kind_of_error(counts):
    with contextlib.suppress(ValueError):
        run_lengths({"size": [64, 64], "counts": counts})
