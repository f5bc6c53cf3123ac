"""Processed takes -> predictions: batches of whole frames, in which each image and mask is read and encoded once.

All pairs of a frame share its images and masks, and no two frames share anything. So a chunk is a few whole frames of
one take, with about `batch_size` pairs. It is a function of the take, the setting and the batch size alone: results do
not depend on the number of workers or processes, nor on where an interrupted run had stopped.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset

from common.errors import UserError
from formats.geometry import Size
from formats.masks import encode_mask
from formats.processed import CameraPair, ProcessedTake, read_frame
from formats.results import THRESHOLD, camera_pair_key
from formats.takes import kind_of
from inference.frame import TakeFrame
from inference.matcher import Answers, Matcher


class ChunkPlan(NamedTuple):
    data_dir: Path
    take_uid: str
    digest: str | None  # `ProcessedTake.digest`, checked when the chunk is read; None: not checked
    frames: dict[int, list[CameraPair]]  # the pairs to predict in each

    @property
    def pair_count(self) -> int:
        return sum(map(len, self.frames.values()))


@dataclass(frozen=True)
class TakeChunks:
    """The pairs to predict of a take: all that is needed of its annotation.json, except for the masks."""

    uid: str
    digest: str  # `ProcessedTake.digest`
    subsample_idx: list[int]
    objects: list[str]
    frames: dict[CameraPair, list[int]]  # every frame with a query mask
    chunks: list[ChunkPlan]

    @property
    def pair_count(self) -> int:
        return sum(chunk.pair_count for chunk in self.chunks)

    def empty_result(self) -> dict:
        """The results of the take before any is known: every object, camera pair and query frame has its key."""
        masks: dict = {name: {} for name in self.objects}
        for pair, frames in self.frames.items():
            masks[pair.object_name][camera_pair_key(pair.query_camera, pair.target_camera)] = dict.fromkeys(frames)
        return {"masks": masks, "subsample_idx": self.subsample_idx}


Plans = dict[str, TakeChunks]  # by uid


class Chunk(NamedTuple):
    plan: ChunkPlan
    pairs: Sequence[tuple[CameraPair, int, Size, Size]]  # camera pair, frame, sizes of the target's image and video
    prepared: Any  # what `Matcher.prepare` makes of the pairs, in this order; None: there are none
    left_out: Sequence[tuple[CameraPair, int, str]] = ()  # camera pair, frame, and which image cannot be read
    fault: str = ""  # why the whole take cannot be predicted


class Prediction(NamedTuple):
    pair: CameraPair
    frame: int
    mask: np.ndarray  # (H, W) bool, as results files have it
    existence: float


def plan_chunks(take: ProcessedTake, setting: str, together: int) -> TakeChunks:
    """Cut a take into chunks, as `cut_chunks` does. A pair is predicted wherever its query camera has a mask."""
    query_frames = {pair: list(take.masks[pair.object_name][pair.query_camera]) for pair in take.camera_pairs(setting)}
    frames = defaultdict(list)
    for pair, numbers in query_frames.items():
        for number in numbers:
            frames[number].append(pair)
    whole = ChunkPlan(take.folder.parent, take.uid, take.digest, dict(sorted(frames.items())))
    chunks = cut_chunks(whole, together)
    return TakeChunks(take.uid, take.digest, take.subsample_idx, list(take.masks), query_frames, chunks)


def cut_chunks(whole: ChunkPlan, together: int) -> list[ChunkPlan]:
    """Chunks of at most `together` pairs, or of one frame where that has more; of one frame each with 1."""
    chunks: list[ChunkPlan] = []
    for frame, pairs in whole.frames.items():
        if not chunks or chunks[-1].pair_count + len(pairs) > together:
            chunks.append(whole._replace(frames={}))
        chunks[-1].frames[frame] = pairs
    return chunks


class ChunkDataset(Dataset):
    """The chunks of `plans`, in their order, read and prepared for a matcher by its `prepare`."""

    def __init__(self, plans: Sequence[ChunkPlan], prepare: Callable[[list[TakeFrame]], Any]):
        self.plans, self.prepare = plans, prepare
        self.take: ProcessedTake | None = None  # that of the last chunk, which mostly is that of the next

    def __len__(self) -> int:
        return len(self.plans)

    def __getitem__(self, index: int) -> Chunk:
        plan = self.plans[index]
        if not plan.frames:
            return Chunk(plan, [], None)
        try:
            if self.take is None or self.take.folder != plan.data_dir / plan.take_uid:
                self.take = ProcessedTake.read(plan.data_dir, plan.take_uid)
        except UserError as error:
            return Chunk(plan, [], None, fault=str(error))
        if plan.digest not in (None, self.take.digest):
            return Chunk(plan, [], None, fault="it was processed again in the meantime; run the same command again")
        frames, left_out = [], []
        for number, pairs in plan.frames.items():
            frame, reasons = read_pairs(self.take, number, pairs)
            frames += [frame] if frame.pairs else []
            left_out += [(pair, number, reason) for pair, reason in reasons]
        pairs = [
            (pair, frame.number, frame.images[pair.target_camera].shape[:2], frame.video_sizes[pair.target_camera])
            for frame in frames
            for pair in frame.pairs
        ]
        return Chunk(plan, pairs, self.prepare(frames) if frames else None, left_out)


def read_pairs(
    take: ProcessedTake, number: int, pairs: Sequence[CameraPair]
) -> tuple[TakeFrame, list[tuple[CameraPair, str]]]:
    """Read the images and masks of a frame's pairs. Returns the frame, without the pairs of which an image cannot be
    read, and these pairs with the reason.
    """
    kinds = {camera: kind_of(camera) for pair in pairs for camera in pair[1:]}
    frame, left_out = TakeFrame([], {}, {}, kinds, take.uid, number, take.folder, video_sizes={}), []
    for pair in pairs:
        try:
            for camera in pair[1:]:
                if camera not in frame.images:
                    image = frame.images[camera] = read_frame(take.frame_path(camera, number))
                    frame.video_sizes[camera] = take.video_size(camera) or image.shape[:2]
        except UserError as error:
            left_out.append((pair, str(error)))
            continue
        frame.pairs.append(pair)
        frame.masks[pair[:2]] = take.masks[pair.object_name][pair.query_camera][number]
    return frame, left_out


def predict_takes(
    matcher: Matcher,
    chunks: Iterable[Chunk],
    plans: Plans,
    write: Callable[[str, dict], None],
    progress: Callable[[int], None] = lambda pairs: None,
) -> dict[str, str]:
    """Predict every chunk; hand each finished take to `write(take_uid, result)`, as the results file has it. Pairs of
    which an image cannot be read are not in it; `result["left_out"]` then has their number by image.

    The chunks of a take must follow each other; `plans` has the plan of each take. `progress` is called with the number
    of pairs done. Returns the reason for each take that could not be read.
    """
    failed: dict[str, str] = {}
    by_take = itertools.groupby(predict_chunks(matcher, chunks), key=lambda item: item[0].plan.take_uid)
    for uid, predicted in by_take:
        result, left_out = plans[uid].empty_result(), Counter[str]()
        for chunk, predictions in predicted:
            if chunk.fault:
                failed.setdefault(uid, chunk.fault)
            for pair, frame, mask, existence in predictions:
                entry = {"pred_mask": encode_mask(mask), "confidence": existence}
                result["masks"][pair.object_name][camera_pair_key(*pair[1:])][frame] = entry
            for pair, frame, reason in chunk.left_out:
                del result["masks"][pair.object_name][camera_pair_key(*pair[1:])][frame]
                left_out[reason] += 1
            progress(chunk.plan.pair_count)
        if uid not in failed:
            write(uid, result | {"left_out": left_out} if left_out else result)
    return failed


def predict_chunks(matcher: Matcher, chunks: Iterable[Chunk]) -> Iterator[tuple[Chunk, list[Prediction]]]:
    """Each chunk with the predictions of its pairs.

    One chunk behind: a GPU already works on the next one while the caller encodes this one.
    """
    former, former_answers = None, None
    for chunk in itertools.chain(chunks, [None]):
        answers = matcher.predict(chunk.prepared) if chunk and chunk.pairs else Answers([], [], [])
        if former:
            predictions = []
            for (pair, frame, size, video), answer in zip(former.pairs, former_answers.wait(), strict=True):
                prob = matcher.for_score(answer, tuple(size), tuple(video))  # loaders turn tuples into lists
                predictions.append(Prediction(pair, frame, prob > THRESHOLD, answer.existence))
            yield former, predictions
        former, former_answers = chunk, answers
