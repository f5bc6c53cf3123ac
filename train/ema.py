"""An exponential moving average of the weights, which often does better than the weights themselves."""

import copy

import torch
from torch import nn


class WeightAverage:
    """`model` holds the average of another model's weights. Starts fast and settles at `decay`."""

    def __init__(self, model: nn.Module, decay: float):
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after step `step`, counted from 0."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        averages, values = list(self.model.parameters()), list(model.parameters())
        for average, value in zip(averages, values, strict=True):
            average.lerp_(value, weight)
