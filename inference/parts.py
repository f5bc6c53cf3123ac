"""Finished takes on disk, so that an interrupted run continues where it stopped.

    <out_path>/{setting}_{split}_takes/<run>/<take_uid>.<annotation>.json

`run` is a digest of all that decides the numbers (checkpoint, setting, precision), `annotation` one of the take's
annotation.json. What another checkpoint predicted, or the same one before a take was processed again, has another name
and is never taken for this run's.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from formats.files import write_json
from formats.processed import ANNOTATION


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class Parts:
    """The finished takes of one run."""

    def __init__(self, out_dir: Path, setting: str, split: str, data_dir: Path, run: dict[str, str]):
        self.run = hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()
        self.folder = Path(out_dir) / f"{setting}_{split}_takes" / self.run[:12]
        self._data_dir = Path(data_dir)
        self._annotations: dict[str, str] = {}

    def path(self, take_uid: str) -> Path:
        if take_uid not in self._annotations:
            self._annotations[take_uid] = file_digest(self._data_dir / take_uid / ANNOTATION)[:12]
        return self.folder / f"{take_uid}.{self._annotations[take_uid]}.json"

    def done(self, take_uid: str) -> bool:
        return self.path(take_uid).exists()

    def write(self, take_uid: str, result: dict[str, Any]) -> None:
        write_json(self.path(take_uid), result)

    def read(self, take_uid: str) -> dict[str, Any]:
        return json.loads(self.path(take_uid).read_text(encoding="utf-8"))

    def remove(self) -> None:
        """Delete the finished takes of this run; the folder above goes too unless other runs use it."""
        for path in self.folder.glob("*.json"):
            path.unlink()
        for folder in (self.folder, self.folder.parent):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
