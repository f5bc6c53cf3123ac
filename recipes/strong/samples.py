"""Samples of the strong recipe: crops around the object, which has about the same size in them, and around its rivals.

Each target has three crops. In a fifth of the samples the crops have context, to train finding the object: two crops
are around the object, and one is around a rival: a place at which the search was wrong, another object or any place. In
the others, close crops of both views train drawing the object: all three are around it, but one if the search was wrong
in this pair. If the object is hidden, all crops are around rivals. Half of the samples also have the whole target,
to train the locator.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from formats.crop import Crop, cut, cut_mask
from formats.geometry import Size, resize
from formats.masks import fit_rle
from formats.pairs import Pairs
from formats.takes import camera_kind
from model.rows import rows_by_key
from recipes.crops import (
    CLOSE,
    CONTEXT,
    LARGEST_SHARE,
    Spot,
    expected_shares,
    object_cells,
    size_ratios,
    size_to_read,
    spot_of,
)
from recipes.samples import Batch, DrawnPairs
from recipes.strong.config import StrongConfig

# Crops are moved by up to SHIFT times the object's extent, and enlarged or reduced by a factor of up to 2 ** STRETCH.
SHIFT, STRETCH = 0.25, 0.4  # for query crops
TARGET_SHIFT, TARGET_STRETCH = 0.75, 0.9  # for target crops; larger, since ratios of objects' sizes differ among takes
CLOSE_SHARE = 0.8  # the share of samples with close looks
CLOSE_SHIFT, CLOSE_STRETCH = 0.15, 0.3  # for target crops of close looks; half of this for query crops of close looks
TURNED = 0.2  # the share of samples whose query crops are turned, by any angle
LOCATED = 0.5  # the share of samples that train the locator
OTHER_OBJECTS = 0.7  # the share of rivals that are other objects; the rest can be anywhere
MINED = 0.7  # the share of rivals that are mined, if the pair has mined ones
CONTAINED = 1 / 3  # a crop shows the object if it holds more than this part of the object
TARGET_CROPS, RIVALS = 3, 1  # crops of each target, and how many of them show rivals if the crops have context


class WholeFrame(NamedTuple):
    """A whole target frame, for the locator."""

    image: np.ndarray  # (h, w, 3) uint8 RGB
    cells: np.ndarray  # (h / 8, w / 8) bool, the cells of the object


class FrameGroup(NamedTuple):
    """The frames of a batch that have the same size."""

    rows: Tensor  # (n,) int64, positions of the frames' samples in the batch
    images: Tensor  # (n, h, w, 3)
    cells: Tensor  # (n, h / 8, w / 8)


@dataclass
class CropBatch(Batch):
    """B samples, with crops of S x S pixels."""

    wide: Tensor  # (B, N, N, 3) uint8 RGB: the query crops that the locator reads
    wide_mask: Tensor  # (B, N, N) uint8
    query: Tensor  # (B, S, S, 3) uint8 RGB
    query_mask: Tensor  # (B, S, S) uint8
    target: Tensor  # (B, TARGET_CROPS, S, S, 3) uint8 RGB
    target_mask: Tensor  # (B, TARGET_CROPS, S, S) uint8
    contained: Tensor  # (B, TARGET_CROPS) bool, True if the crop shows the object
    frames: list[FrameGroup]  # the whole targets of the samples that train the locator


class Views(NamedTuple):
    """The two views of a sample, with the object's masks and spots."""

    query: np.ndarray
    query_mask: np.ndarray
    query_spot: Spot
    target: np.ndarray
    target_mask: np.ndarray  # empty if the object is not visible
    target_spot: Spot | None


class DrawnPlaces(NamedTuple):
    """What is random in a sample."""

    turn: float  # of the query crops, in degrees
    share: float  # the part of the target's long side that the object is said to span
    context: float  # the width of crops as a multiple of their spot's
    targets: list[Spot]
    wide: Spot
    query: Spot
    is_located: bool


def read_views(pairs: Pairs, drawn: DrawnPairs) -> Views:
    query, target = pairs.query_image(drawn.query), pairs.target_image(drawn.target)
    query_mask, target_mask = fit_rle(pairs.query_mask(drawn.query), query.shape[:2]), np.zeros_like(target[..., 0])
    if drawn.query == drawn.target and (rle := pairs.target_mask(drawn.target)):
        target_mask = fit_rle(rle, target.shape[:2])
    query_spot = spot_of(query_mask)
    if query_spot is None:
        raise ValueError("its mask shows nothing")
    return Views(query, query_mask, query_spot, target, target_mask, spot_of(target_mask))


def draw_places(
    pairs: Pairs, drawn: DrawnPairs, views: Views, wrong: Sequence[Spot], rng: np.random.Generator
) -> DrawnPlaces:
    """`wrong` has the places in the target, if any, at which the search was wrong."""
    size, spot = views.target.shape[:2], views.target_spot
    turn = rng.uniform(-180, 180) if rng.random() < TURNED else 0.0
    cameras = pairs.named(drawn.query).query_camera, pairs.named(drawn.target).target_camera
    ratios = size_ratios(*map(camera_kind, cameras))
    share = rng.choice(expected_shares(views.query_spot, views.query.shape[:2], ratios))
    if spot is not None:
        share = min(spot.extent / max(size) * 2 ** rng.uniform(-STRETCH, STRETCH), LARGEST_SHARE)
    context, jitter, query_jitter, rivals = CONTEXT, (TARGET_SHIFT, TARGET_STRETCH), (SHIFT, STRETCH), RIVALS
    if rng.random() < CLOSE_SHARE:
        context, jitter, query_jitter = CLOSE, (CLOSE_SHIFT, CLOSE_STRETCH), (CLOSE_SHIFT / 2, CLOSE_STRETCH / 2)
        rivals = RIVALS if wrong else 0
    if spot is None:
        rivals = TARGET_CROPS
    targets = [jittered_spot(spot, rng, *jitter) for _ in range(TARGET_CROPS - rivals)]  # pyrefly: ignore
    targets += [rival(pairs, drawn, size, share * max(size), wrong, rng) for _ in range(rivals)]
    wide, query = (jittered_spot(views.query_spot, rng, *by) for by in ((SHIFT, STRETCH), query_jitter))
    return DrawnPlaces(turn, share, context, targets, wide, query, rng.random() < LOCATED)


def cut_sample(views: Views, drawn: DrawnPlaces, config: StrongConfig) -> dict[str, Any]:
    """Cut the crops at the drawn places; returns the fields of a sample of `CropBatch`, and its "frame"."""
    size, side, wide_size = views.target.shape[:2], config.input_size, config.wide_size
    crops = [spot.crop(size, drawn.context) for spot in drawn.targets]
    looks = [cut_target(views.target, views.target_mask, crop, side) for crop in crops]
    images, masks, contained = map(np.stack, zip(*looks, strict=True))
    query_crop = drawn.query.crop(views.query.shape[:2], drawn.context)
    wide_crop, long_side = config.wide_crop(drawn.wide, drawn.share), config.frame_length(drawn.share)
    frame = None
    if drawn.is_located:
        height, width = size_to_read(size, long_side)
        cells = object_cells(views.target_mask, (height // config.cell, width // config.cell))
        frame = WholeFrame(resize(views.target, (height, width)), cells)
    return {
        "visible": views.target_spot is not None,
        "wide": cut(views.query, wide_crop, wide_size, drawn.turn),
        "wide_mask": cut_mask(views.query_mask, wide_crop, wide_size, drawn.turn),
        "query": cut(views.query, query_crop, side, drawn.turn),
        "query_mask": cut_mask(views.query_mask, query_crop, side, drawn.turn),
        "target": images,
        "target_mask": masks,
        "contained": contained,
        "frame": frame,
    }


def rival(
    pairs: Pairs, drawn: DrawnPairs, size: Size, extent: float, wrong: Sequence[Spot], rng: np.random.Generator
) -> Spot:
    """A place in the target view of `size` (H, W) that probably is not the place of the object: one of the `wrong`
    places, the place of another object, or any place, with this `extent`.
    """
    if wrong and rng.random() < MINED:
        return jittered_spot(wrong[rng.choice(len(wrong))], rng, SHIFT, STRETCH)
    spot = Spot(rng.uniform(0, size[0]), rng.uniform(0, size[1]), extent)
    other = other_object(pairs, drawn, rng) if rng.random() < OTHER_OBJECTS else None
    if other is not None:
        spot = spot_of(fit_rle(pairs.target_mask(other), size)) or spot  # pyrefly: ignore
    return jittered_spot(spot, rng, TARGET_SHIFT, TARGET_STRETCH)


def cut_target(image: np.ndarray, mask: np.ndarray, crop: Crop, side: int) -> tuple[Any, ...]:
    """The picture in a target crop, the mask in it, and whether the crop shows the object."""
    cropped, area = cut_mask(mask, crop, side), int(mask.sum())
    shows = area and cropped.sum() * (crop.side / side) ** 2 > CONTAINED * area
    return cut(image, crop, side), cropped, np.bool_(shows)


def grouped_by_size(frames: Sequence[WholeFrame | None]) -> list[FrameGroup]:
    """The frames of a batch, grouped by size. A sample without a frame has None.

    If they were padded to two sizes, a step of 32 samples would have a tenth fewer operations (1,986 for 2,198), and a
    step of 4 samples as many.
    """
    groups = []
    for size, rows in rows_by_key(frame and frame.image.shape for frame in frames).items():
        if size:
            images, cells = (np.stack(arrays) for arrays in zip(*(frames[row] for row in rows), strict=True))
            groups.append(FrameGroup(torch.tensor(rows), torch.from_numpy(images), torch.from_numpy(cells)))
    return groups


def other_object(pairs: Pairs, drawn: DrawnPairs, rng: np.random.Generator) -> int | None:
    """A random pair with the drawn take and target camera, at any time, in which another object is visible."""
    tracks = pairs.by_target[int(pairs.take[drawn.target]), int(pairs.target[drawn.target])]
    others = [track for track in tracks if pairs.object[track[0]] != pairs.object[drawn.query]]
    rows = [track[pairs.visible[track]] for track in others]
    rows = [visible for visible in rows if len(visible)]
    return int(rng.choice(rows[rng.integers(len(rows))])) if rows else None


def jittered_spot(spot: Spot, rng: np.random.Generator, shift: float, stretch: float) -> Spot:
    """The spot, moved by up to `shift` times its extent, and enlarged or reduced by up to `stretch` octaves."""
    rows, cols = spot.extent * rng.uniform(-shift, shift, 2)
    return Spot(spot.row + rows, spot.col + cols, spot.extent * 2 ** rng.uniform(-stretch, stretch))
