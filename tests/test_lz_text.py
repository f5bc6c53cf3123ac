import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lzstring import LZString

from formats.lz_text import ALPHABET, decompress
from formats.masks import decode_lzstring


@given(st.text(st.characters(min_codepoint=1, max_codepoint=0x2FF), min_size=1, max_size=300))
def test_whatever_the_package_compresses_comes_back(text):
    assert decompress(LZString().compressToEncodedURIComponent(text), len(text)) == text


@pytest.mark.parametrize("kinds", [1, 3, 64])
def test_long_texts_of_few_and_many_characters_come_back(kinds):
    text = "".join(random.Random(kinds).choices([chr(48 + k) for k in range(kinds)], k=5000))
    assert decompress(LZString().compressToEncodedURIComponent(text), len(text)) == text


def test_cut_off_text_is_an_error_wherever_it_is_cut():
    encoded = LZString().compressToEncodedURIComponent("PWXl0123ohmn" * 9)
    for length in range(len(encoded) - 2):  # the last two may hold nothing but the zeros behind the end mark
        with pytest.raises(ValueError):
            decompress(encoded[:length], 10**6)


def test_text_that_is_not_lzstring_is_an_error_that_quotes_it():
    for text in ("", "A", "%%%", "ÄÖ", "////", "N4Ig" * 3 + "é", None, 7, ["NoA"], "Q" * 40):
        with pytest.raises(ValueError, match="is not LZString text") as error:
            decode_lzstring(text)
        assert "object has no attribute" not in str(error.value)


def repeated(character, codes):
    """LZString text of which each code stands for one character more than the one before."""
    known = 4  # three marks and the first character
    numbers = [(0, 2), (ord(character), 8)]  # value, bits
    for known in range(4, 4 + codes):
        numbers.append((known, known.bit_length()))
    numbers.append((2, (known + 1).bit_length()))
    bits = [value >> bit & 1 for value, width in numbers for bit in range(width)]
    sixes = [bits[at : at + 6] + [0] * 5 for at in range(0, len(bits), 6)]
    return "".join(chr(ALPHABET[int("".join(map(str, six[:6])), 2)]) for six in sixes)


def test_a_mask_of_any_size_is_bounded_however_short_its_text():
    assert LZString().decompressFromEncodedURIComponent(repeated("0", 50)) == "0" * (51 * 52 // 2)
    encoded = repeated("0", 3200)
    assert len(encoded) < 7000
    with pytest.raises(ValueError, match="is not LZString text .*stands for more than 4718608 characters"):
        decode_lzstring(encoded, (8192, 8192))


def test_a_short_text_that_stands_for_a_long_one_is_not_read_to_its_end():
    encoded = LZString().compressToEncodedURIComponent("a" * 1_000_000)
    assert len(encoded) < 5000
    with pytest.raises(ValueError, match="stands for more than 1000 characters"):
        decompress(encoded, 1000)
    with pytest.raises(ValueError, match="is not LZString text .*stands for more than"):
        decode_lzstring(encoded, (90, 100))
