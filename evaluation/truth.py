"""The ground truth of a split: masks of the processed data set, frames that the annotators looked at.

It can also be read from and written to the benchmark's own ground-truth file:

    {"version", "challenge", "annotations": {take_uid: {"masks", "subsample_idx", "annotated_frames":
        {object: {camera: [frame, ..]}}}}}

whose "masks" and "subsample_idx" are those of annotation.json.
"""

import contextlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from common.errors import UserError, printable
from common.files import iter_json, only_writer, write_json
from evaluation.metrics import CutOut, cut_out
from formats.geometry import Size, eval_size, nearest_axes
from formats.masks import mask_size, sample_mask
from formats.processed import ANNOTATION, CameraPair, ProcessedTake, frames_in, is_processed, read_frame
from formats.takes import iter_annotations, parse_take

GT_REMEDY = "write it with `python evaluation/evaluate.py --write_gt`"


@dataclass(frozen=True)
class Annotated:
    """The part that annotation.json lacks: frames looked at, by object and camera, name and scenario of the take."""

    frames: dict[str, dict[str, list[int]]] | None = None  # None: every frame counts as looked at
    name: str = ""
    scenario: str = ""


@dataclass(frozen=True)
class TakeTruth:
    take: ProcessedTake
    annotated: Annotated

    @cached_property
    def mask_sizes(self) -> dict[str, set[Size]]:
        """(H, W) of each camera's masks: of a video one, of photos perhaps several, none where no mask tells."""
        sizes: dict[str, set[Size]] = {camera: set() for camera in self.take.cameras}
        for cameras in self.take.masks.values():
            for camera, masks in cameras.items():
                for rle in masks.values():
                    with contextlib.suppress(ValueError):
                        sizes[camera].add(mask_size(rle))
        return sizes

    def query_frames(self, pair: CameraPair) -> list[int]:
        """The frames to predict: those with a query mask, in the file's order."""
        return list(self.take.masks[pair.object_name][pair.query_camera])

    def scored_frames(self, pair: CameraPair) -> list[int]:
        """The frames that count: of those to predict, the ones that the annotators looked at in the target view."""
        if self.annotated.frames is None:
            return self.query_frames(pair)
        looked_at = set(self.annotated.frames.get(pair.object_name, {}).get(pair.target_camera, ()))
        return [frame for frame in self.query_frames(pair) if frame in looked_at]

    def cut_out(self, object_name: str, camera: str, frame: int, size: Size | None = None) -> CutOut | None:
        """An object's mask, at `size` (H, W) or with a long side of 480 pixels; None where the object is not visible.

        Raises UserError if it cannot be decoded.
        """
        rle = self.take.masks[object_name].get(camera, {}).get(frame)
        if rle is None:
            return None
        try:
            given = mask_size(rle)
            return cut_out(sample_mask(rle, *nearest_axes(given, size or eval_size(given))))
        except ValueError as error:
            raise UserError(
                f"object {object_name!r}, camera {camera}, frame {frame}: "
                f"the mask cannot be decoded ({error}); process the take again"
            ) from None

    def prediction_sizes(self, pair: CameraPair, frames: list[int]) -> dict[int, Size | None]:
        """(H, W) that predictions in the target view must have, by frame: that of the true mask, or else of all masks.

        None where neither tells: the object is hidden, and the camera's masks have several sizes or none.
        """
        sizes = {eval_size(size) for size in self.mask_sizes[pair.target_camera]}
        if not sizes:  # as in a test split whose target masks are secret
            picture = next(iter(frames_in(self.take.folder / pair.target_camera).values()), None)
            sizes = {eval_size(read_frame(Path(picture)).shape[:2])} if picture else set()
        if len(sizes) == 1:
            return dict.fromkeys(frames, sizes.pop())
        found: dict[int, Size | None] = dict.fromkeys(frames)
        masks = self.take.masks[pair.object_name][pair.target_camera]
        for frame in found.keys() & masks.keys():
            with contextlib.suppress(ValueError):  # one that is broken is named where it is read
                found[frame] = eval_size(mask_size(masks[frame]))
        return found


@dataclass(frozen=True)
class GroundTruth:
    """The takes of a split in its order, read when they are asked for."""

    uids: list[str]
    data_dir: Path
    annotated: dict[str, Annotated]
    missing: dict[str, str] = field(default_factory=dict)  # uids of the split that cannot be scored: why not
    in_memory: dict[str, ProcessedTake] = field(default_factory=dict)
    accepted: list[str] = field(default_factory=list)  # uids of takes in another form than the official one

    @classmethod
    def from_processed(cls, data_dir: Path, uids: list[str], annotation_path: Path | None) -> "GroundTruth":
        """The processed takes `uids`, with the annotated frames of `relations_{split}.json`; None counts all frames."""
        annotated = {} if annotation_path else dict.fromkeys(uids, Annotated())
        missing, wanted = {}, set(uids)
        for uid, raw in iter_annotations(annotation_path) if annotation_path else ():
            if uid in wanted:
                try:
                    take = parse_take(uid, raw)
                except UserError as error:
                    missing[uid] = str(error)
                    continue
                frames = {
                    name: {camera: track.annotated_frames for camera, track in tracks.items()}
                    for name, tracks in take.objects.items()
                }
                scenario = take.scenario if isinstance(take.scenario, str) else ""
                annotated[uid] = Annotated(frames, take.name, scenario)
        for uid in uids:
            if not is_processed(data_dir, uid):
                missing[uid] = f"no {ANNOTATION} in {data_dir / uid}"
            elif uid not in annotated:
                missing.setdefault(uid, f"not in {annotation_path}")
        return cls([uid for uid in uids if uid not in missing], data_dir, annotated, missing)

    @classmethod
    def from_official(cls, path: Path, data_dir: Path, lenient: bool = False) -> "GroundTruth":
        """All takes of the benchmark's ground-truth file. Raises UserError if it is missing or no such file.

        The evaluation does not use subsample_idx; with `lenient` a take need not have it.
        """
        takes, annotated, missing, accepted = {}, {}, {}, []
        for uid, raw in iter_json(path, ("annotations",), GT_REMEDY):
            if isinstance(raw, dict) and "subsample_idx" not in raw:
                if not lenient:
                    missing[uid] = f"malformed in {path} (no subsample_idx, which --lenient accepts); {GT_REMEDY}"
                    continue
                accepted.append(uid)
                raw["subsample_idx"] = []
            try:
                takes[uid] = ProcessedTake.parse(uid, data_dir / uid, raw)
                annotated[uid] = Annotated(checked_frames(raw["annotated_frames"]))
            except (ValueError, KeyError) as error:
                missing[uid] = f"malformed in {path} ({type(error).__name__}: {error}); {GT_REMEDY}"
        return cls(list(annotated), data_dir, annotated, missing, takes, accepted)

    def warnings(self) -> list[str]:
        """A line for each thing that it lacks, or has beyond the official protocol."""
        lines = []
        if any(annotated.frames is None for annotated in self.annotated.values()):
            lines.append(
                "not the official protocol: every frame counts, also those nobody looked at in the target view"
            )
        if self.missing:
            lines.append(printable(f"takes of the split without ground truth: {', '.join(self.missing)}"))
        return lines

    def subset(self, uids: list[str]) -> "GroundTruth":
        """Some of the takes, small enough to be sent to a worker process."""
        in_memory = {uid: self.in_memory[uid] for uid in uids if uid in self.in_memory}
        return GroundTruth(uids, self.data_dir, {uid: self.annotated[uid] for uid in uids}, {}, in_memory)

    def load(self, uid: str) -> TakeTruth:
        """Read one take. Raises UserError if its annotation.json is malformed."""
        return TakeTruth(self.in_memory.get(uid) or ProcessedTake.read(self.data_dir, uid), self.annotated[uid])

    def write_official(self, path: Path) -> None:
        """Write the benchmark's ground-truth file, atomically, a take at a time."""
        takes = (
            (truth.take.uid, truth.take.content() | {"annotated_frames": truth.annotated.frames})
            for truth in map(self.load, self.uids)
        )
        with only_writer(path):  # the other setting's evaluation may be writing it
            write_json(path, {"version": "xx", "challenge": "xx", "annotations": takes})


def checked_frames(raw: Any) -> dict[str, dict[str, list[int]]]:
    """The "annotated_frames" of a ground-truth file. Raises ValueError if they are anything else."""
    fine = isinstance(raw, dict) and all(
        isinstance(cameras, dict)
        and all(isinstance(frames, list) and all(type(f) is int for f in frames) for frames in cameras.values())
        for cameras in raw.values()
    )
    if not fine:
        raise ValueError("annotated_frames are not lists of frame numbers by object and camera")
    return raw
