"""A trained model that finds one object at a time, in pictures of any size.

predictor = Predictor.load("train/checkpoints/egoexo_v2_480x480/netBest.pth")
mask, existence = predictor.segment(query_image, query_mask, target_image)
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL.Image import Image

from formats.geometry import Size, letterbox, unletterbox
from formats.results import THRESHOLD
from formats.takes import SETTINGS
from inference.matcher import Matcher, PairBatch
from inference.pictures import as_image, as_mask
from model.checkpoint import load_checkpoint
from model.device import resolve_device


class Predictor:
    """`matcher` predicts whole batches of pairs, as eval_segswap.py does; `segment` one pair. `description` is of the
    network; `settings` are those that it was trained for, none if the checkpoint does not say.
    """

    def __init__(self, matcher: Matcher, description: str = "", settings: Sequence[str] = ()):
        self.matcher, self.description, self.settings = matcher, description, settings

    @classmethod
    def load(
        cls,
        path: Path | str,
        device: torch.device | str = "auto",
        precision: str = "fp32",
        batch_size: int | None = None,
        compile: bool = False,
        backbone_weights: Path | None = None,
    ) -> "Predictor":
        """From a checkpoint file; options as `Matcher` and `load_checkpoint` have them. Raises UserError."""
        checkpoint = load_checkpoint(Path(path), backbone_weights)
        arguments, config = checkpoint.arguments, checkpoint.model.config
        device = resolve_device(str(device))
        closer_look = bool(arguments.get("closer_look"))
        options = (device, precision, batch_size, compile, closer_look)
        matcher = Matcher(checkpoint.backbone, checkpoint.model, *options)
        description = f"{config.mode} network of {config.input_size} pixels on {checkpoint.backbone.name} features"
        settings = SETTINGS if arguments.get("both") else SETTINGS[bool(arguments.get("reverse")) :][:1]
        return cls(matcher, description, settings if arguments else ())

    def segment(
        self, query_image: np.ndarray | Image, query_mask: np.ndarray | Image, target_image: np.ndarray | Image
    ) -> tuple[np.ndarray, float]:
        """Find one object. Images of any sizes, and the object's mask in the first, of any size with its aspect ratio;
        inference/pictures.py has the forms that are taken, such as (H, W, 3) uint8 RGB and (H, W) bool.

        Returns the object's mask in the target image, (H, W) uint8 of 0 and 1, and the probability that it is visible.
        Raises UserError, in one line, for anything else.
        """
        side = self.matcher.side
        query_image, target_image = as_image(query_image, "query image"), as_image(target_image, "target image")
        query_mask = as_mask(query_mask, "query mask", query_image.shape[:2])
        images = np.stack([letterbox(query_image, side), letterbox(target_image, side)])
        mask = letterbox(query_mask, side)[None]
        zero, one = torch.tensor([0]), torch.tensor([1])
        batch = PairBatch(torch.from_numpy(images), torch.from_numpy(mask), zero, pair_mask=zero, pair_target=one)
        prob, existence = self.matcher.predict(batch)
        return mask_in_image(prob[0].cpu().numpy(), target_image.shape[:2]), float(existence[0])


def mask_in_image(prob: np.ndarray, size: Size) -> np.ndarray:
    """A predicted probability, (S, S) float32 -> the mask in its target image of `size`, (H, W) uint8 of 0 and 1."""
    long = max(size)
    found = cv2.resize(prob, (long, long), interpolation=cv2.INTER_LINEAR) > THRESHOLD
    return unletterbox(found, size).astype(np.uint8)
