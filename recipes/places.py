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
from recipes.crops import Part, Spot, spot_of
from recipes.frame import Frame
from recipes.locator import Matches

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
    """The objects of a frame, where they are marked."""

    mask: list[np.ndarray]

    @classmethod
    def of(cls, frame: Frame) -> "Marked":
        spots: list[Any] = [spot_of(mask) for mask in frame.masks]
        return cls([frame.pictures[number] for number in frame.view], spots, frame.masks)


@dataclass
class Places(Spots):
    """Places in targets at which to look for the objects of pairs."""

    pair: list[int]  # the numbers of pair and object in the frame
    object: list[int]
    similarity: list[float]  # in the similarity map of the whole target

    @classmethod
    def of(cls, frame: Frame, found: Sequence[Sequence[tuple[float, Spot]]], count: int) -> "Places":
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
                what = f"pair {frame.row[pair]}: features of its pictures are not finite"
                raise UserError(f"{what}; give --precision fp32")
        pairs, similarities, spots = map(list, zip(*rows, strict=True))
        images = [frame.pictures[frame.target[pair]] for pair in pairs]
        return cls(images, spots, pairs, [frame.object[pair] for pair in pairs], similarities)

    def likely(self, least: int) -> list[int]:
        """The rows of each pair without those far less similar than its best one; `least` rows stay anyway."""
        rows = []
        for of_pair in rows_by_key(self.pair).values():  # in the order of their similarity
            lowest = self.similarity[of_pair[0]] - UNLIKELY
            rows += [row for k, row in enumerate(of_pair) if k < least or self.similarity[row] > lowest]
        return rows

    def at_parts(self, parts: Sequence[Part | None]) -> "Places":
        """The same places, moved to parts of what looks at them have found; None leaves a place where it is."""
        spots = [part.spot if part else spot for part, spot in zip(parts, self.spot, strict=True)]
        return replace(self, spot=spots)


@dataclass
class Looks(Rows):
    """The looks at N places."""

    crop: list[Crop]
    prob: np.ndarray  # (N, S, S), the mask's probability in the crop
    logit: Tensor  # (N,) logit of existence
    matches: Matches  # of the object's cells with the crop's
    agreement: Tensor  # (N,), by `Matches.agreement`
    cosine: Tensor  # (N,), the mean cosine of the object's matches
    cells: Tensor  # (N, h, w, C), the locator's cells of the crop


@dataclass
class Glanced(Rows):
    """What is known of N places after the looks: the glance reads it."""

    similarity: Tensor  # in the similarity map of the whole target
    logit: Tensor  # of existence
    agreement: Tensor  # the share of the object's cells whose matches are mutual and lie in the look's mask
    cosine: Tensor  # the mean cosine of the matches of the object's cells

    @classmethod
    def of(cls, places: Places, looks: Looks) -> "Glanced":
        similarity = torch.tensor(places.similarity).to(looks.logit.device, non_blocking=True)
        return cls(similarity, looks.logit, looks.agreement, looks.cosine)


@dataclass
class Compared(Glanced):
    """What is known of N places after the close looks: the score reads it."""

    close_logit: Tensor  # logit, agreement and cosine again, by the close look
    close_agreement: Tensor
    close_cosine: Tensor
    color: Tensor  # whether the close look shows the object's colors, by `same_color`
    contrast: Tensor  # and its contrasts, by `same_contrast`
    opinion: Tensor  # what `Search.second_opinion` adds to the logit of existence


@dataclass
class Judged(Compared):
    """What is known of N places after the look back: existence reads it."""

    back: Tensor  # how well what was found leads back to the object, by `back` of the network
    home: Tensor  # the highest similarity of the object's own place in the query frame to its description
    elsewhere: Tensor  # the highest similarity away from this place, where look-alikes are


def highest_rows(scores: Sequence[Any], pairs: Sequence[int], count: int, first: int = 0) -> list[int]:
    """The rows of the `count` highest scores of each pair; the pairs in their order, and the highest score first. The
    first `first` rows of a pair outrank its others, whatever the scores.
    """
    best = []
    for rows in rows_by_key(pairs).values():
        ranked = [sorted(x, key=scores.__getitem__, reverse=True) for x in (rows[:first], rows[first:])]
        best += (ranked[0] + ranked[1])[:count]
    return best
