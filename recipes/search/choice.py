"""Three judges read the numbers of looks. They say which place in a target shows the object, and whether it is visible.
fit.py fits them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recipes.search.places import Numbers

HIDDEN_UNITS = 64  # hidden units of a `Judge`
DROPOUT = 0.2  # dropout of these units


def read_by_glance(x: Numbers) -> tuple[Tensor, ...]:
    return x.similarity, x.logit, x.agreement, x.cosine


def read_by_score(x: Numbers) -> tuple[Tensor, ...]:
    return x.similarity, x.agreement, x.cosine, x.close_agreement, x.close_cosine


def read_by_existence(x: Numbers) -> tuple[Tensor, ...]:
    looks = x.similarity, x.logit, x.close_logit, x.close_agreement, x.close_cosine
    return *looks, x.back, x.home, x.elsewhere, x.color, x.contrast


# Before the fit, the weights of what each judge reads, rounded from a fit of the sums alone.
GLANCE = 6.0, 0.7, 4.0, 15.0
SCORE = 6.0, 6.0, 15.0, 4.0, 5.0
EXISTENCE = 1.6, 0.35, 0.15, 2.3, 1.6, 0.25, -1.8, -0.6, 2.0, 0.3


class Judge(nn.Module):
    """Numbers of looks (...) -> one number for each (...): a sum, plus the output of hidden units."""

    def __init__(self, read: Callable[[Any], tuple[Tensor, ...]], weights: Sequence[float]):
        super().__init__()
        self.read, count = read, len(weights)
        self.linear, self.hidden = nn.Linear(count, 1), nn.Linear(count, HIDDEN_UNITS)
        self.out = nn.Linear(HIDDEN_UNITS, 1)
        for parameter in (self.linear.bias, *self.out.parameters()):
            nn.init.zeros_(parameter)
        self.linear.weight.data[0] = torch.tensor(weights)
        # Mean and standard deviation of the numbers of the looks at training takes.
        self.mean, self.deviation = nn.Buffer(torch.zeros(count)), nn.Buffer(torch.ones(count))

    def forward(self, numbers: Numbers) -> Tensor:
        x = (torch.stack(self.read(numbers), -1) - self.mean) / self.deviation
        hidden = F.dropout(F.relu(self.hidden(x)), DROPOUT, self.training)
        return (self.linear(x) + self.out(hidden))[..., 0]

    @torch.no_grad()
    def normalize(self, numbers: Numbers) -> None:
        """Take mean and deviation of numbers (P,). Without hidden units, the answers stay the same."""
        x = torch.stack(self.read(numbers), -1)
        self.mean.copy_(x.mean(0))
        self.deviation.copy_(x.std(0).clamp(min=1e-3))
        self.linear.bias.add_(self.linear.weight @ self.mean)
        self.linear.weight.mul_(self.deviation)


class Choice(nn.Module):
    """The judges of places. Those with the highest glances are looked at closely; of these, the one with the highest
    score is chosen; existence gives the logit that the object is visible.
    """

    def __init__(self):
        super().__init__()
        self.glance, self.score = Judge(read_by_glance, GLANCE), Judge(read_by_score, SCORE)
        self.existence = Judge(read_by_existence, EXISTENCE)
        self.requires_grad_(False)
