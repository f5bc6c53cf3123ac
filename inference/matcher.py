"""The network ready to predict, as fast as the device allows, with nothing computed twice."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from common.errors import UserError, warn_once
from formats.geometry import Size, unletterbox
from formats.results import THRESHOLD
from inference.closer_look import CloserLook, resize_prob
from model.backbone import STRIDE, Backbone
from model.device import PRECISIONS, autocast, tf32
from model.features import Encoder, crop, seen
from model.similarity import Similarity, cell_coverage
from model.xsegtx import XSegTx, XSegTxConfig

# Peak memory of a pair at 480 x 480, counted operation by operation: by bytes per number; and with a similarity
# prior, in any precision, closer looks included.
PAIR_BYTES, PRIOR_PAIR_BYTES = {4: 50 << 20, 2: 34 << 20}, 83 << 20
CPU_BATCH = 8
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


class Encoded(NamedTuple):
    """All that the pairs of a batch share, computed once: what depends on one view only, and the similarity."""

    query: Tensor  # (M, L, C) tokens
    mask: Tensor  # (M, L, C) tokens
    target: Tensor  # (T, L, C) tokens of the images that are targets
    target_fine: Tensor  # (T, F, k h, k w)
    pair_mask: Tensor  # (P,) int64, rows of `query` and `mask`
    pair_target: Tensor  # (P,) int64, rows of `target`
    similarity: Similarity | None  # of the pairs


class Matcher:
    """Backbone and cross-image transformer on one device, `batch_size` pairs at a time (None: by the device's memory).

    `precision`: fp32 is exact; tf32 is that with TensorFloat-32 products (CUDA); bf16 and fp16 compute the backbone and
    the transformer's products in half precision, and normalization, softmax and outputs in float32.
    `side`: pixels per side of the images that `predict` takes; `input_size` of the masks that it gives.
    """

    def __init__(
        self,
        backbone: Backbone,
        model: XSegTx,
        device: torch.device,
        precision: str = "fp32",
        batch_size: int | None = None,
        compile: bool = False,
        closer_look: bool = False,
    ):
        self.device, self.precision, self.input_size = device, precision, model.config.input_size
        self.batch_size = batch_size or default_batch_size(device, precision, model.config)
        self.zoom = model.config.zoom
        self.encoder = Encoder(backbone, device, PRECISIONS[precision], self.zoom, self.batch_size)
        self.side = self.zoom * self.input_size
        self.closer_look = CloserLook(self.input_size, self.zoom) if closer_look else None
        self.model = model.to(device).eval()
        if compile:
            self.model.match = torch.compile(self.model.match, dynamic=True)
            if device.type == "cuda":  # EfficientNet-Lite0 took over seven minutes on a CPU
                self.encoder.backbone = torch.compile(self.encoder.backbone, dynamic=True)

    def predict(self, batch: PairBatch) -> tuple[Tensor, Tensor]:
        """The target mask's probability (P, S, S) and existence (P,) of each pair, float32, on the device; S is
        `input_size`, or `side` with closer looks.

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
            encoded = self._encode(batch, targets, pair_target)
            prob, existence = self._look(encoded)
            if self.closer_look:
                corner = self.closer_look.place(prob, encoded.similarity)
                prob = self.closer_look.combine(prob, corner, self._look(encoded, corner)[0])
        return prob, existence

    def _encode(self, batch: PairBatch, targets: Tensor, pair_target: Tensor) -> Encoded:
        feat, fine = self.encoder.images(batch.images)
        masks, corner, query_feat = batch.masks[:, :: self.zoom, :: self.zoom], None, feat[batch.mask_image]
        if self.closer_look:
            masks, corner = self.closer_look.queries(batch.masks)
            query_feat = seen(query_feat, fine[batch.mask_image], corner)
        mask_feat = self.encoder.masks(masks)
        with autocast(self.device, self.precision):
            model, pair_mask = self.model, batch.pair_mask
            query_tokens, mask_tokens = (self._batches(model.project, x) for x in (query_feat, mask_feat))
            query = self._batches(model.encode_query, query_tokens, mask_tokens, masks)
            target = self._batches(model.encode_target, self._batches(model.project, feat[targets]))
            target_fine, similarity = fine[targets], None
            if model.config.similarity_prior:
                coverage, parts = cell_coverage(batch.masks), model.prior.parts(fine)
                rows = zip(*(x.split(self.batch_size) for x in (pair_mask, batch.pair_target)), strict=True)
                found = [
                    model.prior.similarity(parts[batch.mask_image[m]], coverage[m], parts[target]) for m, target in rows
                ]
                similarity = Similarity(*map(torch.cat, zip(*found, strict=True)))
        return Encoded(query, mask_tokens, target, target_fine, pair_mask, pair_target, similarity)

    def _look(self, encoded: Encoded, corner: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Masks (P, S, S) and existence (P,) of the pairs, in whole targets or in crops at `corner`."""
        found = []
        with autocast(self.device, self.precision):
            for start in range(0, len(encoded.pair_mask), self.batch_size):
                rows = slice(start, start + self.batch_size)
                m, t = encoded.pair_mask[rows], encoded.pair_target[rows]
                similarity = encoded.similarity and Similarity(*(x[rows] for x in encoded.similarity))
                if corner is None:
                    target, of_rows = encoded.target[t], None
                else:
                    of_rows = corner[rows]
                    cut = crop(encoded.target_fine[t], of_rows, self.input_size // STRIDE)
                    target = self.model.encode_target(self.model.project(cut))
                found.append(self.model.match(encoded.query[m], encoded.mask[m], target, similarity, of_rows))
        mask_prob, existence = (torch.cat(parts) for parts in zip(*found, strict=True))
        return mask_prob, existence

    def _batches(self, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        parts = [function(*part) for part in zip(*(x.split(self.batch_size) for x in inputs), strict=True)]
        return torch.cat(parts)


def mask_in_image(prob: Tensor, size: Size) -> Tensor:
    """Probabilities (P, S, S) in letterboxed images -> masks (P, H, W) bool in the images, which are of `size`."""
    return unletterbox(resize_prob(prob, max(size)) > THRESHOLD, size)


def default_batch_size(device: torch.device, precision: str, config: XSegTxConfig) -> int:
    """Pairs at a time, for half of a GPU's whole memory: by its free memory, a rerun would have other batches."""
    if device.type != "cuda":
        return CPU_BATCH
    pair_bytes = PRIOR_PAIR_BYTES if config.similarity_prior else PAIR_BYTES[PRECISIONS[precision].itemsize]
    fitting = torch.cuda.get_device_properties(device).total_memory / 2 / (pair_bytes * (config.input_size / 480) ** 2)
    return int(min(max(fitting, 1), MAX_BATCH))
