"""Which place in a target shows the object, and whether the object is visible: the numbers that tell it, and three
small networks that read them, which fit.py fits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.rows import Rows, rows_by_key
from recipes.places import Looks, Places

CLOSE_LOOKS = 2  # of the places of a pair, so many are looked at closely
HIDDEN = 64  # hidden units of a `Judge`
DROPOUT = 0.2  # dropout of these units


@dataclass
class LookNumbers(Rows):
    """What the judges of `Choice` read about N places; what is not known yet is None."""

    similarity: Tensor  # in the similarity map of the whole target
    logit: Tensor  # of existence, by the look in a crop with context
    agreement: Tensor  # the share of the object's cells whose matches are mutual and lie in the look's mask
    cosine: Tensor  # the mean cosine of the matches of the object's cells
    close_logit: Tensor | None = None  # the same three numbers, by the close look
    close_agreement: Tensor | None = None
    close_cosine: Tensor | None = None
    # The logarithm of what looking back gives + .001: the share of the whole query frame's similarity map, by what was
    # found, that lies on the object.
    log_back: Tensor | None = None
    home: Tensor | None = None  # the highest similarity of the object's own place in the query frame to its description
    elsewhere: Tensor | None = None  # the highest similarity away from this place, where look-alikes are

    @classmethod
    def of(cls, places: Places, looks: Looks) -> "LookNumbers":
        similarity = torch.tensor(places.similarity).to(looks.logit.device, non_blocking=True)
        return cls(similarity, looks.logit, looks.agreement, looks.cosine)

    def with_close(self, closer: Looks) -> "LookNumbers":
        return replace(self, close_logit=closer.logit, close_agreement=closer.agreement, close_cosine=closer.cosine)


# What each judge reads, and the weights before the fit, rounded from a fit of the sums alone.
GLANCE = {"similarity": 6.0, "logit": 0.7, "agreement": 4.0, "cosine": 15.0}
SCORE = {"similarity": 6.0, "agreement": 6.0, "cosine": 15.0, "close_agreement": 4.0, "close_cosine": 5.0}
EXISTENCE = {"similarity": 1.6, "logit": 0.35, "close_logit": 0.15, "close_agreement": 2.3, "close_cosine": 1.6}
EXISTENCE |= {"log_back": 0.25, "home": -1.8, "elsewhere": -0.6}


class Judge(nn.Module):
    """Numbers of looks (...) -> one number for each (...): a sum, plus the output of hidden units."""

    def __init__(self, weights: dict[str, float]):
        super().__init__()
        self.names, count = list(weights), len(weights)
        self.linear, self.hidden, self.out = nn.Linear(count, 1), nn.Linear(count, HIDDEN), nn.Linear(HIDDEN, 1)
        for parameter in (self.linear.bias, *self.out.parameters()):
            nn.init.zeros_(parameter)
        self.linear.weight.data[0] = torch.tensor(list(weights.values()))
        # Mean and standard deviation of the numbers of the looks at training takes.
        self.mean, self.deviation = nn.Buffer(torch.zeros(count)), nn.Buffer(torch.ones(count))

    def forward(self, numbers: LookNumbers) -> Tensor:
        x = (self.stacked(numbers) - self.mean) / self.deviation
        hidden = F.dropout(F.relu(self.hidden(x)), DROPOUT, self.training)
        return (self.linear(x) + self.out(hidden))[..., 0]

    def stacked(self, numbers: LookNumbers) -> Tensor:
        return torch.stack([getattr(numbers, name) for name in self.names], -1)

    @torch.no_grad()
    def normalize(self, numbers: LookNumbers) -> None:
        """Take mean and deviation of numbers (P,). Without hidden units, the answers stay the same."""
        x = self.stacked(numbers)
        self.mean.copy_(x.mean(0))
        self.deviation.copy_(x.std(0).clamp(min=1e-3))
        self.linear.bias.add_(self.linear.weight @ self.mean)
        self.linear.weight.mul_(self.deviation)


class Choice(nn.Module):
    """The judges of places. Those with the highest glances are looked at closely; of these, the one with the highest
    score is chosen.
    """

    is_whole = True  # a file gives all of its tensors or none: files before 2.6 have other numbers

    def __init__(self):
        super().__init__()
        self.glance, self.score, self.existence = Judge(GLANCE), Judge(SCORE), Judge(EXISTENCE)
        self.requires_grad_(False)


def highest_rows(scores: Sequence[float], pairs: Sequence[int], count: int, near: int = 0) -> list[int]:
    """The rows of the `count` highest scores of each pair; the pairs in their order, and the highest score first. The
    first `near` rows of a pair come before its others.
    """
    best = []
    for rows in rows_by_key(pairs).values():
        first, others = (sorted(x, key=scores.__getitem__, reverse=True) for x in (rows[:near], rows[near:]))
        best += (first + others)[:count]
    return best
