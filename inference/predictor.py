"""A trained model ready to predict, as fast as the device allows, with nothing computed twice.

predictor = Predictor.load("train/checkpoints/egoexo_v2_480x480/netBest.pth")
mask, existence = predictor.segment(query_image, query_mask, target_image)
"""

import contextlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from formats.geometry import EVAL_SIDE, letterbox
from inference.timing import StageTimer
from inference.work import PRECISIONS, default_batch_size, default_precision
from model.backbone import Backbone, fold_batch_norm, mask_to_image, normalize_image
from model.checkpoint import load_checkpoint
from model.device import resolve_device
from model.mask_features import MaskFeatures
from model.xsegtx import XSegTx


class Predictor:
    """Backbone and cross-image transformer on one device.

    `precision`: fp32 is exact; tf32 is that with TensorFloat-32 products (CUDA); bf16 and fp16 compute the backbone and
    the transformer's products in half precision, and normalization, softmax and outputs in float32.
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
        self.batch_size = batch_size or default_batch_size(device, self.side, precision)
        dtype = PRECISIONS[precision]
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
        self.backbone = fold_batch_norm(backbone).to(device, dtype)
        self._windows = MaskFeatures(self.backbone)
        self.model = model.to(device).eval()
        self.timer = StageTimer(device)
        self._autocast = (
            contextlib.nullcontext()
            if dtype == torch.float32
            else torch.autocast(device.type, dtype, cache_enabled=False)
        )
        if compile:
            self.backbone = torch.compile(self.backbone, dynamic=True)
            self.model.match = torch.compile(self.model.match, dynamic=True)

    @classmethod
    def load(
        cls, path: Path, device: str | torch.device = "auto", precision: str | None = None, *options
    ) -> "Predictor":
        """From a checkpoint file. Raises FileNotFoundError or ValueError, in one line."""
        checkpoint = load_checkpoint(Path(path))
        device = device if isinstance(device, torch.device) else resolve_device(device)
        return cls(checkpoint.backbone, checkpoint.model, device, precision or default_precision(device), *options)

    @torch.inference_mode()
    def predict(
        self, images: Tensor, masks: Tensor, mask_image: Tensor, pair_mask: Tensor, pair_target: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Predict P pairs that share I images and M query masks.

        images (I, S, S, 3) uint8 RGB and masks (M, S, S), letterboxed; mask_image (M,): the query image of each mask;
        pair_mask (P,), pair_target (P,): the query mask and the target image of each pair.
        Returns the target mask's probability (P, S, S) and existence (P,), float32, on the device.
        """
        images, masks, mask_image, pair_mask, pair_target = (
            tensor.to(self.device, non_blocking=True) for tensor in (images, masks, mask_image, pair_mask, pair_target)
        )
        with self.timer("backbone"):
            image_feats = self._batches(lambda batch: self.backbone(normalize_image(batch)), images)
            mask_feats = self._mask_features(masks)
        with self.timer("transformer"), self._autocast:
            image_tokens = self._batches(self.model.project, image_feats)
            mask_tokens = self._batches(self.model.project, mask_feats)
            query = self._batches(self.model.encode_query, image_tokens[mask_image], mask_tokens)
            targets, target_of_pair = torch.unique(pair_target, return_inverse=True)
            target = self._batches(self.model.encode_target, image_tokens[targets])
            results = [
                self.model.match(query[m], mask_tokens[m], target[t])
                for m, t in zip(pair_mask.split(self.batch_size), target_of_pair.split(self.batch_size), strict=True)
            ]
        mask_prob, existence = (torch.cat(parts) for parts in zip(*results, strict=True))
        return mask_prob, existence

    def _mask_features(self, masks: Tensor) -> Tensor:
        """(M, S, S) -> (M, 1024, S/16, S/16). On a CPU, only what differs from an empty mask's features is computed."""
        if self.device.type != "cpu":
            return self._batches(lambda batch: self.backbone(mask_to_image(batch)), masks)
        return torch.cat([self._windows(mask) for mask in masks.split(1)])  # each in a window of its own size

    def _batches(self, function, *inputs: Tensor) -> Tensor:
        parts = [function(*batch) for batch in zip(*(x.split(self.batch_size) for x in inputs), strict=True)]
        return torch.cat(parts)

    def eval_masks(self, mask_prob: Tensor) -> Tensor:
        """Target probabilities (P, S, S) -> binary masks (P, 480, 480) uint8, still letterboxed."""
        if self.side != EVAL_SIDE:
            mask_prob = resize_prob(mask_prob, (EVAL_SIDE, EVAL_SIDE))
        return (mask_prob > 0.5).to(torch.uint8)

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
        height, width = target_image.shape[:2]
        long = max(height, width)
        prob = resize_prob(prob, (long, long))[0].cpu().numpy()
        top, left = (long - height) // 2, (long - width) // 2
        return (prob[top : top + height, left : left + width] > 0.5).astype(np.uint8), float(existence[0])


def resize_prob(prob: Tensor, size: tuple[int, int]) -> Tensor:
    """(P, H, W) -> (P, *size), bilinear."""
    return F.interpolate(prob[:, None], size, mode="bilinear", align_corners=False)[:, 0]
