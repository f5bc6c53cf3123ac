"""Find objects of one camera's video in the videos of other cameras, which recorded at the same time.

    python inference/segment_video.py --videos head=head.mp4 left=left.mp4 --masks head=masks/head --out found

The camera with masks is the query camera; all others are targets. At each frame with a mask, the script seeks the
object in all cameras that have a picture at this time. Each moment needs its own mask: to follow an object from one
mask on, first let a tracker such as SAM 2 or Cutie mark it within its own camera (docs/own_data.md, "Masks from a
tracker"), then give these masks here. The folder --out, which must not exist, receives

    video.mp4                             all cameras side by side; objects that are not surely visible are dashed
    existence.csv                         the probability that an object is visible, for each object, camera and frame
    run.json                              how and from what this was made
    masks/{camera}/{object}/{frame}.png   masks of 0 and 255 with a long side of 480 pixels, also of hidden objects

If several frames of the query camera fall onto the same frame of a target, the answer nearest in time is kept.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.start import start

start(__name__)

import argparse
import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import cycle
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from common.arguments import (
    Parser,
    add_footage_options,
    add_network_options,
    at_least,
    network_options,
    videos_and_offsets,
)
from common.constants import THRESHOLD
from common.drawing import WHITE, Color, overlay, to_ascii, write_picture
from common.errors import UserError, counted, printable, run_script
from common.existence import Limits
from common.files import json_digest, read_record, temporary_folder, write_json
from common.progress import progress
from common.provenance import provenance
from formats.footage import Footage, Seen, match_frames, open_footage
from formats.geometry import resize, shrink
from formats.mask_files import MaskFiles, find_masks
from formats.masks import RLE, decode_mask, mask_area, resize_mask
from formats.takes import MAX_SHORT_SIDE, camera_kind
from formats.video import open_video
from inference.predictor import Found, Predictor, ask_if_inverted
from recipes.base import Answer
from recipes.scene import Scene

EXISTENCE_COLUMNS = ("frame", "seconds", "camera", "camera_frame", "object", "existence", "share")  # of existence.csv
OUTLINE_COLORS = ((255, 64, 129), (64, 200, 255), (255, 190, 40), (0, 200, 130), (170, 120, 255), (240, 228, 66))
PANEL_HEIGHT = 480  # height of the video's panels in pixels
Answers = Mapping[tuple[str, str], Answer]  # by object and camera


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add_footage_options(parser)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder to write to; it must not exist")
    text = "the head-worn camera, which shows things larger (default: the first whose name begins with aria)"
    add("--ego", metavar="CAMERA", help=text)
    add("--stride", type=at_least(1), default=1, help="predict only every n-th frame with a mask")
    add_network_options(parser, "checkpoint (default: the network of this repository)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    videos, offsets = videos_and_offsets(args)
    if len(args.masks) > 1:
        raise UserError("--masks takes the masks of one camera here, which is the query camera")
    if args.out.is_symlink() and not args.out.exists():
        raise UserError(f"{args.out} is a link to nowhere; delete it, or give another --out")
    cameras = {name: open_footage(path, args.fps) for name, path in videos.items()}
    ego = args.ego or next((name for name in cameras if camera_kind(name) == "ego"), None)
    query, path = args.masks[0]
    masks = find_masks(path, args.mask_frame, cameras[query])
    moments = find_moments(cameras, query, masks, offsets, args.stride)
    answerable = [moment for moment in moments if len(moment.seen) > 1]
    if not answerable:
        raise UserError(f"no mask in {masks.path} is of a frame that another camera has; look at --masks and --offset")
    if not any(moment.masks for moment in answerable):
        raise UserError(f"{masks.path}: no mask shows an object, all are empty")
    predictor = Predictor.load(args.ckpt_path, args.device, **network_options(args))
    recipe = predictor.recipe
    how = recipe.digest, recipe.options, ego, args.stride, args.fps, args.mask_frame, query, sorted(offsets.items())
    made_of = json_digest([how, {name: files_of(path) for name, path in videos.items()}, files_of(masks.path)])
    place = args.out.absolute()
    with temporary_folder(place.parent, place.name, f"writes {args.out}") as out:
        if args.out.exists():  # it appears whole
            check_made_of(args.out, made_of)
            print(f"{args.out} is complete already; delete it to predict again")
            return
        if ego is None:
            print("no camera counts as head-worn; if one is, name it with --ego CAMERA for better results")
        rows = answer_moments(predictor, cameras, answerable, list(masks.objects), ego, out)
        with (out / "existence.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([EXISTENCE_COLUMNS, *rows])
        write_json(out / "run.json", {"made_of": made_of} | provenance(), indent=1)
        out.rename(place)
    print_found(rows, predictor.limits)
    print_unseen(moments, cameras)
    print(recipe.remark(), end="")
    print(f"{counted(len(answerable), 'frame')}: {args.out / 'video.mp4'}; masks and existence lie beside it")


def check_made_of(out: Path, made_of: str) -> None:
    """Refuse a folder of results that was made from other inputs, or by something else."""
    record, remedy = out / "run.json", "delete it to predict anew, or give another --out"
    if not record.exists() or read_record(record, {"made_of": str}, remedy)["made_of"] != made_of:
        raise UserError(f"{out} exists, and was not made from the same by this command; {remedy}")


def files_of(path: Path) -> list[tuple[str, int, int]]:
    """Name, bytes and time of a file, or of all files in a folder, which change if somebody replaces one."""
    files = sorted(filter(Path.is_file, path.rglob("*"))) if path.is_dir() else [path]
    states = ((file, file.stat()) for file in files)
    return [(str(file.relative_to(path)), state.st_size, state.st_mtime_ns) for file, state in states]


def print_found(rows: Sequence[tuple], limits: Limits) -> None:
    """Print how often and how surely each object was found in each camera, from the rows of existence.csv."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)  # existences, and shares of the picture
    for *_, camera, _, name, existence, share in rows:
        found[name, camera].append((existence, share))
    for (name, camera), those in found.items():
        there = sum(existence >= limits[1] and share > 0 for existence, share in those)
        mean = f"existence {np.mean([existence for existence, _ in those]):.0%} on average"
        print(printable(f"{name} in {camera}: there in {there} of {counted(len(those), 'frame')}, {mean}"))


class Moment(NamedTuple):
    """A frame of the query camera with masks, and what the cameras saw then."""

    number: int  # of the query camera's frame
    seconds: float  # in the query camera's video
    query: str
    masks: dict[str, RLE]  # by object, without objects that are not visible
    seen: dict[str, Seen]  # by camera that has a picture then, the query camera among them


def print_unseen(moments: Sequence[Moment], cameras: Iterable[str]) -> None:
    """Print at which frames with a mask a camera has no picture."""
    for name in cameras:
        numbers = [str(moment.number) for moment in moments if name not in moment.seen]
        if numbers:
            text = f"{name} has no picture at {counted(len(numbers), 'frame')} with a mask, so no answer there: "
            print(text + ", ".join(numbers[:12] + ["..."] if len(numbers) > 12 else numbers))


def find_moments(
    cameras: Mapping[str, Footage], query: str, masks: MaskFiles, offsets: Mapping[str, int], stride: int
) -> list[Moment]:
    """The moments of every `stride`-th frame with a mask. `offsets`: each camera's frame at a moment common to all."""
    footage, masked = cameras[query], set().union(*masks.objects.values())
    positions = [place for place, number in enumerate(footage.numbers) if number in masked][::stride]
    times = footage.seconds[positions] - footage.time(offsets.get(query, 0))  # since the moment common to all
    matches = {name: match_frames(times, camera, offsets.get(name, 0)) for name, camera in cameras.items()}
    moments = []
    for place, position in enumerate(positions):
        matched = ((name, frames[place]) for name, frames in matches.items())
        seen = {name: frame for name, frame in matched if frame}
        number = footage.numbers[position]
        rles = {}  # without objects that are not visible
        for name in masks.objects if len(seen) > 1 else ():
            rle = masks.read(name, number, footage.size) if number in masks.objects[name] else None
            if rle:
                rles[name] = rle
                if mask_area(rle) > footage.size[0] * footage.size[1] / 2:
                    ask_if_inverted(decode_mask(rle), f"the mask of {name} in {masks.path}")
        moments.append(Moment(number, float(footage.seconds[position]), query, rles, seen))
    return moments


def answer_moments(
    predictor: Predictor,
    cameras: Mapping[str, Footage],
    moments: Sequence[Moment],
    objects: Sequence[str],
    ego: str | None,
    out: Path,
) -> list[tuple]:
    """Write the masks and the video of all moments. Returns the rows of existence.csv below its heading."""
    ratios = {name: camera.size[1] / camera.size[0] for name, camera in cameras.items()}
    widths = {name: max(2, round(PANEL_HEIGHT * x / 2) * 2) for name, x in ratios.items()}  # H.264 needs even sizes
    colors = dict(zip(objects, cycle(OUTLINE_COLORS), strict=False))
    size, fps = (PANEL_HEIGHT, sum(widths.values())), fps_of(moments)
    scenes = progress(scenes_at(cameras, moments, ego), "segment", len(moments), "frame")
    kept: dict[Path, tuple[float, tuple]] = {}  # by the path of the mask: the gap in time, and the row
    with open_video(out / "video.mp4", size, fps, preset="veryfast", crf="20") as write:
        for moment, scene in zip(moments, scenes, strict=True):
            recipe, sought = predictor.recipe, sought_in(moment)
            answers = recipe.predict(recipe.prepare(scene)) if scene.row else []
            write_masks(moment, scene, dict(zip(sought, answers, strict=True)), cameras, out / "masks", kept)
            images = dict(zip(moment.seen, scene.pictures, strict=True))
            in_images = [x.in_image(images[camera].shape[:2]) for (_, camera), x in zip(sought, answers, strict=True)]
            places = [predictor.found(prob, x.existence) for prob, x in zip(in_images, answers, strict=True)]
            found = dict(zip(sought, places, strict=True))
            panels = [draw_camera(moment, found, colors, x, images.get(x), widths[x]) for x in cameras]
            write(np.hstack(panels))
    return [row for _, row in kept.values()]


def fps_of(moments: Sequence[Moment]) -> float:
    """Frames a second, 1 to 120, of a video that shows a frame for each moment as fast as they came."""
    step = float(np.median(np.diff([moment.seconds for moment in moments]))) if len(moments) > 1 else 1
    return 1 / float(np.clip(step, 1 / 120, 1))


def write_masks(
    moment: Moment,
    scene: Scene,
    found: Answers,
    cameras: Mapping[str, Footage],
    out: Path,
    kept: dict[Path, tuple[float, tuple]],
) -> None:
    """Write the masks of a moment, unless a moment that is nearer in time was `kept`, and keep their rows."""
    for pair, ((name, camera), answer) in enumerate(found.items()):
        position, gap = moment.seen[camera]
        number = cameras[camera].numbers[position]
        path = out / camera / name / f"{number:05d}.png"
        if path in kept and gap >= kept[path][0]:
            continue
        mask = scene.compared(pair, answer)
        write_picture(path, mask.astype(np.uint8) * 255)
        share = round(float(mask.mean()), 6)
        kept[path] = gap, (moment.number, round(moment.seconds, 6), camera, number, name, answer.existence, share)


def sought_in(moment: Moment) -> list[tuple[str, str]]:
    """The objects that are sought at a moment, and the cameras in which they are: the pairs of its scene."""
    return [(name, camera) for camera in moment.seen if camera != moment.query for name in moment.masks]


def scenes_at(cameras: Mapping[str, Footage], moments: Sequence[Moment], ego: str | None) -> Iterator[Scene]:
    """Yield a scene for each moment, with a picture of each camera in `seen`. Without `ego`, the network does not know
    which camera shows things larger.
    """
    readers = {
        name: camera.read([moment.seen[name].position for moment in moments if name in moment.seen])
        for name, camera in cameras.items()
    }
    for moment in moments:
        scene, pictures = Scene(), {}
        for name in moment.seen:
            kind = ("ego" if name == ego else "exo") if ego else None
            image = shrink(next(readers[name]), MAX_SHORT_SIDE["ego"])
            pictures[name] = scene.add_picture(image, kind, cameras[name].size)
        given = {name: scene.add_object(rle, pictures[moment.query]) for name, rle in moment.masks.items()}
        for row, (name, camera) in enumerate(sought_in(moment)):
            scene.add_pair(given[name], pictures[camera], row)
        yield scene


def draw_camera(
    moment: Moment,
    found: Mapping[tuple[str, str], Found],
    colors: Mapping[str, Color],
    camera: str,
    image: np.ndarray | None,
    width: int,
) -> np.ndarray:
    """What a camera shows at a moment, (PANEL_HEIGHT, width, 3) uint8 RGB, under a line for each object that is known,
    in the color of its outline.
    """
    size = PANEL_HEIGHT, width
    if image is None:
        return captioned_inside(np.zeros((*size, 3), np.uint8), [(f"{camera}: no picture", WHITE)])
    panel, lines = resize(image, size), [(camera, WHITE)]
    for name, color in colors.items():
        if camera == moment.query and name in moment.masks:
            panel = overlay(panel, resize_mask(moment.masks[name], size), color)
            lines.append((name, color))
        elif (name, camera) in found:
            place = found[name, camera]
            mask = cv2.resize(place.mask, size[::-1]) > THRESHOLD
            panel = overlay(panel, mask, color, dashed=not place.is_sure)
            lines.append((f"{name}: {place.said}", color))
    return captioned_inside(panel, lines)


def captioned_inside(panel: np.ndarray, lines: Sequence[tuple[str, Color]]) -> np.ndarray:
    """The panel with lines of text in its upper left corner, each in its color on dark ground."""
    picture, line = Image.fromarray(panel), len(panel) // 26
    draw, font = ImageDraw.Draw(picture, "RGBA"), ImageFont.load_default(line)
    for row, (text, color) in enumerate(lines):
        place, shown = (line // 2, line // 2 + row * line * 3 // 2), to_ascii(text)[:60]
        left, top, right, bottom = draw.textbbox(place, f"{shown}|", font)  # as high for all letters
        draw.rectangle((left - line // 4, top - line // 8, right, bottom + line // 8), (0, 0, 0, 190))
        draw.text(place, shown, color, font)
    return np.array(picture)


if __name__ == "__main__":
    run_script(main)
