"""A results file in the making, so that an interrupted run continues where it stopped.

    <out_path>/{setting}_{split}_results.json       the results of all takes, written last
    <out_path>/{setting}_{split}_run.json           how and of what they were made, and their SHA-256
    <out_path>/{setting}_{split}_takes/<run>/<take_uid>.<annotation>.json       each finished take until then
    <out_path>/.{setting}_{split}.lock              held while a process writes any of these
    <out_path>/.pred_annotations.lock               held while one writes --save_inter's files

`run` is a digest of all that decides the numbers (checkpoint, setting, precision, batch size; of a method of the user's
own its file and arguments), `annotation` one of the take's annotation.json. Predictions of another checkpoint, or of
this one before a take was processed again, have another name and are never taken for this run's.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from common.errors import MALFORMED, UserError
from common.files import file_digest, only_one, read_json, remove_leftovers, write_json
from common.provenance import provenance
from formats.results import iter_results, results_path, write_results
from inference.predict_takes import TakePlan


class ResumableRun:
    def __init__(
        self, out_dir: Path, setting: str, split: str, source: Path, precision: str | None, batch_size: int, **more: Any
    ) -> None:
        """source: a checkpoint, or the file of a method of the user's own; more: what else decides the numbers."""
        self.setting = setting
        self.results_path = results_path(out_dir, setting, split)
        self.record_path = Path(out_dir) / f"{setting}_{split}_run.json"
        self.lock_path = Path(out_dir) / f".{setting}_{split}.lock"
        digest = file_digest(source)
        self.made_by = {"checkpoint": source.name, "checkpoint_sha256": digest, "precision": precision, **more}
        decisive = {"checkpoint": digest, "setting": setting, "precision": precision, "batch_size": batch_size, **more}
        self.digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
        self.folder = Path(out_dir) / f"{setting}_{split}_takes" / self.digest[:12]

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Within the block no other process writes these files; half-written files of killed ones are removed."""
        with only_one(self.lock_path, f"writes {self.results_path}"):
            for path in (self.results_path, self.record_path):
                remove_leftovers(path.parent, path.name)
            for folder in self.folder.parent.glob("*"):
                remove_leftovers(folder)
            yield

    def part_path(self, plan: TakePlan) -> Path:
        return self.folder / f"{plan.uid}.{plan.digest[:12]}.json"

    def has(self, plan: TakePlan) -> bool:
        """Whether the take is finished. A damaged part of it is removed, so that it is predicted again."""
        path = self.part_path(plan)
        if not path.exists():
            return False
        try:
            if _fits(json.loads(path.read_bytes()), plan):
                return True
        except MALFORMED:
            pass
        path.unlink()
        return False

    def write(self, plan: TakePlan, result: dict[str, Any]) -> None:
        write_json(self.part_path(plan), result)

    def made_already(self, plans: Mapping[str, TakePlan]) -> dict[str, Any] | None:
        """The provenance of the results file, if this very run made it, of these takes as they are now. UserError if
        another run made it.
        """
        if not self.results_path.exists():
            return None
        record = read_json(self.record_path, "delete it") if self.record_path.exists() else None
        if not isinstance(record, dict) or record.get("run") != self.digest:
            raise UserError(
                f"{self.results_path} was made by another checkpoint or method, precision or batch size; give "
                "another --out_path, or --overwrite to replace it"
            )
        if record.get("results_sha256") != file_digest(self.results_path):
            return None  # damaged, or another run's, which this one was about to replace
        takes = {uid: self.part_path(plan).name for uid, plan in plans.items()}
        return record["provenance"] if record["takes"] == takes and not record["failed"] else None

    def finish(self, plans: Mapping[str, TakePlan], failed: dict[str, str], figures: dict[str, Any]) -> None:
        """Join the finished takes into the results file. The record comes before it, and vouches for these bytes
        only: a kill in between leaves a record without its results, never results with another one's record.
        """
        parts = {uid: self.part_path(plan) for uid, plan in plans.items()}
        takes = ((uid, read_json(path, "delete it and run the same command again")) for uid, path in parts.items())
        joined = self.folder / self.results_path.name
        write_results(joined, self.setting, takes)
        record = {
            "run": self.digest,
            "results_sha256": file_digest(joined),
            "provenance": provenance() | self.made_by,
            "takes": {uid: path.name for uid, path in parts.items()},
            "failed": failed,
            **figures,
        }
        write_json(self.record_path, record, indent=1)
        joined.replace(self.results_path)

    def write_take_files(self) -> None:
        """Each take's results as `<out_path>/<take_uid>/pred_annotations.json`, where the original leaves them."""
        lock_path = self.results_path.with_name(".pred_annotations.lock")  # the other setting's go by the same names
        with only_one(lock_path, f"writes the takes' files in {lock_path.parent}"):
            for uid, result in iter_results(self.results_path, self.setting):
                path = self.results_path.parent / uid / "pred_annotations.json"
                remove_leftovers(path.parent, path.name)
                write_json(path, result)

    def remove_parts(self) -> None:
        """Delete the finished takes of this run; the folder above goes too unless other runs use it."""
        for path in self.folder.glob("*.json"):
            path.unlink()
        for folder in (self.folder, self.folder.parent):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def _fits(result: Any, plan: TakePlan) -> bool:
    """Whether a part holds a prediction for every frame of the plan and nothing else. May raise one of MALFORMED."""
    wanted = plan.empty_result()["masks"]
    if result["masks"].keys() != wanted.keys():
        return False
    pairs = [(result["masks"][name][key], frames) for name, keys in wanted.items() for key, frames in keys.items()]
    return all(
        found.keys() == {str(frame) for frame in frames}
        and all(entry.keys() == {"pred_mask", "confidence"} for entry in found.values())
        for found, frames in pairs
    )
