"""Networks with random weights: the frozen backbone, and a small one that answers."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.backbone import Backbone, normalize_image, resnet50_backbone
from model.checkpoint import save_checkpoint
from model.xsegtx import XSegTx, XSegTxConfig


def random_backbone(seed: int) -> Backbone:
    """The published architecture; weights that depend on the seed alone. Follow with `calibrate_batch_norm`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return resnet50_backbone()


@torch.no_grad()
def calibrate_batch_norm(backbone: Backbone, batches: Iterable[Tensor]) -> None:
    """Set each batch norm's mean and variance to those of `batches` of images (B, 3, H, W), so that features differ by
    content.
    """
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches
        norm.training = True
    for images in batches:
        backbone(images)
    backbone.train(False)


def make_network(path: Path, arguments: dict[str, Any] | None = None, **options: Any) -> Path:
    """Write the checkpoint of a tiny network of 96 pixels with `options` of XSegTxConfig; returns its path.

    `arguments` are those of its training. With closer looks it answers with small masks, which are looked at.
    """
    torch.manual_seed(0)
    backbone, model = random_backbone(0), XSegTx(XSegTxConfig("tiny", 96, **options))
    if arguments and arguments.get("closer_look"):
        # Untrained masks spread over the whole image.
        model.net.decoder.deconv2.bias.data -= 1.1 if options.get("fine_masks") else 0.55
    calibrate_batch_norm(backbone, [normalize_image(torch.randint(0, 256, (4, 96, 96, 3), dtype=torch.uint8))])
    save_checkpoint(path, backbone, model, arguments=arguments or {})
    return path
