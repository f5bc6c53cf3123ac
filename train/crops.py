"""The strong recipe's views: crops at matched scale, around the object and around places that look like it.

In training, a target view is looked at twice: around the object, and around a rival, which most often is a place where
the locator wrongly expects it. Where the object is hidden, both are rivals.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from common.arguments import SETTINGS
from formats.geometry import Size, letterbox
from formats.masks import fit_rle
from formats.pairs import PairSet
from formats.results import THRESHOLD
from formats.takes import size_ratios
from model.crops import (
    LARGEST,
    Spot,
    cell_middles,
    cut,
    cut_mask,
    expected_shares,
    put_back,
    spot_of,
    whole_frame,
)
from model.features import Encoder, Levels
from model.locator import heat_logit, peaks
from model.strong import StrongConfig, StrongXSegTx, Views
from model.xsegtx import Prediction
from train.dataset import Batch, Draw, collate, read_view, source_of
from train.distributed import Ranks
from train.feature_cache import FeatureCache
from train.losses import Counts, Losses, LossWeights, compute_losses, cross_entropy
from train.scores import Scored, draw_example, mask_iou, scored

SHIFT, STRETCH = 0.25, 0.4  # of query crops in training, at most: extents of the object, octaves
TARGET_SHIFT, TARGET_STRETCH = 0.75, 0.9  # likewise of target crops; the ratio of sizes differs from take to take
TURNED = 0.2  # how often a query's crops are, by any angle
RIVALS = {"peak": 0.65, "other object": 0.25, "anywhere": 0.1}  # how often a rival is which
RIVAL_PEAKS = 3  # of the heat that can be rivals
RIVALS_APART = 4  # cells between them
SHOWN = 1 / 3  # of an object must be in a crop that shows it
PLACE_WEIGHT = 0.15  # of the locator's loss


class Place(NamedTuple):
    """Where to look in a target, as `Spot` has it; with a `peak`, its middle is so far from that one of the heat."""

    row: float
    col: float
    extent: float
    peak: int = -1


@dataclass
class CropBatch(Batch):
    """B samples, crops S pixels a side; whole images and masks stay on the CPU."""

    wide: Tensor  # (B, R, N, N, 3) uint8 RGB: the query at R scales that the object may have in the target's frame
    wide_mask: Tensor  # (B, R, N, N) uint8
    query: Tensor  # (B, S, S, 3) uint8 RGB
    query_mask: Tensor  # (B, S, S) uint8
    shares: list  # of the target's long side that the object then spans, R of each sample
    image: list  # of targets, (H, W, 3) uint8 RGB each
    mask: list  # of the object in targets, (H, W) uint8 each
    places: list  # `Place`s to look at in training, as many of each sample


@dataclass
class Aimed(Views):
    """What a step looks at, and the truth of it."""

    target_mask: Tensor  # (B K, S, S) uint8
    shown: Tensor  # (B K,) bool, the crop shows the object
    cells: list[Tensor]  # B of (H, W) bool, which cells of the heat do


class CropReader:
    def __init__(self, config: StrongConfig):
        self.config = config

    def read(self, pairs: PairSet, draw: Draw, rng: np.random.Generator | None) -> dict[str, Any]:
        source, target_pair = source_of(pairs, draw), pairs[draw.target]
        query, target = (read_view(pairs, view) for view in source[1:])
        query_mask = fit_rle(pairs.query_mask(draw.query), query.shape[:2])
        rle = pairs.target_mask(draw.target) if draw.query == draw.target else None
        mask = np.zeros(target.shape[:2], np.uint8) if rle is None else fit_rle(rle, target.shape[:2])
        spot, there = spot_of(query_mask), spot_of(mask)
        if spot is None:
            raise ValueError("its mask shows nothing")
        ratios = size_ratios(SETTINGS[pairs[draw.query].setting][0], SETTINGS[target_pair.setting][1])
        shares, places, turn = list(expected_shares(spot, query.shape[:2], ratios).values()), [], 0.0
        if rng is None:
            wide = close = spot
            shares += shares[-1:] * (len(ratios) - len(shares))  # as many in each sample
        else:
            turn = rng.uniform(-180, 180) if rng.random() < TURNED else 0.0
            share = rng.choice(shares)
            if there is not None:
                share = min(there.extent / max(target.shape[:2]) * 2 ** rng.uniform(-STRETCH, STRETCH), LARGEST)
            shares, extent = [share], share * max(target.shape[:2])
            rivals = [self.rival(pairs, draw.target, target.shape[:2], extent, rng) for _ in range(2)]
            own = rivals[0] if there is None else Place(*jittered(there, rng, TARGET_SHIFT, TARGET_STRETCH))
            places = [own, rivals[1]]
            wide, close = (jittered(spot, rng, SHIFT, STRETCH) for _ in range(2))
        wide_size, close_size = self.config.wide_size, self.config.input_size
        crops = [self.config.wide_crop(wide, share) for share in shares]
        return {
            "sources": source,
            "visible": there is not None,
            "wide": np.stack([cut(query, crop, wide_size, turn) for crop in crops]),
            "wide_mask": np.stack([cut_mask(query_mask, crop, wide_size, turn) for crop in crops]),
            "shares": shares,
            "query": cut(query, close.crop(), close_size, turn),
            "query_mask": cut_mask(query_mask, close.crop(), close_size, turn),
            "image": target,
            "mask": mask,
            "places": places,
        }

    def rival(self, pairs: PairSet, number: int, size: Size, extent: float, rng: np.random.Generator) -> Place:
        """A place in the target view of a pair, of `size`, that is likely not the object's."""
        kind = rng.choice(list(RIVALS), p=list(RIVALS.values()))
        spot = Spot(rng.uniform(0, size[0]), rng.uniform(0, size[1]), extent)
        if kind == "peak":
            return Place(*jittered(Spot(0, 0, extent), rng, SHIFT, TARGET_STRETCH), int(rng.integers(RIVAL_PEAKS)))
        if kind == "other object" and (rle := pairs.target_mask(neighbor(pairs, number, rng))):
            spot = spot_of(fit_rle(rle, size)) or spot
        return Place(*jittered(spot, rng, TARGET_SHIFT, TARGET_STRETCH))

    def collate(self, samples: list[dict]) -> CropBatch:
        return collate(CropBatch, samples)


def neighbor(pairs: PairSet, number: int, rng: np.random.Generator) -> int:
    """A random pair whose target is an object of the same take and camera, at any time."""
    own = pairs[number]
    tracks = pairs.by_target[own.take_uid, own.target_camera]
    numbers = tracks[rng.integers(len(tracks))]
    return numbers[rng.integers(len(numbers))]


def jittered(spot: Spot, rng: np.random.Generator, shift: float, stretch: float) -> Spot:
    """Moved by up to `shift` of its extent, and by up to `stretch` octaves."""
    return spot.moved(*rng.uniform(-shift, shift, 2), rng.uniform(-stretch, stretch))


class CropStep:
    """What the network makes of a batch, on one device."""

    def __init__(self, encoder: Encoder, cache: FeatureCache, weights: LossWeights, config: StrongConfig):
        self.encoder, self.cache, self.weights, self.config = encoder, cache, weights, config

    def losses(self, model: StrongXSegTx, autocast: torch.autocast, batch: CropBatch, ranks: Ranks) -> Losses:
        """Those of the paper, of all looks, and

        - place: cross-entropy of the object among all cells of the target, where it is visible, and of whether it is;
          visible and hidden targets weigh alike there.
        - choice: of the two looks at a target, the one that shows the object is to have the higher existence.
        """
        network = getattr(model, "module", model)
        located = self.located(batch)
        with autocast:
            looks, heat, aimed = model(*located, partial(self.aim, batch))
        shown, count = aimed.shown, len(aimed.shown) // len(batch)
        prediction = Prediction(looks.query_mask_prob, looks.target_mask_prob, looks.logit.sigmoid())
        query_mask = batch.query_mask.repeat_interleave(count, 0)
        counts = Counts(len(shown) * ranks.size, ranks.sum(shown.sum()))
        losses = compute_losses(prediction, query_mask, aimed.target_mask, shown, self.weights, counts)

        place = [place_loss(network, *pair) for pair in zip(heat, aimed.cells, strict=True)]
        visible = batch.visible.float()
        kinds = torch.stack((visible, 1 - visible))  # (2, B)
        totals = ranks.sum(kinds.sum(1)).clamp(min=1)
        known = heat_logit(network.locator, torch.stack([each.amax() for each in heat]))
        place = (torch.stack(place) * visible).sum() / totals[0]
        found = cross_entropy(known.sigmoid(), visible, (kinds / totals[:, None]).mean(0))
        logits, shown = looks.logit.view(-1, count), shown.view(-1, count)
        decided = shown.sum(1) == 1
        choice = F.cross_entropy(logits, shown.float().argmax(1), reduction="none") * decided
        choice = choice.sum() / ranks.sum(decided.sum()).clamp(min=1)
        more = PLACE_WEIGHT * place + self.weights.existence * (found + choice)
        return losses._replace(total=losses.total + more, place=place, choice=choice)

    def aim(self, batch: CropBatch, heat: list[Tensor]) -> Aimed:
        """The crops of a step, by the heat of its targets: rivals are at peaks away from the object."""
        cells = [object_cells(mask, each) for mask, each in zip(batch.mask, heat, strict=True)]
        elsewhere = [x.masked_fill(around_object(own), -torch.inf) for x, own in zip(heat, cells, strict=True)]
        images, *truth = self.cut_targets(batch, spots_in(batch.image, batch.places, elsewhere))
        return Aimed(*self.encoded(batch, images), *truth, cells)

    def score(self, network: StrongXSegTx, autocast: torch.autocast, batch: CropBatch) -> Scored:
        """One look at the highest peak of each target, at the likeliest scale."""
        heats = [network.heat(*self.located(batch, scale)) for scale in range(batch.wide.shape[1])]
        heat, places = [], []
        for at_scales, shares, image in zip(zip(*heats, strict=True), batch.shares, batch.image, strict=True):
            best = int(torch.stack([each.amax() for each in at_scales]).argmax())
            heat.append(at_scales[best])
            places.append([Place(0, 0, shares[best] * max(image.shape[:2]), 0)])
        spots = spots_in(batch.image, places, heat)
        images, _, _ = self.cut_targets(batch, spots)
        with autocast:
            *query, target = self.encoded(batch, images)
            looks = network.look(network.encode(*query), target)
        side, found, pixels = batch.query_mask.shape[-1], [], []
        for prob, [spot], truth in zip(looks.target_mask_prob.float().cpu().numpy(), spots, batch.mask, strict=True):
            mask = put_back(prob, spot.crop(), truth.shape) > THRESHOLD
            found.append(torch.from_numpy(letterbox(mask, side)))
            pixels.append([(mask & (truth > 0)).sum(), (mask | (truth > 0)).sum()])
        existence = network.existence(looks.logit, torch.stack([each.amax() for each in heat]))
        iou = mask_iou(*torch.tensor(pixels).T)
        return scored(iou.to(existence), existence, batch.visible, torch.stack(found))

    def draw(self, pairs: PairSet, batch: CropBatch, found: Tensor, row: int) -> np.ndarray:
        """The query's crop, and the target as a whole."""
        side = batch.query_mask.shape[-1]
        target, truth = letterbox(batch.image[row], side), letterbox(batch.mask[row], side)
        query, query_mask = batch.query[row].cpu().numpy(), batch.query_mask[row].cpu().numpy()
        return draw_example(query, target, query_mask, found[row].numpy(), truth)

    def located(self, batch: CropBatch, scale: int = 0) -> tuple[Levels, Tensor, list[Levels]]:
        """What `StrongXSegTx.heat` takes."""
        frames = []
        for image, source, shares in zip(batch.image, batch.sources, batch.shares, strict=True):
            size = self.config.frame_length(shares[scale])
            key = source.target, size
            frame = np.zeros((1, 1, 3), np.uint8) if key in self.cache else whole_frame(image, size)
            picture = torch.from_numpy(frame)[None].to(self.encoder.device)
            frames.append(Levels(*self.cache([key], picture, self.encoder.levels)))
        return self.encoder.levels(batch.wide[:, scale]), batch.wide_mask[:, scale], frames

    def cut_targets(self, batch: CropBatch, spots: list[list[Spot]]) -> tuple[Tensor, Tensor, Tensor]:
        """Crops of targets (B K, S, S, 3), the object's masks in them (B K, S, S), and whether they show it (B K,)."""
        side, device = batch.query_mask.shape[-1], self.encoder.device
        images, masks, shown = [], [], []
        for image, mask, places in zip(batch.image, batch.mask, spots, strict=True):
            area = int(mask.sum())
            for crop in (spot.crop() for spot in places):
                images.append(cut(image, crop, side))
                masks.append(cut_mask(mask, crop, side))
                shown.append(area > 0 and masks[-1].sum() * (crop.side / side) ** 2 > SHOWN * area)
        images, masks = (torch.from_numpy(np.stack(x)).to(device, non_blocking=True) for x in (images, masks))
        return images, masks, torch.tensor(shown).to(device, non_blocking=True)

    def encoded(self, batch: CropBatch, images: Tensor) -> tuple[Levels, Tensor, Tensor, Levels]:
        """The fields of `Views`, of crops of targets."""
        levels = self.encoder.levels(torch.cat((batch.query, images)))
        count = len(batch.query)
        query, target = Levels(*(x[:count] for x in levels)), Levels(*(x[count:] for x in levels))
        return query, batch.query_mask, self.encoder.masks(batch.query_mask), target


def spots_in(
    images: Sequence[np.ndarray], places: Sequence[Sequence[Place]], heat: Sequence[Tensor]
) -> list[list[Spot]]:
    """Where the places of each target are, by its heat (H, W)."""
    spots = []
    for image, some, each in zip(images, places, heat, strict=True):
        values, cells = peaks(each[None], RIVAL_PEAKS, RIVALS_APART)
        count = max(1, int(values.isfinite().sum()))  # there may be fewer peaks
        middles = cell_middles(cells[0, :count].tolist(), each.shape, image.shape[:2])
        offsets = [(0.0, 0.0) if place.peak < 0 else middles[place.peak % count] for place in some]
        spots.append([Spot(x.row + row, x.col + col, x.extent) for x, (row, col) in zip(some, offsets, strict=True)])
    return spots


def object_cells(mask: np.ndarray, heat: Tensor) -> Tensor:
    """Which cells of a target (H, W) an object covers as much as any, or nearly: all False if it is hidden."""
    cover = torch.from_numpy(cv2.resize(mask.astype(np.float32), heat.shape[::-1], interpolation=cv2.INTER_AREA))
    return (cover > max(0.3 * cover.max().item(), 1e-6)).to(heat.device)


def around_object(cells: Tensor) -> Tensor:
    return F.max_pool2d(cells[None].float(), 5, 1, 2)[0] > 0


def place_loss(network: StrongXSegTx, heat: Tensor, cells: Tensor) -> Tensor:
    """Of one target: - log of how likely the object's cells are, among all."""
    logits = network.locator.scale * heat
    return logits.logsumexp((0, 1)) - logits.masked_fill(~cells, -1e4).logsumexp((0, 1))
