"""Predict processed takes frame by frame. Each image and mask of a frame is read and encoded once for all pairs."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch.utils.data import Dataset

from common.errors import UserError
from formats.masks import encode_mask
from formats.processed import Correspondence, ProcessedTake, read_frame
from formats.results import THRESHOLD, camera_pair_key
from formats.takes import camera_kind
from inference.frame import TakeFrame
from inference.matcher import Matcher


class FramePlan(NamedTuple):
    """The pairs to predict in a frame of a take."""

    data_dir: Path
    take_uid: str
    files_digest: str | None  # of `ProcessedTake`, which is checked when the frame is read; None: it is not checked
    number: int
    pairs: list[Correspondence]


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
        return [FramePlan(self.data_dir, self.uid, self.files_digest, frame, pairs[frame]) for frame in sorted(pairs)]

    def empty_result(self) -> dict:
        """The take's results without predictions: every object, camera pair and query frame has a key."""
        masks: dict = {name: {} for name in self.objects}
        for pair, numbers in self.query_frames.items():
            masks[pair.object_name][camera_pair_key(*pair[1:])] = dict.fromkeys(numbers)
        return {"masks": masks, "subsample_idx": self.subsample_idx}


class FrameDataset(Dataset):
    """The frames of `plans`, in the order of the plans. A matcher's `prepare` prepares each frame that is read."""

    def __init__(self, plans: Sequence[FramePlan], prepare: Callable[[TakeFrame], TakeFrame]):
        self.plans, self.prepare = plans, prepare
        self.take: ProcessedTake | None = None  # the last frame's take, mostly also the next frame's take

    def __len__(self) -> int:
        return len(self.plans)

    def __getitem__(self, index: int) -> TakeFrame:
        plan = self.plans[index]
        frame = TakeFrame([], {}, {}, {}, plan.take_uid, plan.number, plan.data_dir / plan.take_uid)
        for pair in plan.pairs:
            try:
                self._add(frame, pair, plan)
            except UserError as error:
                frame.left_out[pair] = str(error)
        return self.prepare(frame)

    def _add(self, frame: TakeFrame, pair: Correspondence, plan: FramePlan) -> None:
        """Read the images and the mask of a pair. Raises UserError if the take or an image cannot be read."""
        if self.take is None or self.take.folder != frame.folder:
            self.take = ProcessedTake.read(plan.data_dir, plan.take_uid)
        if plan.files_digest not in (None, self.take.files_digest):
            raise UserError("the take was processed again in the meantime; run the same command again")
        for camera in pair[1:]:
            if camera not in frame.images:
                image = frame.images[camera] = read_frame(self.take.frame_path(camera, plan.number))
                frame.sizes[camera] = image.shape[:2]
                frame.video_sizes[camera] = self.take.video_size(camera) or image.shape[:2]
                frame.kinds[camera] = camera_kind(camera)
        frame.masks[pair[:2]] = self.take.masks[pair.object_name][pair.query_camera][plan.number]
        frame.pairs.append(pair)


def predict_takes(
    matcher: Matcher,
    frames: Iterable[TakeFrame],
    plans: dict[str, TakePlan],
    write: Callable[[str, dict], None],
    progress: Callable[[int], None] = lambda pairs: None,
) -> None:
    """Predict every frame, and call `write(take_uid, result)` with the results of each finished take, in the form of
    results files. Pairs that cannot be predicted are left out; `result["left_out"]` then has their number by reason.

    The frames of a take must follow each other; `plans` has the plan of each take by its uid. After each frame,
    `progress` is called with the number of the frame's pairs.
    """
    for uid, predicted in itertools.groupby(predict_frames(matcher, frames), key=lambda item: item[0].take_uid):
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


def predict_frames(
    matcher: Matcher, frames: Iterable[TakeFrame]
) -> Iterator[tuple[TakeFrame, list[tuple[Correspondence, np.ndarray, float]]]]:
    """Yield each frame with its predictions: pair, mask (H, W) bool in the size of results files, and existence."""
    for frame in frames:
        answers = []
        for pair, answer in zip(frame.pairs, matcher.predict(frame) if frame.pairs else [], strict=True):
            size, video = frame.sizes[pair.target_camera], frame.video_sizes[pair.target_camera]
            answers.append((pair, matcher.for_score(answer, size, video) > THRESHOLD, answer.existence))
        yield frame, answers
