"""Read a JSON file value by value: annotation files have gigabytes, but each of their takes only megabytes.

A value in which lists and objects lie too deep in one another (some 1,000 times) raises RecursionError.
"""

import io
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

PART = 1 << 23  # characters that are read at once
MARGIN = 16  # a part that cuts a word or a number ("1.", "-Infin") leaves fewer characters that do not parse
SPACES = re.compile(r"[ \t\n\r]*")


def iter_members(file: io.BufferedIOBase, keys: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield the members (key, value) of the object at `keys` in a JSON file. Other values yield nothing, but are read
    as well, objects member by member. Raises ValueError where the file is not JSON.
    """
    text = _Text(file)
    yield from text.members(keys)
    text.end()


def iter_items(file: io.BufferedIOBase) -> Iterator[Any]:
    """Yield the items of a JSON file that holds a list. Raises ValueError where the file is not such JSON."""
    text = _Text(file)
    yield from text.items()
    text.end()


class _Text:
    def __init__(self, file: io.BufferedIOBase):
        self._file = io.TextIOWrapper(file, "utf-8")  # pyrefly: ignore[bad-specialization]
        self._text, self._at = "", 0
        self._parse = json.JSONDecoder().raw_decode

    def peek(self) -> str:
        """The next character that is no space; "" at the end."""
        while True:
            self._at = SPACES.match(self._text, self._at).end()  # pyrefly: ignore[missing-attribute]
            if self._at < len(self._text) or not self._read_on():
                return self._text[self._at : self._at + 1]

    def take(self, characters: str) -> str:
        """Read the next character that is no space, which must be one of `characters`."""
        found = self.peek()
        if not found or found not in characters:
            raise self._error(f"expecting one of {characters}", self._at)
        self._at += 1
        return found

    def value(self) -> Any:
        self.peek()
        while True:
            try:
                value, end = self._parse(self._text, self._at)
                if end < len(self._text) - MARGIN or not self._read_on():
                    self._at = end
                    return value
            except json.JSONDecodeError as error:
                is_cut = error.pos > len(self._text) - MARGIN or error.msg.startswith("Unterminated string")
                if not is_cut or not self._read_on():
                    raise self._error(error.msg, error.pos) from None

    def items(self) -> Iterator[Any]:
        self.take("[")
        separator = "," if self.peek() != "]" else self.take("]")
        while separator == ",":
            yield self.value()
            separator = self.take(",]")

    def members(self, keys: Sequence[str]) -> Iterator[tuple[str, Any]]:
        if self.peek() != "{":
            self.value()
            return
        self.take("{")
        separator = "," if self.peek() != "}" else self.take("}")
        while separator == ",":
            if not isinstance(key := self.value(), str):
                raise self._error("expecting a key", self._at)
            self.take(":")
            if keys:
                yield from (member for member in self.members(keys[1:]) if key == keys[0])
            else:
                yield key, self.value()
            separator = self.take(",}")

    def end(self) -> None:
        if self.peek():
            raise self._error("expecting the end", self._at)

    def _read_on(self) -> bool:
        """Read the next part, and forget what has been parsed; False at the end of the file."""
        part = self._file.read(max(PART, len(self._text) - self._at))
        if part:
            self._text, self._at = self._text[self._at :] + part, 0
        return bool(part)

    def _error(self, what: str, position: int) -> ValueError:
        return ValueError(f"{what} at {self._text[position : position + 60]!r}")
