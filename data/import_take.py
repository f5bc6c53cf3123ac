"""Make a take from your own synchronized videos and masks; all other stages then run on it.

    python data/import_take.py --name kitchen --videos head=head.mp4 left=left.mp4 --ego head --masks head=masks/head

Adds the videos, the annotation and the split of the take to a data folder in the layout of Ego-Exo4D
(docs/own_data.md). The head-worn camera is called aria_head there, since names of head-worn cameras begin with aria.

In the take, frame f shows the same moment in every camera. A video is therefore written anew if it begins earlier than
another (--offset), has another frame rate than the --ego camera's video, has uneven times, is turned on its side, or is
a folder of pictures. Other videos are copied. If the command was interrupted, run it again: it makes the take anew.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.start import start

start(__name__)

import argparse
import shutil
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from common.arguments import Parser, add_footage_options, videos_and_offsets
from common.constants import DEFAULT_ROOT
from common.errors import UserError, counted, run_script
from common.files import is_file_name, read_json, read_record, remove_leftovers, temporary_folder, write_json
from common.progress import progress
from formats.footage import Footage, open_footage, synchronize
from formats.frame_files import frames_of
from formats.mask_files import MaskFiles, find_masks
from formats.masks import encode_lzstring
from formats.takes import SPLITS, annotation_path, camera_kind, read_splits, video_path
from formats.video import open_video


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--name", required=True, help="name of the take, also its uid")
    add_footage_options(parser)
    add("--ego", required=True, metavar="CAMERA", help="the head-worn camera; the others are exo cameras")
    add("--root", type=Path, default=DEFAULT_ROOT, help="data folder to add the take to")
    text = "split of the take; in test, objects are also sought (but not scored) in cameras without masks of them"
    add("--split", choices=SPLITS, default="test", help=text)
    return parser.parse_args()


class FootageOfTake(NamedTuple):
    """The cameras of a take, each by the name that the user gave it."""

    cameras: dict[str, Footage]
    positions: dict[str, np.ndarray]  # of the take's frames in the footage of each camera
    name_in_take: dict[str, str]


def main() -> None:
    args = parse_args()
    check_name(args)
    videos, offsets = videos_and_offsets(args)
    cameras = {name: open_footage(path, args.fps) for name, path in videos.items()}
    name_in_take = names_in_take(cameras, args.ego)
    positions = synchronize(cameras, offsets, args.ego)
    length = min(map(len, positions.values()))
    take = FootageOfTake(cameras, {name: of_camera[:length] for name, of_camera in positions.items()}, name_in_take)
    objects, not_shown, unmatched = {}, 0, 0
    for camera, path in args.masks:
        masks = find_masks(path, args.mask_frame, cameras[camera])
        for object_name in masks.objects:
            track = read_track(masks, object_name, cameras[camera], take.positions[camera])
            objects.setdefault(object_name, {})[name_in_take[camera]] = track
            not_shown += len(masks.objects[object_name]) - len(track["annotated_frames"])
    if args.split != "test":  # in training, a frame that nobody annotated would count as one that hides the object
        unmatched = drop_unmatched(objects)
    count = sum(len(track["annotation"]) for tracks in objects.values() for track in tracks.values())
    if not count:
        raise UserError("no mask shows an object in a frame that all cameras have; look at --masks and --offset")
    if args.split == "test":
        for tracks in objects.values():
            for camera in name_in_take.values():  # nobody looked for the object there
                tracks.setdefault(camera, {"annotation": {}, "annotated_frames": []})
    if not add_take(args, take, objects):
        folder = args.root / "takes" / args.name
        print(f"{args.name} is in {args.root} already, with these masks; to import other videos, delete {folder}")
        return
    print(f"{args.name}: {counted(length, 'frame')}, {counted(count, 'mask')} in {args.root}")
    for name, tracks in objects.items():
        if {*map(camera_kind, tracks)} != {"ego", "exo"}:
            print(f"{name}: no pairs; they need masks under this name in the --ego camera and in another one")
    if not_shown:
        print(f"{counted(not_shown, 'mask')} left out: the take has no frame at their time")
    if unmatched:
        print(f"{counted(unmatched, 'mask')} left out: nobody looked for the object in the other cameras then")


def add_take(args: argparse.Namespace, take: FootageOfTake, objects: dict[str, Any]) -> bool:
    """Write the take's videos and annotation; False if it is there already, with these masks. Raises UserError if a
    take of this name has others.
    """
    takes = args.root / "takes"
    with temporary_folder(takes, "import_take", f"adds a take to {args.root}") as folder:
        contents, existing = files_with_take(args, objects), takes / args.name
        if existing.exists():
            if any(not path.exists() or read_json(path, "") != new for path, new in contents.items()):
                raise UserError(f"{existing} exists; give another --name, or delete it first")
            return False
        for camera, footage in take.cameras.items():
            path = video_path(takes, folder.name, take.name_in_take[camera])
            write_video(path, footage, take.positions[camera], 1 / take.cameras[args.ego].frame_seconds)
        for path, content in contents.items():
            remove_leftovers(path.parent, path.name)
            write_json(path, content)
        folder.rename(existing)  # this comes last: then the take is complete
    return True


def check_name(args: argparse.Namespace) -> None:
    """Raise UserError if --name cannot be the name of a take, or is the name of a processed take."""
    if not is_file_name(args.name):
        raise UserError(f"--name {args.name!r} cannot be the name of a take's folder; give another")
    folder = args.root / "processed" / args.name
    if frames_of(folder):
        raise UserError(f"{folder} holds a take; give another --name, or delete it first")


def names_in_take(cameras: Iterable[str], ego: str) -> dict[str, str]:
    """The name of each camera in the take; there the name of the head-worn camera begins with aria."""
    bad = next((camera for camera in cameras if not is_file_name(camera)), None)
    if bad:
        raise UserError(f"camera {bad[:40]!r} cannot be the name of a file; rename it")
    other = next((camera for camera in cameras if camera_kind(camera) == "ego" and camera != ego), None)
    if other:
        raise UserError(f"camera {other!r}: only the --ego camera's name may begin with aria; rename it")
    return {camera: camera for camera in cameras} | {ego: ego if camera_kind(ego) == "ego" else f"aria_{ego}"}


def read_track(masks: MaskFiles, name: str, footage: Footage, positions: np.ndarray) -> dict[str, Any]:
    """The masks of an object in a camera, in the form of the annotation file. `positions[f]` is the position of the
    take's frame f in `footage`; a mask at a position that no frame of the take has is left out.
    """
    position_of = {number: position for position, number in enumerate(footage.numbers)}
    frame_of = {position: frame for frame, position in reversed(list(enumerate(positions.tolist())))}
    annotation, annotated_frames = {}, []
    for number in progress(sorted(masks.objects[name]), name, None, "mask", leave=False):
        rle = masks.read(name, number, footage.size)
        frame = frame_of.get(position_of[number])
        if frame is not None:
            annotated_frames.append(frame)
            if rle:
                (height, width), text = rle["size"], encode_lzstring(rle["counts"])
                annotation[str(frame)] = {"height": height, "width": width, "encodedMask": text}
    return {"annotation": annotation, "annotated_frames": annotated_frames}


def drop_unmatched(objects: dict[str, dict[str, Any]]) -> int:
    """Remove an object's masks at frames that are not annotated in all of its cameras; returns their number."""
    dropped = 0
    for tracks in objects.values():
        frames_looked_at = set.intersection(*(set(track["annotated_frames"]) for track in tracks.values()))
        for track in tracks.values():
            kept = {frame: mask for frame, mask in track["annotation"].items() if int(frame) in frames_looked_at}
            dropped += len(track["annotation"]) - len(kept)
            track["annotation"] = kept
    return dropped


def files_with_take(args: argparse.Namespace, objects: dict[str, Any]) -> dict[Path, Any]:
    """The new contents of split.json and of the annotation file, with the take, by path, in the order in which to write
    them. The take's uid is its name. Entries of an earlier take with this name, whose import was killed or whose folder
    was deleted, are replaced.
    """
    annotations_path = annotation_path(args.root / "annotations", args.split)
    splits_path = args.root / "split.json"
    if (args.root / "processed" / splits_path.name).exists():
        splits_path = args.root / "processed" / splits_path.name  # the stages look in processed/ first
    if annotations_path.parent.exists() and not splits_path.exists():
        raise UserError(f"{args.root} has annotations but no split.json; put their split there, or give another --root")
    splits = read_splits(splits_path) if splits_path.exists() else {name: [] for name in SPLITS}
    splits = {name: [uid for uid in uids if uid != args.name] for name, uids in splits.items()}
    splits.setdefault(args.split, []).append(args.name)
    annotations: dict[str, Any] = {"annotations": {}}
    if annotations_path.exists():
        annotations = read_record(annotations_path, {"annotations": dict}, "repair or delete it")
    take = {"take_name": args.name, "scenario": "", "object_names": list(objects), "object_masks": objects}
    annotations["annotations"][args.name] = take
    # split.json comes first, because the check above refuses annotations without it.
    return {splits_path: splits, annotations_path: annotations}


def write_video(path: Path, footage: Footage, positions: np.ndarray, fps: float) -> None:
    """Copy or write a camera's video; its frame f is the frame at `positions[f]` of `footage`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shows_every_frame = np.array_equal(positions, np.arange(len(positions)))
    if shows_every_frame and not isinstance(footage.recording, list) and not footage.turns:
        shutil.copyfile(footage.path, path)  # a link would change with its original
        return
    with open_video(path, footage.size, fps, preset="veryfast", crf="16") as write:
        for image in progress(footage.read(positions), path.name, len(positions), "frame"):
            write(image)


if __name__ == "__main__":
    run_script(main)
