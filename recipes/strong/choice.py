"""Which place in a target shows the object, and whether the object is visible: three small networks tell it from the
numbers of looks. fit.py fits them.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recipes.places import LookNumbers

HIDDEN = 64  # hidden units of a `Judge`
DROPOUT = 0.2  # dropout of these units


# What each judge reads, and the weights before the fit, rounded from a fit of the sums alone.
GLANCE = {"similarity": 6.0, "logit": 0.7, "agreement": 4.0, "cosine": 15.0}
SCORE = {"similarity": 6.0, "agreement": 6.0, "cosine": 15.0, "close_agreement": 4.0, "close_cosine": 5.0}
EXISTENCE = {"similarity": 1.6, "logit": 0.35, "close_logit": 0.15, "close_agreement": 2.3, "close_cosine": 1.6}
EXISTENCE |= {"back": 0.25, "home": -1.8, "elsewhere": -0.6, "color": 2.0, "contrast": 0.3}


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

    def _load_from_state_dict(self, state: Any, prefix: str, *args: Any) -> None:  # pyrefly: ignore
        """Files of version 2.6 lack the last numbers, which then count nothing."""
        for name in ("linear.weight", "hidden.weight", "mean", "deviation"):
            if (key := prefix + name) in state and (missing := len(self.names) - state[key].shape[-1]) > 0:
                state[key] = F.pad(state[key], (0, missing), value=float(name == "deviation"))
        super()._load_from_state_dict(state, prefix, *args)

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
