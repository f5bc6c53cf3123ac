"""Files that appear whole or not at all, and JSON that is read and written a member at a time.

JSON whose name ends in .gz is read through gzip.
"""

import contextlib
import errno
import fcntl
import glob
import gzip
import hashlib
import itertools
import json
import os
import re
import secrets
import shutil
import socket
import stat
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import ijson
import numpy as np

from common.errors import UserError, printable


@contextlib.contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Name `path` in an OSError of the block that names nothing: a full disk does not say what did not fit."""
    try:
        yield
    except OSError as error:
        if error.errno and not error.filename:
            error.filename = str(path)
        raise


def open_file(path: Path, buffering: int = -1) -> IO[bytes]:
    """Open a file to read its bytes. OSError, too, if it is a pipe or a device: reading those may never end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # else opening a pipe waits for somebody to write into it
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if kind == stat.S_IFREG:
        return os.fdopen(descriptor, "rb", buffering)
    os.close(descriptor)
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "it is a pipe or a device", str(path))


def read_file(path: Path) -> bytes:
    """All bytes of a file. OSError as `open_file`."""
    with open_file(path) as file:
        return file.read()


@contextlib.contextmanager
def atomic_write(path: Path, mode: str = "w", sync: bool = True) -> Iterator[IO]:
    """Open a temporary file beside `path` for writing; rename it to `path` if the block ends without an exception.

    The temporary name is random, so that two writers, even on two machines, never share one; `remove_leftovers` deletes
    those of killed writers. The data is on disk before the rename: after a crash `path` is the old file or the new one,
    never a part of either. Without `sync` this holds if the process is killed, but not if the machine is; whoever
    writes many files calls `sync_files` once at the end.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with named_errors(path), temporary.open(mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Gives an empty folder beside `path`; renames it to `path` if the block ends without an exception.

    Claims `path`, so that a second writer waits. Raises UserError if there is something at `path`.
    """
    path = Path(path).absolute()
    with claimed(path.parent, path.name, f"writes {path}"):
        if path.exists():
            raise UserError(f"{path} exists; give another name, or delete it first")
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        temporary.mkdir()
        try:
            yield temporary
            temporary.rename(path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def sync_files(paths: Iterable[Path]) -> None:
    """Return when the contents of all these files are on disk."""
    for path in paths:
        with Path(path).open("rb") as file:
            os.fsync(file.fileno())


def remove_leftovers(folder: Path, name: str | None = None, seconds: float = 0) -> None:
    """Delete what killed writers of `name`, or of anything, left in `folder`, if it is at least `seconds` old.

    An hour is safe where others may be writing these files now.
    """
    pattern = ".*.tmp" if name is None else f".{glob.escape(name)}.{'[0-9a-f]' * 8}.tmp"
    for path in Path(folder).glob(pattern):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime < seconds:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with open_file(path) as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def link_or_copy(source: Path, path: Path) -> None:
    """Give a finished file a second name, atomically. Files are replaced, never changed, so sharing is safe."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        os.link(source, temporary)
        temporary.replace(path)
    except OSError:  # a file system without links
        with atomic_write(path, "wb") as file, source.open("rb") as original:
            shutil.copyfileobj(original, file)
    finally:
        temporary.unlink(missing_ok=True)  # a rename does nothing if `path` is a name of this file already


@contextlib.contextmanager
def claimed(folder: Path, name: str, what: str, files: Iterable[str] = ()) -> Iterator[None]:
    """Let one process at a time, on any machine, write `name` in `folder`: a file, a folder, or a group of `files`.

    A later process says that it waits for the one that `what` ("writes results.json") describes. What killed writers
    of `name` and of `files` left is deleted. Nobody waits where the file system has no locks.
    """
    with only_one(Path(folder) / f".{name}.lock", what):
        for file in (name, *files):
            remove_leftovers(folder, file)
        yield


@contextlib.contextmanager
def only_one(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file `path`. It stays; the lock goes with the process.

    It is a record lock: a forked child that outlives its parent does not have it. Threads of one process all have it,
    and the process loses it as soon as it closes the file anywhere, so it must not take it twice.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as lock:  # "w" would erase who holds it
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            lock.seek(0)
            pid, _, host = lock.read().partition(" ")
            holder = f"process {pid} on {host}" if host else "another process"  # which has not written its name yet
            print(printable(f"waiting for {holder}, which {what} ({path})"), file=sys.stderr)
            fcntl.lockf(lock, fcntl.LOCK_EX)
        except OSError:
            pass
        lock.truncate(0)
        lock.write(f"{os.getpid()} {socket.gethostname()}")
        lock.flush()
        yield


def only_writer(path: Path) -> contextlib.AbstractContextManager[None]:
    """`claimed` for one file."""
    return claimed(path.parent, path.name, f"writes {path}")


def write_json(path: Path, value: Any, indent: int | None = None) -> None:
    """Write `value` as JSON, atomically.

    An iterator of (key, value) pairs, at the top or in an object, is written as an object, holding one pair at a time.
    """
    with atomic_write(path) as file:
        file.writelines(_json_parts(value, indent))


@contextlib.contextmanager
def json_list(path: Path) -> Iterator[Callable[[Any], None]]:
    """Write a JSON list, atomically, a line for each item. The block gets a function that appends an item."""
    with only_writer(path), atomic_write(path) as file:
        before = "[\n"

        def append(item: Any) -> None:
            nonlocal before
            file.write(before + json.dumps(item))
            before = ",\n"

        yield append
        file.write("[]\n" if before == "[\n" else "\n]\n")


def _json_parts(value: Any, indent: int | None = None) -> Iterator[str]:
    if not _has_iterator(value):
        yield json.dumps(value, indent=indent)
        return
    separator = "{"
    for key, member in value.items() if isinstance(value, dict) else value:
        yield f"{separator}{json.dumps(str(key))}: "
        yield from _json_parts(member)
        separator = ", "
    yield "{}" if separator == "{" else "}"


def _has_iterator(value: Any) -> bool:
    return isinstance(value, Iterator) or (isinstance(value, dict) and any(map(_has_iterator, value.values())))


def read_json(path: Path, remedy: str) -> Any:
    """Parse a JSON file. Raises UserError as `json_errors` does."""
    with json_errors(path, remedy), _open_json(path) as file:
        return json.load(file)


def iter_json(path: Path, keys: Sequence[str], remedy: str) -> Iterator[tuple[str, Any]]:
    """Yield the members (key, value) of the object at `keys` in a JSON file, holding one at a time.

    Raises UserError, which ends with `remedy`, if the file is missing or not JSON (at the place where it breaks) or has
    no object at `keys`.
    """
    count = 0
    with json_errors(path, remedy), _open_json(path) as file:
        try:
            for member in ijson.kvitems(_Shallow(file), ".".join(keys), use_float=True):
                yield member
                count += 1
            if count:
                return
        except ijson.JSONError as error:
            if not re.search("overflow|NaN|Infinity", str(error)):
                raise
        # Either there is no member (the object is empty, or there is none), or ijson refuses a number, which must not
        # cost the other members. Python's own reader handles both, but holds the whole file.
        file.seek(0)
        whole = value = json.load(file)
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, dict):
        found = ", ".join(list(whole)[:3]) if isinstance(whole, dict) else ""
        raise UserError(f"{path} holds {found or 'no object'}, not {'/'.join(keys) or 'members'}; {remedy}")
    yield from itertools.islice(value.items(), count, None)


def iter_json_list(path: Path, remedy: str) -> Iterator[Any]:
    """Yield the items of a JSON file that holds a list, one at a time. Raises UserError as `iter_json` does."""
    with json_errors(path, remedy), _open_json(path) as file:
        yield from ijson.items(_Shallow(file), "item", use_float=True)


def holds_json_list(path: Path) -> bool:
    """Whether a JSON file begins as a list; False also for one that cannot be read."""
    try:
        with _open_json(path) as file:
            return file.read(4096).lstrip()[:1] == b"["
    except (OSError, EOFError, zlib.error):
        return False


def _open_json(path: Path) -> IO[bytes]:
    file = open_file(path)
    if Path(path).suffix != ".gz":
        return file
    file.close()
    return gzip.open(path)


MAX_DEPTH = 100
_ESCAPED = re.compile(rb"\\.", re.DOTALL)
_NO_MARKS = bytes(set(range(256)) - set(b'"[{]}'))
_STEP = np.zeros(256, np.int64)  # how many levels deeper a byte leads
_STEP[list(b"[{")], _STEP[list(b"]}")] = 1, -1
_NO_GZIP = (gzip.BadGzipFile, EOFError, zlib.error)  # damaged, cut off


class _Shallow:
    """A JSON file that refuses to be read where it nests too deep: ijson takes memory by the square of the depth."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._escape, self._in_string, self._depth = file, b"", 0, 0

    def read(self, size: int) -> bytes:
        block = self._file.read(size)
        text = _ESCAPED.sub(b"", self._escape + block)
        self._escape = text[-1:] if text.endswith(b"\\") else b""
        parts = text.translate(None, _NO_MARKS).split(b'"')
        steps = _STEP[np.frombuffer(b"".join(parts[self._in_string :: 2]), np.uint8)]  # outside of strings
        self._in_string ^= 1 - len(parts) % 2
        if self._depth + np.cumsum(steps).max(initial=0) > MAX_DEPTH:
            raise ValueError(f"nested more than {MAX_DEPTH} deep")
        self._depth += int(steps.sum())
        return block


@contextlib.contextmanager
def json_errors(path: Path, remedy: str) -> Iterator[None]:
    """Within the block, JSON that is missing, malformed or not readable is a UserError that ends with a remedy."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"no file {path}; {remedy}") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder, not a JSON file; {remedy}") from None
    except (ValueError, RecursionError, ijson.JSONError, *_NO_GZIP) as error:
        kind, _, excerpt = str(error).partition("\n")
        where = f" at {excerpt.splitlines()[0].strip()[:60]}" if excerpt else ""
        raise UserError(f"{path} is not valid JSON ({kind}{where}); {remedy}") from None
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path} cannot be read ({reason}); mend this and run the same command again") from None


_FILE_NAME = re.compile(r"(?![-.])[^/\\\0-\x1f\x7f-\x9f]+")


def is_file_name(name: Any) -> bool:
    """Whether a value from somebody else's file can name a file or folder of ours without leading out of its folder.

    Such a name is not hidden, as our temporary files are, does not look like an option, has no control characters, and
    has room for suffixes.
    """
    try:
        return bool(_FILE_NAME.fullmatch(name)) and len(name.encode()) <= 200
    except (TypeError, UnicodeEncodeError):
        return False


def name_number(path: str | Path) -> int:
    """The last digits of a file's name: 45 of `frame_000045.png`. Raises UserError if it has none."""
    digits = re.findall(r"\d+", Path(path).stem)
    if not digits:
        raise UserError(f"{path} has no number in its name; call it by its frame, such as 00045{Path(path).suffix}")
    return int(digits[-1])
