"""Write files that appear whole or not at all, with one writer at a time; read and write JSON one member at a time.

A JSON file whose name ends in .gz is read through gzip.
"""

import contextlib
import errno
import fcntl
import gzip
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import UnionType
from typing import IO, Any

import ijson
from filelock import FileLock, Timeout

from common.errors import CONTROL, UserError, warn_once

POINTER = b"version https://git-lfs.github.com/spec/"  # the first bytes of a Git LFS pointer


@contextlib.contextmanager
def claimed(folder: Path, name: str, doing: str) -> Iterator[None]:
    """Let one process at a time write `name` in `folder`: a file, a folder, or a group of files.

    A second process prints that it waits for another one, "which {doing}" ("writes results.json"). Temporary files that
    killed writers of `name` left are deleted. The lock on `.{name}.lock` ends when the process and all that it forked
    have ended; on a disk without locks, a warning asks for one writer. Raises what `check_writable` raises.
    """
    check_writable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".{name}.lock"
    lock = FileLock(path, fallback_to_soft=False)  # a soft lock stays when a job is killed, and other machines wait
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"waiting for another process, which {doing} ({path})", file=sys.stderr)
        lock.acquire()
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
            raise
        remedy = "start no second command that writes there, or mount it with locks (Lustre: -o flock)"
        warn_once(f"{folder} is on a disk without file locks; {remedy}")
    try:
        remove_leftovers(folder, name)
        yield
    finally:
        path.unlink(missing_ok=True)  # before the release: filelock takes no lock on a file that has been deleted
        lock.release()


def check_writable(folder: Path) -> None:
    """Raise UserError if no file can be made in `folder`; if it does not exist yet, in the folder that will hold it."""
    place = next(place.absolute() for place in (folder, *folder.parents) if os.path.lexists(place))
    try:  # permissions alone do not tell: root may do everything, but not in /proc or on a disk mounted read-only
        tempfile.TemporaryFile(dir=place, prefix=".", suffix=".tmp").close()
    except OSError as error:
        raise UserError(f"cannot write into {place} ({error.strerror}); permit it, or name another folder") from None


def is_writable(folder: Path) -> bool:
    """True if `check_writable` raises nothing."""
    try:
        check_writable(folder)
    except UserError:
        return False
    return True


def check_output(path: Path, overwrite: bool) -> None:
    """Call this before the work begins, for a file that the user has named. Raises UserError if its folder cannot be
    written to, and if it exists and the user did not give --overwrite.
    """
    check_writable(path.parent)
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists; name another file to write, or give --overwrite to replace it")


def check_outputs(outputs: Sequence[Path], inputs: Iterable[Path | None]) -> None:
    """Call this before the work begins, with all files and folders that a command replaces and reads. Raises UserError
    if it would replace one that it reads, a folder around one, or something in a folder that it reads, by whatever
    name; and if it would write two files to one place.
    """
    read = {_identity(path): path for path in inputs if path and "\0" not in str(path)}  # no file is called so
    lost_with = dict(read)  # by a place that may be replaced: what is read there, or in this folder
    for folder, path in {path.parent: path for path in read.values()}.items():  # a folder is asked once, which is fast
        for place in _identities(folder):
            lost_with.setdefault(place, path)
    read_around = {folder: _identities(folder) & read.keys() for folder in {path.parent for path in outputs}}
    written = set()
    for path in outputs:
        place = _identity(path)
        exists = isinstance(place, tuple)  # new files may be added to a folder that is read
        harmed = [place] if place in lost_with else list(read_around[path.parent]) if exists else []
        if harmed:
            lost = lost_with[harmed[0]]
            raise UserError(f"cannot write {path}: this command reads {lost}; name another place for what it writes")
        if place in written:
            raise UserError(f"{path} would be written twice; give each file to write a name of its own")
        written.add(place)


def _identities(folder: Path) -> set[Any]:
    """Of a folder and those around it."""
    return set(map(_identity, (folder.resolve(), *folder.resolve().parents)))


def _identity(path: Path) -> Any:
    """The same for all names of a file, which may be links, or differ in capitals on a disk that ignores them. If it
    exists, a tuple.
    """
    try:
        found = path.stat()
        return found.st_dev, found.st_ino
    except OSError:
        return str(path.parent.resolve() / path.name)


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Delete temporary files that killed writers of `name` (None: of any name) left in `folder`, which is `claimed`."""
    for path in _leftovers(folder, name):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _leftovers(folder: Path, name: str | None = None) -> list[Path]:
    if not folder.exists():
        return []
    with os.scandir(folder) as entries:  # a camera's folder has thousands of frames, so `glob` would take long
        hidden = [entry.name for entry in entries if entry.name[0] == "."]
    pattern = r"\..*\.tmp" if name is None else rf"\.{re.escape(name)}\.[0-9a-f]{{8}}\.tmp"
    return [folder / found for found in hidden if re.fullmatch(pattern, found)]


def temporary_name(path: Path) -> Path:
    """A random name beside `path`, so that two writers, even on two machines, never use the same name."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


@contextlib.contextmanager
def atomic_write(path: Path, mode: str = "w") -> Iterator[IO]:
    """Open a temporary file beside `path` for writing; rename it to `path` if the block ends without an exception.
    Temporary files that killed writers of `path` left are deleted.

    The data is on disk before the rename: after a crash `path` is the old file or the new one, never a part of either.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in _leftovers(path.parent, path.name):
        with contextlib.suppress(OSError), left.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails if the writer lives, and on disks without locks
            left.unlink()
    temporary, file = _locked_file(path, mode)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and not error.filename:  # the disk is full
            error.filename = str(path)
        raise


def _locked_file(path: Path, mode: str) -> tuple[Path, IO]:
    """A new temporary file beside `path`, with a lock that ends when it is closed or its writer is killed."""
    while True:
        temporary = temporary_name(path)
        file = temporary.open(mode, encoding=None if "b" in mode else "utf-8")
        with contextlib.suppress(OSError):  # a disk without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if temporary.exists():
            return temporary, file
        file.close()  # before it was locked, another writer took it for a killed one's


@contextlib.contextmanager
def temporary_folder(folder: Path, name: str, doing: str) -> Iterator[Path]:
    """Yield a new empty folder inside `folder`, and delete it with its content at the end of the block.

    The block may move it, or files of it, to names in `folder`, even if `folder` is a mount point or the only place
    that can be written to. `name` is claimed in `folder` for as long; `doing` is what a second process prints (see
    `claimed`).
    """
    with claimed(folder, name, doing):
        temporary = temporary_name(folder / name)
        temporary.mkdir()
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def output_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder. If the block ends without an exception, its files move to `folder`, where they replace
    files of the same names. Other files in `folder` stay. If this was killed when some had moved, the next one in
    `folder` moves the others first.
    """
    whole = folder / ".output.whole"
    with temporary_folder(folder, "output", f"writes into {folder}") as temporary:
        _move_files(whole, folder)
        yield temporary
        temporary.rename(whole)
        _move_files(whole, folder)


def _move_files(made: Path, folder: Path) -> None:
    for path in sorted(filter(Path.is_file, made.rglob("*")), reverse=True):  # pictures/ before index.html
        target = folder / path.relative_to(made)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
    shutil.rmtree(made, ignore_errors=True)


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def refuse_pointer(path: Path) -> None:
    """Raise UserError if a file is what Git LFS leaves in the place of a large file that was not fetched."""
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(POINTER)) == POINTER:
                raise UserError(f"{path} is a Git LFS pointer, not the file; run git lfs pull in its repository")


def json_digest(value: Any) -> str:
    """SHA-256 of a value as JSON, hexadecimal; an object counts as the dict of its fields."""
    return hashlib.sha256(json.dumps(value, default=vars, sort_keys=True).encode()).hexdigest()


def write_json(path: Path, value: Any, indent: int | None = None) -> None:
    """Write `value` as JSON, atomically.

    An iterator of (key, value) pairs, as `value` or in a dict, is written as an object, one pair at a time.
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
    """If the JSON file that the block reads is missing or malformed, raise a UserError that ends with `remedy`."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"no file {path}; {remedy}") from None
    except (ValueError, RecursionError, ijson.JSONError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        refuse_pointer(path)
        text = error.args[0] if error.args else ""
        text = text.decode(errors="replace") if isinstance(text, bytes) else str(error)  # ijson's, if not of UTF-8
        kind, _, excerpt = text.partition("\n")
        where = f" at {excerpt.splitlines()[0].strip()[:60]}" if excerpt else ""
        raise UserError(f"{path} is not valid JSON ({kind}{where}); {remedy}") from None
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path} cannot be read ({reason}); fix this and run the same command again") from None


def read_json(path: Path, remedy: str) -> Any:
    """Parse a JSON file. Raises UserError as `json_errors` does."""
    with json_errors(path, remedy), _open_json(path) as file:
        return json.load(file)


def read_record(path: Path, form: Any, remedy: str) -> Any:
    """Parse a JSON file of our scripts. Raises UserError as `json_errors` does, and if the value lacks the `form`."""
    value = read_json(path, remedy)
    if not has_form(value, form):
        raise UserError(f"{path} is not of the form that this version writes; {remedy}")
    return value


def has_form(value: Any, form: Any) -> bool:
    """True if a JSON value has the form `form`: a type or several types (`str | None`); a function that tells whether
    the value may stand there (`lambda x: type(x) is int`, since True is an `int`, too); `[form]`, a list of any length;
    `{str: form}`, an object with any keys; or `{"key": form, ...}`, an object that has at least these keys.
    """
    if isinstance(form, list):
        return isinstance(value, list) and all(has_form(item, form[0]) for item in value)
    if not isinstance(form, dict):
        return isinstance(value, form) if isinstance(form, type | UnionType) else form(value)
    if not isinstance(value, dict):
        return False
    if str in form:
        return all(has_form(member, form[str]) for member in value.values())
    return all(key in value and has_form(value[key], member) for key, member in form.items())


def iter_json(path: Path, keys: Sequence[str], remedy: str) -> Iterator[tuple[str, Any]]:
    """Yield the members (key, value) of the object at `keys` in a JSON file, with one member in memory at a time.

    Raises UserError, which ends with `remedy`, if the file is missing, is not JSON (only when the broken place is
    reached) or has no object with members at `keys`.
    """
    is_empty = True
    with json_errors(path, remedy), _open_json(path) as file:
        for member in ijson.kvitems(file, ".".join(keys), use_float=True):
            yield member
            is_empty = False
    if is_empty:
        raise UserError(f"{path} has nothing at {'/'.join(keys)}; {remedy}")


def _open_json(path: Path) -> io.BufferedIOBase:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def is_file_name(name: Any) -> bool:
    """True if a value that was read from a file can safely name a file in a folder.

    The name must not lead out of the folder, begin with "." (a hidden file) or begin with "-" (an option of a command),
    have control characters or others that no file's name can have, or be too long for file systems, which allow 255
    bytes with all that we add to it.
    """
    if not isinstance(name, str) or name != Path(name).name or name[:1] in ("", ".", "-"):
        return False
    encoded = name.encode(errors="replace")  # JSON may hold halves of characters, which no encoding has
    return not CONTROL.search(name) and encoded.decode() == name and len(encoded) <= 200


def name_number(path: str | Path) -> int:
    """The last number in a file's name: 45 for `frame_000045.png`. Raises UserError if the name has no digits."""
    digits = re.findall(r"\d+", re.sub(r"[._]rf\.\w+$", "", Path(path).stem))  # Roboflow adds a hash: 44_jpg.rf.68cb4
    if not digits:
        raise UserError(f"{path} has no number in its name; call it by its frame, such as 00045{Path(path).suffix}")
    return int(digits[-1])
