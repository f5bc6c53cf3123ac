"""A frame: the pairs to predict at a moment, with the images and masks that a recipe needs for these pairs."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from torch.utils.data import Dataset

from common.errors import UserError
from formats.geometry import Size
from formats.masks import RLE
from formats.pairs import PairSet
from formats.processed import Correspondence
from formats.takes import camera_kind

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


@dataclass
class TakeFrame(Frame[Mask]):
    """A frame of a processed take."""

    take_uid: str
    number: int  # 0-based position in the 30 fps video
    folder: Path  # the take's folder; the take's other frames are <folder>/<camera>/<number>.jpg
    sizes: dict[str, Size] = field(default_factory=dict)  # by camera: (H, W) of the frame, before it was letterboxed
    video_sizes: dict[str, Size] = field(default_factory=dict)  # by camera: (H, W) of the video, often larger
    left_out: dict[Correspondence, str] = field(default_factory=dict)  # pairs that cannot be predicted, with reasons


class FramePlan(NamedTuple):
    """The pairs to predict in a frame of a take."""

    take_uid: str
    number: int
    pairs: list[Correspondence]


class FrameDataset(Dataset):
    """The frames of `plans`, in the order of the plans. A recipe's `prepare` prepares each frame that is read.

    `source` gives the frames and masks. It is a `PairSet`, or has the methods of a PairSet that are called here.
    """

    def __init__(self, plans: Sequence[FramePlan], source: Any, prepare: Callable[[Any], Any]):
        self.plans, self.source, self.prepare = plans, source, prepare

    def __len__(self) -> int:
        return len(self.plans)

    def __getitem__(self, index: int) -> Any:
        plan = self.plans[index]
        frame = TakeFrame([], {}, {}, {}, plan.take_uid, plan.number, self.source.folder(plan.take_uid))
        for pair in plan.pairs:
            try:
                self._add_pair(frame, pair)
            except UserError as error:
                frame.left_out[pair] = str(error)
        return self.prepare(frame)

    def _add_pair(self, frame: TakeFrame, pair: Correspondence) -> None:
        """Read the images and the mask of a pair. Raises UserError if one of them cannot be read."""
        for camera in pair[1:]:
            if camera not in frame.images:
                image = frame.images[camera] = self.source.read_frame(frame.take_uid, camera, frame.number)
                frame.sizes[camera] = image.shape[:2]
                frame.video_sizes[camera] = self.source.video_size(frame.take_uid, camera) or image.shape[:2]
                frame.kinds[camera] = camera_kind(camera)
        frame.masks[pair[:2]] = self.source.given_mask(frame.take_uid, pair, frame.number)
        frame.pairs.append(pair)


def frame_plans(pairs: PairSet, numbers: np.ndarray) -> list[FramePlan]:
    """The frames of the pairs with these numbers, which ascend; the frame of the lowest number comes first."""
    frames = defaultdict(list)
    for track in pairs.tracks:
        first, end = np.searchsorted(numbers, (track.numbers.start, track.numbers.stop))
        pair = Correspondence(track.object_name, track.query_camera, track.target_camera)
        for frame in pairs.frames[numbers[first:end]].tolist():
            frames[track.take_uid, frame].append(pair)
    return [FramePlan(*frame, of) for frame, of in frames.items()]
