"""One rendered take: its videos, and its masks as the annotation files hold them (docs/formats.md)."""

import contextlib
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from common.files import read_record, remove_leftovers, write_json
from formats.masks import encode_lzstring, encode_mask
from formats.takes import FRAME_STEP, SPLITS, video_path
from formats.video import open_video
from synthetic.models import modelled_things
from synthetic.options import FPS, LEAST_GRAY, LEAST_VISIBLE_SHARE, VIDEO_SIZES, TakeOptions
from synthetic.render import Picture
from synthetic.tabletop import EGO, Tabletop, camera_names
from synthetic.textures import patterned_things

ENCODER = {"pixels": "bgr24", "preset": "veryfast"}
CRF = 24  # compresses about as much as the data set's videos are compressed
Mask = dict[str, Any]
SeenMasks = dict[str, dict[int, dict[int, Mask]]]  # by camera, frame and label; object i has label i + 1
SCENARIOS = ("Cooking", "Bike Repair", "Health", "Music")


@dataclass(frozen=True)
class TakeId:
    """The `index`-th take of a split."""

    split: str
    index: int

    @property
    def variety(self) -> int:
        """0, 1, 2, 3 in turn. The number chooses the scenario and the cameras that annotate the last object."""
        return (self.index + SPLITS.index(self.split)) % 4

    @property
    def name(self) -> str:
        scenario = SCENARIOS[self.variety].lower().replace(" ", "")
        return f"synthetic_{scenario}_{self.split}_{self.index:03d}"

    def rng(self, options: TakeOptions, purpose: int) -> np.random.Generator:
        return np.random.default_rng([options.seed, SPLITS.index(self.split), self.index, purpose])

    def uid(self, options: TakeOptions) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self.name} {json.dumps(options.record())}"))


def build_tabletop(take: TakeId, options: TakeOptions) -> Tabletop:
    """The world of a take, which depends on nothing but the take's split and index and on the options."""
    which = (options.seed, take.split, take.index, options.num_objects, options.clutter)
    if options.models:
        things = modelled_things(options.models, *which)
    else:
        things = patterned_things(*which, twins=options.things == "twins")
    return Tabletop(take.rng(options, 1), options, *things)


def annotated_cameras(tabletop: Tabletop, take: TakeId) -> list[list[str]]:
    """The cameras that annotate each object: the ego camera and the exo camera that is aimed at the object; all cameras
    if objects have several sizes. The cameras of the last object vary from take to take.
    """
    exos = tabletop.cameras[1:]
    aimed = [(item, exo) for exo, view in zip(exos, tabletop.exo_views, strict=True) for item in view]
    own = dict(reversed(aimed))  # by object: the first camera that is aimed at it
    cameras = [[*exos, EGO] if tabletop.object_size.mixed else [own[item], EGO] for item in sorted(own)]
    last = own[len(own) - 1]
    cameras[-1] = ([*exos, EGO], [EGO], [last], [last, EGO])[take.variety]
    return cameras


def make_take(out: Path, take: TakeId, options: TakeOptions) -> dict[str, Any]:
    """Render a take, write its videos and then `relations.json`; returns its annotation.

    A take with a `relations.json` that was made with the same options is complete, and is not rendered again.
    """
    record = out / "takes" / take.name / "relations.json"
    videos = {camera: video_path(out / "takes", take.name, camera) for camera in camera_names(options.num_exo)}
    files = record, *videos.values()
    if all(path.exists() for path in files):
        done = read_record(record, {"options": dict, "annotation": dict}, "delete it and run again")
        if done["options"] == options.record():
            return done["annotation"]
    record.unlink(missing_ok=True)
    for path in files:
        remove_leftovers(path.parent, path.name)
    tabletop = build_tabletop(take, options)
    masks = record_videos(tabletop, videos, options, take.rng(options, 4))
    annotation = make_annotation(take, tabletop, masks, take.rng(options, 2))
    write_json(record, {"options": options.record(), "annotation": annotation})
    return annotation


def record_videos(
    tabletop: Tabletop, videos: dict[str, Path], options: TakeOptions, rng: np.random.Generator
) -> SeenMasks:
    """Render all frames, and write each camera's video to its path in `videos`; returns the masks of the frames that
    are annotated.
    """
    blurs = {camera: rng.uniform(0, options.blur) for camera in videos}
    qualities = rng.integers(22, 35, len(videos)) if options.things == "models" else [CRF] * len(videos)
    seen_only = options.seen_only or options.things == "twins"
    masks: SeenMasks = {camera: {} for camera in videos}
    with contextlib.ExitStack() as stack:
        write = {}
        for (camera, path), quality in zip(videos.items(), qualities, strict=True):
            video = open_video(path, VIDEO_SIZES[options.size][camera != EGO], FPS, **ENCODER, crf=str(quality))
            write[camera] = stack.enter_context(video)
        for frame in range(0, options.num_frames, options.hold):
            for camera, picture in tabletop.pictures(frame / FPS).items():
                image = add_blur_and_noise(picture.image, blurs[camera], options.noise, rng)
                write[camera](image, min(options.hold, options.num_frames - frame))
                if frame % FRAME_STEP == 0:
                    outline_area = partial(tabletop.outline_area, camera, frame / FPS) if seen_only else None
                    masks[camera][frame] = encode_object_masks(picture, options.object_size.least, outline_area)
    return masks


def add_blur_and_noise(image: np.ndarray, blur: float, noise: float, rng: np.random.Generator) -> np.ndarray:
    """The image (H, W, 3) uint8 with Gaussian blur (deviation in pixels) and noise (deviation in gray levels)."""
    if blur:
        image = cv2.GaussianBlur(image, (0, 0), blur)
    if noise:
        image = cv2.add(image, rng.normal(0, noise, image.shape).astype(np.float32), dtype=cv2.CV_8U)
    return image


def encode_object_masks(
    picture: Picture, least: float, outline_area: Callable[[int], float] | None = None
) -> dict[int, Mask]:
    """The masks of a picture's objects by label, as entries of an annotation file. An object is left out if its visible
    part is less than the fraction `least` of the picture; with `outline_area`, also if an annotator would not see it,
    because it is almost completely hidden or in the dark. `outline_area(number)` is the number of pixels that an object
    has if nothing hides it.
    """
    height, width = picture.labels.shape
    masks, gray = {}, cv2.cvtColor(picture.channels, cv2.COLOR_BGRA2GRAY)
    for label in np.unique(picture.labels[picture.labels > 0]).tolist():
        mask = picture.labels == label
        is_seen = mask.mean() >= least
        if is_seen and outline_area:
            is_seen = mask.sum() >= LEAST_VISIBLE_SHARE * outline_area(label - 1)
            is_seen &= np.percentile(gray[mask], 90) >= LEAST_GRAY
        if is_seen:
            encoded = encode_lzstring(encode_mask(mask)["counts"])
            masks[label] = {"height": height, "width": width, "encodedMask": encoded, "intSegClicks": []}
    return masks


def make_annotation(take: TakeId, tabletop: Tabletop, masks: SeenMasks, rng: np.random.Generator) -> dict[str, Any]:
    """The take's value in `relations_{split}.json`.

    The value has irregularities as in the data set: frame keys come in no order, cameras that never see an object are
    left out, the last frame of one track is not annotated, and every second take has an object without cameras.
    """
    objects: dict[str, dict[str, Any]] = {}
    for label, (item, cameras) in enumerate(zip(tabletop.items, annotated_cameras(tabletop, take), strict=True), 1):
        objects[item.name] = {}
        for camera in cameras:
            frames = [frame for frame, visible in masks[camera].items() if label in visible]
            if frames:
                objects[item.name][camera] = {
                    "annotation": {str(f): masks[camera][f][label] for f in rng.permutation(frames).tolist()},
                    "annotation_metadata": {},
                    "annotation_fps": 1,
                    "annotated_frames": list(masks[camera]),
                }
    tracks = [track for cameras in objects.values() for track in cameras.values()]
    if tracks:
        track = tracks[rng.integers(len(tracks))]
        if len(track["annotated_frames"]) > 1:
            track["annotation"].pop(str(track["annotated_frames"].pop()), None)
    if take.variety % 2 == 0:
        objects["table_0"] = {}
    return {
        "take_name": take.name,
        "scenario": SCENARIOS[take.variety],
        "object_names": list(objects),
        "object_masks": objects,
    }
