"""The learning rate as a function of the step alone."""

import math
from dataclasses import dataclass

DROP = 0.05  # the learning rate is multiplied by it at each milestone


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up from 0, then epochs: constant with drops at milestones, or a cosine to 0."""

    lr: float
    warmup: int  # steps
    steps_per_epoch: int
    epochs: int
    milestones: tuple[int, ...] = ()  # epochs after which the rate drops
    cosine: bool = False

    @property
    def total_steps(self) -> int:
        return self.warmup + self.epochs * self.steps_per_epoch

    def __call__(self, step: int) -> float:
        """Learning rate of the step with this number, counted from 0."""
        if step < self.warmup:
            return self.lr * step / self.warmup
        if self.cosine:
            done = (step - self.warmup) / max(self.total_steps - self.warmup, 1)
            return self.lr * (1 + math.cos(math.pi * done)) / 2
        epoch = (step - self.warmup) // self.steps_per_epoch
        return self.lr * DROP ** sum(epoch >= milestone for milestone in self.milestones)

    def epoch_ends(self) -> list[int]:
        """Number of steps done at the end of each epoch."""
        return [self.warmup + (epoch + 1) * self.steps_per_epoch for epoch in range(self.epochs)]
