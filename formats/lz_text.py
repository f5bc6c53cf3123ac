"""A fast decoder of LZString text, in which the annotation files store masks.

The lzstring package reads bit by bit and would need hours for the benchmark's two gigabytes; this module reads code by
code. The format is `compressToEncodedURIComponent` of pieroxy's lz-string. Each character holds six bits, the most
significant bit first. The bits form codes, the least significant bit first. Each code stands for a known phrase and
adds a longer phrase to the known ones. A code has as many bits as the number of known phrases needs.
"""

import base64

import numpy as np

BITS = 6  # bits that a character holds
CHAR_8, CHAR_16, END = 0, 1, 2  # codes for a new character, whose 8 or 16 bits follow the code, and for the end


def decompress(text: str) -> str:
    """Decode LZString text. Raises ValueError if `text` is cut off or is no LZString text."""
    padded = text.replace(" ", "+") + "A" * (-len(text) % 4)  # base64, with "-" for its last digit
    bits = np.unpackbits(np.frombuffer(base64.b64decode(padded, b"+-", validate=True), np.uint8))
    stream = np.packbits(bits, bitorder="little").tobytes()
    phrases = ["", "", ""]  # phrases[code]
    former, out = "", []
    position = 0  # bits read

    def read(width: int) -> int:
        nonlocal position
        start, position = position, position + width
        return int.from_bytes(stream[start >> 3 : (position + 7) >> 3], "little") >> (start & 7) & ((1 << width) - 1)

    while position + (width := len(phrases).bit_length()) <= BITS * len(text):
        code = read(width)
        if code == END:
            return "".join(out)
        if code in (CHAR_8, CHAR_16):
            phrase = chr(read(8 if code == CHAR_8 else 16))
            phrases.append(phrase)
        elif code < len(phrases):
            phrase = phrases[code]
        elif code == len(phrases) and former:
            phrase = former + former[0]  # the phrase that is added below
        else:
            raise ValueError(f"LZString code {code} stands for nothing")
        if former:
            phrases.append(former + phrase[0])
        former = phrase
        out.append(phrase)
    raise ValueError("LZString text is cut off")
