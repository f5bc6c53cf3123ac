import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lzstring import LZString

from formats.lz_text import decompress
from formats.masks import decode_lzstring


@given(st.text(st.characters(min_codepoint=1, max_codepoint=0x2FF), min_size=1, max_size=300))
def test_whatever_the_package_compresses_comes_back(text):
    assert decompress(LZString().compressToEncodedURIComponent(text)) == text


@pytest.mark.parametrize("kinds", [1, 3, 64])
def test_long_texts_of_few_and_many_characters_come_back(kinds):
    text = "".join(random.Random(kinds).choices([chr(48 + k) for k in range(kinds)], k=5000))
    assert decompress(LZString().compressToEncodedURIComponent(text)) == text


def test_cut_off_text_is_an_error_wherever_it_is_cut():
    encoded = LZString().compressToEncodedURIComponent("PWXl0123ohmn" * 9)
    for length in range(len(encoded) - 2):  # the last two may hold nothing but the zeros behind the end mark
        with pytest.raises(ValueError):
            decompress(encoded[:length])


def test_text_that_is_not_lzstring_is_an_error_that_quotes_it():
    for text in ("", "A", "%%%", "ÄÖ", "////", "N4Ig" * 3 + "é", None, 7, ["NoA"]):
        with pytest.raises(ValueError, match="is not LZString text") as error:
            decode_lzstring(text)
        assert "object has no attribute" not in str(error.value)
