"""The training of the strong recipe. samples.py draws its crops; it searches its own pairs, to mine places and to fit
judges (recipes/search/fit.py). docs/strong_recipe.md explains it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from common.distributed import World
from common.errors import UserError
from common.option_fields import option
from formats.pairs import Pairs
from model.device import autocast
from model.xsegtx import Look
from recipes.losses import compute_losses
from recipes.samples import DrawnPairs
from recipes.scene import Scene
from recipes.search.crops import Spot, spot_of
from recipes.search.fit import all_looks, fit_choice, lack_of_pairs
from recipes.search.places import Marked
from recipes.strong.recipe import Strong
from recipes.strong.samples import TARGET_CROPS, CropBatch, crop_sample, grouped_by_size
from recipes.training import SEARCH_SHARE_HELP, RecipeTraining, SearchPairs

MINED_LOOKS = 5  # places at which a pair is searched for wrong ones
PLACE_WEIGHT = 0.15  # of the loss `place`


@dataclass(frozen=True)
class StrongOptions:
    mine_epochs: list[int] = option((), "epochs to mine rivals after (default: 1/6, 1/2, 5/6 of all)", limits=[0])
    mine_share: float | None = option(
        None, f"share of the pairs to mine rivals in {SEARCH_SHARE_HELP}", limits=[0.001, 1]
    )
    fit_share: float | None = option(
        None, f"share of the pairs to fit the choice to; 0: none {SEARCH_SHARE_HELP}", limits=[0, 1]
    )


class Mined(NamedTuple):
    """The places at which a search of training pairs is wrong, as a checkpoint stores them."""

    pairs: np.ndarray  # (N,) int32, ascending
    spots: np.ndarray  # (N, 3) float32

    @classmethod
    def checked(cls, mined: dict[str, Any], count: int) -> "Mined":
        """What `StrongTraining.mine` gave for some of `count` pairs. Raises UserError if this is of another form."""
        rows, spots = (np.asarray(mined.get(name)) for name in cls._fields)
        fits = (rows.dtype, spots.dtype, spots.shape) == (np.int32, np.float32, (*rows.shape, 3)) and rows.ndim == 1
        if not fits or (np.diff(rows, prepend=0, append=count - 1) < 0).any() or not np.isfinite(spots).all():
            what = f"the checkpoint's mined places are no int32 numbers of {count} pairs and float32 spots (N, 3)"
            raise UserError(f"{what}; take an earlier file, or start anew with --init_weights")
        return cls(rows, spots)

    def of(self, pair: int) -> list[Spot]:
        first, end = np.searchsorted(self.pairs, (pair, pair + 1))
        return [Spot(*spot) for spot in self.spots[first:end].tolist()]


class StrongTraining(RecipeTraining):
    Options = StrongOptions
    recipe: Strong
    mined: Mined | None = None  # the wrong places that `read` shows

    @staticmethod
    def defaults(epochs: int) -> dict[str, Any]:
        """As xsegtx_tiny.pth was trained. With dropout, a step takes a quarter longer."""
        mine_epochs = sorted({epochs * part // 6 for part in (1, 3, 5)} - {0})
        rate = {"lr": 5e-4, "lr_schedule": [], "lr_falls": (epochs + 1) // 2, "mine_epochs": mine_epochs}
        network = {"backbone": "efficientnet_lite0", "mode": "tiny", "input_size": 192}
        return rate | network | {"dropout": 0.0, "drop_feat": 0.0, "existence_weight": 0.3}

    def read(self, pairs: Pairs, drawn: DrawnPairs, rng: np.random.Generator) -> dict[str, Any]:
        wrong = self.mined.of(drawn.target) if self.mined and drawn.query == drawn.target else []
        return crop_sample(pairs, drawn, wrong, self.recipe.config, rng)

    def collate(self, samples: list[dict[str, Any]]) -> CropBatch:
        return CropBatch.of(samples, frames=grouped_by_size([sample["frame"] for sample in samples]))

    def weights(self, existence: float) -> dict[str, float]:
        return {"mask": 1.0, "dice": 1.0, "existence": existence, "place": PLACE_WEIGHT, "choice": existence}

    def losses(self, batch: CropBatch, world: World) -> dict[str, Tensor]:
        """The paper's losses, as means over all looks. They do not ask for the mask of the query, and all pixels of a
        mask have the same weight. Two losses are added:

        - place: for visible objects whose sample trains the locator, the cross-entropy of the object's cells among all
          cells of the target.
        - choice: if a target has crops that show the object and crops that do not, the cross-entropy of the crops that
          show the object, from the existence logits of all its crops. (The judges, `network.choice`, are only fitted.)
        """
        with autocast(self.recipe.device, self.recipe.precision):
            heat, looks = self.heat(batch), self.look_at_crops(batch)
        locator, contained = self.recipe.network.locator, batch.contained
        target_mask = batch.target_mask.flatten(0, 1)
        paper = compute_losses(looks, None, target_mask, contained.flatten(), world, object_weight=1)

        # In every step, each parameter takes part in the losses, as the sum of all processes' gradients requires.
        place, located = 0 * locator.scale, torch.zeros_like(locator.scale)
        for group_heat, group in zip(heat, batch.frames, strict=True):
            logits, visible = locator.scale * group_heat, batch.visible[group.rows].float()
            loss = logits.logsumexp((1, 2)) - logits.masked_fill(~group.cells, -1e4).logsumexp((1, 2))
            place = place + (loss * visible).sum()
            located = located + visible.sum()
        place = place / world.sum(located).clamp(min=1)
        logit = looks.logit.float().view(-1, TARGET_CROPS)
        differ = contained.any(1) & ~contained.all(1)
        choice = logit.logsumexp(1) - logit.masked_fill(~contained, -1e4).logsumexp(1)
        choice = (choice * differ).sum() / world.sum(differ.sum()).clamp(min=1)
        return {**paper, "place": place, "choice": choice}

    def heat(self, batch: CropBatch) -> list[Tensor]:
        """The similarity maps of each group of target frames, (n, h, w)."""
        if not batch.frames:
            return []
        rows, heat = torch.cat([group.rows for group in batch.frames]), []
        locator, wide = self.recipe.network.locator, self.recipe.encoder.levels(batch.wide[rows])
        described = locator.object_crops(wide, batch.wide_mask[rows]).description
        for group in batch.frames:
            of_group, described = described[: len(group.rows)], described[len(group.rows) :]
            heat.append(locator.heat(of_group, locator.cells(self.recipe.encoder.levels(group.images))))
        return heat

    def look_at_crops(self, batch: CropBatch) -> Look:
        """Look at every target crop: B * TARGET_CROPS rows, sample by sample."""
        count = len(batch)
        images = torch.cat((batch.query, batch.target.flatten(0, 1)))
        levels, masks = self.recipe.encoder.levels_and_masks(images, batch.query_mask)
        query = self.recipe.network.encode(levels[:count], batch.query_mask, masks)
        rows = torch.arange(count, device=batch.query.device).repeat_interleave(TARGET_CROPS)
        return self.recipe.network.look(query[rows], levels[count:])[0]

    def mine(self, search_pairs: SearchPairs) -> dict[str, Tensor]:
        """The wrong places of the pairs. For each of N places: the pair's number, "pairs" (N,) int32, and the fields of
        its spot, "spots" (N, 3) float32; in the order of the pairs, and for each pair of the fields.
        """
        searched = search_pairs(self.wrong_places, self.options.mine_share)
        found = [(row, spot) for row, _, spots in sorted(searched, key=itemgetter(0)) for spot in sorted(spots)]
        spots = torch.tensor([spot for _, spot in found], dtype=torch.float32).reshape(-1, 3)
        pairs = torch.tensor([row for row, _ in found], dtype=torch.int32)
        return {"pairs": pairs, "spots": spots, "searched": torch.tensor(len(searched))}

    def wrong_places(self, scene: Scene) -> list[list[tuple]]:
        """The candidates of each pair that are not at the object."""
        recipe = self.recipe
        with recipe.computing():
            marked = Marked.of(scene)
            places = recipe.locate(scene, marked, recipe.sizes(scene, marked), MINED_LOOKS)
        true, wrong = list(map(spot_of, scene.true_masks)), [[] for _ in scene.true_masks]
        for pair, place in zip(places.pair, places.spot, strict=True):
            if not ((spot := true[pair]) and spot.is_near(place)):
                wrong[pair].append(tuple(place))
        return wrong

    def use_mined(self, mined: dict[str, Any], pairs: Pairs) -> None:
        self.mined = Mined.checked(mined, len(pairs))

    def foreseen(self, searched: Callable[[float | None], Pairs]) -> dict[str, str]:
        mining = "none"
        if epochs := self.options.mine_epochs:
            mining = f"after epochs {epochs}, in {len(searched(self.options.mine_share)):,} pairs"
        if self.options.fit_share == 0:
            return {"mining": mining, "fit": "none"}
        pairs = searched(self.options.fit_share)
        lack = lack_of_pairs(pairs.take, pairs.visible)
        return {"mining": mining, "fit": f"none, since {lack}" if lack else f"at the end, to {len(pairs):,} pairs"}

    def fit_judges(self, search_pairs: SearchPairs, seed: int) -> tuple[str, dict[str, Tensor]]:
        share = self.options.fit_share
        if share == 0:
            return "", {}
        return fit_choice(self.recipe, search_pairs(partial(all_looks, self.recipe), share), seed)
