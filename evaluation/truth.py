"""The ground truth of a split: the masks of the processed data set, and the frames that annotators looked at; and the
options of scripts that choose it.

The ground truth can also be read from and written to the benchmark's own ground-truth file:

    {"version", "challenge", "annotations": {take_uid: {"masks", "subsample_idx", "annotated_frames":
        {object: {camera: [frame, ..]}}}}}

"masks" and "subsample_idx" are the same as in annotation.json.
"""

import argparse
import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from common.arguments import add_annotations, add_data_path
from common.errors import MALFORMED, UserError, counted, printable
from common.files import check_outputs, iter_json, write_json
from evaluation.groups import Groups, read_groups
from formats.pairs import Pairs, open_pairs, pairs_of
from formats.pairs_file import list_takes, listing_path
from formats.processed import FAILED, VIDEOS, ProcessedTake, annotation_change, is_processed
from formats.results import same_run_path
from formats.takes import (
    ANNOTATION_REMEDY,
    SPLIT_PATH,
    SPLITS,
    annotation_path,
    find_split_path,
    iter_takes,
    parse_frame,
    read_split,
    read_splits,
)

MISSING_HINT = "; --allow_missing goes on without what is only missing"
GT_REMEDY = "write it with `python evaluation/evaluate.py --split SPLIT --write_gt FILE`"


class TakeInfo(NamedTuple):
    """What annotation.json lacks: the annotated frames by object and camera, and the take's name and scenario."""

    frames: dict[str, dict[str, list[int]]] = {}
    name: str = ""
    scenario: str = ""


@dataclass(frozen=True)
class GroundTruth:
    """The pairs of a split that are scored."""

    pairs: Pairs
    infos: dict[str, TakeInfo]  # of the takes that can be scored, by uid and in the order of the split
    data_dir: Path
    left_out: dict[str, str] = field(default_factory=dict)  # by uid, why other takes of the split cannot be scored
    all_frames: bool = False  # every frame is scored, which is not the official protocol
    split: str | None = None  # a ground-truth file does not name its split
    incomplete_line: str = ""  # about takes that process_data.py could not make whole
    files: Sequence[Path] = ()  # that name the takes
    groups: Groups = Groups()

    @property
    def take_names(self) -> list[str]:
        """The name of each take of `pairs.store`, or its uid if the name is unknown."""
        return [self.infos.get(uid, TakeInfo()).name or uid for uid in self.pairs.store.takes]

    def check_outputs(self, outputs: Sequence[Path], results: Iterable[Path]) -> None:
        """Call this before the work begins. Raises UserError if a command that reads this ground truth and `results`
        would replace what it reads, or a file of the data set, which other commands read.
        """
        of_data_set = {path.resolve() for path in data_set_files(self.data_dir)}
        if found := next((path for path in outputs if path.resolve() in of_data_set), None):
            raise UserError(f"cannot write {found}: it is a file of the data set; name another file to write")
        beside = itertools.chain(*((path, same_run_path(path, "run.json")) for path in results))
        check_outputs(outputs, [*self.files, self.groups.path, *self.pairs.store.folders, *beside])

    def with_results(
        self, results: Iterable[tuple[str, Any]], not_in_truth: list[str]
    ) -> Iterator[tuple[int, str, Any]]:
        """Yield the number and the uid of each take with its predictions, None if `results` lack the take. The uids of
        takes that the ground truth lacks are added to `not_in_truth`.
        """
        unseen = {uid: number for number, uid in enumerate(self.pairs.store.takes) if uid in self.infos}
        for uid, raw in results:
            if uid in unseen:
                yield unseen.pop(uid), uid, raw
            else:
                not_in_truth.append(uid)
        yield from ((number, uid, None) for uid, number in unseen.items())

    def write_official(self, path: Path) -> None:
        """Write the benchmark's ground-truth file atomically, with one processed take in memory at a time."""
        contents = ((uid, ProcessedTake.read(self.data_dir, uid).content()) for uid in self.infos)
        takes = ((uid, content | {"annotated_frames": self.infos[uid].frames}) for uid, content in contents)
        write_json(path, {"version": "xx", "challenge": "xx", "annotations": takes})


def data_set_files(data_dir: Path) -> list[Path]:
    """The files for all takes of a data set, some of which may not be there: pairs, splits, videos, annotations."""
    root = data_dir.absolute().parent
    files = [data_dir / VIDEOS, *(folder / "split.json" for folder in (data_dir, root)), SPLIT_PATH]
    of_splits = ((listing_path(data_dir, split), annotation_path(root / "annotations", split)) for split in SPLITS)
    return [*files, *itertools.chain(*of_splits)]


def looked_at(pairs: Pairs, infos: Mapping[str, TakeInfo]) -> np.ndarray:
    """(N,) bool: whether an annotator looked at the target view of each pair; False in takes without info."""
    column = np.zeros(len(pairs), bool)
    for rows in pairs.groups("take", "object", "query", "target"):
        uid, object_name, _, target, _ = pairs.named(rows[0])
        frames = infos.get(uid, TakeInfo()).frames.get(object_name, {}).get(target, [])
        column[rows] = np.isin(pairs.frame[rows], frames)
    return column


def truth_of_split(
    data_dir: Path,
    split: str,
    setting: str,
    splits_path: Path | None = None,
    annotations: Path | None = None,
    all_frames: bool = False,
) -> GroundTruth:
    """The processed takes of a split. Without `splits_path` and `annotations`, the files at their default places are
    read. `annotations` is a file, a folder, or a path with {split} in it; with `all_frames` none is read.

    Raises UserError if a file or all takes are missing.
    """
    splits_path = splits_path or find_split_path(data_dir)
    path = annotation_path(annotations or data_dir.absolute().parent / "annotations", split)
    if not any(is_processed(data_dir, uid) for uid in read_split(splits_path, split)):
        splits = read_splits(splits_path)
        there = [name for name, uids in splits.items() if any(is_processed(data_dir, uid) for uid in uids)]
        remedy = f"it has takes of {', '.join(there)}" if there else "name another --data_path"
        raise UserError(f"no take of split {split!r} is in {data_dir}; {remedy}, or run data/process_data.py first")
    if not all_frames and not path.is_file():
        without = "" if annotations else "score without it by --all_frames, or "
        raise UserError(f"no file {path}; {without}{ANNOTATION_REMEDY}")
    pairs = open_pairs([data_dir], split, setting, splits_path, write=False)
    takes = pairs.store.takes
    infos, missing = (dict.fromkeys(takes, TakeInfo()), {}) if all_frames else _read_infos(path, takes, data_dir)
    scored = pairs if all_frames else pairs[looked_at(pairs, infos)]
    in_part = [uid for uid in infos if (data_dir / uid / FAILED).exists()]
    line = "processed in part: the benchmark may have more pairs; check_processed.py lists what is missing"
    line = f"{counted(len(in_part), 'take')} {line}" if in_part else ""
    files = splits_path, listing_path(data_dir, split), *([] if all_frames else [path])
    return GroundTruth(scored, infos, data_dir, missing | pairs.store.left_out, all_frames, split, line, files)


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
    return {uid: infos[uid] for uid in uids if uid in infos}, missing


def truth_of_file(path: Path, data_dir: Path, split: str | None, setting: str, all_frames: bool) -> GroundTruth:
    """All takes of the benchmark's ground-truth file. Raises UserError if this is missing or another file."""
    takes, infos, missing = {}, {}, {}
    for uid, raw in iter_json(path, ("annotations",), GT_REMEDY):
        try:
            take = ProcessedTake.parse(uid, data_dir / uid, {"subsample_idx": []} | raw)  # which scores do not use
            looked = {
                name: {camera: list(map(parse_frame, frames)) for camera, frames in cameras.items()}
                for name, cameras in raw["annotated_frames"].items()
            }
            takes[uid], infos[uid] = take, TakeInfo(looked)
        except MALFORMED as error:
            missing[uid] = f"malformed in {path} ({type(error).__name__}: {error}); {GT_REMEDY}"
    pairs = pairs_of([(data_dir, list_takes(data_dir, takes, takes))], setting)
    scored = pairs if all_frames else pairs[looked_at(pairs, infos)]
    return GroundTruth(scored, infos, data_dir, missing, all_frames, split, files=(path,))


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
    text = (
        "CSV file with the column object_name, take_uid or both, and a breakdown in each other column, such as category"
    )
    add("--groups", type=Path, help=text)
    for flag, text in (("--resize_masks", resize), ("--lenient", lenient)):
        add(flag, dest="accept", action="append_const", const=flag, default=[], help=text)


def open_truth(args: argparse.Namespace, setting: str, default_split: str = "val") -> GroundTruth:
    """Open the ground truth that the options of `add_truth_options` choose; `setting` may be BOTH.

    Raises UserError if there is no ground truth, or if it lacks takes (which are printed) without --allow_missing.
    """
    groups = read_groups(args.groups) if args.groups else Groups()
    if args.gt_file:
        truth = truth_of_file(args.gt_file, args.data_path, args.split, setting, args.all_frames)
    else:
        where = (args.splits_path, args.annotation_path, args.all_frames)
        truth = truth_of_split(args.data_path, args.split or default_split, setting, *where)
    if truth.left_out and not args.allow_missing:
        refuse([f"take {uid}: {why}" for uid, why in truth.left_out.items()], "the ground truth", MISSING_HINT)
    return replace(truth, groups=groups)


def refuse(problems: Sequence[str], where: str, hint: str = "") -> NoReturn:
    """Print the problems and raise UserError."""
    print("\n".join(map(printable, problems)), file=sys.stderr)
    raise UserError(f"{counted(len(problems), 'problem')} in {where}, nothing written{hint}")
