"""A results file in the making, so that an interrupted run continues where it stopped.

    <out_path>/{setting}_{split}_results.json       the results, written last, of all takes
    <out_path>/{setting}_{split}_run.json           what they were made by and of
    <out_path>/{setting}_{split}_takes/<run>/<take_uid>.<annotation>.json       each finished take until then
    <out_path>/.{setting}_{split}.lock              held while a process writes any of these

`run` is a digest of all that decides the numbers (checkpoint, setting, precision), `annotation` one of the take's
annotation.json. What another checkpoint predicted, or the same one before a take was processed again, has another name
and is never taken for this run's.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from formats.errors import UserError
from formats.files import only_one, read_json, remove_leftovers, write_json
from formats.processed import ANNOTATION, is_processed
from formats.provenance import provenance
from formats.results import iter_results, results_path, write_results


class ResumableRun:
    def __init__(
        self, out_dir: Path, setting: str, split: str, data_dir: Path, checkpoint: Path, precision: str
    ) -> None:
        self.setting, self.data_dir = setting, Path(data_dir)
        self.results_path = results_path(out_dir, setting, split)
        self.record_path = Path(out_dir) / f"{setting}_{split}_run.json"
        self.lock_path = Path(out_dir) / f".{setting}_{split}.lock"
        self.checkpoint = {"checkpoint": Path(checkpoint).name, "checkpoint_sha256": file_digest(checkpoint)}
        self.precision = precision
        decisive = {"checkpoint": self.checkpoint["checkpoint_sha256"], "setting": setting, "precision": precision}
        self.digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
        self.folder = Path(out_dir) / f"{setting}_{split}_takes" / self.digest[:12]
        self._annotations: dict[str, str] = {}

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Within the block no other process writes these files; what killed ones left half-written is removed."""
        with only_one(self.lock_path, f"writes {self.results_path}"):
            for path in (self.results_path, self.record_path):
                remove_leftovers(path.parent, path.name)
            for folder in self.folder.parent.glob("*"):
                remove_leftovers(folder)
            yield

    def part_path(self, take_uid: str) -> Path:
        if take_uid not in self._annotations:
            self._annotations[take_uid] = file_digest(self.data_dir / take_uid / ANNOTATION)[:12]
        return self.folder / f"{take_uid}.{self._annotations[take_uid]}.json"

    def has(self, take_uid: str) -> bool:
        return self.part_path(take_uid).exists()

    def write(self, take_uid: str, result: dict[str, Any]) -> None:
        write_json(self.part_path(take_uid), result)

    def is_complete(self, take_uids: list[str]) -> bool:
        """Has this very run made the results file, of these takes as they are now? UserError if another run made it."""
        if not self.results_path.exists():
            return False
        remedy = f"delete it and {self.results_path}"
        record = read_json(self.record_path, remedy) if self.record_path.exists() else {}
        if record.get("run") != self.digest:
            raise UserError(
                f"{self.results_path} was made by another checkpoint or precision; give another --out_path, or "
                "--overwrite to replace it"
            )
        takes = {uid: self.part_path(uid).name for uid in take_uids if is_processed(self.data_dir, uid)}
        return record["takes"] == takes and not record["failed"]

    def finish(self, take_uids: list[str], failed: dict[str, str], figures: dict[str, Any]) -> None:
        """Join the finished takes into the results file, then write the record."""
        parts = {uid: self.part_path(uid) for uid in take_uids}
        takes = ((uid, json.loads(path.read_text(encoding="utf-8"))) for uid, path in parts.items())
        write_results(self.results_path, self.setting, takes)
        record = {
            "run": self.digest,
            "provenance": provenance() | self.checkpoint | {"precision": self.precision},
            "takes": {uid: path.name for uid, path in parts.items()},
            "failed": failed,
            **figures,
        }
        write_json(self.record_path, record, indent=1)

    def write_take_files(self) -> None:
        """Each take's results as `<out_path>/<take_uid>/pred_annotations.json`, where the original leaves them."""
        for uid, result in iter_results(self.results_path, self.setting):
            path = self.results_path.parent / uid / "pred_annotations.json"
            remove_leftovers(path.parent, path.name, seconds=3600)  # the other setting's process may be writing here
            write_json(path, result)

    def remove_parts(self) -> None:
        """Delete the finished takes of this run; the folder above goes too unless other runs use it."""
        for path in self.folder.glob("*.json"):
            path.unlink()
        for folder in (self.folder, self.folder.parent):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
