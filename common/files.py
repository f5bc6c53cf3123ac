"""Files that appear whole or not at all, one writer at a time; JSON that is read and written a member at a time.

JSON whose name ends in .gz is read through gzip.
"""

import contextlib
import glob
import gzip
import hashlib
import json
import os
import re
import secrets
import shutil
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import ijson
from filelock import FileLock, Timeout

from common.errors import UserError


@contextlib.contextmanager
def claimed(folder: Path, name: str, doing: str, files: Iterable[str] = ()) -> Iterator[None]:
    """Let one process at a time write `name` in `folder`: a file, a folder, or a group of `files`.

    A later process says that it waits for another one, which does what `doing` says ("writes results.json"). Leftovers
    of killed writers of `name` and `files` are deleted. The lock, on `.{name}.lock`, ends with the process and all that
    it forked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".{name}.lock"
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"waiting for another process, which {doing} ({path})", file=sys.stderr)
        lock.acquire()
    try:
        for file in (name, *files):
            remove_leftovers(folder, file)
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: filelock takes no lock on a file that has gone
        lock.release()


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Delete what killed writers of `name`, or of any name, left in `folder`. The caller must have claimed it."""
    pattern = ".*.tmp" if name is None else f".{glob.escape(name)}.{'[0-9a-f]' * 8}.tmp"
    for path in folder.glob(pattern):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def temporary_name(path: Path) -> Path:
    """A name beside `path`, random so that two writers, even on two machines, never share one."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


@contextlib.contextmanager
def atomic_write(path: Path, mode: str = "w") -> Iterator[IO]:
    """Open a temporary file beside `path` for writing; rename it to `path` if the block ends without an exception.

    The data is on disk before the rename: after a crash `path` is the old file or the new one, never a part of either.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        with named_errors(path), temporary.open(mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def temporary_folder(folder: Path, name: str, doing: str) -> Iterator[Path]:
    """Gives an empty folder in `folder`, from which files can be renamed into `folder` even if that is a mount point or
    the only place to write. It is deleted at the end, with what is left in it. Claims `name` in `folder` as `doing`.
    """
    with claimed(folder, name, doing):
        temporary = temporary_name(folder / name)
        temporary.mkdir()
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Gives an empty folder, which becomes `path` if the block ends without an exception.

    `path` may be an empty folder, such as a mount point: the entries then move into it. Claims `path`, so that a second
    writer waits. Raises UserError if there is something else at `path`.
    """
    path = path.absolute()
    inside = path.is_dir()
    with temporary_folder(path if inside else path.parent, path.name, f"writes {path}") as made:
        if any(entry.name[0] != "." for entry in path.iterdir()) if inside else path.exists():
            raise UserError(f"{path} exists; give another name, or delete it first")
        yield made
        if inside:
            for entry in sorted(made.iterdir()):
                entry.rename(path / entry.name)
        else:
            made.rename(path)


@contextlib.contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Name `path` in an OSError of the block that names no file, as that of a full disk, or a temporary one."""
    try:
        yield
    except OSError as error:
        if error.errno and (not error.filename or Path(error.filename).suffix == ".tmp"):
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


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
        yield f"{separator}{json.dumps(str(key))}: "
        yield from _json_parts(member)
        separator = ", "
    yield "{}" if separator == "{" else "}"


def _has_iterator(value: Any) -> bool:
    return isinstance(value, Iterator) or (isinstance(value, dict) and any(map(_has_iterator, value.values())))


@contextlib.contextmanager
def json_errors(path: Path, remedy: str) -> Iterator[None]:
    """Within the block, JSON that is missing or malformed is a UserError that ends with `remedy`."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"no file {path}; {remedy}") from None
    except (ValueError, RecursionError, ijson.JSONError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        kind, _, excerpt = str(error).partition("\n")
        where = f" at {excerpt.splitlines()[0].strip()[:60]}" if excerpt else ""
        raise UserError(f"{path} is not valid JSON ({kind}{where}); {remedy}") from None
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path} cannot be read ({reason}); mend this and run the same command again") from None


def read_json(path: Path, remedy: str) -> Any:
    """Parse a JSON file. Raises UserError as `json_errors` does."""
    with json_errors(path, remedy), _open_json(path) as file:
        return json.load(file)


def read_record(path: Path, form: Any, remedy: str) -> Any:
    """Parse a JSON file that a script of ours wrote. Raises UserError as `json_errors` does and if the form differs."""
    value = read_json(path, remedy)
    if not has_form(value, form):
        raise UserError(f"{path} is not of the form that this version writes; {remedy}")
    return value


def has_form(value: Any, form: Any) -> bool:
    """Whether JSON has a form: a type or several (`str | None`), `[form]` for a list of any length, `{str: form}` for
    an object with any keys, `{"key": form, ...}` for one that has at least these.
    """
    if isinstance(form, list):
        return isinstance(value, list) and all(has_form(item, form[0]) for item in value)
    if not isinstance(form, dict):
        return isinstance(value, form)
    if not isinstance(value, dict):
        return False
    if str in form:
        return all(has_form(member, form[str]) for member in value.values())
    return all(key in value and has_form(value[key], member) for key, member in form.items())


def iter_json(path: Path, keys: Sequence[str], remedy: str) -> Iterator[tuple[str, Any]]:
    """Yield the members (key, value) of the object at `keys` in a JSON file, holding one at a time.

    Raises UserError, which ends with `remedy`, if the file is missing or not JSON (at the place where it breaks) or has
    no object at `keys`.
    """
    is_empty = True
    with json_errors(path, remedy), _open_json(path) as file:
        for member in ijson.kvitems(file, ".".join(keys), use_float=True):
            yield member
            is_empty = False
    if is_empty:  # or there is no such object
        whole = value = read_json(path, remedy)
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if not isinstance(value, dict):
            names = ", ".join(list(whole)[:3]) if isinstance(whole, dict) else ""
            raise UserError(f"{path} holds {names or 'no object'}, not {'/'.join(keys) or 'members'}; {remedy}")


def iter_json_list(path: Path, remedy: str) -> Iterator[Any]:
    """Yield the items of a JSON file that holds a list, one at a time. Raises UserError as `json_errors` does."""
    with json_errors(path, remedy), _open_json(path) as file:
        yield from ijson.items(file, "item", use_float=True)


def holds_json_list(path: Path) -> bool:
    """Whether a JSON file begins as a list; False also for one that cannot be read."""
    try:
        with _open_json(path) as file:
            return file.read(4096).lstrip()[:1] == b"["
    except (OSError, EOFError, zlib.error):
        return False


def _open_json(path: Path) -> IO[bytes]:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def is_file_name(name: Any) -> bool:
    """Whether a value of somebody else's file can name a file in a folder: not one outside, a hidden one, an option."""
    return isinstance(name, str) and name == Path(name).name and name[:1] not in ("", ".", "-")


def name_number(path: str | Path) -> int:
    """The last digits of a file's name: 45 of `frame_000045.png`. Raises UserError if it has none."""
    digits = re.findall(r"\d+", re.sub(r"[._]rf\.\w+$", "", Path(path).stem))  # Roboflow adds a hash: 44_jpg.rf.68cb4
    if not digits:
        raise UserError(f"{path} has no number in its name; call it by its frame, such as 00045{Path(path).suffix}")
    return int(digits[-1])
