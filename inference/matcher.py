"""The network ready to predict, as fast as the device allows, with nothing computed twice."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from common.errors import UserError, warn_once
from formats.geometry import Size, unletterbox
from formats.processed import CameraPair
from formats.results import THRESHOLD
from inference.closer_look import CloserLook, resize_prob
from inference.memory import Memory
from model.backbone import STRIDE, Backbone
from model.device import PRECISIONS, autocast, tf32
from model.features import Encoder, crop, seen
from model.pointer import mask_coverage
from model.similarity import Similarity, cell_coverage
from model.xsegtx import XSegTx, XSegTxConfig

# Peak memory of a pair at 480 x 480, counted operation by operation: by bytes per number; and with a similarity
# prior, in any precision, closer looks included.
PAIR_BYTES, PRIOR_PAIR_BYTES = {4: 50 << 20, 2: 34 << 20}, 83 << 20
CPU_BATCH = 8
RESEMBLANCE_WEIGHT = 4.0  # of the pointer's cosine in where to look, beside standard deviations of similarity
PLACE_WEIGHT = 2.0  # of the place where the object was found last, likewise
MAX_BATCH = 128  # more gains nothing on the largest GPUs


class PairBatch(NamedTuple):
    """P pairs that share I images and M query masks, letterboxed to `Matcher.side` pixels."""

    images: Tensor  # (I, side, side, 3) uint8 RGB
    masks: Tensor  # (M, side, side) uint8 of 0 and 1
    mask_image: Tensor  # (M,) int64: the image in which each mask was drawn
    pair_mask: Tensor  # (P,) int64: the query mask of each pair
    pair_target: Tensor  # (P,) int64: the target image of each pair
    near: Sequence[bool] = ()  # of each image: its camera is near, `formats.takes.Kind.near`; none: no camera is
    take: str = ""  # for a memory, with the names: all pairs are of one frame of it
    names: Sequence[CameraPair] = ()  # of each pair

    def to(self, device: torch.device) -> "PairBatch":
        return PairBatch(*(tensor.to(device, non_blocking=True) for tensor in self[:5]), *self[5:])

    def tracks(self) -> list[tuple[str, str]]:
        """The object and the query camera of each mask, from numbers on the CPU."""
        named = {mask: name[:2] for mask, name in zip(self.pair_mask.tolist(), self.names, strict=True)}
        return [named[mask] for mask in range(len(self.masks))]


class Encoded(NamedTuple):
    """All that the pairs of a batch share, computed once: what depends on one view only, and the similarity."""

    query: Tensor  # (M, L, C) tokens
    mask: Tensor  # (M, L, C) tokens
    target: Tensor  # (T, L, C) tokens of the images that are targets
    target_fine: Tensor  # (T, F, k h, k w)
    pair_mask: Tensor  # (P,) int64, rows of `query` and `mask`
    pair_target: Tensor  # (P,) int64, rows of `target`
    similarity: Similarity | None = None  # of the pairs
    target_detail: Tensor | None = None  # (T, D, ...), for the pointer
    shown: Tensor | None = None  # (M, 1 + D + W), for the memory
    description: Tensor | None = None  # (M, W) of the objects, by the pointer; unit vectors


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
        memory: str = "none",
    ):
        self.device, self.precision, self.input_size = device, precision, model.config.input_size
        self.batch_size = batch_size or default_batch_size(device, precision, model.config)
        self.zoom = model.config.zoom
        options = (self.batch_size, model.pointer is not None, model.config.two_sizes)
        self.encoder = Encoder(backbone, device, PRECISIONS[precision], self.zoom, *options)
        self.side = self.zoom * self.input_size
        self.closer_look = CloserLook(self.input_size, self.zoom) if closer_look else None
        self.memory = None if memory == "none" else Memory(memory)
        self.model = model.to(device).eval()
        if compile:
            self.model.match = torch.compile(self.model.match, dynamic=True)
            if device.type == "cuda":  # EfficientNet-Lite0 took over seven minutes on a CPU
                encoder = self.encoder.backbone
                encoder.forward, encoder.levels = (
                    torch.compile(method, dynamic=True) for method in (encoder.forward, encoder.levels)
                )

    def predict(self, batch: PairBatch) -> tuple[Tensor, Tensor]:
        """The target mask's probability (P, S, S) and existence (P,) of each pair, float32, on the device; S is
        `input_size`, or `side` with closer looks.

        Where a GPU's memory does not do, half as many pairs are tried, and said. UserError if it does not do for one.
        """
        return self._fitting(self._predict, batch)

    def _fitting(self, function: Callable[[PairBatch], Any], batch: PairBatch) -> Any:
        while True:
            try:
                return function(batch)
            except torch.cuda.OutOfMemoryError:
                if self.batch_size == 1:
                    raise UserError(
                        f"{self.device} has too little free memory for a single pair; use another"
                    ) from None
            torch.cuda.empty_cache()
            self.batch_size = self.encoder.batch_size = self.batch_size // 2
            warn_once(f"{self.device} is out of memory; going on with --batch_size {self.batch_size}")

    def remember(self, batch: PairBatch) -> None:
        """Show the memory the query frames of `batch`, of which the pairs do not matter."""
        self._fitting(self._remember, batch)

    @torch.inference_mode()
    def _remember(self, batch: PairBatch) -> None:
        tracks, batch = batch.tracks(), batch.to(self.device)
        with tf32(self.precision == "tf32"), autocast(self.device, self.precision):
            _, fine, detail = self.encoder.images(batch.images, batch.near)
            shown = self._shown(batch, self.model.prior.parts(fine), cell_coverage(batch.masks), detail)
        self.memory.enter(batch.take)
        self.memory.remember(tracks, shown)

    @torch.inference_mode()
    def _predict(self, batch: PairBatch) -> tuple[Tensor, Tensor]:
        targets, pair_target = torch.unique(batch.pair_target, return_inverse=True)  # on a GPU the CPU would wait
        memory = self.memory if batch.names else None  # what has no name cannot be remembered
        tracks, batch = batch.tracks() if memory else (), batch.to(self.device)
        targets, pair_target = (x.to(self.device, non_blocking=True) for x in (targets, pair_target))
        if memory:
            memory.enter(batch.take)
        with tf32(self.precision == "tf32"):
            encoded = self._encode(batch, targets, pair_target, tracks)
            prob, existence = self._look(encoded)
            if self.closer_look:
                hints = [self._resemblance(encoded)] if self.model.pointer else []
                if memory:
                    hints.append(PLACE_WEIGHT * memory.last_places(batch.names, encoded.similarity.parts))
                corner, likely = self.closer_look.place(prob, encoded.similarity, hints)
                close = self._look(encoded, corner)[0]
                prob = self.closer_look.combine(prob, corner, close)
                if self.model.pointer:
                    prob = self.closer_look.one_object(prob, likely)
        if memory:  # at the end: until then memory may run out, and all is done again
            if memory.choice == "past":
                memory.remember(tracks, encoded.shown)
            memory.note_answers(batch.names, prob, existence, encoded.similarity.parts)
        return prob, existence

    def _resemblance(self, encoded: Encoded) -> Tensor:
        """How much each place of the target resembles the object, by the pointer: a hint (P, k h, k w)."""
        regions, cells = self.model.pointer.regions(encoded.target_detail), encoded.similarity.parts.shape[1:]
        rows = zip(*(x.split(self.batch_size) for x in (encoded.pair_mask, encoded.pair_target)), strict=True)
        cosine = torch.cat([(regions[t] @ encoded.description[m][:, None, :, None])[..., 0] for m, t in rows])
        return RESEMBLANCE_WEIGHT * F.adaptive_max_pool2d(cosine, cells)

    def _encode(
        self, batch: PairBatch, targets: Tensor, pair_target: Tensor, tracks: Sequence[tuple[str, str]]
    ) -> Encoded:
        feat, fine, detail = self.encoder.images(batch.images, batch.near)
        masks = batch.masks[:, :: self.zoom, :: self.zoom]
        query_feat = feat[batch.mask_image]
        if self.closer_look:
            masks, corner = self.closer_look.queries(batch.masks)
            query_feat = seen(query_feat, fine[batch.mask_image], corner)
        mask_feat = self.encoder.masks(masks)
        with autocast(self.device, self.precision):
            model, pair_mask = self.model, batch.pair_mask
            query_tokens, mask_tokens = (self._batches(model.project, x) for x in (query_feat, mask_feat))
            query = self._batches(model.encode_query, query_tokens, mask_tokens, masks)
            target = self._batches(model.encode_target, self._batches(model.project, feat[targets]))
            shared = (query, mask_tokens, target, fine[targets], pair_mask, pair_target)
            if not model.config.similarity_prior:
                return Encoded(*shared)
            parts, coverage = model.prior.parts(fine), cell_coverage(batch.masks)
            shown, width = self._shown(batch, parts, coverage, detail), parts.shape[2]
            others = self.memory.recall(tracks, shown) if tracks else torch.zeros_like(shown)
            description = F.normalize((shown + others)[:, 1 + width :], dim=1)
            found = []
            for m, t in zip(*(x.split(self.batch_size) for x in (pair_mask, batch.pair_target)), strict=True):
                remembered = (others[m, :1], others[m, 1 : 1 + width]) if tracks else None
                found.append(model.prior.similarity(parts[batch.mask_image[m]], coverage[m], parts[t], remembered))
            similarity = Similarity(*map(torch.cat, zip(*found, strict=True)))
        detail = None if detail is None else detail[targets]
        return Encoded(*shared, similarity, detail, shown, description)

    def _shown(self, batch: PairBatch, parts: Tensor, coverage: Tensor, detail: Tensor | None) -> Tensor:
        """What the query frame shows of each object, a row of numbers that add up over frames: its area in cells, the
        sum of its parts in the prior's metric, and the pointer's description times the area -> (M, 1 + D + W).
        """
        area = coverage.sum((1, 2))[:, None]
        shown = [area, (coverage.flatten(1)[:, None] @ parts[batch.mask_image])[:, 0]]
        if self.model.pointer:
            of_masks = detail[batch.mask_image]
            covered = mask_coverage(batch.masks, of_masks)[:, None]
            shown.append(area * self._batches(self.model.pointer.describe, of_masks, covered)[:, 0])
        return torch.cat(shown, 1)

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
                marked = None
                if self.model.config.fine_masks:
                    marked = self.model.mark_detail(encoded.target_detail, encoded.description[m], of_rows, t)
                tokens = encoded.query[m], encoded.mask[m], target
                found.append(self.model.match(*tokens, similarity, of_rows, marked))
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
