"""From processed takes to what the network eats: chunks of whole frames, each image and each mask in them once.

All pairs of a frame share its images and masks, and no two frames share anything. So a chunk is some whole frames of
one take with about `batch_size` pairs. It is a function of the take, the setting and the batch size alone: results do
not depend on the number of workers or processes, nor on where an interrupted run had stopped.
"""

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
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


class Chunk(NamedTuple):
    """I images, M masks, P pairs, S the input size. `error` says why it could not be read; the rest is empty then."""

    plan: ChunkPlan
    error: str | None = None
    images: Tensor | None = None  # (I, S, S, 3) uint8 RGB
    masks: Tensor | None = None  # (M, S, S) uint8 of 0 and 1
    mask_image: Tensor | None = None  # (M,) the image in which each mask was drawn
    pair_mask: Tensor | None = None  # (P,) the query mask of each pair
    pair_target: Tensor | None = None  # (P,) the target image of each pair
    pairs: Sequence[tuple[CameraPair, int, Size]] = ()  # camera pair, frame, size of the target video


def pairs_by_frame(take: ProcessedTake, setting: str) -> dict[int, list[CameraPair]]:
    """The pairs to predict, by ascending frame: wherever the query camera has a mask."""
    frames = defaultdict(list)
    for pair in take.camera_pairs(setting):
        for frame in take.masks[pair.object_name][pair.query_camera]:
            frames[frame].append(pair)
    return dict(sorted(frames.items()))


def plan_chunks(take: ProcessedTake, setting: str, batch_size: int) -> list[ChunkPlan]:
    """Cut a take into chunks of at most `batch_size` pairs, or of one frame where that has more."""
    plans, frames, count = [], [], 0
    for frame, pairs in pairs_by_frame(take, setting).items():
        if frames and count + len(pairs) > batch_size:
            plans.append(ChunkPlan(take.uid, tuple(frames), count))
            frames, count = [], 0
        frames.append(frame)
        count += len(pairs)
    if frames:
        plans.append(ChunkPlan(take.uid, tuple(frames), count))
    return plans


def read_chunk(take: ProcessedTake, by_frame: dict[int, list[CameraPair]], plan: ChunkPlan, side: int) -> Chunk:
    """Read and letterbox what the frames of `plan` need. UserError names the frame or mask that is unreadable."""
    images: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    mask_image, pair_mask, pair_target, pairs = [], [], [], []
    for frame in plan.frames:
        image_index: dict[str, int] = {}  # camera -> position in `images`
        mask_index: dict[tuple[str, str], int] = {}  # object, camera -> position in `masks`
        sizes: dict[str, Size] = {}

        def image(camera, frame=frame, image_index=image_index, sizes=sizes):
            if camera not in image_index:
                pixels = read_frame(take.frame_path(camera, frame))
                sizes[camera] = take.video_size(camera) or pixels.shape[:2]
                image_index[camera] = len(images)
                images.append(letterbox(pixels, side))
            return image_index[camera]

        for pair in by_frame[frame]:
            source = pair.object_name, pair.query_camera
            if source not in mask_index:
                mask_index[source] = len(masks)
                mask_image.append(image(pair.query_camera))
                masks.append(_query_mask(take, *source, frame, side))
            pair_mask.append(mask_index[source])
            pair_target.append(image(pair.target_camera))
            pairs.append((pair, frame, sizes[pair.target_camera]))
    return Chunk(
        plan,
        None,
        torch.from_numpy(np.stack(images)),
        torch.from_numpy(np.stack(masks)),
        *(torch.tensor(index) for index in (mask_image, pair_mask, pair_target)),
        pairs,
    )


def _query_mask(take: ProcessedTake, object_name: str, camera: str, frame: int, side: int) -> np.ndarray:
    try:
        return letterbox_mask(take.masks[object_name][camera][frame], side)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"mask of object {object_name!r}, camera {camera}, frame {frame}, take {take.uid} is unreadable: {error}"
        ) from None


class ChunkDataset(Dataset):
    """Chunks in the order of `plans`. One that cannot be read comes with an `error`, and the worker lives on."""

    def __init__(self, data_dir: Path, setting: str, side: int, plans: Sequence[ChunkPlan]):
        self.data_dir, self.setting, self.side, self.plans = data_dir, setting, side, plans

    def __len__(self) -> int:
        return len(self.plans)

    def __getitem__(self, index: int) -> Chunk:
        plan = self.plans[index]
        try:
            take, by_frame = _read_take(self.data_dir, plan.take_uid, self.setting)
            return read_chunk(take, by_frame, plan, self.side)
        except (UserError, OSError) as error:
            return Chunk(plan, str(error))


@lru_cache(maxsize=1)  # consecutive chunks are of one take
def _read_take(data_dir: Path, uid: str, setting: str) -> tuple[ProcessedTake, dict[int, list[CameraPair]]]:
    take = ProcessedTake.read(data_dir, uid)
    return take, pairs_by_frame(take, setting)
