"""The length and the learning rate of a training."""

from dataclasses import dataclass

LR_DROP = 0.05  # at each milestone, the learning rate is multiplied by this factor


@dataclass(frozen=True)
class Schedule:
    """Epoch 0 is the warm-up, in which the learning rate rises linearly from 0. After the warm-up, the rate is
    constant, except for drops at milestones, and for its fall from an epoch on, linearly to 0 in the last step.
    Everything depends on the step alone.
    """

    lr: float
    warmup: int  # steps of warm-up
    steps_per_epoch: int
    epochs: int  # epochs after the warm-up
    milestones: tuple[int, ...] = ()  # epochs after which the rate drops
    falls: int | None = None  # the epoch after which the rate falls; None: it does not

    @property
    def total_steps(self) -> int:
        return self.epoch_end(self.epochs)

    def epoch_end(self, epoch: int) -> int:
        """The number of steps done at the end of an epoch."""
        return self.warmup + epoch * self.steps_per_epoch

    def epoch(self, step: int) -> int:
        """The epoch of the step with this number, counted from 0; for step -1 it is 0."""
        return 0 if step < self.warmup else (step - self.warmup) // self.steps_per_epoch + 1

    def epoch_name(self, epoch: int) -> str:
        return f"epoch {epoch}/{self.epochs}" if epoch else "warm-up"

    def learning_rate(self, step: int) -> float:
        """The rate of the step with this number, counted from 0."""
        if step < self.warmup:
            return self.lr * step / self.warmup
        epochs_done = self.epoch(step) - 1
        rate = self.lr * LR_DROP ** sum(epochs_done >= milestone for milestone in self.milestones)
        if self.falls is None or epochs_done < self.falls:
            return rate
        left, fall = self.total_steps - step, self.total_steps - self.epoch_end(self.falls)
        return rate * left / fall if fall > 0 else rate  # a run may be given fewer epochs than it had
