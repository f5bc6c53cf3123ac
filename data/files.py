"""Files that appear whole or not at all."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from data.errors import UserError


@contextlib.contextmanager
def atomic_write(path: Path, mode: str = "w") -> Iterator[IO]:
    """Open a temporary file beside `path` for writing; rename it to `path` if the block ends without an exception.

    The temporary name carries the process id, so that two writers never share one. The data is on disk before the
    rename: after a crash `path` is the old file or the new one, never a part of either.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open(mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


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
