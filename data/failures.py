"""What is missing from the processed takes, and why.

Each take with a failure has a list of its own, `<data_dir>/<take_uid>/failed.json`, written by whoever processes the
take, so that parallel runs never write the same file. `<data_dir>/failed_takes.json` gathers them:
`[{"take_uid", "take_name", "camera": str or null, "kind": "missing" | "broken" | "note", "reason"}, ...]`.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data.files import read_json, write_json

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
    """A take's list; empty if it has none."""
    if not has_failures(folder):
        return []
    return [Failure(**row) for row in _read(folder)["failures"]]


def clear_failures(folder: Path) -> None:
    (folder / FAILED).unlink(missing_ok=True)


def gather_failures(data_dir: Path) -> list[dict[str, Any]]:
    """Write failed_takes.json from the lists of all takes and return its rows."""
    rows = []
    for path in sorted(data_dir.glob(f"*/{FAILED}")):
        raw = _read(path.parent)
        rows += [{"take_uid": path.parent.name, "take_name": raw["take_name"], **row} for row in raw["failures"]]
    write_json(data_dir / FAILED_TAKES, rows, indent=1)
    return rows


def _read(folder: Path) -> dict[str, Any]:
    return read_json(folder / FAILED, "delete it and run data/process_data.py again")
