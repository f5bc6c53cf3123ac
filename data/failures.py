"""What is missing from the processed takes, and why.

The list of a take is `<data_dir>/<take_uid>/failed.json`, so that parallel runs never write the same file.
`<data_dir>/failed_takes.json` gathers these lists:
`[{"take_uid", "take_name", "camera": str or null, "kind": "missing" | "broken" | "note", "reason"}, ...]`.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from common.errors import MALFORMED, UserError
from common.files import read_file, remove_leftovers, write_json

FAILED = "failed.json"
FAILED_TAKES = "failed_takes.json"
MISSING = "missing"  # not there at all: parts of the real data set were withdrawn
BROKEN = "broken"  # there, but it cannot be used: another download or run should help
NOTE = "note"  # nothing is lost, but somebody should look


@dataclass(frozen=True)
class Failure:
    """Something that is missing from a take; `camera` None concerns all of it."""

    camera: str | None
    kind: str
    reason: str

    def describe(self, uid: str, take_name: str = "") -> str:
        """The failure of a take in one line."""
        name = f" ({take_name})" if take_name else ""
        camera = f", camera {self.camera}" if self.camera else ""
        return f"take {uid}{name}{camera}: {self.reason}"


def write_failures(folder: Path, take_name: str, failures: list[Failure]) -> None:
    """Write the list of the take in `folder`, atomically."""
    remove_leftovers(folder, FAILED)
    write_json(folder / FAILED, {"take_name": take_name, "failures": [asdict(failure) for failure in failures]}, 1)


def read_failures(folder: Path) -> list[Failure]:
    """The list of the take in `folder`; empty if it has none. Raises UserError if it is malformed."""
    return _read(folder)[1]


def gather_failures(data_dir: Path) -> None:
    """Write failed_takes.json from the lists of all takes. Other runs may be doing the same."""
    rows = []
    for folder in sorted(path.parent for path in data_dir.glob(f"*/{FAILED}")):
        take_name, failures = _read(folder)
        rows += [{"take_uid": folder.name, "take_name": take_name, **asdict(failure)} for failure in failures]
    write_json(data_dir / FAILED_TAKES, rows, indent=1)


def _read(folder: Path) -> tuple[str, list[Failure]]:
    """The take's name and its list."""
    path = folder / FAILED
    try:
        raw = json.loads(read_file(path))
        return raw["take_name"], [Failure(**row) for row in raw["failures"]]
    except FileNotFoundError:
        return "", []
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    except MALFORMED as error:
        raise UserError(
            f"{path} is malformed ({type(error).__name__}: {error}); delete it and run data/process_data.py again"
        ) from None
