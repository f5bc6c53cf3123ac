"""Frames of processed takes: read in loader processes, and predicted, on a GPU several frames at a time."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from torch.utils.data import Dataset

from common.errors import UserError
from formats.geometry import Size
from formats.pairs import PairSet
from formats.processed import Correspondence
from formats.results import THRESHOLD
from formats.takes import camera_kind
from recipes.base import Recipe
from recipes.frame import Frame, Mask, joined

Item = TypeVar("Item")


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

    folder: Path  # of the take
    number: int
    pairs: list[Correspondence]


class FrameDataset(Dataset):
    """The frames of `plans`, in their order, prepared by a recipe's `prepare`. Images and masks come from a `PairSet`,
    or from another `source` with its methods `view` and `given_mask`.
    """

    def __init__(self, plans: Sequence[FramePlan], source: Any, prepare: Callable[[Any], Any]):
        self.plans, self.source, self.prepare = plans, source, prepare

    def __len__(self) -> int:
        return len(self.plans)

    def __getitem__(self, index: int) -> Any:
        plan = self.plans[index]
        frame = TakeFrame([], {}, {}, {}, plan.folder.name, plan.number, plan.folder)
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
                image, video_size = self.source.view(frame.take_uid, camera, frame.number)
                frame.images[camera], frame.sizes[camera] = image, image.shape[:2]
                frame.video_sizes[camera] = video_size or image.shape[:2]
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
    return [FramePlan(pairs.data_dir_of[uid] / uid, frame, of) for (uid, frame), of in frames.items()]


def predict_frames(
    recipe: Recipe, frames: Iterable[TakeFrame]
) -> Iterator[tuple[TakeFrame, list[tuple[Correspondence, np.ndarray, float]]]]:
    """Yield each frame with its predictions: pair, mask (H, W) bool in the size of results files, and existence."""
    frames = iter(frames)
    while group := frames_at_once(frames, recipe.pairs_at_once, lambda frame: len(frame.pairs)):
        both = joined(group)
        answers = iter(recipe.predict(both) if both.pairs else [])
        for frame in group:
            found = []
            for pair in frame.pairs:
                answer, camera = next(answers), pair.target_camera
                mask = recipe.for_score(answer, frame.sizes[camera], frame.video_sizes[camera]) > THRESHOLD
                found.append((pair, mask, answer.existence))
            yield frame, found


def frames_at_once(frames: Iterator[Item], least: int, pairs_of: Callable[[Item], int]) -> list[Item]:
    """The next frames, or what stands for them, until they have `least` pairs; empty if there are no more frames."""
    group, count = [], 0
    for frame in frames:
        group.append(frame)
        count += pairs_of(frame)
        if count >= least:
            break
    return group
