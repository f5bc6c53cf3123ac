"""Files that appear whole or not at all."""

import contextlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import ijson

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


def link_or_copy(source: Path, path: Path) -> None:
    """Give a finished file a second name, atomically. Files are replaced, never changed, so sharing is safe."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        os.link(source, temporary)
    except OSError:  # a file system without links
        shutil.copyfile(source, temporary)
    temporary.replace(path)


def write_json(path: Path, value: Any, indent: int | None = None) -> None:
    """Write `value` as JSON, atomically.

    An iterator of (key, value) pairs, at the top or in an object, is written as an object, holding one pair at a time.
    """
    with atomic_write(path) as file:
        file.writelines(_json_parts(value, indent))


def _json_parts(value: Any, indent: int | None = None) -> Iterator[str]:
    if not _has_iterator(value):
        yield json.dumps(value, indent=indent)
        return
    separator = "{"
    for key, member in value.items() if isinstance(value, dict) else value:
        yield f"{separator}{json.dumps(key)}: "
        yield from _json_parts(member)
        separator = ", "
    yield "{}" if separator == "{" else "}"


def _has_iterator(value: Any) -> bool:
    return isinstance(value, Iterator) or (isinstance(value, dict) and any(map(_has_iterator, value.values())))


def read_json(path: Path, remedy: str) -> Any:
    """Parse a JSON file; a missing or malformed one is a UserError that ends with `remedy`."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no file {path}; {remedy}") from None
    except (ValueError, IsADirectoryError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); {remedy}") from None


def iter_json(path: Path, keys: Sequence[str], remedy: str) -> Iterator[tuple[str, Any]]:
    """Yield the members (key, value) of the object at `keys` in a JSON file, holding one at a time.

    Raises UserError, which ends with `remedy`, if the file is missing or not JSON (at the place where it breaks) or has
    no object at `keys`.
    """
    place = ".".join(keys)
    try:
        with Path(path).open("rb") as file:
            members = ijson.kvitems(file, place, use_float=True)
            if (first := next(members, None)) is not None:
                yield first
                yield from members
                return
            file.seek(0)  # an empty object, or none
            if (place, "start_map") in ((prefix, event) for prefix, event, _ in ijson.parse(file)):
                return
    except FileNotFoundError:
        raise UserError(f"no file {path}; {remedy}") from None
    except (ijson.JSONError, IsADirectoryError) as error:
        kind, _, excerpt = str(error).partition("\n")
        where = f" at {excerpt.splitlines()[0].strip()[:60]}" if excerpt else ""
        raise UserError(f"{path} is not valid JSON ({kind}{where}); {remedy}") from None
    raise UserError(f"{path} has no object at {'/'.join(keys) or 'its top'}; {remedy}")
