"""The ground truth of a split: the masks of the processed data set, and the frames that annotators looked at; and the
options of scripts that choose it.

The ground truth can also be read from and written to the benchmark's own ground-truth file:

    {"version", "challenge", "annotations": {take_uid: {"masks", "subsample_idx", "annotated_frames":
        {object: {camera: [frame, ..]}}}}}

"masks" and "subsample_idx" are the same as in annotation.json.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from common.arguments import add_annotations, add_data_path
from common.errors import MALFORMED, UserError, counted, printable
from common.files import claimed, iter_json, write_json
from formats.geometry import Size, eval_size
from formats.masks import RLE, encode_mask, mask_size, resize_mask
from formats.processed import ANNOTATION, FAILED, Correspondence, ProcessedTake, annotation_change, is_processed
from formats.takes import ANNOTATION_REMEDY, annotation_path, find_split_path, iter_takes, parse_frame, read_split

MISSING_HINT = "; --allow_missing goes on without what is only missing"
GT_REMEDY = "write it with `python evaluation/evaluate.py --split SPLIT --write_gt FILE`"


@dataclass(frozen=True)
class TakeInfo:
    """What annotation.json lacks: the annotated frames by object and camera, and the take's name and scenario."""

    frames: dict[str, dict[str, list[int]]] | None = None  # None: every frame counts as annotated
    name: str = ""
    scenario: str = ""


def _read_infos(path: Path, uids: list[str], data_dir: Path) -> tuple[dict[str, TakeInfo], dict[str, str]]:
    """Read an annotation file -> the infos of the takes `uids`; for takes without info, the reason; both by uid."""
    infos, missing = {}, dict.fromkeys(uids, f"not in {path}")
    for uid, take in iter_takes(path, uids):
        fault = take if isinstance(take, UserError) else annotation_change(data_dir, take)
        if isinstance(take, UserError) or fault:
            missing[uid] = str(fault)
            continue
        missing.pop(uid, None)
        frames = {
            name: {camera: track.annotated_frames for camera, track in tracks.items()}
            for name, tracks in take.objects.items()
        }
        infos[uid] = TakeInfo(frames, take.name, take.scenario)
    return infos, missing


@dataclass(frozen=True)
class TakeTruth:
    """A processed take, with the information that its annotation.json lacks."""

    take: ProcessedTake
    info: TakeInfo

    def query_frames(self, pair: Correspondence) -> list[int]:
        """The frames to predict, which are the frames with a query mask, in the file's order."""
        return list(self.take.masks[pair.object_name][pair.query_camera])

    def scored_frames(self, pair: Correspondence) -> list[int]:
        """The frames to score: they have a query mask, and an annotator looked at the target view."""
        if self.info.frames is None:
            return self.query_frames(pair)
        looked_at = set(self.info.frames.get(pair.object_name, {}).get(pair.target_camera, ()))
        return [frame for frame in self.query_frames(pair) if frame in looked_at]

    def mask(self, object_name: str, camera: str, frame: int, size: Size | None = None) -> RLE | None:
        """An object's mask at `size` (H, W), by default with a long side of 480 pixels; None for a hidden object."""
        rle = self.take.masks[object_name].get(camera, {}).get(frame)
        return encode_mask(resize_mask(rle, size or eval_size(mask_size(rle)))) if rle else None

    def prediction_sizes(self, pair: Correspondence, frames: list[int]) -> dict[int, Size | None]:
        """The (H, W) that predictions in the target view must have, by frame: the size of the camera's masks. If the
        camera's masks differ in size, this is the size of the true mask, or None if the object is hidden.
        """
        target_masks = (cameras.get(pair.target_camera, {}).values() for cameras in self.take.masks.values())
        sizes = set(map(eval_size, {mask_size(rle) for rles in target_masks for rle in rles}))
        if not sizes and (size := self.take.frame_size(pair.target_camera)):
            sizes = {eval_size(size)}  # a test split may keep its target masks secret
        if len(sizes) == 1:
            return dict.fromkeys(frames, sizes.pop())
        masks = self.take.masks[pair.object_name][pair.target_camera]
        return {frame: eval_size(mask_size(masks[frame])) if frame in masks else None for frame in frames}


@dataclass(frozen=True)
class GroundTruth:
    """The takes of a split, in its order; a take is read when it is asked for."""

    uids: list[str]
    data_dir: Path
    infos: dict[str, TakeInfo]
    missing: dict[str, str] = field(default_factory=dict)  # the reasons why takes of the split cannot be scored
    in_memory: dict[str, ProcessedTake] = field(default_factory=dict)
    split: str | None = None  # a ground-truth file does not name its split
    sources: tuple[Path, ...] = ()  # the files and folders that hold the ground truth

    @property
    def all_frames(self) -> bool:
        """True if every frame is scored, which is not the official protocol."""
        return any(info.frames is None for info in self.infos.values())

    @property
    def split_options(self) -> str:
        """The options of eval_segswap.py that choose these takes."""
        return f"--split {self.split or 'SPLIT'} --data_path {self.data_dir}"

    @property
    def incomplete_line(self) -> str:
        """A line about takes that process_data.py could not make whole, or ""; a ground-truth file does not tell."""
        uids = [uid for uid in self.uids if uid not in self.in_memory and (self.data_dir / uid / FAILED).exists()]
        what = "processed in part: the benchmark may have more pairs; check_processed.py lists what is missing"
        return f"{counted(len(uids), 'take')} {what}" if uids else ""

    @classmethod
    def of_split(
        cls,
        data_dir: Path,
        split: str,
        splits_path: Path | None = None,
        annotations: Path | None = None,
        all_frames: bool = False,
    ) -> "GroundTruth":
        """The processed takes of a split. Without `splits_path` and `annotations`, the files at their default places
        are read. `annotations` is a file, a folder, or a path with {split} in it; with `all_frames` none is read.

        Raises UserError if a file or all takes are missing.
        """
        splits_path = splits_path or find_split_path(data_dir)
        path = annotation_path(annotations or data_dir.absolute().parent / "annotations", split)
        uids = read_split(splits_path, split)
        if not any(is_processed(data_dir, uid) for uid in uids):
            remedy = "run data/process_data.py first or name the folder with --data_path"
            raise UserError(f"no take of split {split!r} is in {data_dir}; {remedy}")
        if all_frames:
            infos, missing = dict.fromkeys(uids, TakeInfo()), {}
        else:
            if not path.is_file():
                without = "" if annotations else "score without it by --all_frames, or "
                raise UserError(f"no file {path}; {without}{ANNOTATION_REMEDY}")
            infos, missing = _read_infos(path, uids, data_dir)
        missing |= {uid: f"no {ANNOTATION} in {data_dir / uid}" for uid in uids if not is_processed(data_dir, uid)}
        whole = [uid for uid in uids if uid not in missing]
        return cls(whole, data_dir, infos, missing, split=split, sources=(data_dir, splits_path, path))

    @classmethod
    def from_official(cls, path: Path, data_dir: Path, split: str | None = None) -> "GroundTruth":
        """All takes of the benchmark's ground-truth file. Raises UserError if this is missing or another file."""
        takes, infos, missing = {}, {}, {}
        for uid, raw in iter_json(path, ("annotations",), GT_REMEDY):
            try:
                takes[uid] = ProcessedTake.parse(uid, data_dir / uid, {"subsample_idx": []} | raw)  # unused by scores
                looked_at = {
                    name: {camera: list(map(parse_frame, frames)) for camera, frames in cameras.items()}
                    for name, cameras in raw["annotated_frames"].items()
                }
                infos[uid] = TakeInfo(looked_at)
            except MALFORMED as error:
                missing[uid] = f"malformed in {path} ({type(error).__name__}: {error}); {GT_REMEDY}"
        return cls(list(infos), data_dir, infos, missing, takes, split, (path, data_dir))

    def subset(self, uids: list[str]) -> "GroundTruth":
        """The ground truth of some takes alone, which is small enough to be sent to a worker process."""
        in_memory = {uid: self.in_memory[uid] for uid in uids if uid in self.in_memory}
        infos = {uid: self.infos[uid] for uid in uids}
        return GroundTruth(uids, self.data_dir, infos, in_memory=in_memory, split=self.split)

    def load_take(self, uid: str) -> TakeTruth:
        """Read one take. Raises UserError if its annotation.json is malformed."""
        return TakeTruth(self.in_memory.get(uid) or ProcessedTake.read(self.data_dir, uid), self.infos[uid])

    def write_official(self, path: Path) -> None:
        """Write the benchmark's ground-truth file atomically, with one take in memory at a time."""
        takes = (
            (truth.take.uid, truth.take.content() | {"annotated_frames": truth.info.frames})
            for truth in map(self.load_take, self.uids)
        )
        with claimed(path.parent, path.name, f"writes {path}"):  # another evaluation may write this file, too
            write_json(path, {"version": "xx", "challenge": "xx", "annotations": takes})


def add_split_options(parser: argparse.ArgumentParser, default: str) -> None:
    """Add the options that choose processed takes."""
    add_data_path(parser)
    parser.add_argument("--split", help=f"train, val or test (default: {default})")


def add_truth_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `open_truth`. `accept` collects the flags that accept other forms of results."""
    add_split_options(parser, "val")
    add = parser.add_argument
    text = "annotation file or its folder; only frames that an annotator looked at are scored (default: "
    add_annotations(parser, f"{text}annotations/relations_{{split}}.json beside --data_path)")
    other = parser.add_mutually_exclusive_group()
    text = "the benchmark's ground-truth JSON, in place of processed takes, split and annotations"
    other.add_argument("--gt_file", type=Path, help=text)
    text = "score every frame with a query mask, even if no annotator looked at the target view; this needs no "
    text += "annotation file, but is not the official protocol"
    other.add_argument("--all_frames", action="store_true", help=text)
    add("--allow_missing", action="store_true", help="score although takes or predictions are missing, and name them")
    resize = "accept masks of another size, and resize them by nearest neighbor to the official size"
    lenient = "accept a list of one number as confidence, and predictions without confidence (1 is used if the mask is "
    lenient += "not empty, else 0)"
    for flag, text in (("--resize_masks", resize), ("--lenient", lenient)):
        add(flag, dest="accept", action="append_const", const=flag, default=[], help=text)


def open_truth(args: argparse.Namespace, default_split: str = "val") -> GroundTruth:
    """Open the ground truth that the options of `add_truth_options` choose.

    Raises UserError if there is no ground truth, or if it lacks takes (which are printed) without --allow_missing.
    """
    if args.gt_file:
        truth = GroundTruth.from_official(args.gt_file, args.data_path, args.split)
    else:
        where = (args.splits_path, args.annotation_path, args.all_frames)
        truth = GroundTruth.of_split(args.data_path, args.split or default_split, *where)
    if truth.missing and not args.allow_missing:
        refuse([f"take {uid}: {why}" for uid, why in truth.missing.items()], "the ground truth", MISSING_HINT)
    return truth


def refuse(problems: Sequence[str], where: str, hint: str = "") -> NoReturn:
    """Print the problems and raise UserError."""
    print("\n".join(map(printable, problems)), file=sys.stderr)
    raise UserError(f"{counted(len(problems), 'problem')} in {where}, nothing written{hint}")
