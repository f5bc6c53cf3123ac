"""A trained model ready to predict, as fast as the device allows, with nothing computed twice.

predictor = Predictor.load("train/checkpoints/egoexo_v2_480x480/netBest.pth")
mask, existence = predictor.segment(query_image, query_mask, target_image)
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from formats.geometry import ZOOM, closer_corner, crop, letterbox, unletterbox
from model.backbone import Backbone, fine_features, fold_batch_norm, mask_to_image
from model.checkpoint import load_checkpoint
from model.device import resolve_device
from model.mask_features import MaskFeatures
from model.similarity import cell_share
from model.xsegtx import XSegTx

PRECISIONS = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PAIR_BYTES = {4: 120 << 20, 2: 60 << 20}  # peak memory of a pair at 480 x 480 by bytes per number, generously
CPU_BATCH = 8
MAX_BATCH = 128  # more gains nothing on the largest GPUs


class Predictor:
    """Backbone and cross-image transformer on one device.

    `precision`: fp32 is exact; tf32 is that with TensorFloat-32 products (CUDA); bf16 and fp16 compute the backbone and
    the transformer's products in half precision, and normalization, softmax and outputs in float32.

    `side`: pixels per side of the images that it takes, the network's input size; `ZOOM` times that of a network with
    `closer_look`, which sees each pair twice: whole, and enlarged where its first answer is.
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
        self.device, self.precision = device, precision
        self.input_size, self.closer_look = model.config.input_size, model.config.closer_look
        self.side = self.input_size * (ZOOM if self.closer_look else 1)
        self.batch_size = batch_size or default_batch_size(device, self.input_size, precision)
        self.dtype = PRECISIONS[precision]
        self.backbone = fold_batch_norm(backbone).to(device, self.dtype)
        self.model = model.to(device).eval()
        self._windows = MaskFeatures(self.backbone)
        if compile:
            self.model.match = torch.compile(self.model.match, dynamic=True)
            if device.type == "cuda":  # EfficientNet-Lite0 took over seven minutes on a CPU
                self.backbone = torch.compile(self.backbone, dynamic=True)

    @classmethod
    def load(
        cls,
        path: Path | str,
        device: str = "auto",
        precision: str = "fp32",
        batch_size: int | None = None,
        compile: bool = False,
        backbone_weights: Path | None = None,
    ) -> "Predictor":
        """From a checkpoint file; `backbone_weights` as `load_checkpoint` has it. Raises UserError."""
        checkpoint = load_checkpoint(Path(path), backbone_weights)
        return cls(checkpoint.backbone, checkpoint.model, resolve_device(device), precision, batch_size, compile)

    @torch.inference_mode()
    def predict(
        self, images: Tensor, masks: Tensor, mask_image: Tensor, pair_mask: Tensor, pair_target: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Predict P pairs that share I images and M query masks.

        images (I, S, S, 3) uint8 RGB and masks (M, S, S), letterboxed; mask_image (M,): the query image of each mask;
        pair_mask (P,), pair_target (P,): the query mask and the target image of each pair.
        Returns the target mask's probability (P, S, S) and existence (P,), float32, on the device; S is `side`.
        """
        if not self.closer_look:
            return self._look(images, masks, mask_image, pair_mask, pair_target)
        whole = images[:, ::ZOOM, ::ZOOM], masks[:, ::ZOOM, ::ZOOM]
        prob, existence = self._look(*whole, mask_image, pair_mask, pair_target)
        prob = resize_prob(prob, self.side)
        self._look_closer(prob, images, masks, mask_image, pair_mask, pair_target)
        return prob, existence

    def _look_closer(
        self, prob: Tensor, images: Tensor, masks: Tensor, mask_image: Tensor, pair_mask: Tensor, pair_target: Tensor
    ) -> None:
        """Replace the mask probabilities (P, S, S) of objects small enough for a closer look by what that shows."""
        side = self.input_size
        corners, query_corners = (
            [closer_corner(rows, cols, side) for rows, cols in zip(*occupied, strict=True)]
            for occupied in ([x.any(axis).cpu().numpy() for axis in (2, 1)] for x in (prob > 0.5, masks != 0))
        )
        pairs = [p for p, corner in enumerate(corners) if corner is not None]
        for part in (pairs[i : i + self.batch_size] for i in range(0, len(pairs), self.batch_size)):
            queries = sorted({int(pair_mask[p]) for p in part})
            close_queries = [crop(images[mask_image[m]], side, query_corners[m]) for m in queries]
            close_targets = [crop(images[pair_target[p]], side, corners[p]) for p in part]
            close, _ = self._look(
                torch.stack(close_queries + close_targets),
                torch.stack([crop(masks[m], side, query_corners[m]) for m in queries]),
                mask_image=torch.arange(len(queries)),
                pair_mask=torch.tensor([queries.index(int(pair_mask[p])) for p in part]),
                pair_target=torch.arange(len(queries), len(queries) + len(part)),
            )
            for p, of_pair in zip(part, close, strict=True):
                prob[p] = 0
                crop(prob[p], side, corners[p]).copy_(of_pair)

    def _look(
        self, images: Tensor, masks: Tensor, mask_image: Tensor, pair_mask: Tensor, pair_target: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`predict` at the network's input size, images and masks as they are."""
        targets, pair_target = torch.unique(pair_target, return_inverse=True)  # on a GPU the CPU would wait for this
        images, masks, mask_image, pair_mask, targets, pair_target = (
            tensor.to(self.device, non_blocking=True)
            for tensor in (images, masks, mask_image, pair_mask, targets, pair_target)
        )
        half = self.dtype != torch.float32
        with tf32(self.precision == "tf32"):
            image_feats = self._batches(lambda batch: self.backbone(self.backbone.normalize(batch)), images)
            if self.model.prior:
                fine = self._batches(lambda batch: fine_features(self.backbone, self.backbone.normalize(batch)), images)
            if self.device.type == "cpu":  # compute only what differs from the features of an empty mask
                mask_feats = self._windows(masks)
            else:
                mask_feats = self._batches(lambda batch: self.backbone(mask_to_image(batch)), masks)
            with torch.autocast(self.device.type, self.dtype, enabled=half, cache_enabled=False):
                image_tokens = self._batches(self.model.project, image_feats)
                mask_tokens = self._batches(self.model.project, mask_feats)
                share = cell_share(masks)
                query = self._batches(self.model.encode_query, image_tokens[mask_image], mask_tokens, share)
                target = self._batches(self.model.encode_target, image_tokens[targets])
                results = []
                for m, t in zip(pair_mask.split(self.batch_size), pair_target.split(self.batch_size), strict=True):
                    similarity = None
                    if self.model.prior:
                        query_fine, target_fine = fine[mask_image[m]], fine[targets[t]]
                        similarity = self.model.prior.similarity(query_fine, masks[m], target_fine)
                    results.append(self.model.match(query[m], mask_tokens[m], target[t], similarity))
        mask_prob, existence = (torch.cat(parts) for parts in zip(*results, strict=True))
        return mask_prob, existence

    def _batches(self, function, *inputs: Tensor) -> Tensor:
        parts = [function(*batch) for batch in zip(*(x.split(self.batch_size) for x in inputs), strict=True)]
        return torch.cat(parts)

    def segment(
        self, query_image: np.ndarray, query_mask: np.ndarray, target_image: np.ndarray
    ) -> tuple[np.ndarray, float]:
        """Find one object. Images (H, W, 3) uint8 RGB of any sizes; query_mask (H, W), non-zero = object, of any size
        with the query image's aspect ratio.

        Returns the object's mask in the target image, (H, W) uint8 of 0 and 1, and the probability that it is visible.
        """
        images = np.stack([letterbox(query_image, self.side), letterbox(target_image, self.side)])
        mask = letterbox((np.asarray(query_mask) != 0).astype(np.uint8), self.side)[None]
        zero, one = torch.tensor([0]), torch.tensor([1])
        prob, existence = self.predict(torch.from_numpy(images), torch.from_numpy(mask), zero, zero, one)
        size = target_image.shape[:2]
        found = resize_prob(prob, max(size))[0] > 0.5
        return unletterbox(found.cpu().numpy(), size).astype(np.uint8), float(existence[0])


def resize_prob(prob: Tensor, side: int) -> Tensor:
    """(P, S, S) -> (P, side, side), bilinear."""
    if prob.shape[-1] == side:
        return prob
    return F.interpolate(prob[:, None], (side, side), mode="bilinear", align_corners=False)[:, 0]


def default_batch_size(device: torch.device, input_size: int, precision: str) -> int:
    """Pairs at a time: half of a GPU's whole memory. Not of what is free, so that a rerun makes the same batches."""
    if device.type != "cuda":
        return CPU_BATCH
    pair = PAIR_BYTES[PRECISIONS[precision].itemsize] * (input_size / 480) ** 2
    return int(min(max(torch.cuda.get_device_properties(device).total_memory / 2 / pair, 1), MAX_BATCH))


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether CUDA may round the factors of products to TensorFloat-32 within the block."""
    switches = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [switch.allow_tf32 for switch in switches]
    try:
        for switch in switches:
            switch.allow_tf32 = allowed
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value
