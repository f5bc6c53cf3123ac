"""From processed takes to what the network eats: chunks of whole frames, each image and each mask in them once.

All pairs of a frame share its images and masks, and no two frames share anything. So a chunk is some whole frames of
one take with about `batch_size` pairs. It is a function of the take, the setting and the batch size alone: results do
not depend on the number of workers or processes, nor on where an interrupted run had stopped.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from formats.errors import UserError
from formats.geometry import Size, letterbox
from formats.masks import letterbox_mask
from formats.processed import CameraPair, ProcessedTake, read_frame


class ChunkPlan(NamedTuple):
    take_uid: str
    frames: tuple[int, ...]
    pair_count: int
    planes: int  # of S x S bytes that the chunk takes: three per image, one per mask


class Chunk(NamedTuple):
    """I images, M masks, P pairs, S the input size."""

    plan: ChunkPlan
    pairs: Sequence[tuple[CameraPair, int, Size]]  # camera pair, frame, size of the target video
    images: Tensor  # (I, S, S, 3) uint8 RGB
    masks: Tensor  # (M, S, S) uint8 of 0 and 1
    mask_image: Tensor  # (M,) the image in which each mask was drawn
    pair_mask: Tensor  # (P,) the query mask of each pair
    pair_target: Tensor  # (P,) the target image of each pair


class UnreadableChunk(NamedTuple):
    plan: ChunkPlan
    reason: str


def pairs_by_frame(take: ProcessedTake, setting: str) -> dict[int, list[CameraPair]]:
    """The pairs to predict, by ascending frame: wherever the query camera has a mask."""
    frames = defaultdict(list)
    for pair in take.camera_pairs(setting):
        for frame in take.masks[pair.object_name][pair.query_camera]:
            frames[frame].append(pair)
    return dict(sorted(frames.items()))


def plan_chunks(take: ProcessedTake, setting: str, batch_size: int) -> list[ChunkPlan]:
    """Cut a take into chunks of at most `batch_size` pairs, or of one frame where that has more."""
    plans, frames, count, planes = [], [], 0, 0
    for frame, pairs in pairs_by_frame(take, setting).items():
        if frames and count + len(pairs) > batch_size:
            plans.append(ChunkPlan(take.uid, tuple(frames), count, planes))
            frames, count, planes = [], 0, 0
        frames.append(frame)
        count += len(pairs)
        images = {camera for pair in pairs for camera in (pair.query_camera, pair.target_camera)}
        planes += 3 * len(images) + len({(pair.object_name, pair.query_camera) for pair in pairs})
    if frames:
        plans.append(ChunkPlan(take.uid, tuple(frames), count, planes))
    return plans


class ChunkDataset(Dataset):
    """The chunks of `plans`, in their order, read and letterboxed to `side` x `side` pixels (`Predictor.side`). One
    that cannot be read comes as an `UnreadableChunk`, and the worker lives on.
    """

    def __init__(self, data_dir: Path, setting: str, side: int, plans: Sequence[ChunkPlan]):
        self.data_dir, self.setting, self.side, self.plans = data_dir, setting, side, plans
        self.take: ProcessedTake | None = None  # of the last chunk: the next one is mostly of the same
        self.pairs: dict[int, list[CameraPair]] = {}

    def __len__(self) -> int:
        return len(self.plans)

    def __getitem__(self, index: int) -> Chunk | UnreadableChunk:
        plan = self.plans[index]
        try:
            if self.take is None or self.take.uid != plan.take_uid:
                self.take = ProcessedTake.read(self.data_dir, plan.take_uid)
                self.pairs = pairs_by_frame(self.take, self.setting)
            return read_chunk(self.take, self.pairs, plan, self.side)
        except (UserError, OSError) as error:
            return UnreadableChunk(plan, str(error))


def read_chunk(take: ProcessedTake, by_frame: dict[int, list[CameraPair]], plan: ChunkPlan, side: int) -> Chunk:
    """Read and letterbox what the frames of `plan` need. UserError names the frame or mask that is unreadable."""
    images: dict[tuple[int, str], np.ndarray] = {}  # by frame and camera
    sizes: dict[tuple[int, str], Size] = {}  # of their videos
    masks: dict[tuple[int, str, str], np.ndarray] = {}  # by frame, query camera and object
    pairs = []
    for frame in plan.frames:
        for pair in by_frame[frame]:
            for camera in (pair.query_camera, pair.target_camera):
                if (frame, camera) not in images:
                    pixels = read_frame(take.frame_path(camera, frame))
                    images[frame, camera] = letterbox(pixels, side)
                    sizes[frame, camera] = take.video_size(camera) or pixels.shape[:2]
            if (frame, pair.query_camera, pair.object_name) not in masks:
                masks[frame, pair.query_camera, pair.object_name] = read_query_mask(take, pair, frame, side)
            pairs.append((pair, frame, sizes[frame, pair.target_camera]))
    image_index = {key: i for i, key in enumerate(images)}
    mask_index = {key: i for i, key in enumerate(masks)}
    return Chunk(
        plan,
        pairs,
        images=torch.from_numpy(np.stack(list(images.values()))),
        masks=torch.from_numpy(np.stack(list(masks.values()))),
        mask_image=torch.tensor([image_index[frame, camera] for frame, camera, _ in masks]),
        pair_mask=torch.tensor([mask_index[frame, pair.query_camera, pair.object_name] for pair, frame, _ in pairs]),
        pair_target=torch.tensor([image_index[frame, pair.target_camera] for pair, frame, _ in pairs]),
    )


def read_query_mask(take: ProcessedTake, pair: CameraPair, frame: int, side: int) -> np.ndarray:
    try:
        return letterbox_mask(take.masks[pair.object_name][pair.query_camera][frame], side)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"mask of object {pair.object_name!r}, camera {pair.query_camera}, frame {frame}, take {take.uid} is "
            f"unreadable: {error}"
        ) from None
