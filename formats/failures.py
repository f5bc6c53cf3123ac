"""failed.json, in the folder of a take that lacks something: what it lacks, and why.

{"take_name": str, "failures": [{"camera": str or null, "kind": "missing" | "broken", "reason": str}]}
"""

from dataclasses import asdict, dataclass
from pathlib import Path

from common.files import read_record, write_json

FAILED = "failed.json"
FAILED_FORM = {"take_name": str, "failures": [{"camera": str | None, "kind": str, "reason": str}]}
MISSING_FILE = "missing"  # the data set lacks the file: some videos of Ego-Exo4D were withdrawn
BROKEN_FILE = "broken"  # the file cannot be used; downloading the file again should help


@dataclass(frozen=True)
class Failure:
    """Something that is missing from a take: from one camera, or from the whole take if `camera` is None."""

    camera: str | None
    kind: str
    reason: str

    def describe(self, uid: str, take_name: str = "") -> str:
        """The failure of a take in one line."""
        name = f" ({take_name})" if take_name else ""
        camera = f", camera {self.camera}" if self.camera else ""
        return f"take {uid}{name}{camera}: {self.reason}"


def write_failures(folder: Path, take_name: str, failures: list[Failure]) -> None:
    """Write failed.json into a take's `folder`; without failures, delete it."""
    if failures:
        write_json(folder / FAILED, {"take_name": take_name, "failures": [*map(asdict, failures)]}, 1)
    else:
        (folder / FAILED).unlink(missing_ok=True)


def read_failures(folder: Path) -> tuple[str, list[Failure]]:
    """Read failed.json in a take's `folder` -> the take's name and its failures."""
    path = folder / FAILED
    if not path.exists():
        return "", []
    raw = read_record(path, FAILED_FORM, "delete it and run data/process_data.py again")
    return raw["take_name"], [Failure(**row) for row in raw["failures"]]
