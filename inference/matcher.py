"""The network ready to predict, as fast as the device allows, with nothing computed twice."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from formats.errors import UserError, warn_once
from model.backbone import Backbone
from model.device import PRECISIONS, autocast, tf32
from model.features import Encoder
from model.similarity import Similarity
from model.xsegtx import XSegTx

# Peak memory of a pair at 480 x 480, as benchmarks/roofline.py counts it: by bytes per number; and with a similarity
# prior, in any precision, closer looks included.
PAIR_BYTES, PRIOR_PAIR_BYTES = {4: 50 << 20, 2: 32 << 20}, 125 << 20
CPU_BATCH = 8
MAX_BATCH = 128  # more gains nothing on the largest GPUs
PRIOR_BATCH = 8  # pairs that the similarity prior compares at once: it takes 110 MB for each at 480 pixels


class PairBatch(NamedTuple):
    """P pairs that share I images and M query masks, letterboxed to S x S pixels."""

    images: Tensor  # (I, S, S, 3) uint8 RGB
    masks: Tensor  # (M, S, S) uint8 of 0 and 1
    mask_image: Tensor  # (M,) int64: the image in which each mask was drawn
    pair_mask: Tensor  # (P,) int64: the query mask of each pair
    pair_target: Tensor  # (P,) int64: the target image of each pair

    def to(self, device: torch.device) -> "PairBatch":
        return PairBatch(*(tensor.to(device, non_blocking=True) for tensor in self))


class Matcher:
    """Backbone and cross-image transformer on one device, `batch_size` pairs at a time (None: by the device's memory).

    `precision`: fp32 is exact; tf32 is that with TensorFloat-32 products (CUDA); bf16 and fp16 compute the backbone and
    the transformer's products in half precision, and normalization, softmax and outputs in float32.
    `side`: pixels per side of the images that `predict` takes.
    """

    def __init__(
        self,
        backbone: Backbone,
        model: XSegTx,
        device: torch.device,
        precision: str = "fp32",
        batch_size: int | None = None,
        compile: bool = False,
    ):
        self.device, self.precision, self.side = device, precision, model.config.input_size
        fine = model.config.similarity_prior
        self.batch_size = batch_size or default_batch_size(device, self.side, precision, fine)
        self.encoder = Encoder(backbone, device, PRECISIONS[precision], fine, self.batch_size)
        self.model = model.to(device).eval()
        if compile:
            self.model.match = torch.compile(self.model.match, dynamic=True)
            if device.type == "cuda":  # EfficientNet-Lite0 took over seven minutes on a CPU
                self.encoder.backbone = torch.compile(self.encoder.backbone, dynamic=True)

    def predict(self, batch: PairBatch) -> tuple[Tensor, Tensor]:
        """The target mask's probability (P, S, S) and existence (P,) of each pair, float32, on the device.

        Where a GPU's memory does not do, half as many pairs are tried, and said. UserError if it does not do for one.
        """
        while True:
            try:
                return self._predict(batch)
            except torch.cuda.OutOfMemoryError:
                if self.batch_size == 1:
                    raise UserError(
                        f"{self.device} has too little free memory for a single pair; use another"
                    ) from None
            torch.cuda.empty_cache()
            self.batch_size = self.encoder.batch_size = self.batch_size // 2
            warn_once(f"{self.device} is out of memory; going on with --batch_size {self.batch_size}")

    @torch.inference_mode()
    def _predict(self, batch: PairBatch) -> tuple[Tensor, Tensor]:
        targets, pair_target = torch.unique(batch.pair_target, return_inverse=True)  # on a GPU the CPU would wait
        batch = batch.to(self.device)
        targets, pair_target = (x.to(self.device, non_blocking=True) for x in (targets, pair_target))
        with tf32(self.precision == "tf32"):
            feat, fine = self.encoder.images(batch.images)
            mask_feat = self.encoder.masks(batch.masks)
            with autocast(self.device, self.precision):
                model = self.model
                image_tokens, mask_tokens = (self._batches(model.project, x) for x in (feat, mask_feat))
                query = self._batches(model.encode_query, image_tokens[batch.mask_image], mask_tokens, batch.masks)
                target = self._batches(model.encode_target, image_tokens[targets])
                found = []
                for m, t in zip(*(x.split(self.batch_size) for x in (batch.pair_mask, pair_target)), strict=True):
                    similarity = self._similarity(fine, batch.mask_image[m], batch.masks, m, targets[t])
                    found.append(model.match(query[m], mask_tokens[m], target[t], similarity))
        mask_prob, existence = (torch.cat(parts) for parts in zip(*found, strict=True))
        return mask_prob, existence

    def _similarity(
        self, fine: Tensor, query: Tensor, masks: Tensor, mask: Tensor, target: Tensor
    ) -> Similarity | None:
        """The prior's similarity of pairs: rows of `fine`, `masks` and `fine`, `PRIOR_BATCH` pairs at a time."""
        if not self.encoder.fine:
            return None
        parts = zip(*(rows.split(PRIOR_BATCH) for rows in (query, mask, target)), strict=True)
        found = [self.model.prior.similarity(fine[q], masks[m], fine[t]) for q, m, t in parts]
        return Similarity(*map(torch.cat, zip(*found, strict=True)))

    def _batches(self, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        parts = [function(*part) for part in zip(*(x.split(self.batch_size) for x in inputs), strict=True)]
        return torch.cat(parts)


def resize_prob(prob: Tensor, side: int) -> Tensor:
    """(P, S, S) -> (P, side, side), bilinear."""
    if prob.shape[-1] == side:
        return prob
    return F.interpolate(prob[:, None], (side, side), mode="bilinear", align_corners=False)[:, 0]


def default_batch_size(device: torch.device, input_size: int, precision: str, prior: bool) -> int:
    """Pairs at a time, for half of a GPU's whole memory: by its free memory, a rerun would have other batches."""
    if device.type != "cuda":
        return CPU_BATCH
    pair_bytes = PRIOR_PAIR_BYTES if prior else PAIR_BYTES[PRECISIONS[precision].itemsize]
    fitting = torch.cuda.get_device_properties(device).total_memory / 2 / (pair_bytes * (input_size / 480) ** 2)
    return int(min(max(fitting, 1), MAX_BATCH))
