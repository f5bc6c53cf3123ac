"""Find objects of one camera's video in the videos of other cameras, which recorded at the same time.

    python inference/segment_video.py --videos head=head.mp4 left=left.mp4 --masks head=masks/head --out found

The camera with masks is the query camera; all others are targets. At each frame with a mask, the script seeks the
object in all cameras that have a picture at this time. The folder --out, which must not exist, receives

    video.mp4                             all cameras side by side; objects that are not surely visible are dashed
    existence.csv                         the probability that an object is visible, for each object, camera and frame
    masks/{camera}/{object}/{frame}.png   masks of 0 and 255 with a long side of 480 pixels, also of hidden objects

If several frames of the query camera fall onto the same frame of a target, the answer nearest in time is kept.
"""

import argparse
import csv
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.cpu import tune_cpu
from common.errors import UserError, counted, run_script, say_errors

say_errors(__name__)
tune_cpu(__name__)

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from common.arguments import (
    Parser,
    add_footage_options,
    add_network_options,
    at_least,
    network_options,
    videos_and_offsets,
)
from common.drawing import overlay, to_ascii, write_picture
from common.existence import SURELY_VISIBLE, verdict
from common.files import atomic_folder
from formats.footage import Footage, open_footage
from formats.geometry import resize, sample_for_score
from formats.mask_files import find_masks
from formats.masks import RLE, resize_mask
from formats.processed import Correspondence, shrink
from formats.results import THRESHOLD
from formats.takes import MAX_SHORT_SIDE, camera_kind
from formats.video import open_video
from inference.predictor import Found, Predictor
from recipes.frame import Frame

COLUMNS = ("frame", "seconds", "camera", "camera_frame", "object", "existence", "share")  # of existence.csv
COLORS = ((255, 64, 129), (64, 200, 255), (255, 190, 40), (0, 200, 130), (170, 120, 255), (240, 228, 66))
HEIGHT = 480  # height of the video's panels in pixels


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
    cameras = {name: open_footage(path, args.fps) for name, path in videos.items()}
    ego = args.ego or next((name for name in cameras if camera_kind(name) == "ego"), None)
    query, path = args.masks[0]
    footage, masks = cameras[query], find_masks(path, args.mask_frame, cameras[query])
    objects, masked = list(masks.objects), {number for frames in masks.objects.values() for number in frames}
    positions = [place for place, number in enumerate(footage.numbers) if number in masked][:: args.stride]
    shared_time = {name: camera.time(offsets.get(name, 0)) for name, camera in cameras.items()}  # of one instant
    times = footage.seconds[positions] - shared_time[query]
    matches = {name: match_frames(positions, times + shared_time[name], camera) for name, camera in cameras.items()}
    moments = [position for position in positions if sum(position in match for match in matches.values()) > 1]
    if not moments:
        raise UserError(f"no mask in {masks.path} is of a frame that another camera has; look at --masks and --offset")
    query_masks = {}  # without the objects that are not visible
    for moment in moments:
        number = footage.numbers[moment]
        rles = {name: masks.read(name, number, footage.size) for name in objects if number in masks.objects[name]}
        query_masks[moment] = {(name, query): rle for name, rle in rles.items() if rle}
    if not any(query_masks.values()):
        raise UserError(f"{masks.path}: no mask shows an object, all are empty")
    if ego is None:
        print("no camera counts as head-worn; if one is, name it with --ego CAMERA for better results")
    predictor = Predictor.load(args.ckpt_path, args.device, **network_options(args))

    step = float(np.median(np.diff(footage.seconds[moments]))) if len(moments) > 1 else 1
    ratios = {name: camera.size[1] / camera.size[0] for name, camera in cameras.items()}
    widths = {name: max(2, round(HEIGHT * ratio / 2) * 2) for name, ratio in ratios.items()}  # H.264 needs even sizes
    size, fps = (HEIGHT, sum(widths.values())), 1 / float(np.clip(step, 1 / 120, 1))
    frames = read_frames(cameras, matches, query_masks, query, ego)
    # With the delay, no bar appears before an early error.
    bar = tqdm(frames, "segment", len(moments), unit="frame", delay=1)
    rows, gaps = {}, {}  # by the path of the mask
    with atomic_folder(args.out) as out:
        with open_video(out / "video.mp4", size, fps, preset="veryfast", crf="20") as write:
            for moment, frame in zip(moments, bar, strict=True):
                answers = predictor.predict(frame) if frame.pairs else []
                found = {(name, camera): x for (name, _, camera), x in zip(frame.pairs, answers, strict=True)}
                for (name, camera), (prob, existence) in found.items():
                    position, gap = matches[camera][moment]
                    number = cameras[camera].numbers[position]
                    path = out / "masks" / camera / name / f"{number:05d}.png"
                    if gap < gaps.get(path, np.inf):
                        gaps[path] = gap
                        mask = sample_for_score(prob, prob.shape, cameras[camera].size) > THRESHOLD
                        write_picture(path, mask.astype(np.uint8) * 255)
                        seconds, share = float(footage.seconds[moment]), round(float(mask.mean()), 6)
                        rows[path] = footage.numbers[moment], seconds, camera, number, name, existence, share
                write(draw_frame(frame, found, widths, objects))
        with (out / "existence.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([COLUMNS, *rows.values()])
    for name, match in matches.items():
        if numbers := [str(footage.numbers[position]) for position in positions if position not in match]:
            text = f"{name} has no picture at {counted(len(numbers), 'frame')} with a mask, so no answer there: "
            print(text + ", ".join(numbers[:12]) + ", ..." * (len(numbers) > 12))
    print(f"{counted(len(moments), 'frame')}: {args.out / 'video.mp4'}; masks and existence lie beside it")


def match_frames(positions: Sequence[int], times: np.ndarray, camera: Footage) -> dict[int, tuple[int, float]]:
    """Find, for each frame of the query camera, the frame of another camera that is nearest in time, and the seconds
    between both frames. `times` are the times of the frames `positions` on the other camera's clock. Frames at
    which the other camera has no picture are left out.
    """
    has_picture = (times >= -camera.step / 2) & (times <= camera.seconds[-1] + camera.step / 2)
    nearest = camera.nearest(times)
    found = zip(positions, nearest.tolist(), abs(times - camera.seconds[nearest]).tolist(), has_picture, strict=True)
    return {position: (frame, gap) for position, frame, gap, is_there in found if is_there}


def read_frames(
    cameras: Mapping[str, Footage],
    matches: Mapping[str, Mapping[int, tuple[int, float]]],
    query_masks: Mapping[int, dict[tuple[str, str], RLE]],
    query: str,
    ego: str | None,
) -> Iterator[Frame]:
    """Yield a frame for each of the moments in `query_masks`. The visible objects are sought in all cameras that have a
    picture then. Without `ego`, the network does not know which camera shows things larger.
    """
    readers = {
        name: camera.read([matches[name][moment][0] for moment in query_masks if moment in matches[name]])
        for name, camera in cameras.items()
    }
    for moment, masks in query_masks.items():
        shown = [name for name, match in matches.items() if moment in match]
        images = {name: shrink(next(readers[name]), MAX_SHORT_SIDE["ego"]) for name in shown}
        pairs = [Correspondence(*key, camera) for camera in images if camera != query for key in masks]
        kinds = {name: "ego" if name == ego else "exo" for name in images} if ego else {}
        yield Frame(pairs, images, masks, kinds)


def draw_frame(
    frame: Frame, found: Mapping[tuple[str, str], Found], widths: Mapping[str, int], objects: Sequence[str]
) -> np.ndarray:
    """All cameras side by side, (H, W, 3) uint8 RGB; each object's outline and caption have a color of its own.

    `found` has the mask's probability and the existence by object and camera.
    """
    panels = []
    for camera, width in widths.items():
        size = HEIGHT, width
        title = camera if camera in frame.images else f"{camera}: no picture"
        lines, image = [(title, (255, 255, 255))], frame.images.get(camera, np.zeros((1, 1, 3), np.uint8))
        panel = resize(image, size)
        for name, color in zip(objects, cycle(COLORS), strict=False):
            if (name, camera) in frame.masks:
                panel = overlay(panel, resize_mask(frame.masks[name, camera], size), color)
                lines.append((name, color))
            elif (name, camera) in found:
                prob, existence = found[name, camera]
                mask = cv2.resize(prob, size[::-1]) > THRESHOLD
                panel = overlay(panel, mask, color, dashed=existence < SURELY_VISIBLE)
                lines.append((f"{name}: {verdict(existence)}", color))
        picture, line = Image.fromarray(panel), HEIGHT // 26
        draw, font = ImageDraw.Draw(picture), ImageFont.load_default(line)
        for row, (text, color) in enumerate(lines):
            place = line // 2, line // 2 + row * line * 5 // 4
            draw.text(place, to_ascii(text)[:60], color, font, stroke_width=2, stroke_fill=(0, 0, 0))
        panels.append(np.array(picture))
    return np.hstack(panels)


if __name__ == "__main__":
    run_script(main)
