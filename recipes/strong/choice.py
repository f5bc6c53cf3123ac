"""Which of the looks at a target is right, and whether the object is visible: the numbers that tell it, and two small
networks that read them, which learning.py fits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from formats.crop import Crop
from formats.results import THRESHOLD
from model.rows import Rows, rows_by_key
from recipes.frame import Frame
from recipes.strong.crops import Part, Spot, connected_parts, spot_of
from recipes.strong.locator import Description

HIDDEN = 64  # hidden units of a `Judge`
DROPOUT = 0.2  # dropout of these units


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
        masks = list(frame.masks.values())
        spots: list[Any] = [spot_of(mask) for mask in masks]
        return cls([frame.pictures[number] for number in frame.view], spots, masks)


@dataclass
class Places(Spots):
    """Places in targets at which to look for the objects of pairs."""

    pair: list[int]  # the numbers of pair and object in the frame
    object: list[int]
    similarity: list[float]  # in the similarity map of the whole target

    def parts(self, crops: Sequence[Crop], probs: np.ndarray) -> list[list[Part]]:
        """The connected parts of what looks have found in crops, the largest one first; none if a mask is empty."""
        rows = zip(probs, crops, self.image, strict=True)
        return [connected_parts(prob > THRESHOLD, crop, image.shape[:2]) for prob, crop, image in rows]


@dataclass
class Looks(Rows):
    """The looks at N places, in crops with context."""

    crop: list[Crop]
    prob: np.ndarray  # (N, S, S), the mask's probability in the crop
    parts: list[list[Part]]  # of the mask
    logit: Tensor  # (N,) logit of existence
    cells: Tensor  # (N, 2h, 2w, WIDTH), the locator's cells of the crop
    shown: Description  # what the mask shows


@dataclass
class LookNumbers(Rows):
    """What `Choice` reads of N looks, (N,) each. "Expected" is what the candidate says, "found" the mask's largest
    connected part. Lengths are of the longer side of a bounding box.
    """

    similarity: Tensor  # of the candidate, in the similarity map of the whole target
    logit: Tensor  # of existence, by the look
    # The logarithm of what looking back gives + .001: the share of the whole query frame's similarity map, by what was
    # found, that lies on the object.
    log_back: Tensor

    home: Tensor  # the highest similarity of the object's own place in the query frame to its description
    elsewhere: Tensor  # the highest one away from this place: that of its look-alikes at home

    log_area: Tensor  # the logarithm of the mask's share of the crop + .001
    uncertain: Tensor  # the share of pixels between .2 and .8, divided by the mask's share + .01
    growth: Tensor  # the logarithm of found length / expected length
    largest_share: Tensor  # the found part's share of the mask

    # The close look's logit of existence. Only looks that are drawn have it; with it, the score also chooses worse.
    close_logit: Tensor | None = None

    @classmethod
    def of(cls, places: Places, looks: Looks, back: Tensor, at_home: Tensor) -> "LookNumbers":
        """The numbers of N looks; `StrongNetwork` computes `back` (N,) and `at_home` (N, 2)."""
        area, expected = (looks.prob > THRESHOLD).mean((1, 2)), [spot.extent for spot in places.spot]
        found = [parts[0].spot.extent if parts else 1.0 for parts in looks.parts]
        of_masks = {
            "similarity": places.similarity,
            "log_area": np.log(area + 1e-3),
            "uncertain": ((looks.prob > 0.2) & (looks.prob < 0.8)).mean((1, 2)) / (area + 0.01),
            "growth": np.log(np.divide(found, expected)),
            "largest_share": [parts[0].share if parts else 0.0 for parts in looks.parts],
        }
        tensor = torch.tensor(np.array([*of_masks.values()]), dtype=torch.float32)
        of_masks = dict(zip(of_masks, tensor.to(back.device, non_blocking=True), strict=True))
        home, elsewhere = at_home.unbind(1)
        return cls(**of_masks, logit=looks.logit, log_back=(back + 1e-3).log(), home=home, elsewhere=elsewhere)

    def stacked(self) -> Tensor:
        """The numbers as columns, (N, NUMBERS); without `close_logit` there is one column less."""
        return torch.stack([column for column in self.columns() if column is not None], 1)


NAMES = [field.name for field in fields(LookNumbers)]
NUMBERS = len(NAMES)
# Before the fit, score and logit of existence are sums of these numbers.
SCORE_SUM = {"similarity": 10.0, "logit": 0.5, "log_back": 1.5}
EXISTENCE_SUM, EXISTENCE_BIAS = {"similarity": 2.0, "logit": 0.5}, -2.4


class Judge(nn.Module):
    """The first N numbers of looks (..., N) -> one number for each: a sum, plus the output of hidden units."""

    def __init__(self, numbers: int, weights: dict[str, float], bias: float = 0.0):
        super().__init__()
        self.linear, self.hidden, self.out = nn.Linear(numbers, 1), nn.Linear(numbers, HIDDEN), nn.Linear(HIDDEN, 1)
        for parameter in (*self.linear.parameters(), *self.out.parameters()):
            nn.init.zeros_(parameter)
        with torch.no_grad():
            for name, weight in weights.items():
                self.linear.weight[0, NAMES.index(name)] = weight
            self.linear.bias.fill_(bias)
        # Mean and standard deviation of the numbers of the looks at training takes.
        self.mean, self.deviation = nn.Buffer(torch.zeros(numbers)), nn.Buffer(torch.ones(numbers))

    def forward(self, numbers: Tensor) -> Tensor:
        x = (numbers - self.mean) / self.deviation
        hidden = F.dropout(F.relu(self.hidden(x)), DROPOUT, self.training)
        return (self.linear(x) + self.out(hidden))[..., 0]

    @torch.no_grad()
    def normalize(self, numbers: Tensor) -> None:
        """Take mean and deviation of numbers (P, N). Without hidden units, the answers stay the same."""
        self.mean.copy_(numbers.mean(0))
        self.deviation.copy_(numbers.std(0).clamp(min=1e-3))
        self.linear.bias.add_(self.linear.weight @ self.mean)
        self.linear.weight.mul_(self.deviation)


class Choice(nn.Module):
    """The two judges of looks. The look with the highest score is chosen."""

    is_whole = True  # a file gives all of its tensors or none: a file of 2.4 has other numbers

    def __init__(self):
        super().__init__()
        self.score = Judge(NUMBERS - 1, SCORE_SUM)  # reads the numbers but for the last
        self.existence = Judge(NUMBERS, EXISTENCE_SUM, EXISTENCE_BIAS)
        self.requires_grad_(False)

    def forward(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers (..., NUMBERS) -> scores (...) and logits of existence (...)."""
        return self.score(numbers[..., :-1]), self.existence(numbers)


def highest_rows(scores: Sequence[float], pairs: Sequence[int], count: int) -> list[int]:
    """The rows of the `count` highest scores of each pair; the pairs in their order, and the highest score first."""
    groups = rows_by_key(pairs).values()
    return [row for rows in groups for row in sorted(rows, key=scores.__getitem__, reverse=True)[:count]]
