"""What is missing from the processed takes, and why.

Each take with a failure has a list of its own, `<data_dir>/<take_uid>/failed.json`, written by whoever processes the
take, so that parallel runs never write the same file. `<data_dir>/failed_takes.json` gathers them:
`[{"take_uid", "take_name", "camera": str or null, "kind": "missing" | "broken" | "note", "reason"}, ...]`.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from formats.errors import UserError
from formats.files import remove_leftovers, write_json

FAILED = "failed.json"
FAILED_TAKES = "failed_takes.json"
MISSING = "missing"  # not there at all; usual in the real data set, parts of which were withdrawn
BROKEN = "broken"  # there but unusable: downloading it again should help
NOTE = "note"  # nothing is lost, but worth knowing


@dataclass(frozen=True)
class Failure:
    """Something that is missing from a take; `camera` None concerns all of it."""

    camera: str | None
    kind: str
    reason: str

    @classmethod
    def broken(cls, camera: str | None, reason: object) -> "Failure":
        return cls(camera, BROKEN, str(reason))


def has_failures(folder: Path) -> bool:
    return (folder / FAILED).exists()


def write_failures(folder: Path, take_name: str, failures: list[Failure]) -> None:
    """Write a take's list, atomically."""
    write_json(folder / FAILED, {"take_name": take_name, "failures": [asdict(failure) for failure in failures]}, 1)


def read_failures(folder: Path) -> list[Failure]:
    """A take's list; empty if it has none. Raises UserError if it is malformed."""
    return _read(folder)[1]


def clear_failures(folder: Path) -> None:
    (folder / FAILED).unlink(missing_ok=True)


def gather_failures(data_dir: Path) -> list[dict[str, Any]]:
    """Write failed_takes.json from the lists of all takes and return its rows. Other shards may be at work."""
    rows = []
    for folder in sorted(path.parent for path in data_dir.glob(f"*/{FAILED}")):
        take_name, failures = _read(folder)
        rows += [{"take_uid": folder.name, "take_name": take_name, **asdict(failure)} for failure in failures]
    remove_leftovers(data_dir, FAILED_TAKES, seconds=3600)
    write_json(data_dir / FAILED_TAKES, rows, indent=1)
    return rows


def _read(folder: Path) -> tuple[str, list[Failure]]:
    """The take's name and its list; nothing if there is no list, or none any more."""
    path = folder / FAILED
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return raw["take_name"], [Failure(**row) for row in raw["failures"]]
    except FileNotFoundError:
        return "", []
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is malformed ({type(error).__name__}: {error}); delete it and run data/process_data.py again"
        ) from None
