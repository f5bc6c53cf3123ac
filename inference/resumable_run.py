"""The takes and the files of a prediction run; an interrupted run continues where it stopped.

    <out>/{setting}_{split}_results.json       the results of all takes, written last
    <out>/{setting}_{split}_run.json           how and from what the results were made, with their SHA-256
    <out>/{setting}_{split}_takes/<run>/<take_uid>.<state>.json            each finished take, until all are
    <out>/.{setting}_{split}.lock              held while a process writes any of these files
    <out>/.pred_annotations.lock               held while a process writes the files of --save_inter

The file of a finished take also tells which of its pairs are left out because an image cannot be read. Such a file is
deleted when the results are written, so that the next run tries these pairs again.

`run` is a digest of all that decides the numbers: checkpoint, precision and looks, or the file and arguments
of a user's method. The batch size, which moves an existence by at most 2e-7, is left out. `state` is the take's digest:
of annotation.json, source.json, and the names and sizes of frames. Predictions of another checkpoint, other masks, or
pictures of another size in bytes therefore have other names and are not used.
"""

import contextlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError, counted
from common.files import claimed, file_digest, iter_json, json_digest, read_record, write_json
from common.parts import Parts
from common.provenance import provenance
from formats.masks import encode_mask
from formats.pairs import Pairs
from formats.results import camera_pair_key, results_path
from formats.takes import camera_pairs
from recipes.base import Answer
from recipes.scene import Scene

MADE = {"date": str, "commit": str | None}
RECORD_FORM = {"run": str, "results_sha256": str, "provenance": MADE, "takes": dict, "failed": dict}


def entries_of(scene: Scene, answers: list[Answer]) -> dict[int, Any]:
    """For each row of a scene, its prediction in the results file, or the reason why it is left out."""
    entries: dict[int, Any] = dict(scene.left_out)
    for pair, answer in enumerate(answers):
        mask = encode_mask(scene.compared(pair, answer))
        entries[scene.row[pair]] = {"pred_mask": mask, "confidence": answer.existence}
    return entries


class ResumableRun:
    def __init__(self, out_dir: Path, setting: str, split: str, options: dict[str, Any], pairs: Pairs):
        """options: by name, all that decides the numbers besides setting and takes. "checkpoint" is a file's name, and
        "checkpoint_sha256" its digest: two files with one digest are the same checkpoint. pairs: the table that is
        predicted, which may have both settings.
        """
        self.out_dir, self.setting, self.options, self.pairs = out_dir, setting, options, pairs
        self.name = f"{setting}_{split}"
        self.results_path = results_path(out_dir, setting, split)
        self.record_path = self.out_dir / f"{self.name}_run.json"
        self.digest = json_digest(options | {"checkpoint": None})
        self.finished = Parts(self.out_dir / f"{self.name}_takes", self.digest, ".json")
        self.joined_path = self.finished.path(f"{self.name}_results")  # until they are moved to their place
        store, self.failed = pairs.store, pairs.store.left_out
        self.parts = [self.finished.path(f"{uid}.{store.digest(x)[:12]}") for x, uid in enumerate(store.takes)]
        self.rows = np.flatnonzero(pairs.is_of(setting))
        self.counts = np.bincount(pairs.take[self.rows], minlength=len(self.parts))  # the pairs of each take
        self._found: dict[int, dict[int, Any]] = defaultdict(dict)  # by take and row

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """The context in which only this process writes the run's files. Raises UserError if a finished take has other
        frames than were listed.
        """
        with claimed(self.out_dir, self.name, f"writes {self.results_path}"):
            if other := {*self.finished.known()} - {*self.parts, self.joined_path}:
                what = "finished by another run or version, or of other masks or frames, and predicted anew"
                print(f"{counted(len(other), 'take')} of {self.finished.all_works}: {what}")
            self.pairs.store.compare_frames(take for take, part in enumerate(self.parts) if part.exists())
            yield

    def begin(self, takes: list[int]) -> list[int]:
        """The rows of these takes. Takes without pairs get their files."""
        for take in takes:
            if not self.counts[take]:
                self.write_part(take)
        return self.rows[np.isin(self.pairs.take[self.rows], takes)].tolist()

    def note(self, row: int, entry: Any) -> None:
        """Note the entry of a row. A take that is complete gets its file."""
        take = int(self.pairs.take[row])
        self._found[take][row] = entry
        if len(self._found[take]) == self.counts[take]:
            self.write_part(take)

    def write_part(self, take: int) -> None:
        """Write the results of a take, in which every object has a key, and in "left_out" the number of pairs that are
        left out, by reason.
        """
        found, store = self._found.pop(take, {}), self.pairs.store
        reasons = Counter(entry for entry in found.values() if isinstance(entry, str))
        names, subsample_idx = store.contents[take]
        cameras_of: dict[str, list[str]] = {name: [] for name in names}
        for _, name, camera, _ in store.tracks[store.tracks[:, 0] == take].tolist():
            cameras_of[store.objects[name]].append(store.cameras[camera])
        masks: dict[str, dict[str, dict]] = {
            name: {camera_pair_key(*pair): {} for pair in camera_pairs(cameras, self.setting)}
            for name, cameras in cameras_of.items()
        }
        for row in sorted(row for row, entry in found.items() if not isinstance(entry, str)):
            _, name, query, target, frame = self.pairs.named(row)
            masks[name][camera_pair_key(query, target)][frame] = found[row]
        result: dict[str, Any] = {"masks": masks, "subsample_idx": subsample_idx}
        write_json(self.parts[take], result | {"left_out": reasons} if reasons else result)

    def made_already(self) -> dict[str, Any] | None:
        """The provenance of the results file, if this run made it from these takes in their present state; None if
        there is no complete results file. Raises UserError if another run made the file, or if frames are others than
        were listed.
        """
        if not self.results_path.exists():
            return None
        record: dict[str, Any] = {"run": None, "provenance": {}}
        remedy = "give another --out, or --overwrite to replace it"
        if self.record_path.exists():
            record = read_record(self.record_path, RECORD_FORM, remedy)
        if record["run"] != self.digest:
            how = f"by another checkpoint or method, precision, looks or code ({record['provenance'].get('command')})"
            raise UserError(f"{self.results_path} was made by another run, {how}; {remedy}")
        if record["results_sha256"] != file_digest(self.results_path):
            if self.joined_path.exists():
                return None  # this run was stopped before it replaced another run's results
            raise UserError(f"{self.results_path} was changed, or copied here, after it was made; {remedy}")
        takes = {uid: path.name for uid, path in zip(self.pairs.store.takes, self.parts, strict=True)}
        missing = record["failed"] or record.get("left_out")
        if record["takes"] != takes or missing:
            return None
        self.pairs.store.compare_frames(range(len(takes)))
        return record["provenance"]

    def join(self) -> dict[str, dict[str, int]]:
        """Join the finished takes into the results file. The run's record, with the SHA-256 of the results, is written
        first: a kill in between leaves a record without its results, but never results with another run's record.

        Returns the number of pairs that are left out, by take and reason.
        """
        parts = dict(zip(self.pairs.store.takes, self.parts, strict=True))
        left_out: dict[str, dict[str, int]] = {}

        def takes() -> Iterator[tuple[str, dict]]:
            for uid, path in parts.items():
                result = read_record(path, {"masks": dict}, "delete it and run the same command again")
                if reasons := result.pop("left_out", None):
                    left_out[uid] = reasons
                yield uid, result

        write_json(self.joined_path, {self.setting: {"results": takes()}})
        record = {
            "run": self.digest,
            "results_sha256": file_digest(self.joined_path),
            "provenance": provenance() | self.options,
            "takes": {uid: path.name for uid, path in parts.items()},
            "left_out": left_out,
            "failed": self.failed,
        }
        write_json(self.record_path, record, indent=1)
        self.joined_path.replace(self.results_path)
        for uid in left_out:
            parts[uid].unlink()
        return left_out

    def take_file(self, uid: str) -> Path:
        return self.out_dir / uid / "pred_annotations.json"

    def write_take_files(self) -> None:
        """Write each take's results to its file, as the original does."""
        what = f"writes the takes' files in {self.out_dir}"
        with claimed(self.out_dir, "pred_annotations", what):  # files of the other setting have the same names
            for uid, result in iter_json(self.results_path, (self.setting, "results"), "predict again"):
                write_json(self.take_file(uid), result)
