"""Samples of the strong recipe: crops around the object, which has about the same size in them, and around its rivals.

Each target has three crops. In a fifth of the samples the crops have context, to train finding the object: two crops
are around the object, and one is around a rival: a place at which the search was wrong, another object or any place. In
the others, close crops of both views train drawing the object: all three are around it, or two and a rival if the
search was wrong in this pair. If the object is hidden, all crops are around rivals. Half of the samples also have the
whole target, to train the locator.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from formats.crop import Crop, cut, cut_mask
from formats.geometry import Size, resize
from formats.masks import fit_mask
from formats.pairs import Pairs
from formats.takes import camera_kind
from model.rows import rows_by_key
from recipes.samples import Batch, DrawnPairs
from recipes.search.crops import (
    CLOSE,
    CONTEXT,
    LARGEST_SHARE,
    Spot,
    expected_shares,
    object_cells,
    size_to_read,
    spot_of,
)
from recipes.strong.network import StrongConfig


class Jitter(NamedTuple):
    """How crops vary: they are moved by up to `shift` times the object's extent, and enlarged or reduced by up to
    `octaves`, a factor of 2 each.
    """

    shift: float
    octaves: float


QUERY_JITTER, CLOSE_QUERY_JITTER = Jitter(0.25, 0.4), Jitter(0.075, 0.15)
TARGET_JITTER, CLOSE_TARGET_JITTER = Jitter(0.75, 0.9), Jitter(0.15, 0.3)  # larger, as ratios of sizes differ by take
SHARE_OCTAVES = 0.4  # by which the object's expected size varies
CLOSE_SHARE = 0.8  # the share of samples with close looks
TURNED = 0.2  # the share of samples whose query crops are turned, by any angle
LOCATED = 0.5  # the share of samples that train the locator
OTHER_OBJECTS = 0.7  # the share of rivals that are other objects; the rest can be anywhere
MINED = 0.7  # the share of rivals that are mined, if the pair has mined ones
CONTAINED = 1 / 3  # a crop shows the object if it holds more than this part of the object
TARGET_CROPS, RIVALS = 3, 1  # crops of each target, and how many of them show rivals if the crops have context


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


def crop_sample(
    pairs: Pairs, drawn: DrawnPairs, wrong: Sequence[Spot], config: StrongConfig, rng: np.random.Generator
) -> dict[str, Any]:
    """The fields of a sample of `CropBatch`, and its "frame". `wrong` has the places in the target, if any, at which
    the search was wrong. Raises ValueError if the query mask is empty.
    """
    query, target = View.of_query(pairs, drawn), View.of_target(pairs, drawn)
    if query.spot is None:
        raise ValueError("its mask shows nothing")
    turn = rng.uniform(-180, 180) if rng.random() < TURNED else 0.0
    share = drawn_share(pairs, drawn, query, target, rng)
    context, jitter, query_jitter = CONTEXT, TARGET_JITTER, QUERY_JITTER
    if rng.random() < CLOSE_SHARE:
        context, jitter, query_jitter = CLOSE, CLOSE_TARGET_JITTER, CLOSE_QUERY_JITTER
    if target.spot is None:
        rivals = TARGET_CROPS
    else:
        rivals = RIVALS if wrong or context == CONTEXT else 0
    spots = [jittered_spot(target.spot, rng, jitter) for _ in range(TARGET_CROPS - rivals)]  # pyrefly: ignore
    spots += [rival(pairs, drawn, target.size, share * max(target.size), wrong, rng) for _ in range(rivals)]
    crops = [cut_target(target, place.crop(target.size, context), config.input_size) for place in spots]
    images, masks, contained = map(np.stack, zip(*crops, strict=True))
    sample = {"target": images, "target_mask": masks, "contained": contained}
    wide = config.wide_crop(jittered_spot(query.spot, rng, QUERY_JITTER), share)
    near = jittered_spot(query.spot, rng, query_jitter).crop(query.size, context)
    sample |= cut_query("wide", query, wide, config.wide_size, turn)
    sample |= cut_query("query", query, near, config.input_size, turn)
    frame = whole_frame(target, share, config) if rng.random() < LOCATED else None
    return sample | {"visible": target.spot is not None, "frame": frame}


class View(NamedTuple):
    """A picture of a sample, the object's mask in it, and where this is; None if the mask is empty."""

    image: np.ndarray  # (H, W, 3) uint8
    mask: np.ndarray  # (H, W) uint8 of 0 and 1
    spot: Spot | None

    @property
    def size(self) -> Size:
        return self.image.shape[:2]

    @classmethod
    def of_query(cls, pairs: Pairs, drawn: DrawnPairs) -> "View":
        image = pairs.query_image(drawn.query)
        mask = fit_mask(pairs.query_mask(drawn.query), image.shape[:2])
        return cls(image, mask, spot_of(mask))

    @classmethod
    def of_target(cls, pairs: Pairs, drawn: DrawnPairs) -> "View":
        """The target view; a sample whose target is another pair's does not show the object."""
        image = pairs.target_image(drawn.target)
        rle = pairs.target_mask(drawn.target) if drawn.query == drawn.target else None
        mask = fit_mask(rle, image.shape[:2]) if rle else np.zeros_like(image[..., 0])
        return cls(image, mask, spot_of(mask))


def drawn_share(pairs: Pairs, drawn: DrawnPairs, query: View, target: View, rng: np.random.Generator) -> float:
    """The share of the target's long side at which the object is sought: about the true one if it is visible."""
    cameras = pairs.named(drawn.query).query_camera, pairs.named(drawn.target).target_camera
    share = rng.choice(expected_shares(query.spot, query.size, *map(camera_kind, cameras)))  # pyrefly: ignore
    if target.spot is None:
        return share
    true = target.spot.extent / max(target.size)
    return min(true * 2 ** rng.uniform(-SHARE_OCTAVES, SHARE_OCTAVES), LARGEST_SHARE)


def cut_query(name: str, view: View, crop: Crop, side: int, turn: float) -> dict[str, Any]:
    return {name: cut(view.image, crop, side, turn), f"{name}_mask": cut_mask(view.mask, crop, side, turn)}


def whole_frame(view: View, share: float, config: StrongConfig) -> tuple:
    """A whole target frame for the locator, (h, w, 3) uint8 RGB, and the object's cells in it, (h / 8, w / 8) bool."""
    height, width = size_to_read(view.size, config.frame_length(share))
    return resize(view.image, (height, width)), object_cells(view.mask, (height // config.cell, width // config.cell))


def rival(
    pairs: Pairs, drawn: DrawnPairs, size: Size, extent: float, wrong: Sequence[Spot], rng: np.random.Generator
) -> Spot:
    """A place in the target view of `size` (H, W) that probably is not the place of the object: one of the `wrong`
    places, the place of another object, or any place, with this `extent`.
    """
    if wrong and rng.random() < MINED:
        return jittered_spot(wrong[rng.choice(len(wrong))], rng, QUERY_JITTER)
    spot = Spot(rng.uniform(0, size[0]), rng.uniform(0, size[1]), extent)
    other = other_object(pairs, drawn, rng) if rng.random() < OTHER_OBJECTS else None
    if other is not None:
        spot = spot_of(fit_mask(pairs.target_mask(other), size)) or spot  # pyrefly: ignore
    return jittered_spot(spot, rng, TARGET_JITTER)


def cut_target(view: View, crop: Crop, side: int) -> tuple[Any, ...]:
    """The picture in a target crop, the mask in it, and whether the crop shows the object."""
    cropped, area = cut_mask(view.mask, crop, side), int(view.mask.sum())
    shows = area and cropped.sum() * (crop.side / side) ** 2 > CONTAINED * area
    return cut(view.image, crop, side), cropped, np.bool_(shows)


def grouped_by_size(frames: Sequence[tuple | None]) -> list[FrameGroup]:
    """The results of `whole_frame` of a batch, grouped by size. A sample without a frame has None.

    If they were padded to two sizes, a step of 32 samples would have a tenth fewer operations (1,986 for 2,198), and a
    step of 4 samples as many.
    """
    groups = []
    for size, rows in rows_by_key(frame and frame[0].shape for frame in frames).items():
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


def jittered_spot(spot: Spot, rng: np.random.Generator, jitter: Jitter) -> Spot:
    rows, cols = spot.extent * rng.uniform(-jitter.shift, jitter.shift, 2)
    return Spot(spot.row + rows, spot.col + cols, spot.extent * 2 ** rng.uniform(-jitter.octaves, jitter.octaves))
