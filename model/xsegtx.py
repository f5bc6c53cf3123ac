"""XSegTx: given an object's mask in the query view, find the object in the target view (arXiv 2311.18259, 2110.15904).

The network works on features of a frozen backbone (model/features.py). Two ways to call it:

    look = network(query_feat, target_feat, mask_feat)      # predicts the masks in both views, as in the paper

    query = network.encode(query_feat, mask_feat)           # once for each object mask
    target = network.encode_target(target_feat)             # once for each target image
    look = network.look(query, target)                      # once for each pair; predicts only the target's mask
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from model.config import MODES, STRIDE, XSegTxConfig
from model.transformer import CrossLayer, InnerLayer, sine_position

PROB_EPS = 1e-7
MASK_CHANNEL = 2  # the decoder has three channels, of which the published checkpoints trained only this one
OBJECT_WEIGHT = 10.0  # weight of the object's pixels in the mask loss; other pixels have weight 1


class Query(NamedTuple):
    """B encoded objects to look for."""

    tokens: Tensor  # (B, L, C) tokens of the query images
    mask: Tensor  # (B, L, C) tokens of the query masks


class Look(NamedTuple):
    """The network's answer for B objects, each in one target image; all float32."""

    target_mask_prob: Tensor  # (B, H, W) in [1e-7, 1 - 1e-7]
    logit: Tensor  # (B,) logit of "the object is visible in the target image"
    query_mask_prob: Tensor | None = None  # (B, H, W) in the same range; None if it was not asked for


class MaskDecoder(nn.Module):
    """Tokens -> mask logits at full resolution: two transposed convolutions x2, then bilinear x4."""

    def __init__(self, width: int):
        super().__init__()
        self.deconv1 = nn.ConvTranspose2d(width, width // 2, kernel_size=2, stride=2)
        self.deconv2 = nn.ConvTranspose2d(width // 2, 3, kernel_size=2, stride=2)

    def forward(self, features: Tensor) -> Tensor:
        x = F.relu(self.deconv1(features))  # (B, C, h, w) -> (B, C/2, 2h, 2w)
        return self.enlarge(x)

    def enlarge(self, x: Tensor) -> Tensor:
        """The first convolution's output (B, C/2, 2h, 2w) -> logits (B, 16h, 16w) float32."""
        weight, bias = self.deconv2.weight[:, MASK_CHANNEL, None], self.deconv2.bias[MASK_CHANNEL, None]
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


class XSegTx(nn.Module):
    """The cross-image transformer with its mask decoder and existence head, which work under `torch.autocast`."""

    def __init__(self, config: XSegTxConfig | None = None, decoder: Callable[[int], nn.Module] = MaskDecoder):
        super().__init__()
        self.config = config = config or XSegTxConfig()
        width, heads, feedforward, _ = MODES[config.mode]
        self.cells = config.input_size // STRIDE
        args = (width, heads, feedforward, config.dropout, config.activation)
        make = {
            "I": lambda: InnerLayer(*args, feat_weight=config.feat_weight),
            "C": lambda: CrossLayer(*args),
            "N": nn.Identity,
        }
        layers = [make[layer]() for layer in config.layers]
        blocks = [nn.ModuleDict({"layer1": a, "layer2": b}) for a, b in zip(layers[::2], layers[1::2], strict=True)]
        self.net = nn.ModuleDict(
            {
                "feat_proj": nn.Conv2d(config.feature_channels, width, kernel_size=1),
                "encoder_blocks": nn.ModuleList(blocks),
                "decoder": decoder(width),
                "cls_branch": ExistenceHead(width, self.cells),
            }
        )
        self.drop_channels = nn.Dropout1d(config.drop_feat)
        position = sine_position(self.cells, width, config.pos_weight)
        self.register_buffer("position", position, persistent=False)
        self.layers = [layer for layer in layers if not isinstance(layer, nn.Identity)]
        crosses = [i for i, layer in enumerate(self.layers) if isinstance(layer, CrossLayer)] or [len(self.layers)]
        self.first_cross, self.last_cross = crosses[0], crosses[-1]

    def forward(
        self,
        query_feat: Tensor,
        target_feat: Tensor,
        mask_feat: Tensor,
        query_blocked: Tensor | None = None,
        target_blocked: Tensor | None = None,
    ) -> Look:
        """The forward expects, with h = w = input_size / 16:
           - query_feat, target_feat, mask_feat: backbone features (B, F, h, w) of the images and of the query mask
           - query_blocked, target_blocked: (B, h * w) bool or None, True = no token may attend to this token of the
             view. Blocking acts in the layers (c) and C, not in mask conditioning (a); a view with all tokens blocked
             counts as not blocked.

        The forward returns a `Look` with the probabilities that a pixel of query and target belongs to the object, and
        the logit of "the object is visible in the target view".
        """
        query, target, mask = self.tokens(query_feat), self.tokens(target_feat), self.project(mask_feat)
        blocked = _attendable(query_blocked), _attendable(target_blocked)
        query, target = self.attend(self.layers, query, target, mask, *blocked)
        return Look(self.mask_prob(target), self.existence_logit(target), self.mask_prob(query))

    def attend(
        self,
        layers: Sequence[nn.Module],
        query: Tensor,
        target: Tensor,
        mask: Tensor,
        query_blocked: Tensor | None = None,
        target_blocked: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Pass the tokens (B, L, C) of both views and of the query mask through layers; returns the views' tokens."""
        for layer in layers:
            if isinstance(layer, CrossLayer):
                query, target = layer(query, target, target_blocked), layer(target, query, query_blocked)
            else:
                query = layer.query(query, mask, self.position, query_blocked)
                target = layer.target(target, self.position, target_blocked)
        return query, target

    def project(self, feat: Tensor) -> Tensor:
        """Backbone features (B, F, h, w) of an image or a mask -> tokens (B, L, C), row by row, float32."""
        tokens = self.net.feat_proj(feat.to(self.net.feat_proj.weight.dtype))
        return tokens.flatten(2).transpose(1, 2).float()

    def tokens(self, feat: Tensor) -> Tensor:
        """`project` for an image; training drops whole channels of the tokens."""
        return self.drop_channels(self.project(feat).transpose(1, 2)).transpose(1, 2)

    def mask_prob(self, tokens: Tensor) -> Tensor:
        return self.net.decoder(self.features(tokens)).sigmoid().clamp(PROB_EPS, 1 - PROB_EPS)

    def existence_logit(self, tokens: Tensor) -> Tensor:
        return self.net.cls_branch(self.features(tokens)).float()  # (B,)

    def features(self, tokens: Tensor) -> Tensor:
        return tokens.transpose(1, 2).unflatten(2, (self.cells, self.cells))  # (B, L, C) -> (B, C, h, w)

    # The following is for prediction, which needs only the target's mask. Layers before the first C see only one view,
    # so each object and each target image passes them once, and not once for each pair.

    def encode(self, feat: Tensor, mask_feat: Tensor) -> Query:
        """Encode B objects, from the backbone's features (B, F, h, w) of their images and masks."""
        return self.encode_query(self.tokens(feat), self.project(mask_feat))

    def encode_query(self, tokens: Tensor, mask: Tensor) -> Query:
        for layer in self.layers[: self.first_cross]:
            tokens = layer.query(tokens, mask, self.position)
        return Query(tokens, mask)

    def encode_target(self, feat: Tensor) -> Tensor:
        """Encode target images, from the backbone's features (B, F, h, w) -> tokens (B, L, C)."""
        tokens = self.tokens(feat)
        for layer in self.layers[: self.first_cross]:
            tokens = layer.target(tokens, self.position)
        return tokens

    def look(self, query: Query, target: Tensor) -> Look:
        """Look for B objects, each in one target image."""
        target = self.attend_target(query.tokens, target, query.mask)
        return Look(self.mask_prob(target), self.existence_logit(target))

    def attend_target(self, query: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """The target's tokens after all layers; the query's tokens are computed only until the last C reads them."""
        query, target = self.attend(self.layers[self.first_cross : self.last_cross], query, target, mask)
        for layer in self.layers[self.last_cross :]:
            target = layer(target, query) if isinstance(layer, CrossLayer) else layer.target(target, self.position)
        return target


def _attendable(blocked: Tensor | None) -> Tensor | None:
    """If all tokens of a sample are blocked, block none, because attention without a key is undefined."""
    return None if blocked is None else blocked & ~blocked.all(dim=1, keepdim=True)
