"""The rows of a search: marked objects, places in targets, looks at these, and what is known of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.errors import UserError
from formats.crop import Crop
from model.rows import Rows, rows_by_key
from recipes.scene import Scene
from recipes.search.crops import Part, Spot, spot_of
from recipes.search.locator import Matches

UNLIKELY = 0.35  # a place whose similarity is so much below the highest one is not looked at


@dataclass
class Spots(Rows):
    """Spots of objects in pictures."""

    image: list[np.ndarray]  # (H, W, 3) uint8
    spot: list[Spot]

    def crops(self, context: float) -> list[Crop]:
        """The crops around the spots, `context` times as large."""
        return [spot.crop(image.shape[:2], context) for spot, image in zip(self.spot, self.image, strict=True)]


@dataclass
class Marked(Spots):
    """The objects of a scene, where they are marked."""

    mask: list[np.ndarray]

    @classmethod
    def of(cls, scene: Scene) -> "Marked":
        spots: list[Any] = [spot_of(mask) for mask in scene.masks]
        return cls([scene.pictures[number] for number in scene.view], spots, scene.masks)


@dataclass
class Places(Spots):
    """Places in targets at which to look for the objects of pairs."""

    pair: list[int]  # the numbers of pair and object in the scene
    object: list[int]
    similarity: list[float]  # in the similarity map of the whole target
    further: list[bool]  # True: it is only for more answers, and never becomes the first one of its pair

    @classmethod
    def of(cls, scene: Scene, found: Sequence[Sequence[tuple[float, Spot]]], count: int) -> "Places":
        """The `count` most similar of the spots that were found for each pair, with their similarities, without spots
        near better ones. Raises UserError if a pair has none.
        """
        rows = []
        for pair, of_pair in enumerate(found):
            chosen: list[Spot] = []
            for similarity, spot in sorted(of_pair, key=lambda row: -row[0]):
                if len(chosen) < count and not any(spot.is_near(better) for better in chosen):
                    chosen.append(spot)
                    rows.append((pair, similarity, spot))
            if not chosen:
                what = f"pair {scene.row[pair]}: features of its pictures are not finite"
                raise UserError(f"{what}; give --precision fp32")
        pairs, similarities, spots = map(list, zip(*rows, strict=True))
        images = [scene.pictures[scene.target[pair]] for pair in pairs]
        return cls(images, spots, pairs, [scene.object[pair] for pair in pairs], similarities, len(pairs) * [False])

    def likely(self, least: int, count: int) -> "Places":
        """The places of each pair without those far less similar than its best one; `least` stay anyway. Up to `count`,
        unlikely ones are further places.
        """
        kept = {}
        for of_pair in rows_by_key(self.pair).values():  # in the order of their similarity
            lowest = self.similarity[of_pair[0]] - UNLIKELY
            for number, row in enumerate(of_pair):
                is_likely = number < least or self.similarity[row] > lowest
                if is_likely or number < count:
                    kept[row] = not is_likely
        return replace(self[[*kept]], further=[*kept.values()])

    def highest(self, scores: list[float], count: int) -> list[int]:
        """The rows of the `count` places of each pair with the highest scores; further places come after the others."""
        scored = [(not further, score) for further, score in zip(self.further, scores, strict=True)]
        return highest_rows(scored, self.pair, count)

    def further_beyond(self, count: int) -> "Places":
        """The same places, of which all but the first `count` of each pair are further ones."""
        first = {row for rows in rows_by_key(self.pair).values() for row in rows[:count]}
        return replace(self, further=[further or row not in first for row, further in enumerate(self.further)])

    def at_parts(self, parts: Sequence[Part | None]) -> "Places":
        """The same places, moved to parts of what looks at them have found; None leaves a place where it is."""
        spots = [part.spot if part else spot for part, spot in zip(parts, self.spot, strict=True)]
        return replace(self, spot=spots)


@dataclass
class LooksAtPlaces(Rows):
    """The looks at N places."""

    crop: list[Crop]
    prob: Tensor  # (N, S, S), the mask's probability in the crop
    logit: Tensor  # (N,) logit of existence
    matches: Matches  # of the object's cells with the crop's
    agreement: Tensor  # (N,), by `Matches.agreement`
    cosine: Tensor  # (N,), the mean cosine of the object's matches
    cells: Tensor  # (N, h, w, C), the locator's cells of the crop


@dataclass
class Shown(Rows):
    """What looks at N places show, on the CPU, which decides with it."""

    crop: list[Crop]
    mask: np.ndarray  # (N, S, S) bool
    matches: Matches


@dataclass
class Numbers(Rows):
    """What is known of N places, which the judges read: (N,) each, but None before the step that computes it."""

    # After the looks; the glance reads these.
    similarity: Tensor  # in the similarity map of the whole target
    logit: Tensor  # of existence
    agreement: Tensor  # the share of the object's cells whose matches are mutual and lie in the look's mask
    cosine: Tensor  # the mean cosine of the matches of the object's cells
    # After the close looks; the score reads these, too.
    close_logit: Any = None  # logit, agreement and cosine again, by the close look
    close_agreement: Any = None
    close_cosine: Any = None
    color: Any = None  # whether the close look shows the object's colors, by `same_color`
    contrast: Any = None  # and its contrasts, by `same_contrast`
    # After the look back; existence reads all.
    back: Any = None  # how well what was found leads back to the object, by `back` of the network
    home: Any = None  # the highest similarity of the object's own place in the query frame to its description
    elsewhere: Any = None  # the highest similarity away from this place, where look-alikes are

    @classmethod
    def of(cls, places: Places, looks: LooksAtPlaces) -> "Numbers":
        similarity = torch.tensor(places.similarity).to(looks.logit.device, non_blocking=True)
        return cls(similarity, looks.logit, looks.agreement, looks.cosine)


@dataclass
class Searched(Rows):
    """The places of a search, with all that it knows of each."""

    places: Places
    looks: LooksAtPlaces
    closer: LooksAtPlaces  # the close looks
    numbers: Numbers


def highest_rows(scores: Sequence[Any], pairs: Sequence[int], count: int) -> list[int]:
    """The rows of the `count` highest scores of each pair; the pairs in their order, and the highest score first."""
    best = []
    for rows in rows_by_key(pairs).values():
        best += sorted(rows, key=scores.__getitem__, reverse=True)[:count]
    return best
