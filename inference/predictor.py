"""A trained model that finds one object at a time, in pictures of any size.

predictor = Predictor.load()  # the network of this repository, or a checkpoint of yours: Predictor.load("netBest.pth")
mask, existence = predictor.segment(query_image, query_mask, target_image)
mask, existence = predictor.segment(query_image, None, target_image, query_box=(left, top, right, bottom))
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL.Image import Image

from common.arguments import SETTINGS
from common.errors import UserError
from formats.geometry import letterbox
from formats.takes import KINDS
from inference.cut_out import cut_out
from inference.matcher import Matcher, PairBatch, mask_in_image
from inference.memory import CHOICES
from inference.pictures import as_image, as_mask
from model.checkpoint import load_checkpoint
from model.device import PRECISIONS, default_precision, resolve_device

SHIPPED = Path(__file__).resolve().parents[1] / "model" / "pretrained" / "xsegtx_tiny.pth"  # trained on rendered takes
MEMORY_DEFAULT = "default: past, or none for a network without a pointer"
Picture = np.ndarray | Image | Path | str  # an image or a mask
CKPT_HELP = f"checkpoint (default: {SHIPPED.name}, the network of this repository)"


class Predictor:
    """`matcher` predicts whole batches of pairs, as eval_segswap.py does; `segment` one pair. `description` is of the
    network; `settings` are those that it was trained for, none if the checkpoint does not say.
    """

    def __init__(self, matcher: Matcher, description: str = "", settings: Sequence[str] = ()):
        self.matcher, self.description, self.settings = matcher, description, settings

    @classmethod
    def load(
        cls,
        path: Path | str | None = None,
        device: torch.device | str = "auto",
        precision: str | None = "fp32",
        batch_size: int | None = None,
        compile: bool = False,
        backbone_weights: Path | None = None,
        memory: str | None = "none",
    ) -> "Predictor":
        """From a checkpoint file, by default SHIPPED; options as `Matcher` and `load_checkpoint` have them. A `memory`
        is for the frames of a take, which the matcher is given; `segment` has none. A `memory` of None is the best one
        for the network, a `precision` of None the usual one for the device. Raises UserError.
        """
        for name, choice, choices in (("memory", memory, CHOICES), ("precision", precision, PRECISIONS)):
            if choice not in (*choices, None):
                raise UserError(f"{name} {choice!r} is unknown; choose from {', '.join(choices)}, or None")
        device = resolve_device(str(device))
        path = Path(SHIPPED if path is None else path)
        if path == SHIPPED and not path.is_file():
            raise UserError(f"no file {path}, the network of this repository; get it with git, or give a checkpoint")
        checkpoint = load_checkpoint(path, backbone_weights)
        arguments, config = checkpoint.arguments, checkpoint.model.config
        closer_look = bool(arguments.get("closer_look"))
        if memory is None:
            memory = "past" if config.pointer else "none"
        if memory != "none" and not config.similarity_prior:
            raise UserError(f"--memory {memory} is for networks with --similarity_prior, and {path} has none")
        options = (device, precision or default_precision(device), batch_size, compile, closer_look, memory)
        matcher = Matcher(checkpoint.backbone, checkpoint.model, *options)
        description = f"{config.mode} network of {config.input_size} pixels on {checkpoint.backbone.name} features"
        one = "exo-ego" if arguments.get("reverse") else "ego-exo"
        settings = tuple(SETTINGS) if arguments.get("both") else (one,)
        return cls(matcher, description, settings if arguments else ())

    def segment(
        self,
        query_image: Picture,
        query_mask: Picture | None,
        target_image: Picture,
        query_box: Sequence[float] | None = None,
        setting: str | None = None,
    ) -> tuple[np.ndarray, float]:
        """Find one object. Images of any sizes, and the object's mask in the first, of any size with its aspect ratio;
        inference/pictures.py has the forms that are taken, such as a path, (H, W, 3) uint8 RGB, (H, W) bool. Instead of
        the mask, a box around the object, (left, top, right, bottom) in the image's pixels, that `cut_out` is given.
        `setting`: ego-exo if the query image is of a head-worn camera, exo-ego if the target is, None if neither is.

        Returns the object's mask in the target image, (H, W) uint8 of 0 and 1, and the probability that it is visible.
        Raises UserError, in one line, for anything else.
        """
        return self.segment_all(query_image, query_mask, [target_image], query_box, setting)[0]

    def segment_all(
        self,
        query_image: Picture,
        query_mask: Picture | None,
        target_images: Sequence[Picture],
        query_box: Sequence[float] | None = None,
        setting: str | None = None,
    ) -> list[tuple[np.ndarray, float]]:
        """As `segment`, for each of some target images, a list or tuple; the query is encoded once."""
        if (query_mask is None) == (query_box is None):
            raise UserError("give either the query mask, or None and a query_box")
        if setting not in (None, *SETTINGS):
            raise UserError(f"setting {setting!r} is unknown; choose from {', '.join(SETTINGS)}, or None")
        if not isinstance(target_images, list | tuple):
            raise UserError(f"the target images are {type(target_images).__name__}; give a list")
        near = [KINDS[kind].near for kind in SETTINGS[setting]] if setting else (False, False)
        query_image = as_image(query_image, "query image")
        targets = [as_image(image, "target image") for image in target_images]
        if query_box is None:
            query_mask = as_mask(query_mask, "query mask", query_image.shape[:2])
        else:
            query_mask = cut_out(query_image, query_box)
        if not targets:
            return []
        prob, existence = self.matcher.predict(_batch(self.matcher.side, query_image, query_mask, targets, near))
        masks = (mask_in_image(p[None], target.shape[:2])[0] for p, target in zip(prob, targets, strict=True))
        return [(mask.byte().cpu().numpy(), x) for mask, x in zip(masks, existence.tolist(), strict=True)]


def _batch(
    side: int, image: np.ndarray, mask: np.ndarray, targets: Sequence[np.ndarray], near: tuple[bool, bool]
) -> PairBatch:
    """One object in one image, asked for in some others, without names. `near`: of the one and of all others."""
    images = np.stack([letterbox(x, side) for x in (image, *targets)])
    zeros, places = torch.zeros(len(targets), dtype=torch.int64), torch.arange(1, len(images))
    masks, flags = torch.from_numpy(letterbox(mask, side)[None]), [near[0]] + [near[1]] * len(targets)
    return PairBatch(torch.from_numpy(images), masks, zeros[:1], zeros, places, flags)
