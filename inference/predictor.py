"""Finds one object at a time, in pictures of any size.

predictor = Predictor.load()  # the network of this repository, or a checkpoint of yours: Predictor.load("netBest.pth")
predictor = Predictor.load(backbone="vit_small_patch14_dinov2.lvd142m")  # or any frozen backbone, with nothing trained
mask, existence = predictor.segment(query_image, query_mask, target_image)
print(predictor.verdict(mask, existence))  # there (99 %)
mask, existence = predictor.segment(query_image, target_image=target_image, query_box=(left, top, right, bottom))
mask, existence = predictor.segment([query_image, other_image], [query_mask, other_mask], target_image)
for mask, existence in predictor.segment_all(query_image, query_mask, [target_image, another_image]): ...
for mask, existence in predictor.places(query_image, query_mask, target_image, count=3): ...
"""

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from common.start import spin_briefly

spin_briefly()  # changes the environment, which has an effect only before torch is imported

import numpy as np
import torch
from PIL.Image import Image

from common.constants import SIZE_HINTS, THRESHOLD
from common.errors import UserError, counted, warn_once
from common.existence import LIMITS, Limits, with_percent, word_for
from formats.geometry import Size, same_aspect_ratio
from formats.masks import fit_mask, iou
from formats.picture_files import read_mask, read_picture, refuse_strip, to_mask, to_rgb
from inference.cut_out import cut_out
from model.device import tensor_to_array
from recipes.base import Recipe
from recipes.scene import Scene
from recipes.table import load_recipe

Picture = np.ndarray | Image | Path | str  # an image or a mask
QueryPictures = Picture | Sequence[Picture]  # one picture of the object, or several
Queries = Sequence[tuple[np.ndarray, np.ndarray]]  # images (H, W, 3) uint8 RGB, and masks (H, W) uint8 of 0 and 1
TARGET = "target image"  # how errors begin
SAME_PLACE = 0.5  # two masks with this IoU show the same place


class Found(NamedTuple("Found", [("mask", np.ndarray), ("existence", float)])):
    """An answer, which unpacks as `mask, existence = found`.

    mask: (H, W) of the target image, uint8 of 0 and 1, or with `probability` float32 from 0 to 1. existence: the
    probability that the object is visible in the target image.
    """

    limits: Limits = LIMITS  # of the predictor that found it

    @property
    def word(self) -> str:
        """One of WORDS."""
        return word_for(self.existence, *self.limits, self.mask)

    @property
    def said(self) -> str:
        """What a person is told: "there (93 %)", "unsure (31 %)", "probably not there (4 %)", "not found"."""
        return with_percent(self.word, self.existence)

    @property
    def is_sure(self) -> bool:
        """If not, its outline is dashed."""
        return self.existence >= self.limits[1]

    @property
    def rank(self) -> tuple[bool, float]:
        """The highest rank is the likeliest place. A place without an outline comes last, whatever its existence."""
        return bool((self.mask > THRESHOLD).any()), self.existence


class Predictor:
    """Finds objects in pictures with `segment`, by a `recipe`. `limits` are the existences at which the words change.
    The recipe knows them, since with nothing trained, existences lie closer to the middle.
    """

    def __init__(self, recipe: Recipe, limits: Limits | None = None):
        self.recipe, self.limits = recipe, limits or recipe.limits

    @classmethod
    def load(
        cls,
        path: Path | str | None = None,
        device: torch.device | str = "auto",
        limits: Limits | None = None,
        **options: Any,
    ) -> "Predictor":
        """With the network of a checkpoint, by default this repository's, or with backbone=NAME, with nothing trained.
        `load_recipe` explains the options, and what it raises.
        """
        return cls(load_recipe(Path(path) if path else None, device, **options), limits)

    @property
    def made_by(self) -> str:
        """What tells its answers from those of others."""
        return f"{self.recipe.digest} {self.recipe.options} {[*self.limits]}"

    def found(self, mask: np.ndarray, existence: float) -> Found:
        """An answer that says the words of this predictor."""
        found = Found(mask, existence)
        found.limits = self.limits
        return found

    def verdict(self, mask: np.ndarray, existence: float) -> str:
        """What a person is told of an answer that was taken apart: `Found.said`."""
        return self.found(mask, existence).said

    def segment(
        self,
        query_image: QueryPictures,
        query_mask: QueryPictures | None = None,
        target_image: Picture | None = None,
        query_box: Sequence[float] | None = None,
        size: str | None = None,
        probability: bool = False,
    ) -> Found:
        """Find an object of the query image in the target image.

        The images may have any size. An image is a path, an array (H, W, 3) uint8 RGB, or another form that
        `as_image` describes. `query_mask` is the object's mask in the query image, such as (H, W) bool; it
        may be larger or smaller, but must have the image's aspect ratio. Lists of query images and masks are several
        pictures of the same object: it is sought from each, and the answer with the highest existence counts.

        Options:
        - query_box: in place of the mask, a box around the object, (left, top, right, bottom) in the image's pixels, in
          which `cut_out` finds the mask.
        - size: how large the object is in the target, measured in parts of the picture: smaller, larger or same. If
          the target is from a static camera and the query from a head-worn one, it is smaller. Without a size, a
          network that looks at several places seeks the object at five sizes.
        - probability: if True, masks are probabilities.

        Raises UserError if an argument does not fit.
        """
        queries = marked_images(query_image, query_mask, query_box)
        return self.find(queries, [as_image(target_image, TARGET)], size=size, probability=probability)[0][0]

    def segment_all(
        self, query_image, query_mask=None, target_images=(), query_box=None, **options: Any
    ) -> list[Found]:
        """`segment`, which explains arguments and options, for several target images. The query is encoded once."""
        if not isinstance(target_images, list | tuple):
            raise UserError(f"the target images are {type(target_images).__name__}; give a list")
        queries = marked_images(query_image, query_mask, query_box)
        targets = [as_image(image, TARGET) for image in target_images]
        return [found[0] for found in self.find(queries, targets, **options)]

    def places(
        self, query_image, query_mask=None, target_image=None, count=3, query_box=None, **options: Any
    ) -> list[Found]:
        """`segment`, which explains arguments and options, at up to `count` places of the target image, no two of which
        are the same (SAME_PLACE). The answer of `segment` comes first, and the others in the order of their existence.
        """
        if type(count) is not int or count < 1:
            raise UserError(f"the count of places is {count!r}; give a whole number of at least 1")
        queries = marked_images(query_image, query_mask, query_box)
        return self.find(queries, [as_image(target_image, TARGET)], count, **options)[0]

    def find(
        self,
        queries: Queries,
        targets: Sequence[np.ndarray],
        count: int = 1,
        size: str | None = None,
        probability: bool = False,
    ) -> list[list[Found]]:
        """For each target (H, W, 3) uint8 RGB, what `places` gives, from queries of `marked_images`."""
        if size not in (None, *SIZE_HINTS):
            raise UserError(f"size {size!r} is unknown; choose from {', '.join(SIZE_HINTS)}, or None")
        if not targets:
            return []
        scene = Scene(hint=size)
        objects = [scene.add_object(mask, scene.add_picture(image)) for image, mask in queries]
        for image in targets:
            target = scene.add_picture(image)
            for number in objects:
                scene.add_pair(number, target, len(scene.row))
        answers = iter(self.recipe.answers_at_places(self.recipe.prepare(scene), count))
        found = []
        for target in targets:
            of_queries = [
                [self.found(answer.in_image(target.shape[:2]), answer.existence) for answer in next(answers)]
                for _ in queries
            ]
            ranked: list[Found] = []  # the best place of each query, then the second ones
            for places in zip_longest(*of_queries):
                ranked += sorted(filter(None, places), key=lambda place: place.rank, reverse=True)
            found.append(distinct(ranked, count))
        if not probability:
            found = [[self.found((x.mask > THRESHOLD).astype(np.uint8), x.existence) for x in row] for row in found]
        return found


def marked_images(query_image: Any, query_mask: Any, query_box: Any, value: int | None = None) -> Queries:
    """The query images and their masks, from the arguments of `segment`; `value` chooses from label maps, whose paths
    are given. Raises UserError if one does not fit.
    """
    if (query_mask is None) == (query_box is None):
        raise UserError("give either query_mask or query_box")
    if not isinstance(query_image, list | tuple):
        query_image, query_mask = [query_image], [query_mask]
    elif query_box is not None:
        raise UserError("a query_box is for a single query image; give query masks")
    elif not isinstance(query_mask, list | tuple) or not len(query_mask) == len(query_image) > 0:
        raise UserError(f"there are {counted(len(query_image), 'query image')}; give a list of as many query masks")
    images = [as_image(image, "query image") for image in query_image]
    if query_box is not None:
        return [(images[0], cut_out(images[0], query_box))]
    masks = zip(images, query_mask, strict=True)
    return [(image, as_mask(mask, "query mask", image.shape[:2], value)) for image, mask in masks]


def distinct(places: Iterable[Found], count: int) -> list[Found]:
    """The first `count` places, without places that are the same as one before; after the first, those that show
    something, by their existence.
    """
    kept: list[Found] = []
    for place in places:
        mask = place.mask > THRESHOLD
        if not kept or mask.any() and all(iou(mask, other.mask > THRESHOLD) < SAME_PLACE for other in kept):
            kept.append(place)
        if len(kept) == count:
            break
    return kept[:1] + sorted(kept[1:], key=lambda place: -place.existence)


def as_image(image: Any, what: str) -> np.ndarray:
    """Turn an image into (H, W, 3) uint8 RGB. The image is a path, a PIL image, or a uint8 array or tensor of the shape
    (H, W) gray, (H, W, 3) RGB, (H, W, 4) RGBA, or with the channels first, such as (3, H, W). A tensor may be on any
    device. Raises UserError, whose message begins with `what`, if the image is none of these, or a strip
    (`refuse_strip`).
    """
    if isinstance(image, str | Path):
        return read_picture(Path(image))
    if isinstance(image, Image):
        return to_rgb(image, what)
    image = tensor_to_array(image)
    if not isinstance(image, np.ndarray):
        raise UserError(f"{what} is {type(image).__name__}; give a path, a PIL image, a numpy array or a tensor")
    if image.dtype != np.uint8:
        raise UserError(f"{what} is an array of {image.dtype}; give uint8, 0 to 255")
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim == 3 and image.shape[0] in (1, 3, 4) and image.shape[2] not in (1, 3, 4):
        image = image.transpose(1, 2, 0)
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4) or not image.size:
        raise UserError(f"{what} has the shape {image.shape}; give (H, W), (H, W, 3) or (H, W, 4)")
    refuse_strip(image.shape[:2], what)
    return np.broadcast_to(image[..., :3], (*image.shape[:2], 3))


def as_mask(mask: Any, what: str, size: Size, value: int | None = None) -> np.ndarray:
    """A mask, which may be larger or smaller than its image of `size` (H, W) -> (H, W) uint8 of 0 and 1. The mask is a
    path, a tensor, or one of the forms of `to_mask`. Raises UserError, which begins with the path or with `what`, if it
    is none of these, has another aspect ratio than the image, or is empty. `value`: of the object in a label map, whose
    path `mask` is.
    """
    if isinstance(mask, str | Path):
        what, mask = str(mask), read_mask(Path(mask), value)
    else:
        mask = to_mask(tensor_to_array(mask), what)
    if not same_aspect_ratio(mask.shape, size):
        remedy = "it may be larger or smaller, but must have the image's aspect ratio"
        raise UserError(f"{what} is {mask.shape[1]}x{mask.shape[0]}, its image {size[1]}x{size[0]}; {remedy}")
    if not mask.any():
        raise UserError(f"{what} is empty; mark the object with non-zero pixels")
    ask_if_inverted(mask, what)
    return fit_mask(mask, size)


def ask_if_inverted(mask: np.ndarray, what: str) -> None:
    """Warn, with a line that begins with `what`, if a mask (H, W) of 0 and 1 could be the one of the background."""
    if mask.mean() > 0.5 and all(edge.any() for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1])):
        warn_once(f"{what} covers most of its picture, up to all four edges; is it inverted? The object must be white")
