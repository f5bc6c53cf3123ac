"""A network ready to predict, and the paper's, as fast as the device allows, with nothing computed twice."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from formats.geometry import letterbox
from inference.frame import Frame
from model.backbone import Backbone
from model.device import PRECISIONS, autocast, memory_errors, tf32
from model.features import Encoder
from model.xsegtx import XSegTx

PAIR_BYTES = {4: 50 << 20, 2: 34 << 20}  # peak memory of a pair at 480 x 480, counted, by bytes per number
CPU_BATCH = 8
MEMORY_REMEDY = "give a smaller --batch_size, or another --device"
MAX_BATCH = 128  # more gains nothing on the largest GPUs


class PairBatch(NamedTuple):
    """P pairs that share I images and M query masks, letterboxed to `Matcher.side` pixels."""

    images: Tensor  # (I, side, side, 3) uint8 RGB
    masks: Tensor  # (M, side, side) uint8 of 0 and 1
    mask_image: Tensor  # (M,) int64: the image in which each mask was drawn
    pair_mask: Tensor  # (P,) int64: the query mask of each pair
    pair_target: Tensor  # (P,) int64: the target image of each pair

    def to(self, device: torch.device) -> "PairBatch":
        return PairBatch(*(tensor.to(device, non_blocking=True) for tensor in self))


class NetworkMatcher:
    """Backbone and network on one device, `batch_size` of whatever they compute at a time.

    `precision`: fp32 is exact; tf32 is that with TensorFloat-32 products (CUDA); bf16 and fp16 compute the backbone and
    the transformer's products in half precision, and normalization, softmax and outputs in float32.
    """

    def __init__(self, backbone: Backbone, network: XSegTx, device: torch.device, precision: str, batch_size: int):
        self.device, self.precision, self.batch_size = device, precision, batch_size
        self.encoder = Encoder(backbone, device, PRECISIONS[precision], batch_size)
        self.network = network.to(device).eval()

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """Around all that the networks compute. UserError if the device's memory does not do."""
        with torch.inference_mode(), memory_errors(MEMORY_REMEDY), tf32(self.precision == "tf32"):
            yield


class Matcher(NetworkMatcher):
    """The paper's network, by default with batches that fit the device's memory. `side`: pixels per side of the images
    that `predict` takes, and of the masks that it gives.
    """

    def __init__(
        self,
        backbone: Backbone,
        network: XSegTx,
        device: torch.device,
        precision: str = "fp32",
        batch_size: int | None = None,
        compile: bool = False,
    ):
        self.side = network.config.input_size
        batch_size = batch_size or default_batch_size(device, precision, self.side)
        super().__init__(backbone, network, device, precision, batch_size)
        if compile:
            network.match = torch.compile(network.match, dynamic=True)
            if device.type == "cuda":  # EfficientNet-Lite0 took over seven minutes on a CPU
                encoder = self.encoder.backbone
                encoder.forward = torch.compile(encoder.forward, dynamic=True)

    def predict(self, batch: PairBatch) -> tuple[Tensor, Tensor]:
        """The target mask's probability (P, side, side) and existence (P,) of each pair, float32, on the device."""
        targets, pair_target = torch.unique(batch.pair_target, return_inverse=True)  # on a GPU the CPU would wait
        with self.computing():
            batch = batch.to(self.device)
            targets, pair_target = (x.to(self.device, non_blocking=True) for x in (targets, pair_target))
            feat, mask_feat = self.encoder.images(batch.images), self.encoder.masks(batch.masks)
            with autocast(self.device, self.precision):
                network = self.network
                query_tokens, mask = (self._batches(network.project, x) for x in (feat[batch.mask_image], mask_feat))
                query = self._batches(network.encode_query, query_tokens, mask)
                target = self._batches(network.encode_target, self._batches(network.project, feat[targets]))
                rows = zip(*(x.split(self.batch_size) for x in (batch.pair_mask, pair_target)), strict=True)
                found = [network.match(query[m], mask[m], target[t]) for m, t in rows]
            prob, existence = map(torch.cat, zip(*found, strict=True))
        return prob, existence

    def _batches(self, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        parts = [function(*part) for part in zip(*(x.split(self.batch_size) for x in inputs), strict=True)]
        return torch.cat(parts)


def default_batch_size(device: torch.device, precision: str, side: int) -> int:
    """Pairs at a time, for half of a GPU's whole memory: by its free memory, a rerun would have other batches."""
    if device.type != "cuda":
        return CPU_BATCH
    pair_bytes = PAIR_BYTES[PRECISIONS[precision].itemsize] * (side / 480) ** 2
    fitting = torch.cuda.get_device_properties(device).total_memory / 2 / pair_bytes
    return int(min(max(fitting, 1), MAX_BATCH))


def letterboxed(frame: Frame, side: int) -> Frame:
    """The same frame, its images and masks letterboxed to `side`."""
    images = {camera: letterbox(image, side) for camera, image in frame.images.items()}
    masks = {key: letterbox(mask, side) for key, mask in frame.masks.items()}
    return replace(frame, images=images, masks=masks)


def batch_of(frames: Sequence[Frame]) -> PairBatch:
    """The pairs of some letterboxed frames of a take; at least one."""
    images = {(frame.number, camera): image for frame in frames for camera, image in frame.images.items()}
    masks = {(frame.number, *key): mask for frame in frames for key, mask in frame.masks.items()}
    image_index = {key: i for i, key in enumerate(images)}
    mask_index = {key: i for i, key in enumerate(masks)}
    pairs = [(frame.number, pair) for frame in frames for pair in frame.pairs]
    return PairBatch(
        images=torch.from_numpy(np.stack(list(images.values()))),
        masks=torch.from_numpy(np.stack(list(masks.values()))),
        mask_image=torch.tensor([image_index[number, camera] for number, _, camera in masks]),
        pair_mask=torch.tensor([mask_index[(number, *pair[:2])] for number, pair in pairs]),
        pair_target=torch.tensor([image_index[number, pair.target_camera] for number, pair in pairs]),
    )
