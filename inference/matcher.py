"""Matchers predict frames. This module has the protocol of matchers and the matcher of the paper's network."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from common.arguments import BATCH_SIZE
from formats.geometry import Size, eval_size, sample_for_score
from inference.frame import Frame, prepare_frame
from model.crops import Crop, put_back
from model.device import autocast, memory_errors, tf32
from model.features import Encoder
from model.xsegtx import Query, XSegTx

MEMORY_REMEDY = "give a smaller --batch_size, or another --device"


class Answer(NamedTuple):
    """The mask of an object in a target image, and the probability that the object is visible."""

    prob: np.ndarray  # (S, S) float32 in the crop; a user's method returns (H, W) in the image
    existence: float
    crop: Crop | None = None  # the square of the image that `prob` shows; None: the whole image, letterboxed

    def in_image(self, size: Size) -> np.ndarray:
        """The mask's probability, (H, W) float32, in the target image of `size` (H, W)."""
        return put_back(self.prob, self.crop or Crop.whole(size), size)


class Matcher(Protocol):
    """The interface through which eval_segswap.py, the predictor and validation use a network or a user's method."""

    device: torch.device
    options: dict[str, Any]  # all that decides the answers besides the checkpoint; a run's record stores the options
    # Turns a frame with whole images and RLE masks into the frame that `predict` takes. Loader processes get
    # pickled copies of this function, so the function must not hold a network.
    prepare: Callable[[Frame], Frame]

    def predict(self, frame: Frame) -> list[Answer]:
        """The answer for each of the frame's pairs, in the order of the pairs. A frame has at least one pair."""

    def for_score(self, answer: Answer, size: Size, video: Size) -> np.ndarray:
        """The mask's probability at the pixels that the benchmark compares, in the size `eval_size(video)`. The target
        image has `size` (H, W), and its video has the size `video`.
        """


class NetworkMatcher:
    """Backbone and network on one device, which compute `batch_size` images, masks or pairs at a time.

    `precision`: fp32 is exact; tf32 rounds the factors of products to TensorFloat-32 (CUDA); bf16 and fp16 compute the
    backbone and the transformer's products in half precision, and normalization, softmax and outputs in float32.
    """

    def __init__(self, encoder: Encoder, network: XSegTx, precision: str, batch_size: int | None):
        self.encoder, self.network, self.device = encoder, network.to(encoder.device).eval(), encoder.device
        self.precision, self.batch_size, self.options = precision, batch_size or BATCH_SIZE, {"precision": precision}

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """The context of all computations. Raises UserError if the device's memory is too small."""
        with torch.inference_mode(), memory_errors(MEMORY_REMEDY), tf32(self.precision == "tf32"):
            yield

    def for_score(self, answer: Answer, size: Size, video: Size) -> np.ndarray:
        return sample_for_score(answer.in_image(size), size, video)

    def _batches(self, function: Callable[..., Any], *inputs: Tensor) -> Any:
        """Apply a function, which returns one Tensor or a NamedTuple of tensors, to `batch_size` rows at a time."""
        parts = [function(*part) for part in zip(*(x.split(self.batch_size) for x in inputs), strict=True)]
        if isinstance(parts[0], Tensor):
            return torch.cat(parts)
        return type(parts[0])(*map(torch.cat, zip(*parts, strict=True)))

    def _slices(self, members: Sequence) -> Iterator[Sequence]:
        for start in range(0, len(members), self.batch_size):
            yield members[start : start + self.batch_size]

    def _stacked(self, arrays: Iterable[np.ndarray]) -> Tensor:
        """Stack arrays of the same shape to a tensor on the device."""
        return torch.from_numpy(np.stack(list(arrays))).to(self.device, non_blocking=True)


class PaperMatcher(NetworkMatcher):
    """The paper's network."""

    def __init__(self, encoder: Encoder, network: XSegTx, precision: str = "fp32", batch_size: int | None = None):
        super().__init__(encoder, network, precision, batch_size)
        self.prepare = partial(prepare_frame, side=network.config.input_size)

    def predict(self, frame: Frame) -> list[Answer]:
        """Encode each image and each mask once, then predict the pairs. The CPU waits for a GPU only at the end."""
        with self.computing():
            images = self._batches(self.encoder.images, self._stacked(frame.images.values()))
            masks = self._batches(self.encoder.masks, self._stacked(frame.masks.values()))
            feat = dict(zip(frame.images, images, strict=True))
            targets = {pair.target_camera: feat[pair.target_camera] for pair in frame.pairs}
            with autocast(self.device, self.precision):
                query_feat = torch.stack([feat[camera] for _, camera in frame.masks])
                queries = self._batches(self.network.encode, query_feat, masks)
                queries = dict(zip(frame.masks, zip(*queries, strict=True), strict=True))
                tokens = self._batches(self.network.encode_target, torch.stack(list(targets.values())))
                targets = dict(zip(targets, tokens, strict=True))
                looks = []
                for pairs in self._slices(frame.pairs):
                    query = Query(*map(torch.stack, zip(*(queries[pair[:2]] for pair in pairs), strict=True)))
                    target = torch.stack([targets[pair.target_camera] for pair in pairs])
                    looks.append(self.network.look(query, target)[:2])
            prob, logit = map(torch.cat, zip(*looks, strict=True))
            return list(map(Answer, prob.cpu().numpy(), logit.sigmoid().tolist()))

    def for_score(self, answer: Answer, size: Size, video: Size) -> np.ndarray:
        """Letterboxing by nearest neighbor keeps the pixels of the video that the benchmark compares."""
        compared = eval_size(video)
        return put_back(answer.prob, Crop.whole(compared), compared)
