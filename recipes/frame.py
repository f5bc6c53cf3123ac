"""A frame: the pairs to predict at a moment, with the images and masks that a recipe needs for these pairs."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Generic, TypeVar

import numpy as np

from formats.masks import RLE
from formats.processed import Correspondence

Mask = TypeVar("Mask")
Self = TypeVar("Self", bound="Frame[np.ndarray]")
AnyMask = RLE | np.ndarray  # a mask of any size; an array is uint8 of 0 and 1


@dataclass
class Frame(Generic[Mask]):
    """The pairs of one moment: in each, an object's mask is given in a query view, and sought in a target view.

    A frame that is read is a Frame[AnyMask]. A recipe's `prepare` makes it a Frame[np.ndarray], whose masks are (H, W)
    uint8 of 0 and 1 in the size of their images.
    """

    pairs: list[Correspondence]  # (object_name, query_camera, target_camera)
    images: dict[str, np.ndarray]  # by camera: (H, W, 3) uint8 RGB
    masks: dict[tuple[str, str], Mask]  # by pair[:2]
    kinds: dict[str, str]  # by camera: ego or exo; a camera of unknown kind has no entry

    # As rows, a frame has C pictures, O objects and P pairs, in the order of the names above.

    @cached_property
    def pictures(self) -> list[np.ndarray]:
        return list(self.images.values())

    @cached_property
    def view(self) -> list[int]:
        """For each object, the picture in which it is marked."""
        return numbers((camera for _, camera in self.masks), self.images)

    @cached_property
    def object(self) -> list[int]:
        """For each pair, its object."""
        return numbers((pair[:2] for pair in self.pairs), self.masks)

    @cached_property
    def target(self) -> list[int]:
        """For each pair, the picture in which its object is sought."""
        return numbers((pair.target_camera for pair in self.pairs), self.images)

    def with_objects(self: Self) -> Self:
        """The frame without the pairs whose object has an empty mask."""
        masks = {key: mask for key, mask in self.masks.items() if mask.any()}
        return replace(self, masks=masks, pairs=[pair for pair in self.pairs if pair[:2] in masks])


def numbers(names: Iterable[Hashable], of: Iterable[Hashable]) -> list[int]:
    """The number of each name among the names `of`."""
    number_of = {name: number for number, name in enumerate(of)}
    return [number_of[name] for name in names]


def joined(frames: Sequence[Frame[Mask]]) -> Frame[Mask]:
    """The pictures, objects and pairs of all frames as one frame, whose cameras have new names."""
    if len(frames) == 1:
        return frames[0]
    pairs, images, masks, kinds = [], {}, {}, {}
    for number, frame in enumerate(frames):
        name = {camera: f"{number} {camera}" for camera in frame.images}
        pairs += [Correspondence(pair.object_name, name[pair[1]], name[pair[2]]) for pair in frame.pairs]
        images |= {name[camera]: image for camera, image in frame.images.items()}
        masks |= {(of, name[camera]): mask for (of, camera), mask in frame.masks.items()}
        kinds |= {name[camera]: kind for camera, kind in frame.kinds.items()}
    return Frame(pairs, images, masks, kinds)
