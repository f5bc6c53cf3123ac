"""Files that appear whole or not at all."""

import contextlib
import json
import os
import re
import secrets
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from formats.errors import UserError


@contextlib.contextmanager
def atomic_write(path: Path, mode: str = "w", sync: bool = True) -> Iterator[IO]:
    """Open a temporary file beside `path` for writing; rename it to `path` if the block ends without an exception.

    The temporary name is random, so that two writers, on two machines even, never share one; a killed one's stays
    behind for `remove_leftovers`. The data is on disk before the rename: after a crash `path` is the old file or the
    new one, never a part of either. Without `sync` this holds when the process is killed, but not when the machine is;
    whoever writes many files calls `sync_files` once at the end.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open(mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sync_files(paths: Iterable[Path]) -> None:
    """Return when the contents of all these files are on disk."""
    for path in paths:
        with Path(path).open("rb") as file:
            os.fsync(file.fileno())


def remove_leftovers(folder: Path, name: str = "*", seconds: float = 0) -> None:
    """Delete what killed writers of the files `name` left in `folder`, if it is at least so many seconds old.

    Where others may be writing these files now, an hour is safe.
    """
    for path in Path(folder).glob(f".{name}.*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime >= seconds:
                path.unlink()


def write_json(path: Path, value: Any, indent: int | None = None) -> None:
    """Write `value` as JSON, atomically."""
    with atomic_write(path) as file:
        json.dump(value, file, indent=indent)


def read_json(path: Path, remedy: str) -> Any:
    """Parse a JSON file; a missing or malformed one is a UserError that ends with `remedy`."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no file {path}; {remedy}") from None
    except (ValueError, IsADirectoryError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); {remedy}") from None


def iter_json(path: Path, keys: Sequence[str], remedy: str) -> Iterator[tuple[str, Any]]:
    """Yield the members (key, value) of the object at `keys` in a JSON file, one at a time.

    Only the file's text is held, not its content, which takes several times the memory. Raises UserError, which ends
    with `remedy`, if the file is missing or not JSON (at the place where it breaks) or has no object at `keys`.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        end, found = yield from _members(text, _skip_space(text, 0), keys)
        if end != len(text):
            raise json.JSONDecodeError("extra data", text, end)
    except FileNotFoundError:
        raise UserError(f"no file {path}; {remedy}") from None
    except (ValueError, IsADirectoryError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); {remedy}") from None
    if not found:
        raise UserError(f"{path} has no object at {'/'.join(keys) or 'its top'}; {remedy}")


def _members(text: str, at: int, keys: Sequence[str]) -> Generator[tuple[str, Any], None, tuple[int, bool]]:
    """Walk the value at `at`, yielding what is at `keys` below it; returns where it ends and whether `keys` led on."""
    if text[at : at + 1] != "{":
        return _skip_space(text, _DECODER.raw_decode(text, at)[1]), False
    at, found = _skip_space(text, at + 1), not keys
    while text[at : at + 1] != "}":
        key, at = _DECODER.raw_decode(text, at)
        if not isinstance(key, str) or text[(at := _skip_space(text, at)) : at + 1] != ":":
            raise json.JSONDecodeError("expected a name and a colon", text, at)
        at = _skip_space(text, at + 1)
        if keys and key == keys[0]:
            at, found = yield from _members(text, at, keys[1:])
        else:
            value, at = _DECODER.raw_decode(text, at)
            if not keys:
                yield key, value
            at = _skip_space(text, at)
        if text[at : at + 1] == ",":
            at = _skip_space(text, at + 1)
        elif text[at : at + 1] != "}":
            raise json.JSONDecodeError("expected a comma or the end of the object", text, at)
    return _skip_space(text, at + 1), found


def _skip_space(text: str, at: int) -> int:
    return _SPACE.match(text, at).end()


_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")
