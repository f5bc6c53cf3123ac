"""Processed takes -> predictions: batches of whole frames, in which each image and mask is read and encoded once.

All pairs of a frame share its images and masks, and no two frames share anything. So a chunk is some whole frames of
one take with about `batch_size` pairs. It is a function of the take, the setting and the batch size alone: results do
not depend on the number of workers or processes, nor on where an interrupted run had stopped.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from common.errors import UserError
from formats.geometry import EVAL_SIDE, Size, eval_size, letterbox, sample_for_score, unletterbox
from formats.masks import encode_mask, fit_rle, letterbox_mask
from formats.processed import CameraPair, ProcessedTake, read_frame
from formats.results import THRESHOLD, camera_pair_key
from inference.crop_matcher import CropMatcher
from inference.frame import Frame, prob_in_image
from inference.matcher import Matcher, PairBatch, batch_of
from inference.memory import Memory
from inference.own_method import MethodMatcher

AnyMatcher = Matcher | CropMatcher | MethodMatcher  # the latter two take a frame at a time


class ChunkPlan(NamedTuple):
    take_uid: str
    digest: str  # `ProcessedTake.digest`
    frames: tuple[int, ...]
    pair_count: int


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
    batch: PairBatch | Frame | None  # the pairs, in this order; None: there are none
    left_out: Sequence[tuple[CameraPair, int, str]] = ()  # camera pair, frame, and which image cannot be read
    fault: str = ""  # why the whole take cannot be predicted


def pairs_by_frame(take: ProcessedTake, setting: str) -> dict[int, list[CameraPair]]:
    """The pairs to predict, by ascending frame: wherever the query camera has a mask."""
    frames = defaultdict(list)
    for pair in take.camera_pairs(setting):
        for frame in take.masks[pair.object_name][pair.query_camera]:
            frames[frame].append(pair)
    return dict(sorted(frames.items()))


def plan_chunks(take: ProcessedTake, setting: str, batch_size: int) -> TakeChunks:
    """Cut a take into chunks of at most `batch_size` pairs, or of one frame where that has more; of one frame each with
    a `batch_size` of 1.
    """
    chunks, frames, count = [], [], 0
    for frame, pairs in pairs_by_frame(take, setting).items():
        if frames and count + len(pairs) > batch_size:
            chunks.append(ChunkPlan(take.uid, take.digest, tuple(frames), count))
            frames, count = [], 0
        frames.append(frame)
        count += len(pairs)
    if frames:
        chunks.append(ChunkPlan(take.uid, take.digest, tuple(frames), count))
    query_frames = {pair: list(take.masks[pair.object_name][pair.query_camera]) for pair in take.camera_pairs(setting)}
    return TakeChunks(take.uid, take.digest, take.subsample_idx, list(take.masks), query_frames, chunks)


class ChunkDataset(Dataset):
    """The chunks of `plans`, in their order, read and letterboxed to `side` x `side` pixels (`Matcher.side`; None: as
    they are). `single`: the batch of each, of one frame, is a `Frame`.
    """

    def __init__(
        self, data_dir: Path, setting: str, side: int | None, plans: Sequence[ChunkPlan], single: bool = False
    ):
        self.data_dir, self.setting, self.side, self.plans, self.single = data_dir, setting, side, plans, single
        self.take: ProcessedTake | None = None  # of the last chunk: the next one is mostly of the same
        self.pairs: dict[int, list[CameraPair]] = {}

    def __len__(self) -> int:
        return len(self.plans)

    def __getitem__(self, index: int) -> Chunk:
        plan = self.plans[index]
        try:
            if self.take is None or self.take.uid != plan.take_uid:
                self.take = ProcessedTake.read(self.data_dir, plan.take_uid)
                self.pairs = pairs_by_frame(self.take, self.setting)
        except UserError as error:
            return Chunk(plan, [], None, fault=str(error))
        if self.take.digest != plan.digest:
            return Chunk(plan, [], None, fault="it was processed again in the meantime; run the same command again")
        left_out: list[tuple[CameraPair, int, str]] = []
        read = [read_pairs(self.take, number, self.pairs[number], self.side, left_out) for number in plan.frames]
        frames = [frame for frame, _ in read]
        batch = (frames[0] if self.single else batch_of(frames)) if any(frame.pairs for frame in frames) else None
        pairs = [
            (pair, frame.number, sizes[pair.target_camera], frame.video_sizes[pair.target_camera])
            for frame, sizes in read
            for pair in frame.pairs
        ]
        return Chunk(plan, pairs, batch, left_out)


def read_pairs(
    take: ProcessedTake,
    number: int,
    pairs: Sequence[CameraPair],
    side: int | None,
    left_out: list[tuple[CameraPair, int, str]],
) -> tuple[Frame, dict[str, Size]]:
    """Read the images and masks of a frame's pairs, letterboxed to `side` or of the frame's own size, and the (H, W) of
    each camera's frame. Pairs of which an image cannot be read go to `left_out`.
    """
    kinds = {camera: take.kind_of(camera) for pair in pairs for camera in pair[1:]}
    frame, sizes = Frame(take.uid, number, take.folder, [], images={}, masks={}, video_sizes={}, kinds=kinds), {}
    for pair in pairs:
        try:
            for camera in pair[1:]:
                if camera not in frame.images:
                    image = read_frame(take.frame_path(camera, number))
                    frame.images[camera] = letterbox(image, side) if side else image
                    sizes[camera] = image.shape[:2]
                    frame.video_sizes[camera] = take.video_size(camera) or image.shape[:2]
        except UserError as error:
            left_out.append((pair, number, str(error)))
            continue
        frame.pairs.append(pair)
        if pair[:2] not in frame.masks:
            rle = take.masks[pair.object_name][pair.query_camera][number]
            image = frame.images[pair.query_camera]
            frame.masks[pair[:2]] = letterbox_mask(rle, side) if side else fit_rle(rle, image.shape[:2])
    return frame, sizes


def predict_takes(
    matcher: AnyMatcher,
    chunks: Iterable[Chunk],
    plans: Plans,
    write: Callable[[str, dict], None],
    progress: Callable[[int], None] = lambda pairs: None,
    memory: str = "none",
) -> dict[str, str]:
    """Predict every chunk; hand each finished take to `write(take_uid, result)`, as the results file has it. Pairs of
    which an image cannot be read are not in it; `result["left_out"]` then has their number by image.

    The chunks of a take must follow each other; `plans` has the plan of each take. `progress` is told the number of
    pairs done. Returns the reason for each take that could not be read.
    """
    failed: dict[str, str] = {}
    predictions = predict_chunks(matcher, chunks, memory == "past")
    for uid, of_take in itertools.groupby(predictions, key=lambda item: item[0].plan.take_uid):
        result, left_out = plans[uid].empty_result(), Counter[str]()
        for chunk, masks, existence in of_take:
            if chunk.fault:
                failed.setdefault(uid, chunk.fault)
            fill(result, chunk, masks, existence)
            for pair, frame, reason in chunk.left_out:
                del result["masks"][pair.object_name][camera_pair_key(*pair[1:])][frame]
                left_out[reason] += 1
            progress(chunk.plan.pair_count)
        if uid not in failed:
            write(uid, result | {"left_out": left_out} if left_out else result)
    return failed


def predict_chunks(
    matcher: AnyMatcher, chunks: Iterable[Chunk], remember: bool
) -> Iterator[tuple[Chunk, list[np.ndarray], Tensor]]:
    """(chunk, masks as results files have them, (H, W) bool each, existence (P,)), on the CPU. `remember`: each take
    has a memory.

    One chunk behind: a GPU already works on the next one while the caller encodes this one.
    """
    waiting, take, memory = None, None, None
    for chunk in itertools.chain(chunks, [None]):
        if chunk and chunk.plan.take_uid != take:
            take, memory = chunk.plan.take_uid, Memory() if remember else None
        started = start_prediction(matcher, chunk, memory) if chunk else None
        if waiting:
            former, (masks, existence, done) = waiting
            if done:
                done.synchronize()
            if isinstance(masks, Tensor):
                videos = (video for *_, video in former.pairs)
                masks = [unletterbox(mask, eval_size(video)) for mask, video in zip(masks.numpy(), videos, strict=True)]
            yield former, masks, existence
        waiting = chunk, started


def start_prediction(
    matcher: AnyMatcher, chunk: Chunk, memory: Memory | None = None
) -> tuple[Tensor | list[np.ndarray], Tensor, torch.cuda.Event | None]:
    """Masks and existence (P,), to be read once the event has happened (None: at once). Masks are as results files have
    them or, of the paper's network, (P, 480, 480) bool, letterboxed.
    """
    if not chunk.batch:
        return [], torch.zeros(0), None
    probs, existence = matcher.predict(chunk.batch, *([memory] if memory else []))
    if not isinstance(probs, Tensor):
        sizes = (map(tuple, pair[2:]) for pair in chunk.pairs)  # the loader has made lists of them
        masks = [
            sample_for_score(prob, *of_target, matcher.side) > THRESHOLD
            for prob, of_target in zip(probs, sizes, strict=True)
        ]
        return masks, existence, None
    masks = prob_in_image(probs, (EVAL_SIDE, EVAL_SIDE)) > THRESHOLD
    if masks.device.type != "cuda":
        return masks.cpu(), existence.cpu(), None
    masks, existence = (tensor.to("cpu", non_blocking=True) for tensor in (masks, existence))
    done = torch.cuda.Event()
    done.record(torch.cuda.current_stream(matcher.device))
    return masks, existence, done


def fill(result: dict, chunk: Chunk, masks: Iterable[np.ndarray], existence: Tensor) -> None:
    """Write the predictions of a chunk into the results of its take."""
    for (pair, frame, *_), mask, confidence in zip(chunk.pairs, masks, existence.tolist(), strict=True):
        key = camera_pair_key(pair.query_camera, pair.target_camera)
        result["masks"][pair.object_name][key][frame] = {"pred_mask": encode_mask(mask), "confidence": confidence}
