"""Masks that other programs write: pictures (formats/picture_files.py reads them) and COCO's JSON.

The masks of a camera are one of these: a folder `{object}/{frame}.png`; one PNG file, named after its object; or COCO's
`{"images": [{"id", "file_name", "height", "width"}], "annotations": [{"image_id", "category_id", "segmentation"}],
"categories": [{"id", "name"}]}`. A `track_id` or `instance_id` in an annotation, or in its `attributes`, distinguishes
objects of the same category. The frame is the last number in the file's name or in the image's `file_name`.
"""

import glob
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco

from common.errors import MALFORMED, UserError
from common.files import is_file_name, name_number, read_json
from formats.footage import Footage
from formats.geometry import Size, same_aspect_ratio
from formats.masks import RLE, check_rle, check_size, encode_mask, fit_mask, mask_area, mask_size
from formats.picture_files import by_number, read_mask

LAYOUTS = "a folder of {object}/{frame}.png, a PNG file, or COCO's JSON"
# The library walks along a polygon's edges, even outside the image, and keeps five points of each pixel.
LARGEST, LONGEST = 100_000, 1_000_000  # in pixels: a coordinate, an outline


@dataclass(frozen=True)
class MaskFiles:
    """The masks of one camera. `objects[object][frame]` is the mask's file, or COCO's segmentation and its size, or
    None if the object is not visible. `objects[object]` has all annotated frames.
    """

    path: Path
    objects: dict[str, dict[int, Path | tuple[Any, Any] | None]]

    def read(self, object_name: str, frame: int, size: Size) -> RLE | None:
        """Read a mask, at the `size` (H, W) of its video; None if the object is not visible. Raises UserError if the
        mask cannot be read, or if its aspect ratio is not the video's.
        """
        stored = self.objects[object_name][frame]
        try:
            if stored is None:
                return None
            rle = encode_mask(read_mask(stored)) if isinstance(stored, Path) else _read_segmentation(*stored)
            if not same_aspect_ratio(mask_size(rle), size):
                sizes = f"it is {rle['size'][1]}x{rle['size'][0]}, its video {size[1]}x{size[0]}"
                raise ValueError(f"{sizes}; both must have the same aspect ratio")
            if not mask_area(rle):
                return None
            return rle if mask_size(rle) == size else encode_mask(fit_mask(rle, size))
        except MALFORMED as error:
            raise UserError(f"{self.path}: mask of {object_name!r} in frame {frame}: {error}") from None


def find_masks(path: Path, frame: int = 0, footage: Footage | None = None) -> MaskFiles:
    """The masks of one camera. A single PNG file is the mask of `frame`. Raises UserError if there are no masks, and if
    there is a mask of a frame that the camera's `footage` lacks.
    """
    objects: dict[str, dict[int, Any]]
    if path.suffix.lower() == ".json":
        objects = _read_coco(path)
    elif path.suffix.lower() == ".png" and path.is_file():
        objects = {path.stem: {frame: path}}
    else:
        files: dict[str, list[Path]] = {}
        names = glob.glob("**/*.[pP][nN][gG]", root_dir=path, recursive=True)  # noqa: PTH207 (Path.glob follows no links)
        for file in sorted(map(Path, names)):
            files.setdefault(file.parent.as_posix(), []).append(path / file)
        objects = {name: by_number(pictures) for name, pictures in files.items() if name != "."}
    if not objects:
        fault = "holds no masks" if path.exists() else "does not exist"
        raise UserError(f"{path} {fault}; give {LAYOUTS}")
    for name in objects:
        if not all(map(is_file_name, name.split("/"))):
            raise UserError(f"{path}: object {name[:40]!r} cannot be the name of a folder; call it otherwise")
    if footage and (missing := {number for frames in objects.values() for number in frames} - {*footage.numbers}):
        what = f"{path} has a mask of frame {min(missing)}, which {footage.path} lacks"
        raise UserError(f"{what}; give each mask its frame's number")
    return MaskFiles(path, objects)


def _read_coco(path: Path) -> dict[str, dict[int, Any]]:
    raw = read_json(path, f"give {LAYOUTS}")
    try:
        categories = {category["id"]: str(category["name"]) for category in raw["categories"]}
        images = {image["id"]: (name_number(image["file_name"]), image) for image in raw["images"]}
        if len({number for number, _ in images.values()}) < len(raw["images"]):
            raise ValueError("two images have the same id, or the same number in their file_name")
        objects: dict[str, dict[int, Any]] = {}
        for annotation in raw["annotations"]:
            name, attributes = categories[annotation["category_id"]], (annotation.get("attributes") or {}) | annotation
            track = attributes.get("track_id", attributes.get("instance_id"))
            name = name if track is None else f"{name}_{track}"
            number, image = images[annotation["image_id"]]
            frames = objects.setdefault(name, {number: None for number, _ in images.values()})
            if frames[number]:
                remedy = "give each object a track_id of its own, or put the parts of one into one annotation"
                raise ValueError(f"two masks of {name!r} in frame {number}; {remedy}")
            if not annotation.get("segmentation") and any(annotation.get("bbox") or ()):
                raise ValueError(f"{name!r} in frame {number} is a box without a segmentation; draw its outline")
            frames[number] = annotation["segmentation"], [image["height"], image["width"]]
        return objects
    except MALFORMED as error:
        raise UserError(f"{path} is no COCO annotation ({type(error).__name__}: {error}); give {LAYOUTS}") from None


def _read_segmentation(segmentation: Any, size: Any) -> RLE:
    """COCO's polygons, run lengths or compressed run lengths -> RLE. Malformed ones raise one of MALFORMED."""
    if isinstance(segmentation, dict) and isinstance(segmentation["counts"], str):
        return check_rle(segmentation)
    height, width = check_size(size if isinstance(segmentation, list) else segmentation["size"])
    if isinstance(segmentation, list):
        for polygon in segmentation:
            points = np.asarray(polygon, float)
            if points.ndim != 1 or len(points) < 6 or len(points) % 2:  # the library reads two points as a box
                raise ValueError("a polygon has fewer than three points, or half a point")
            if not (abs(points) <= LARGEST).all():
                raise ValueError(f"a polygon has a number that is not finite or beyond {LARGEST:,}")
            corners = points.reshape(-1, 2)
            if (length := abs(corners - np.roll(corners, 1, 0)).max(1).sum()) > LONGEST:
                raise ValueError(
                    f"a polygon has an outline of {length:,.0f} pixels, more than {LONGEST:,}; simplify it"
                )
        rle = coco.merge(coco.frPyObjects(segmentation or [[0] * 6], height, width))
    else:
        rle = coco.frPyObjects(segmentation, height, width)
    return check_rle({"size": [height, width], "counts": rle["counts"].decode()})  # pyrefly: ignore
