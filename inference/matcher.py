"""Matchers predict frames: their protocol, and that of the paper's network, which computes nothing twice."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from formats.geometry import Size, eval_size, letterbox, sample_for_score
from formats.masks import letterbox_mask
from inference.frame import Frame
from model.crops import Crop, put_back
from model.device import PRECISIONS, autocast, memory_errors, tf32
from model.features import Encoder
from model.xsegtx import XSegTx

PAIR_BYTES = {4: 50 << 20, 2: 34 << 20}  # peak memory of a pair at 480 x 480, counted, by bytes per number
CPU_BATCH = 8
MEMORY_REMEDY = "give a smaller --batch_size, or another --device"
MAX_BATCH = 128  # more gains nothing on the largest GPUs


class Answer(NamedTuple):
    """The mask of an object in a target image, and the probability that it is visible."""

    prob: np.ndarray  # (S, S) float32, of the crop; of a method of one's own as large as the image
    crop: Crop
    existence: float

    def in_image(self, size: Size) -> np.ndarray:
        """The mask's probability (H, W) float32 in the target image, which is of `size`."""
        return put_back(self.prob, self.crop, size)


class Answers(NamedTuple):
    """The answers to the pairs of one or more frames, on their way from the device."""

    probs: Tensor | Sequence[np.ndarray]
    crops: Sequence[Crop]
    existence: Tensor | Sequence[float]
    done: torch.cuda.Event | None = None

    def wait(self) -> list[Answer]:
        if self.done:
            self.done.synchronize()
        values = self.probs.numpy() if isinstance(self.probs, Tensor) else self.probs
        return list(map(Answer, values, self.crops, torch.as_tensor(self.existence, dtype=torch.float64).tolist()))


class Matcher(Protocol):
    """All that eval_segswap.py, the predictor and validation know of the network or method that predicts frames."""

    device: torch.device
    precision: str | None  # a key of PRECISIONS
    batch_size: int  # how many images, masks or pairs it computes at a time
    together: int  # pairs of several frames to be predicted together; 1: a frame at a time
    options: dict[str, Any]  # other options that decide its answers, for the record of a run
    # Frames of a take, `together` pairs or one frame -> what `predict` takes. It is sent to the loader's processes, so
    # it is a function that holds no network.
    prepare: Callable[[Sequence[Frame]], Any]

    def predict(self, prepared: Any) -> Answers:
        """The answer to each pair, in their order."""

    def for_score(self, answer: Answer, size: Size, video: Size) -> np.ndarray:
        """The mask's probability at the pixels that the benchmark compares, `eval_size(video)`, in a target image of
        `size` from a video of `video`.
        """


class NetworkMatcher:
    """Backbone and network on one device, which compute `batch_size` images, masks or pairs at a time.

    `precision`: fp32 is exact; tf32 is that with TensorFloat-32 products (CUDA); bf16 and fp16 compute the backbone and
    the transformer's products in half precision, and normalization, softmax and outputs in float32.
    """

    options: dict[str, Any] = {}

    def __init__(self, encoder: Encoder, network: XSegTx, precision: str, batch_size: int):
        self.encoder, self.network, self.device = encoder, network.to(encoder.device).eval(), encoder.device
        self.precision, self.batch_size = precision, batch_size

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """The context of all computations of the networks. UserError if the device's memory is too small."""
        with torch.inference_mode(), memory_errors(MEMORY_REMEDY), tf32(self.precision == "tf32"):
            yield

    def for_score(self, answer: Answer, size: Size, video: Size) -> np.ndarray:
        return sample_for_score(answer.in_image(size), size, video)

    def _batches(self, function: Callable[..., Any], *inputs: Tensor) -> Any:
        """The Tensor, or NamedTuple of tensors, that a function makes of tensors, `batch_size` rows at a time."""
        parts = [function(*part) for part in zip(*(x.split(self.batch_size) for x in inputs), strict=True)]
        if isinstance(parts[0], Tensor):
            return torch.cat(parts)
        return type(parts[0])(*map(torch.cat, zip(*parts, strict=True)))


class PairBatch(NamedTuple):
    """P pairs that share I images and M query masks, letterboxed to the network's input."""

    images: Tensor  # (I, S, S, 3) uint8 RGB
    masks: Tensor  # (M, S, S) uint8 of 0 and 1
    mask_image: Tensor  # (M,) int64: the image in which each mask was drawn
    pair_mask: Tensor  # (P,) int64: the query mask of each pair
    pair_target: Tensor  # (P,) int64: the target image of each pair
    sizes: Sequence[Size]  # (H, W) of the P target images as they were


def letterboxed_pairs(frames: Sequence[Frame], side: int) -> PairBatch:
    """The pairs of frames, at least one, for a network of `side` pixels."""
    images = {(n, camera): image for n, frame in enumerate(frames) for camera, image in frame.images.items()}
    masks = {(n, *key): rle for n, frame in enumerate(frames) for key, rle in frame.masks.items()}
    image_index = {key: i for i, key in enumerate(images)}
    mask_index = {key: i for i, key in enumerate(masks)}
    pairs = [(n, pair) for n, frame in enumerate(frames) for pair in frame.pairs]
    return PairBatch(
        images=torch.from_numpy(np.stack([letterbox(image, side) for image in images.values()])),
        masks=torch.from_numpy(np.stack([letterbox_mask(rle, side) for rle in masks.values()])),
        mask_image=torch.tensor([image_index[n, camera] for n, _, camera in masks]),
        pair_mask=torch.tensor([mask_index[(n, *pair[:2])] for n, pair in pairs]),
        pair_target=torch.tensor([image_index[n, pair.target_camera] for n, pair in pairs]),
        sizes=[images[n, pair.target_camera].shape[:2] for n, pair in pairs],
    )


class PaperMatcher(NetworkMatcher):
    """The paper's network, by default with batches that fit the device's memory."""

    def __init__(self, encoder: Encoder, network: XSegTx, precision: str = "fp32", batch_size: int | None = None):
        side = network.config.input_size
        batch_size = batch_size or default_batch_size(encoder.device, precision, side)
        super().__init__(encoder, network, precision, batch_size)
        self.together = batch_size
        self.prepare = partial(letterboxed_pairs, side=side)

    def predict(self, batch: PairBatch) -> Answers:
        # On the CPU, which would have to wait for a GPU's answer.
        targets, pair_target = torch.unique(batch.pair_target, return_inverse=True)
        with self.computing():
            inputs = *batch[:4], targets, pair_target
            inputs = (tensor.to(self.device, non_blocking=True) for tensor in inputs)
            images, masks, mask_image, pair_mask, targets, pair_target = inputs
            feat, mask_feat = self._batches(self.encoder.images, images), self._batches(self.encoder.masks, masks)
            with autocast(self.device, self.precision):
                query = self._batches(self.network.encode, feat[mask_image], mask_feat)
                target = self._batches(self.network.encode_target, feat[targets])
                looks = [
                    self.network.look(query.rows(m), target[t])[:2]
                    for m, t in zip(*(x.split(self.batch_size) for x in (pair_mask, pair_target)), strict=True)
                ]
            prob, logit = map(torch.cat, zip(*looks, strict=True))
            existence, done = logit.sigmoid(), None
            if self.device.type == "cuda":  # the CPU does not wait: it writes the former chunk's masks meanwhile
                prob, existence = (x.to("cpu", non_blocking=True) for x in (prob, existence))
                done = torch.cuda.Event()
                done.record(torch.cuda.current_stream(self.device))
        return Answers(prob.cpu(), [Crop.whole(size) for size in batch.sizes], existence.cpu(), done)

    def for_score(self, answer: Answer, size: Size, video: Size) -> np.ndarray:
        """A letterboxed pixel is the very pixel of the video that the benchmark keeps."""
        compared = eval_size(video)
        return put_back(answer.prob, Crop.whole(compared), compared)


def default_batch_size(device: torch.device, precision: str, side: int) -> int:
    """Pairs at a time, so that they fill half of a GPU's memory. Its free memory would give a rerun other batches."""
    if device.type != "cuda":
        return CPU_BATCH
    pair_bytes = PAIR_BYTES[PRECISIONS[precision].itemsize] * (side / 480) ** 2
    fitting = torch.cuda.get_device_properties(device).total_memory / 2 / pair_bytes
    return int(min(max(fitting, 1), MAX_BATCH))
