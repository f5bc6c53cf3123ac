"""Check a processed data set: every frame that is needed is there and whole, masks fit, the pairs are complete.

    python data/check_processed.py --data_dir data/egoexo/processed

Prints a table of the splits, then what is wrong, then what is missing: takes and cameras that process_data.py did not
find in the data set. Exit status 0: nothing is wrong, though some may be missing. Status 1: something is.
"""

import argparse
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.errors import run_script  # isort: split

import cv2
import numpy as np
from tqdm import tqdm

from common.arguments import SETTINGS, Parser, add_data_path, add_num_workers, add_splits_path
from common.errors import UserError, counted, printable
from common.files import open_file, read_file
from common.parallel import run_jobs
from data.failures import BROKEN, MISSING, read_failures
from formats.geometry import Size
from formats.masks import RLE, run_lengths
from formats.pairs import PairSet, pairs_path
from formats.processed import (
    MAX_FRAME_SIDE,
    ProcessedTake,
    frames_in,
    has_jpeg_end,
    is_processed,
    jpeg_size,
    pair_frames,
)
from formats.stored_frames import check_stored_frames
from formats.takes import SPLITS, find_split_path, read_split, read_splits

COLUMNS = ("split", "takes", "processed", "frames", "masks", "pairs ego-exo", "pairs exo-ego", "missing", "problems")
PEEK_BYTES = 4096  # of a JPEG file's beginning, enough for the tables before its size, and of its end
MAX_NAMED_FRAMES = 5  # in a problem


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    add_data_path(parser, "--data_dir")
    add_splits_path(parser, "--split_path")
    add = parser.add_argument
    add("--split", nargs="+", help="default: all that have processed takes")
    add("--decode", action="store_true", help="decode every frame instead of looking at its header and end: some 50x")
    add("--skip_pairs", action="store_true", help="do not look at the pairs files, which create_pairs.py writes")
    add_num_workers(parser)
    add("--show", type=int, default=30, help="problems printed per split, and as many of what is missing")
    args = parser.parse_args()
    args.split_path = args.split_path or find_split_path(args.data_dir)
    return args


def main() -> int:
    args = parse_args()
    if not args.data_dir.is_dir():
        raise UserError(f"no folder {args.data_dir}; run data/process_data.py first")
    splits = read_splits(args.split_path)
    names = args.split or [name for name in splits if any(is_processed(args.data_dir, uid) for uid in splits[name])]
    if not names:
        raise UserError(f"{args.data_dir} holds no take of {args.split_path}; run data/process_data.py first")
    checks = {name: check_split(args, name, read_split(args.split_path, name)) for name in names}
    rows = [COLUMNS] + [check.row for check in checks.values()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)))
    for name, uids in splits.items():
        if uids and name not in names and not args.split:
            print(f"{printable(name)}: 0 of {counted(len(uids), 'take')} processed")
    for name, check in checks.items():
        print_lines(name, check.problems, args.show)
    for name, check in checks.items():
        print_lines(f"missing: {name}", check.missing, args.show)
    return int(any(check.problems for check in checks.values()))


def print_lines(start: str, lines: list[str], show: int) -> None:
    for line in lines[:show]:
        print(printable(f"{start}, {line}"))
    if len(lines) > show:
        print(printable(f"{start}: {len(lines) - show} more; --show {len(lines)} prints all"))


class SplitCheck(NamedTuple):
    """A split's row of the table, what is wrong with it, and what the data set lacks, a line each."""

    row: tuple[str, ...]
    problems: list[str]
    missing: list[str]


def check_split(args: argparse.Namespace, name: str, uids: list[str]) -> SplitCheck:
    """Check the processed takes of a split, its pairs, and what process_data.py could not make."""
    there = [uid for uid in uids if is_processed(args.data_dir, uid)]
    check = partial(check_take, args.data_dir, decode=args.decode)
    checks = dict(tqdm(run_jobs(check, there, args.num_workers), printable(name), total=len(there), unit="take"))
    problems, missing = [], []
    for uid in uids:
        problems += checks[uid].problems if uid in checks else []
        try:
            failures = read_failures(args.data_dir / uid)
        except UserError as error:
            problems.append(f"take {uid}: {error}")
            continue
        problems += [failure.describe(uid) for failure in failures if failure.kind == BROKEN]
        missing += [failure.describe(uid) for failure in failures if failure.kind == MISSING]
        if uid not in checks and not failures:
            problems.append(f"take {uid}: not processed; run data/process_data.py")
    takes = [checks[uid] for uid in there]
    pairs = [sum(sum(take.pairs[setting].values()) for take in takes) for setting in SETTINGS]
    if any(pairs) and not args.skip_pairs and name in SPLITS:
        problems += check_pairs(args.data_dir, name, takes)
    frames, masks = sum(take.frames for take in takes), sum(take.masks for take in takes)
    numbers = (len(uids), len(there), frames, masks, *pairs, len(missing), len(problems))
    return SplitCheck((printable(name), *(f"{number:,}" for number in numbers)), problems, missing)


@dataclass
class TakeCheck:
    """What was looked at, and what is wrong. `pairs[setting][object, query, target]` counts the take's pairs."""

    take_uid: str
    frames: int = 0
    masks: int = 0
    problems: list[str] = field(default_factory=list)
    pairs: dict[str, dict[tuple[str, str, str], int]] = field(default_factory=lambda: {name: {} for name in SETTINGS})


def check_take(data_dir: Path, uid: str, decode: bool = False) -> TakeCheck:
    """Check a processed take: frames there, whole and of one size, masks readable, of one size and fitting the frames.

    Of a frame it reads the size in the header and the end mark; with `decode` it decodes each frame, which takes fifty
    times as long.
    """
    check = TakeCheck(uid)
    try:
        take = ProcessedTake.read(data_dir, uid)
    except UserError as error:
        check.problems.append(f"take {uid}: {error}")
        return check
    needed = pair_frames(take.masks, take.is_ego)
    for camera in sorted(take.cameras):
        try:
            problems = _check_camera(check, take, camera, needed.get(camera, set()), decode)
        except OSError as error:  # a folder or file that this user may not read, a failing disk
            problems = [f"{error.strerror}: {error.filename}"]
        check.problems += [f"take {uid}, camera {camera}: {problem}" for problem in problems]
    check.pairs = {
        setting: {pair: len(take.masks[pair.object_name][pair.query_camera]) for pair in take.camera_pairs(setting)}
        for setting in SETTINGS
    }
    return check


def _check_camera(check: TakeCheck, take: ProcessedTake, camera: str, needed: set[int], decode: bool) -> list[str]:
    """Problems of a camera whose pairs need the frames `needed`; counts its frames and masks in `check`."""
    tracks = {name: cameras[camera] for name, cameras in take.masks.items() if cameras.get(camera)}
    problems, mask_size = _check_masks(tracks)
    check.masks += sum(map(len, tracks.values()))
    there = frames_in(take.folder / camera)
    wanted = needed
    if not there.keys() <= wanted:  # made with `--frames all`: every mask and every second has its frame
        seconds = take.subsample_idx
        if not take.is_ego(camera):  # its video may end early
            seconds = [frame for frame in seconds if frame <= max(there)]
        wanted = wanted.union(*tracks.values(), seconds)
    check.frames += len(wanted)
    problems += _check_frames({frame: there[frame] for frame in sorted(wanted & there.keys())}, mask_size, decode)
    problems += check_stored_frames(take.folder / camera, wanted & needed & there.keys())
    if missing := sorted(wanted - there.keys()):
        problems.append(f"{counted(len(missing), 'frame')} missing: {_name_some(missing)}")
    return problems


def _check_masks(tracks: Mapping[str, Mapping[int, RLE]]) -> tuple[list[str], Size | None]:
    """Problems of the masks of a camera, by object, and their size."""
    problems, sizes = [], {}
    for name, masks in tracks.items():
        corrupt = []
        for frame, rle in masks.items():
            try:
                run_lengths(rle)
                sizes.setdefault(tuple(rle["size"]), f"{name!r}, frame {frame}")
            except ValueError:
                corrupt.append(frame)
        if corrupt:
            count = counted(len(corrupt), "corrupt mask")
            problems.append(f"{count} of object {name!r}: {_name_some(sorted(corrupt))}")
    if len(sizes) > 1:
        problems.append(f"masks of {len(sizes)} sizes: {_examples(sizes)}")
    return problems, next(iter(sizes), None)


def _check_frames(paths: Mapping[int, str], mask_size: Size | None, decode: bool) -> list[str]:
    """Problems of the frames of a camera that are there."""
    broken, sizes = [], {}
    for frame, path in paths.items():
        size = announced_size(path)
        if size is None or max(size) > MAX_FRAME_SIDE or (decode and not _decodes(path, size)):
            broken.append(frame)
        else:
            sizes.setdefault(size, f"frame {frame}")
    problems = [f"{counted(len(broken), 'frame')} broken: {_name_some(broken)}"] if broken else []
    if len(sizes) > 1:
        problems.append(f"frames of {len(sizes)} sizes: {_examples(sizes)}")
    elif sizes and mask_size:
        ((height, width),) = sizes
        # One must be the other scaled, give or take two pixels: shrinking rounds down, video sizes are even.
        scale = max(mask_size) / max(height, width)
        if abs(mask_size[0] / scale - height) > 2 or abs(mask_size[1] / scale - width) > 2:
            masks = f"{mask_size[1]}x{mask_size[0]}"
            problems.append(f"frames of {width}x{height} have another shape than their masks of {masks}")
    return problems


def _examples(sizes: Mapping[Size, str]) -> str:
    return "; ".join(f"{width}x{height} ({where})" for (height, width), where in sizes.items())


def _name_some(frames: Iterable[int]) -> str:
    frames = list(frames)
    return ", ".join(map(str, frames[:MAX_NAMED_FRAMES])) + (", ..." if len(frames) > MAX_NAMED_FRAMES else "")


def announced_size(path: str) -> Size | None:
    """(H, W) from the header of a JPEG file; None if that is broken or the file does not end as a JPEG does."""
    with open_file(path, buffering=0) as file:
        size = jpeg_size(file.read(PEEK_BYTES))
        file.seek(max(0, os.fstat(file.fileno()).st_size - PEEK_BYTES))
        return size if size and has_jpeg_end(file.read()) else None


def _decodes(path: str, size: Size) -> bool:
    image = cv2.imdecode(np.frombuffer(read_file(path), np.uint8), cv2.IMREAD_COLOR)
    return image is not None and image.shape[:2] == size


def check_pairs(data_dir: Path, split: str, checks: list[TakeCheck]) -> list[str]:
    """Whether the pairs file is up to date and holds every pair of the takes, in both settings."""
    problems = []
    for setting in SETTINGS:
        if not any(any(check.pairs[setting].values()) for check in checks):
            continue
        try:
            pairs = PairSet.open(data_dir, split, setting)
        except UserError as error:
            return [str(error)]
        listed = {track[:4]: len(track.numbers) for track in pairs.tracks}
        for check in checks:
            lacking = 0
            for names, count in check.pairs[setting].items():
                found = listed.get((check.take_uid, *names), -1)
                if found < (0 if pairs.only_annotated else count):
                    lacking += count - max(found, 0)
            if lacking:
                path = pairs_path(data_dir, split)
                problems.append(
                    f"take {check.take_uid}: {path.name} lacks {lacking} of its {setting} pairs; run "
                    "data/create_pairs.py again"
                )
    return problems


if __name__ == "__main__":
    run_script(main)
