"""XSegTx: given an object's mask in the query view, find the object in the target view (arXiv 2311.18259, 2110.15904).

The network works on features of a frozen backbone (model/features.py). Two ways to call it:

    look = network(query_feat, target_feat, mask_feat)      # predicts the masks in both views, as in the paper

    query = network.encode(query_feat, mask_feat)           # once for each object mask
    target = network.encode_target(target_feat)             # once for each target image
    look = network.look(query, target)                      # once for each pair; predicts only the target's mask
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from common.errors import UserError
from common.option_fields import option
from model.backbone import STRIDE
from model.rows import Rows
from model.transformer import EncoderBlocks

PROB_EPS = 1e-7
MASK_CHANNEL = 2  # the decoder has three channels, of which the published checkpoints trained only this one
OBJECT_WEIGHT = 10.0  # weight of the object's pixels in the mask loss; other pixels have weight 1
MODES = {  # name: (width, heads, feed-forward width, blocks)
    "tiny": (128, 2, 256, 3),
    "small": (256, 2, 256, 3),
    "base": (512, 8, 2048, 3),
    "large": (512, 8, 2048, 6),
}
# The fields of XSegTxConfig that may change when a network is trained further.
NETWORK_MAY_CHANGE = ("dropout", "drop_feat", "pos_weight", "feat_weight")


@dataclass(frozen=True)
class XSegTxConfig:
    """The options that define a network, with their flags of train/train.py. `layer_types` has two of the letters I, C,
    N for each block, such as "I C I N"; None stands for the layers of `mode`.
    """

    mode: str = option("small", "size of the cross-image transformer", choices=MODES)
    input_size: int = option(480, "side of the square input in pixels, a multiple of 16")
    layer_types: str | None = option(
        None, "two of I, C, N for each block (default: by --mode)", "--layer-type", nargs="+"
    )
    dropout: float = option(0.1, "dropout in the transformer")
    drop_feat: float = option(0.1, "dropout of whole channels of the projected image features", "--drop-feat")
    pos_weight: float = option(0.1, "weight of the position encoding", "--pos-weight")
    feat_weight: float = option(1.0, "weight of the features to which it is added", "--feat-weight")
    feature_channels: int = 1024  # channels of the backbone's features

    def __post_init__(self):
        if self.mode not in MODES:
            raise UserError(f"mode {self.mode!r} is unknown; choose from {', '.join(MODES)}")
        if self.input_size % STRIDE or self.input_size < 3 * STRIDE:
            raise UserError(f"input size {self.input_size} must be a multiple of {STRIDE} and at least {3 * STRIDE}")
        for name in ("dropout", "drop_feat"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name} {getattr(self, name)} must be at least 0 and below 1")
        if self.layer_types is not None:  # so that equal networks have equal configurations
            words = self.layer_types.split() if isinstance(self.layer_types, str) else self.layer_types
            layers = parse_layer_types(words)  # a command line gives a list
            object.__setattr__(self, "layer_types", None if layers == layers_of(self.mode) else " ".join(layers))

    def __str__(self) -> str:
        return f"{self.mode} network of {self.input_size} pixels"

    @property
    def layers(self) -> list[str]:
        """The types of all layers in order, two for each block."""
        return layers_of(self.mode) if self.layer_types is None else self.layer_types.split()

    @property
    def width(self) -> int:
        """The number of channels of a token."""
        return MODES[self.mode][0]

    @property
    def cells(self) -> int:
        """The side of the square grid of tokens."""
        return self.input_size // STRIDE


def layers_of(mode: str) -> list[str]:
    return ["I", "C"] * (MODES[mode][3] - 1) + ["I", "N"]


def parse_layer_types(words: Sequence[str]) -> list[str]:
    """["I_C", "I_N"] or ["I", "C", "I", "N"] -> ["I", "C", "I", "N"]; two layers make a block."""
    layers = [layer for word in words for layer in word.split("_")]
    if not layers or len(layers) % 2 or not set(layers) <= {"I", "C", "N"}:
        raise UserError(f"layer types {' '.join(words)!r} must be pairs of I, C and N, such as I_C I_C I_N")
    return layers


@dataclass
class Query(Rows):
    """B encoded objects to look for."""

    tokens: Tensor  # (B, L, C) tokens of the query images
    mask: Tensor  # (B, L, C) tokens of the query masks


@dataclass
class Look(Rows):
    """The network's answer for B objects, each in one target image; all float32."""

    target_mask_prob: Tensor  # (B, H, W) in [1e-7, 1 - 1e-7]
    logit: Tensor  # (B,) logit of "the object is visible in the target image"
    query_mask_prob: Tensor | None = None  # (B, H, W) in the same range; None if it was not asked for


class MaskDecoder(nn.Module):
    """Tokens as a grid -> mask logits at full resolution: two transposed convolutions x2, then bilinear x4."""

    def __init__(self, width: int):
        super().__init__()
        self.deconv1 = nn.ConvTranspose2d(width, width // 2, kernel_size=2, stride=2)
        self.deconv2 = nn.ConvTranspose2d(width // 2, 3, kernel_size=2, stride=2)

    def forward(self, features: Tensor) -> Tensor:
        return self.enlarge(F.relu(self.deconv1(features)))

    def enlarge(self, x: Tensor) -> Tensor:
        """The first convolution's output (B, C/2, 2h, 2w) -> logits (B, 16h, 16w) float32."""
        weight, bias = self.deconv2.weight[:, MASK_CHANNEL, None], self.deconv2.bias[MASK_CHANNEL, None]  # pyrefly: ignore
        x = F.conv_transpose2d(x, weight, bias, stride=2)  # (B, 1, 4h, 4w)
        return F.interpolate(x.float(), scale_factor=4, mode="bilinear", align_corners=False)[:, 0]


class ExistenceHead(nn.Module):
    """Target features -> logit of "the object is visible"; the head's size follows from width and input size."""

    def __init__(self, width: int, cells: int):
        super().__init__()
        self.conv = nn.Conv2d(width, 1, kernel_size=3)
        self.mlp = nn.Sequential(nn.Linear((cells - 2) ** 2, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, features: Tensor) -> Tensor:
        x = F.relu(self.conv(features)).flatten(1)  # (B, C, h, w) -> (B, (h - 2) * (w - 2))
        return self.mlp(x)[:, 0]


class Projection(nn.Conv2d):
    """The 1x1 convolution that turns the backbone's features into tokens, (B, F, h, w) -> (B, L, C) float32 row by row.
    Training drops whole channels of an image's tokens, but not of a mask's.
    """

    def __init__(self, channels: int, width: int, dropout: float):
        super().__init__(channels, width, kernel_size=1)
        self.drop_channels = nn.Dropout1d(dropout)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.to(self.weight.dtype)).flatten(2).transpose(1, 2).float()

    def image(self, feat: Tensor) -> Tensor:
        return self.drop_channels(self(feat).transpose(1, 2)).transpose(1, 2)


class Parts(nn.Module):
    """The parts of a network, with the names of the published checkpoints."""

    def __init__(self, config: XSegTxConfig, decoder: Callable[[int], nn.Module]):
        """decoder: makes the mask decoder for a number of channels of tokens."""
        super().__init__()
        width, heads, feedforward, _ = MODES[config.mode]
        args = (width, heads, feedforward, config.dropout)
        blocks = EncoderBlocks(config.layers, config.cells, args, config.pos_weight, config.feat_weight)
        self.feat_proj = Projection(config.feature_channels, width, config.drop_feat)
        self.encoder_blocks = blocks
        self.decoder = decoder(width)
        self.cls_branch = ExistenceHead(width, config.cells)


def as_grid(tokens: Tensor) -> Tensor:
    """Tokens of square images (B, L, C) -> (B, C, h, w)."""
    side = math.isqrt(tokens.shape[1])
    return tokens.transpose(1, 2).unflatten(2, (side, side))


def probabilities(logits: Tensor) -> Tensor:
    return logits.sigmoid().clamp(PROB_EPS, 1 - PROB_EPS)


class XSegTx(nn.Module):
    """The cross-image transformer with its mask decoder and existence head, which work under `torch.autocast`."""

    def __init__(self, config: XSegTxConfig | None = None):
        super().__init__()
        self.config = config or XSegTxConfig()
        self.net = Parts(self.config, MaskDecoder)

    def forward(
        self,
        query_feat: Tensor,
        target_feat: Tensor,
        mask_feat: Tensor,
        query_blocked: Tensor | None = None,
        target_blocked: Tensor | None = None,
    ) -> Look:
        """query_feat, target_feat, mask_feat: backbone features (B, F, h, w) of the images and of the query mask;
        h = w = input_size / 16. query_blocked, target_blocked: (B, h * w) bool or None, True = no token may attend to
        this token of the view. Blocking acts in the layers (c) and C, not in mask conditioning (a); a view with all
        tokens blocked counts as not blocked. Returns the masks of both views.
        """
        project, blocks = self.net.feat_proj, self.net.encoder_blocks
        query, target, mask = project.image(query_feat), project.image(target_feat), project(mask_feat)
        query, target = blocks(query, target, mask, query_blocked, target_blocked)
        look = self._look(target)
        look.query_mask_prob = probabilities(self.net.decoder(as_grid(query)))
        return look

    def encode(self, feat: Tensor, mask_feat: Tensor) -> Query:
        """Encode B objects, from the backbone's features (B, F, h, w) of their images and masks."""
        tokens, mask = self.net.feat_proj.image(feat), self.net.feat_proj(mask_feat)
        return Query(self.net.encoder_blocks.encode_query(tokens, mask), mask)

    def encode_target(self, feat: Tensor) -> Tensor:
        """Encode target images, from the backbone's features (B, F, h, w) -> tokens (B, L, C)."""
        return self.net.encoder_blocks.encode_target(self.net.feat_proj.image(feat))

    def look(self, query: Query, target: Tensor) -> Look:
        """Look for B objects, each in one target image."""
        return self._look(self.net.encoder_blocks.attend_target(query.tokens, target, query.mask))

    def _look(self, target: Tensor) -> Look:
        """The target's mask and existence, from its final tokens."""
        grid = as_grid(target)
        return Look(probabilities(self.net.decoder(grid)), self.net.cls_branch(grid).float())
