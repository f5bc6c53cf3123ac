"""ObjectRelator's training data, before it adds texts: one JSON list per split and setting, an item per frame pair.

    [{"image": "{take_uid}/{target_cam}/{frame}.jpg", "image_info": {"file_name", "height", "width"}, "anns": [..],
      "first_frame_image": "{take_uid}/{query_cam}/{frame}.jpg", "first_frame_anns": [..],
      "new_img_id": int, "video_name": take_uid}, ..]

An annotation is `{"segmentation": {"size", "counts"}, "area": float, "category_id": float}`. Both lists hold the same
objects in the same order: those with a mask in both views. Paths start at the folder of processed takes, masks have the
size of the frames there, and a category is the place of the object's name, from 1, among the take's in natural order.

A take gives pairs of one exo camera only: the one that shares most objects with the ego camera. Its frames are those
with a mask of the object that has most masks in the query view.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import json_list
from formats.geometry import Size
from formats.masks import encode_mask, resize_mask
from formats.processed import ProcessedTake, frames_in, read_frame

TASKS = {"ego-exo": "ego2exo", "exo-ego": "exo2ego"}


def frame_list_path(data_dir: Path, split: str, setting: str) -> Path:
    return Path(data_dir) / f"{TASKS[setting]}_{split}_visual.json"


def write_frame_list(path: Path, data_dir: Path, uids: Iterable[str], setting: str) -> tuple[int, dict[str, str]]:
    """Write the list of a setting, atomically, holding one take at a time.

    Returns how many items it has, and what is wrong with malformed takes, which are left out.
    """
    number, malformed = 0, {}
    with json_list(path) as append:
        for uid in uids:
            try:
                items = list(frame_pairs(ProcessedTake.read(data_dir, uid), setting))
            except UserError as error:
                malformed[uid] = str(error)
                continue
            for item in items:
                append({**item, "new_img_id": number})
                number += 1
    return number, malformed


def frame_pairs(take: ProcessedTake, setting: str) -> Iterator[dict[str, Any]]:
    """The items of a take, without their numbers. Raises UserError if a mask or a frame cannot be read."""
    names = sorted(take.masks, key=natural)
    cameras = best_pair(take, names)
    if cameras is None:
        return
    query, target = cameras if setting == "ego-exo" else cameras[::-1]
    shared = [name for name in names if {query, target} <= take.masks[name].keys()]
    longest = max(shared, key=lambda name: len(take.masks[name][query]))  # the first of equals
    there = frames_in(take.folder / query).keys() & frames_in(take.folder / target).keys()
    frames = sorted(there & take.masks[longest][query].keys())
    if not frames:
        return
    sizes = {camera: read_frame(take.frame_path(camera, frames[0])).shape[:2] for camera in cameras}
    for frame in frames:
        annotations = []
        for name in shared:
            of_query, of_target = (
                annotation(take, name, camera, frame, sizes[camera], names.index(name) + 1)
                for camera in (query, target)
            )
            if of_query and of_target:
                annotations.append((of_query, of_target))
        if annotations:
            image, (height, width) = f"{take.uid}/{target}/{frame}.jpg", sizes[target]
            yield {
                "image": image,
                "image_info": {"file_name": image, "height": height, "width": width},
                "anns": [of_target for _, of_target in annotations],
                "first_frame_image": f"{take.uid}/{query}/{frame}.jpg",
                "first_frame_anns": [of_query for of_query, _ in annotations],
                "video_name": take.uid,
            }


def best_pair(take: ProcessedTake, names: Iterable[str]) -> tuple[str, str] | None:
    """The first ego camera and the first exo camera that shares most objects with it; None if none shares any."""
    cameras = sorted(take.cameras, key=natural)
    ego = next(filter(take.is_ego, cameras), None)
    shared = {
        exo: sum({ego, exo} <= take.masks[name].keys() for name in names) for exo in cameras if not take.is_ego(exo)
    }
    exo = max(shared, key=shared.get, default=None)
    return (ego, exo) if exo and shared[exo] else None


def annotation(
    take: ProcessedTake, name: str, camera: str, frame: int, size: Size, category: int
) -> dict[str, Any] | None:
    """An object's mask resized to `size` (H, W); None if there is no mask, or nothing is left of it at that size."""
    rle = take.masks[name][camera].get(frame)
    if rle is None:
        return None
    try:
        mask = resize_mask(rle, size)
    except ValueError as error:
        where = f"mask of {name!r} in {take.folder / camera}, frame {frame}"
        raise UserError(f"{where}: {error}; run data/process_data.py on it again") from None
    area = int(mask.sum())
    return {"segmentation": encode_mask(mask), "area": float(area), "category_id": float(category)} if area else None


def natural(name: str) -> list[str | tuple[int, str]]:
    """The key of natural order, in which `cam2` comes before `cam10`."""
    parts = re.split("([0-9]+)", name)
    parts[1::2] = [(len(digits), digits) for digits in (part.lstrip("0") for part in parts[1::2])]  # of any length
    return parts
