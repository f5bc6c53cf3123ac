"""Samples for training, which are pairs of views with their masks, and batches of samples; stream.py draws them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from formats.pairs import Pairs


class ViewKey(NamedTuple):
    """The key of cached features: a frame of a camera or, with `object_name`, an object's mask in this frame."""

    take_uid: str
    camera: str
    frame: int
    object_name: str | None = None


class Source(NamedTuple):
    """The origin of a sample. The two views are of the same take and frame, except in synthetic negatives."""

    object_name: str
    query: ViewKey
    target: ViewKey

    def __str__(self) -> str:
        views = [f"{view.take_uid}/{view.camera}/{view.frame}" for view in (self.query, self.target)]
        return f"{self.object_name!r} {' -> '.join(views)}"

    @property
    def query_mask(self) -> ViewKey:
        return self.query._replace(object_name=self.object_name)


class DrawnPairs(NamedTuple):
    """The pairs from which the two views of a sample come: the same pair, except in synthetic negatives."""

    query: int  # the pair whose query view and mask are shown
    target: int  # the pair whose target view is shown; if it is another pair, the object is not in this view
    chance: float = 1.0  # a random number from 0 to 1, for a choice of the recipe


@dataclass
class Batch:
    """B samples."""

    sources: list[Source]
    unreadable: list[str]  # samples that were left out, with the reasons
    visible: Tensor  # (B,) bool, the object is visible in the target view

    @classmethod
    def of(cls, samples: Sequence[dict[str, Any]], **given: Any) -> Any:
        """The batch of samples from `TrainSamples`: all fields except the `given` ones are stacked."""
        given["sources"] = [sample["source"] for sample in samples]
        given["unreadable"] = [text for sample in samples for text in sample["unreadable"]]
        names = [field.name for field in fields(cls) if field.name not in given]
        tensors: Any = {x: torch.from_numpy(np.stack([sample[x] for sample in samples])) for x in names}
        return cls(**given, **tensors)

    def __len__(self) -> int:
        return len(self.sources)

    def to(self, device: torch.device) -> "Batch":
        return self._changed(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        return self._changed(Tensor.pin_memory)

    def _changed(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return replace(self, **{name: with_tensors_changed(value, change) for name, value in vars(self).items()})


def with_tensors_changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Change a tensor, or every tensor in a list of NamedTuples; any other value is returned as it is."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list) and value and hasattr(value[0], "_fields"):
        return [type(row)(*(with_tensors_changed(x, change) for x in row)) for row in value]
    return value


def source_of(pairs: Pairs, drawn: DrawnPairs) -> Source:
    query, target = pairs.named(drawn.query), pairs.named(drawn.target)
    return Source(
        query.object_name,
        ViewKey(query.take_uid, query.query_camera, query.frame),
        ViewKey(target.take_uid, target.target_camera, target.frame),
    )
