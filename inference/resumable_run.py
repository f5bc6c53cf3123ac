"""The files of a prediction run, from which an interrupted run continues where it stopped.

    <out_path>/{setting}_{split}_results.json       the results of all takes, written last
    <out_path>/{setting}_{split}_run.json           how and from what the results were made, with their SHA-256
    <out_path>/{setting}_{split}_takes/<run>/<take_uid>.<state>.json            each finished take, until all are
    <out_path>/.{setting}_{split}.lock              held while a process writes any of these files
    <out_path>/.pred_annotations.lock               held while a process writes the files of --save_inter

The file of a finished take also tells which of its pairs are left out because an image cannot be read. Such a file is
deleted when the results are written, so that the next run tries these pairs again.

`run` is a digest of all that decides the numbers: checkpoint, setting, precision and looks, or the file and arguments
of a user's method. The batch size, which moves an existence by at most 2e-7, is left out. `state` is the take's digest:
of annotation.json, source.json, and the names and sizes of frames. Predictions of another checkpoint, other masks, or
pictures of another size in bytes therefore have other names and are not used.
"""

import contextlib
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.errors import UserError, counted
from common.files import claimed, file_digest, has_form, iter_json, read_json, read_record, remove_leftovers, write_json
from common.provenance import provenance
from formats.results import part_name, results_path, write_results
from inference.predict_takes import TakePlan

RECORD_FORM = {"run": str, "results_sha256": str, "provenance": dict, "takes": dict, "failed": dict}


class ResumableRun:
    def __init__(self, out_dir: Path, setting: str, split: str, options: dict[str, Any], plans: dict[str, TakePlan]):
        """options: by name, all that decides the numbers besides setting and takes. "checkpoint" is a file's name, and
        "checkpoint_sha256" its digest: two files with one digest are the same checkpoint. plans: the takes by uid.
        """
        self.out_dir, self.setting, self.options, self.plans = out_dir, setting, options, plans
        self.name = f"{setting}_{split}"
        self.results_path = results_path(out_dir, setting, split)
        self.record_path = self.out_dir / f"{self.name}_run.json"
        decisive = options | {"setting": setting, "checkpoint": None}
        self.digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
        self.folder = self.out_dir / f"{self.name}_takes" / self.digest[:12]
        self.joined_path = self.folder / self.results_path.name  # the results until they are moved to their place

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """The context in which only this process writes the run's files. Deletes temporary files of killed runs."""
        files = self.results_path.name, self.record_path.name
        with claimed(self.out_dir, self.name, f"writes {self.results_path}", files):
            for folder in self.folder.parent.glob("*"):
                remove_leftovers(folder)
            yield

    def part_path(self, plan: TakePlan) -> Path:
        """The file with the results of a finished take, until all takes are finished."""
        return self.folder / part_name(plan.uid, plan.digest)

    def made_already(self) -> dict[str, Any] | None:
        """The provenance of the results file, if this run made it from these takes in their present state; None if
        there is no complete results file. Raises UserError if another run made the file.
        """
        if not self.results_path.exists():
            return None
        record: dict[str, Any] = {"run": None, "provenance": {}}
        if self.record_path.exists():
            record = read_record(self.record_path, RECORD_FORM, "delete it")
        remedy = "give another --out_path, or --overwrite to replace it"
        if record["run"] != self.digest:
            before, now = readable_options(record["provenance"]), readable_options(self.options)
            changed = [name for name in now | before if before.get(name) != now.get(name)]
            what = ", ".join(f"{name} {before.get(name)!s:.60} -> {now.get(name)!s:.60}" for name in changed if before)
            what = what or "another checkpoint or method, precision or looks"
            raise UserError(f"{self.results_path} was made by another run ({what}); {remedy}")
        if record["results_sha256"] != file_digest(self.results_path):
            if self.joined_path.exists():
                return None  # this run was stopped before it replaced another run's results
            raise UserError(f"{self.results_path} was changed, or copied here, after it was made; {remedy}")
        takes = {uid: self.part_path(plan).name for uid, plan in self.plans.items()}
        missing = record["failed"] or record.get("left_out")
        return record["provenance"] if record["takes"] == takes and not missing else None

    def finish(self, figures: dict[str, Any]) -> dict[str, dict[str, int]]:
        """Join the finished takes into the results file. The run's record, with the SHA-256 of the results, is written
        first: a kill in between leaves a record without its results, but never results with another run's record.

        Returns the number of pairs that are left out, by take and reason.
        """
        parts = {uid: self.part_path(plan) for uid, plan in self.plans.items()}
        left_out: dict[str, dict[str, int]] = {}

        def takes() -> Iterator[tuple[str, dict]]:
            for uid, path in parts.items():
                result = read_json(path, "delete it and run the same command again")
                if reasons := result.pop("left_out", None):
                    left_out[uid] = reasons
                yield uid, result

        write_results(self.joined_path, self.setting, takes())
        record = {
            "run": self.digest,
            "results_sha256": file_digest(self.joined_path),
            "provenance": provenance() | self.options,
            "takes": {uid: path.name for uid, path in parts.items()},
            "left_out": left_out,
            **figures,
        }
        write_json(self.record_path, record, indent=1)
        self.joined_path.replace(self.results_path)
        for uid in left_out:
            parts[uid].unlink()
        return left_out

    def write_take_files(self) -> None:
        """Write each take's results to `<out_path>/<take_uid>/pred_annotations.json`, as the original does."""
        what = f"writes the takes' files in {self.out_dir}"
        with claimed(self.out_dir, "pred_annotations", what):  # files of the other setting have the same names
            for uid, result in iter_json(self.results_path, (self.setting, "results"), "predict again"):
                path = self.out_dir / uid / "pred_annotations.json"
                remove_leftovers(path.parent, path.name)
                write_json(path, result)

    def remove_other_parts(self) -> None:
        """Delete the finished takes of interrupted runs with other options, and say so."""
        for folder in set(self.folder.parent.glob("*")) - {self.folder}:
            takes = counted(len(list(folder.glob("*.*.json"))), "take")
            what = f"{takes} of an interrupted run with another checkpoint or method, precision or looks"
            print(f"{folder} holds {what}; the folder is deleted", file=sys.stderr)
            shutil.rmtree(folder, ignore_errors=True)

    def remove_parts(self) -> None:
        """Delete the files of this run's finished takes, and the folder above unless other runs use it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # the folder is not empty, or does not exist
            self.folder.parent.rmdir()


def readable_options(record: dict[str, Any]) -> dict[str, str]:
    """The options that decide a run's numbers, from its record; empty if the record holds no options."""
    if not has_form(record, {"checkpoint": str, "checkpoint_sha256": str}):
        return {}
    options = record | record.get("predictor_args", {})
    options["checkpoint"] += f" ({record['checkpoint_sha256']:.8})"
    others = "checkpoint_sha256", "predictor_args", "date", "command", "commit"
    return {name: value for name, value in options.items() if name not in others}
