"""Read a JSON file value by value: annotation files have gigabytes, but each of their takes only megabytes.

A value in which lists and objects lie too deep in one another (some 1,000 times) raises RecursionError.
"""

import io
import json
import re
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

PART = 1 << 23  # characters that are read at once
MARGIN = 16  # a part that cuts a word or a number ("1.", "-Infin") leaves fewer characters that do not parse
SPACES = re.compile(r"[ \t\n\r]*")
parse_value = json.JSONDecoder().raw_decode


class JsonText:
    """The text of a JSON file, with a part of it in memory. Methods raise ValueError where it is not JSON."""

    def __init__(self, file: io.BufferedIOBase):
        self._file = io.TextIOWrapper(file, "utf-8")  # pyrefly: ignore[bad-specialization]
        self._text, self._at = "", 0

    def read(self, parse: Callable[[str, int], tuple[Any, int]] = parse_value) -> Any:
        """Read a value, or what `parse(text, position)` finds; this also returns where that ends."""
        while True:
            self._at = SPACES.match(self._text, self._at).end()  # pyrefly: ignore[missing-attribute]
            found = failure = None
            try:
                found, end = parse(self._text, self._at)
            except json.JSONDecodeError as error:
                failure, end = error, len(self._text) if error.msg.startswith("Unterminated string") else error.pos
            if end > len(self._text) - MARGIN and (part := self._file.read(max(PART, len(self._text)))):
                self._text, self._at = self._text[self._at :] + part, 0
            elif failure:
                raise ValueError(f"{failure.msg} at {self._text[failure.pos :][:60]!r}")
            else:
                self._at = end
                return found

    def items(self) -> Iterator[Any]:
        """Read a list, and yield its items."""
        self._expect(self._sign() == "[", "a list")
        for _ in self._parts("]"):
            yield self.read()

    def members(self, keys: Sequence[str], seen: list[str]) -> Generator[tuple[str, Any], None, bool]:
        """Read a value, objects member by member; yield the members (key, value) of the object at `keys` in it. Returns
        whether there is such an object; the value's own keys are added to `seen`.
        """
        if self._sign() != "{":
            self._at -= 1
            self.read()
            return False
        found = not keys
        for _ in self._parts("}"):
            seen.append(self.read())
            self._expect(isinstance(seen[-1], str) and self._sign() == ":", "a key and a colon")
            if not keys:
                yield seen[-1], self.read()
            elif seen[-1] == keys[0]:
                found |= yield from self.members(keys[1:], [])
            else:
                deque(self.members(keys[1:], []), maxlen=0)
        return found

    def end(self) -> None:
        self._expect(not self._sign(), "the end")

    def _sign(self) -> str:
        return self.read(lambda text, at: (text[at : at + 1], at + 1))

    def _parts(self, end: str) -> Iterator[None]:
        """Stop before each part of a list or of an object, whose beginning has been read, until its `end`."""
        if self._sign() == end:
            return
        self._at, sign = self._at - 1, ","
        while sign == ",":
            yield
            sign = self._sign()
        self._expect(sign == end, f"a comma or {end}")

    def _expect(self, is_there: bool, what: str) -> None:
        if not is_there:
            raise ValueError(f"expecting {what} at {self._text[self._at - 1 :][:60]!r}")
