"""A trained model that finds one object at a time, in pictures of any size.

predictor = Predictor.load()  # the network of this repository, or a checkpoint of yours: Predictor.load("netBest.pth")
mask, existence = predictor.segment(query_image, query_mask, target_image)
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL.Image import Image

from formats.errors import UserError
from formats.geometry import letterbox, unletterbox
from formats.results import THRESHOLD
from formats.takes import SETTINGS
from inference.closer_look import CloserLook
from inference.matcher import Matcher, PairBatch, resize_prob
from inference.pictures import as_image, as_mask
from model.checkpoint import load_checkpoint
from model.device import resolve_device

SHIPPED = Path(__file__).resolve().parents[1] / "model" / "pretrained" / "xsegtx_tiny.pth"  # trained on rendered takes
CKPT_HELP = f"checkpoint (default: {SHIPPED.name}, the network of this repository)"


class Predictor:
    """`matcher` predicts whole batches of pairs, as eval_segswap.py does; `segment` one pair. `description` is of the
    network; `settings` are those that it was trained for, none if the checkpoint does not say.
    """

    def __init__(self, matcher: Matcher | CloserLook, description: str = "", settings: Sequence[str] = ()):
        self.matcher, self.description, self.settings = matcher, description, settings

    @classmethod
    def load(
        cls,
        path: Path | str | None = None,
        device: torch.device | str = "auto",
        precision: str = "fp32",
        batch_size: int | None = None,
        compile: bool = False,
        backbone_weights: Path | None = None,
    ) -> "Predictor":
        """From a checkpoint file, by default SHIPPED; options as `Matcher` and `load_checkpoint` have them. Raises
        UserError.
        """
        path = Path(SHIPPED if path is None else path)
        if path == SHIPPED and not path.is_file():
            raise UserError(f"no file {path}, the network of this repository; get it with git, or give a checkpoint")
        checkpoint = load_checkpoint(path, backbone_weights)
        arguments, config = checkpoint.arguments, checkpoint.model.config
        device = resolve_device(str(device))
        matcher = Matcher(checkpoint.backbone, checkpoint.model, device, precision, batch_size, compile)
        if arguments.get("closer_look"):
            matcher = CloserLook(matcher)
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
        size = target_image.shape[:2]
        found = resize_prob(prob, max(size))[0] > THRESHOLD
        return unletterbox(found.cpu().numpy(), size).astype(np.uint8), float(existence[0])
