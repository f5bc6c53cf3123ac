"""Networks with random weights: the frozen backbone, and small networks for prediction. To import this module saves a
tenth of a second whenever a training or a prediction reads EfficientNet-Lite0, which is then read once in a process.
"""

import copy
import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model import backbones
from model.backbone import Backbone, normalize_image
from model.backbones import create_network, make_backbone, resnet50_backbone
from model.checkpoint import save_checkpoint
from model.xsegtx import XSegTx, XSegTxConfig
from recipes.paper import Paper
from recipes.strong.network import StrongConfig, StrongNetwork
from recipes.strong.recipe import Strong

read_lite = backbones._lite_network
lite0 = functools.cache(lambda: read_lite(backbones.LITE0, None))
backbones._lite_network = lambda name, path: (
    copy.deepcopy(lite0()) if name == backbones.LITE0 and not path else read_lite(name, path)
)


def random_backbone(seed: int) -> Backbone:
    """The published backbone with random weights that the seed decides. Call `calibrate_batch_norm` after it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return resnet50_backbone()


@torch.no_grad()
def calibrate_batch_norm(backbone: Backbone, images: Tensor) -> None:
    """Set the mean and variance of each batch norm from `images` (B, 3, H, W), so that features depend on the content
    of an image.
    """
    for norm in (module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.training, norm.momentum = True, None
    backbone(images)
    backbone.train(False)


def strong_config(side: int = 96, **options: Any) -> StrongConfig:
    """A configuration for the backbone of `random_backbone`, with small frames."""
    return StrongConfig(mode="tiny", input_size=side, **{"frame_size": 160, "early_channels": 512} | options)


def strong_network(**options: Any) -> StrongNetwork:
    """A tiny strong network of 96 pixels, untrained, in eval mode. Its masks are not empty."""
    torch.manual_seed(0)
    network = StrongNetwork(strong_config(**options)).eval()
    for block in network.net.decoder.blocks:  # which do nothing before they are trained
        torch.nn.init.normal_(block[2].weight, std=0.02)
    return network


def write_transformer(path: Path) -> list[str]:
    """Write half-precision weights of timm's smallest vision transformer; returns the flags of a script for them."""
    torch.save({name: x.half() for name, x in create_network("test_vit").state_dict().items()}, path)
    return ["--backbone", "test_vit", "--backbone_weights", str(path)]


def write_network(
    path: Path, arguments: dict[str, Any] | None = None, strong: bool = False, published: bool = False, **options: Any
) -> Path:
    """Write the checkpoint of a tiny network of 96 pixels with `options` of its configuration; returns its path.
    `arguments` are stored as the arguments of its training. It holds the published backbone, or names
    EfficientNet-Lite0, which loads in a third of the time.
    """
    torch.manual_seed(0)
    backbone = random_backbone(0) if published else make_backbone("efficientnet_lite0")
    if strong:
        model = strong_network(**Strong.channels_of(backbone), **options)
    else:
        model = XSegTx(XSegTxConfig("tiny", 96, **Paper.channels_of(backbone), **options))
    if published:
        calibrate_batch_norm(backbone, normalize_image(torch.randint(0, 256, (4, 96, 96, 3), dtype=torch.uint8)))
    save_checkpoint(path, "strong" if strong else "paper", backbone, model, arguments=arguments or {})
    return path
