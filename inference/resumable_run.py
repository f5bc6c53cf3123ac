"""The takes and the files of a prediction run; an interrupted run continues where it stopped.

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
import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from common.files import claimed, file_digest, iter_json, read_json, read_record, remove_leftovers, write_json
from common.provenance import provenance
from formats.geometry import Size
from formats.masks import RLE, encode_mask
from formats.processed import Correspondence, ProcessedTake, read_frame
from formats.results import camera_pair_key, part_name, results_path, write_results
from recipes.base import Recipe
from recipes.take_frames import FramePlan, TakeFrame, predict_frames

RECORD_FORM = {"run": str, "results_sha256": str, "provenance": dict, "takes": dict, "failed": dict}


@dataclass(frozen=True)
class TakePlan:
    """The pairs to predict in a take. A plan holds no masks, so that the plans of all takes fit into memory."""

    data_dir: Path
    uid: str
    digest: str  # `ProcessedTake.digest`
    files_digest: str
    subsample_idx: list[int]
    objects: list[str]
    query_frames: dict[Correspondence, list[int]]  # every frame with a query mask

    @classmethod
    def of(cls, take: ProcessedTake, setting: str) -> "TakePlan":
        frames = {pair: list(take.masks[pair.object_name][pair.query_camera]) for pair in take.correspondences(setting)}
        digests = take.digest, take.files_digest
        return cls(take.folder.parent, take.uid, *digests, take.subsample_idx, list(take.masks), frames)

    @property
    def pair_count(self) -> int:
        return sum(map(len, self.query_frames.values()))

    def frames(self) -> list[FramePlan]:
        """The take's frames in ascending order."""
        pairs = defaultdict(list)
        for pair, numbers in self.query_frames.items():
            for number in numbers:
                pairs[number].append(pair)
        return [FramePlan(self.data_dir / self.uid, frame, pairs[frame]) for frame in sorted(pairs)]

    def empty_result(self) -> dict:
        """The take's results without predictions: every object, camera pair and query frame has a key."""
        masks: dict = {name: {} for name in self.objects}
        for pair, numbers in self.query_frames.items():
            masks[pair.object_name][camera_pair_key(*pair[1:])] = dict.fromkeys(numbers)
        return {"masks": masks, "subsample_idx": self.subsample_idx}


class TakeFiles:
    """Gives a `FrameDataset` the images and masks of takes, as a `PairSet` does. Raises UserError if a take cannot be
    read, or if its annotation.json or source.json has changed since its plan was made.
    """

    def __init__(self, plans: dict[str, TakePlan]):
        self.plans = plans
        self.last: ProcessedTake | None = None  # the last frame's take, mostly also the next frame's take

    def take(self, uid: str) -> ProcessedTake:
        if self.last is None or self.last.uid != uid:
            self.last = ProcessedTake.read(self.plans[uid].data_dir, uid)
        if self.last.files_digest != self.plans[uid].files_digest:
            raise UserError("the take was processed again in the meantime; run the same command again")
        return self.last

    def view(self, take_uid: str, camera: str, frame: int) -> tuple[np.ndarray, Size | None]:
        take = self.take(take_uid)
        return read_frame(take.frame_path(camera, frame)), take.video_size(camera)

    def given_mask(self, take_uid: str, pair: Correspondence, frame: int) -> RLE:
        return self.take(take_uid).masks[pair.object_name][pair.query_camera][frame]


class ResumableRun:
    def __init__(
        self, out_dir: Path, setting: str, split: str, options: dict[str, Any], plans: dict[str, TakePlan], failed: dict
    ):
        """options: by name, all that decides the numbers besides setting and takes. "checkpoint" is a file's name, and
        "checkpoint_sha256" its digest: two files with one digest are the same checkpoint. plans: the takes by uid.
        failed: by uid, why a take cannot be read.
        """
        self.out_dir, self.setting, self.options, self.plans, self.failed = out_dir, setting, options, plans, failed
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

    def part_path(self, uid: str) -> Path:
        """The file with the results of a finished take, until all takes are finished."""
        return self.folder / part_name(uid, self.plans[uid].digest)

    def write_part(self, uid: str, result: dict) -> None:
        write_json(self.part_path(uid), result)

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
            how = f"by another checkpoint or method, precision, looks or code ({record['provenance'].get('command')})"
            raise UserError(f"{self.results_path} was made by another run, {how}; {remedy}")
        if record["results_sha256"] != file_digest(self.results_path):
            if self.joined_path.exists():
                return None  # this run was stopped before it replaced another run's results
            raise UserError(f"{self.results_path} was changed, or copied here, after it was made; {remedy}")
        takes = {uid: self.part_path(uid).name for uid in self.plans}
        missing = record["failed"] or record.get("left_out")
        return record["provenance"] if record["takes"] == takes and not missing else None

    def join(self, figures: dict[str, Any]) -> dict[str, dict[str, int]]:
        """Join the finished takes into the results file. The run's record, with the SHA-256 of the results, is written
        first: a kill in between leaves a record without its results, but never results with another run's record.

        Returns the number of pairs that are left out, by take and reason.
        """
        parts = {uid: self.part_path(uid) for uid in self.plans}
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
            "failed": self.failed,
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
                write_json(self.out_dir / uid / "pred_annotations.json", result)


def predict_takes(
    recipe: Recipe,
    frames: Iterable[TakeFrame],
    plans: dict[str, TakePlan],
    write: Callable[[str, dict], None],
    progress: Callable[[int], object] = lambda pairs: None,
) -> None:
    """Predict every frame of takes, each image and mask read and encoded once for all its pairs; call `write(take_uid,
    result)` with the results of each finished take, in the form of results files. Pairs that cannot be predicted are
    left out; `result["left_out"]` then has their number by reason.

    The frames of a take must follow each other; `plans` has the plan of each take by its uid. After each frame,
    `progress` is called with the number of the frame's pairs.
    """
    for uid, predicted in itertools.groupby(predict_frames(recipe, frames), key=lambda item: item[0].take_uid):
        result, left_out = plans[uid].empty_result(), Counter[str]()
        for frame, answers in predicted:
            for pair, mask, existence in answers:
                entry = {"pred_mask": encode_mask(mask), "confidence": existence}
                result["masks"][pair.object_name][camera_pair_key(*pair[1:])][frame.number] = entry
            for pair, reason in frame.left_out.items():
                del result["masks"][pair.object_name][camera_pair_key(*pair[1:])][frame.number]
                left_out[reason] += 1
            progress(len(frame.pairs) + len(frame.left_out))
        write(uid, result | {"left_out": left_out} if left_out else result)
