"""Predict processed takes frame by frame. Each image and mask of a frame is read and encoded once for all pairs."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.errors import UserError
from formats.geometry import Size
from formats.masks import RLE, encode_mask
from formats.processed import Correspondence, ProcessedTake, read_frame
from formats.results import camera_pair_key
from recipes.base import Recipe, predict_frames
from recipes.frame import FramePlan, TakeFrame


@dataclass(frozen=True)
class TakePlan:
    """The pairs to predict in a take. A plan holds no masks, so that the plans of all takes fit into memory."""

    data_dir: Path
    uid: str
    digest: str  # `ProcessedTake.digest`
    files_digest: str
    subsample_idx: list[int]
    objects: list[str]
    query_frames: dict[Correspondence, list[int]]  # every frame with a query mask

    @classmethod
    def of(cls, take: ProcessedTake, setting: str) -> "TakePlan":
        frames = {pair: list(take.masks[pair.object_name][pair.query_camera]) for pair in take.correspondences(setting)}
        digests = take.digest, take.files_digest
        return cls(take.folder.parent, take.uid, *digests, take.subsample_idx, list(take.masks), frames)

    @property
    def pair_count(self) -> int:
        return sum(map(len, self.query_frames.values()))

    def frames(self) -> list[FramePlan]:
        """The take's frames in ascending order."""
        pairs = defaultdict(list)
        for pair, numbers in self.query_frames.items():
            for number in numbers:
                pairs[number].append(pair)
        return [FramePlan(self.uid, frame, pairs[frame]) for frame in sorted(pairs)]

    def empty_result(self) -> dict:
        """The take's results without predictions: every object, camera pair and query frame has a key."""
        masks: dict = {name: {} for name in self.objects}
        for pair, numbers in self.query_frames.items():
            masks[pair.object_name][camera_pair_key(*pair[1:])] = dict.fromkeys(numbers)
        return {"masks": masks, "subsample_idx": self.subsample_idx}


class TakeFiles:
    """Gives frames and masks from the folders of takes, as a `PairSet` does. Each method raises UserError if the take's
    annotation.json or source.json has changed since its plan was made.
    """

    def __init__(self, plans: dict[str, TakePlan]):
        self.plans = plans
        self._last: ProcessedTake | None = None  # the last frame's take, mostly also the next frame's take

    def _take(self, uid: str) -> ProcessedTake:
        if self._last is None or self._last.uid != uid:
            self._last = ProcessedTake.read(self.plans[uid].data_dir, uid)
        if self._last.files_digest != self.plans[uid].files_digest:
            raise UserError("the take was processed again in the meantime; run the same command again")
        return self._last

    def folder(self, take_uid: str) -> Path:
        return self.plans[take_uid].data_dir / take_uid

    def read_frame(self, take_uid: str, camera: str, frame: int) -> np.ndarray:
        return read_frame(self._take(take_uid).frame_path(camera, frame))

    def video_size(self, take_uid: str, camera: str) -> Size | None:
        return self._take(take_uid).video_size(camera)

    def given_mask(self, take_uid: str, pair: Correspondence, frame: int) -> RLE:
        return self._take(take_uid).masks[pair.object_name][pair.query_camera][frame]


def predict_takes(
    recipe: Recipe,
    frames: Iterable[TakeFrame],
    plans: dict[str, TakePlan],
    write: Callable[[str, dict], None],
    progress: Callable[[int], object] = lambda pairs: None,
) -> None:
    """Predict every frame, and call `write(take_uid, result)` with the results of each finished take, in the form of
    results files. Pairs that cannot be predicted are left out; `result["left_out"]` then has their number by reason.

    The frames of a take must follow each other; `plans` has the plan of each take by its uid. After each frame,
    `progress` is called with the number of the frame's pairs.
    """
    for uid, predicted in itertools.groupby(predict_frames(recipe, frames), key=lambda item: item[0].take_uid):
        result, left_out = plans[uid].empty_result(), Counter[str]()
        for frame, answers in predicted:
            for pair, mask, existence in answers:
                entry = {"pred_mask": encode_mask(mask), "confidence": existence}
                result["masks"][pair.object_name][camera_pair_key(*pair[1:])][frame.number] = entry
            for pair, reason in frame.left_out.items():
                del result["masks"][pair.object_name][camera_pair_key(*pair[1:])][frame.number]
                left_out[reason] += 1
            progress(len(frame.pairs) + len(frame.left_out))
        write(uid, result | {"left_out": left_out} if left_out else result)
