"""The layers of the cross-image transformer: each is one or two standard post-norm encoder layers.

`EncoderBlocks` has all layers of a network, and passes both views through them, or only what a prediction needs.

The module names follow the published checkpoints (docs/formats.md), so that state dicts agree name for name.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LayerNorm(nn.LayerNorm):
    """Layer norm that computes and returns float32 in every precision, so the residual stream is float32."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.float())


class Attention(nn.Module):
    """Multi-head attention with the parameters (names, order, initial values) of `torch.nn.MultiheadAttention`."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, tokens: Tensor, context: Tensor, blocked: Tensor | None) -> Tensor:
        """The arguments are the arguments of `EncoderLayer.forward`. Returns (B, L, C)."""
        B, L, C = tokens.shape
        weight, bias = self.in_proj_weight, self.in_proj_bias
        if context is tokens:
            q, k, v = F.linear(tokens, weight, bias).chunk(3, dim=-1)
        else:
            parts = (autocasted(x).split((C, 2 * C)) for x in (weight, bias))  # else each part is cast by itself
            of_tokens, of_context = zip(*parts, strict=True)
            q = F.linear(tokens, *of_tokens)
            k, v = F.linear(context, *of_context).chunk(2, dim=-1)
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q, k, v))  # (B, heads, L, C / heads)
        allowed = None if blocked is None else ~blocked[:, None, None, :]  # (B, 1, 1, L): the same for each query
        dropout = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, dropout_p=dropout)
        return self.out_proj(out.transpose(1, 2).reshape(B, L, C))


def autocasted(parameter: Tensor) -> Tensor:
    """The parameter in the precision in which `torch.autocast` computes products, if it is on."""
    kind = parameter.device.type
    return parameter.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else parameter


class EncoderLayer(nn.Module):
    """Post-norm transformer encoder layer whose tokens attend to `context`, which may be the tokens themselves."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float):
        super().__init__()
        self.self_attn = Attention(width, heads, dropout)
        self.linear1 = nn.Linear(width, feedforward)
        self.linear2 = nn.Linear(feedforward, width)
        self.norm1 = LayerNorm(width)
        self.norm2 = LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, context: Tensor, blocked: Tensor | None = None) -> Tensor:
        """tokens: (B, L, C); context: (B, L', C), the keys and values; blocked: (B, L') bool or None, True = this
        context token may not be attended to. Returns (B, L, C).
        """
        tokens = self.norm1(tokens + self.dropout(self.self_attn(tokens, context, blocked)))
        hidden = self.dropout(F.relu(self.linear1(tokens)))
        return self.norm2(tokens + self.dropout(self.linear2(hidden)))


class CrossLayer(nn.Module):
    """Type `C`: the tokens of one view attend only to tokens of the other view. Both directions share the weights."""

    def __init__(self, *layer_args):
        super().__init__()
        self.cross_encoder_layer = EncoderLayer(*layer_args)

    def forward(self, tokens: Tensor, other: Tensor, other_blocked: Tensor | None = None) -> Tensor:
        return self.cross_encoder_layer(tokens, other, other_blocked)


class InnerLayer(nn.Module):
    """Type `I`: (a) query tokens attend to the mask tokens, (b) positions are added, (c) each view attends to itself.

    The mask tokens do not change. (The published model updates the mask tokens, but does not use the result.)
    """

    def __init__(self, *layer_args, feat_weight: float = 1.0):
        super().__init__()
        self.inner_encoder_layer = EncoderLayer(*layer_args)
        self.cross_encoder_layer = CrossLayer(*layer_args)
        self.feat_weight = feat_weight

    def query(self, query: Tensor, mask: Tensor, position: Tensor, query_blocked: Tensor | None = None) -> Tensor:
        return self.target(self.cross_encoder_layer(query, mask), position, query_blocked)

    def target(self, tokens: Tensor, position: Tensor, blocked: Tensor | None = None) -> Tensor:
        tokens = torch.add(position, tokens, alpha=self.feat_weight)
        return self.inner_encoder_layer(tokens, tokens, blocked)


class EncoderBlocks(nn.ModuleList):
    """The layers of a network, two for each block. `layer_types` has I, C or N, which does nothing, for each layer."""

    def __init__(
        self, layer_types: Sequence[str], cells: int, layer_args: tuple, pos_weight: float, feat_weight: float
    ):
        """cells: the side of the square grid of tokens. layer_args: the arguments of `EncoderLayer`."""
        make = {
            "I": lambda: InnerLayer(*layer_args, feat_weight=feat_weight),
            "C": lambda: CrossLayer(*layer_args),
            "N": nn.Identity,
        }
        layers = [make[layer]() for layer in layer_types]
        super().__init__(
            nn.ModuleDict({"layer1": a, "layer2": b}) for a, b in zip(layers[::2], layers[1::2], strict=True)
        )
        self.register_buffer("position", sine_position(cells, layer_args[0], pos_weight), persistent=False)
        self.layers: list[Any] = [layer for layer in layers if not isinstance(layer, nn.Identity)]
        crosses = [i for i, layer in enumerate(self.layers) if isinstance(layer, CrossLayer)] or [len(self.layers)]
        self.first_cross, self.last_cross = crosses[0], crosses[-1]

    def forward(
        self,
        query: Tensor,
        target: Tensor,
        mask: Tensor,
        query_blocked: Tensor | None = None,
        target_blocked: Tensor | None = None,
        layers: slice = slice(None),
    ) -> tuple[Tensor, Tensor]:
        """Pass the tokens (B, L, C) of both views and of the query mask through `layers`; returns the views' tokens.
        `query_blocked` and `target_blocked` are (B, L) bool or None, True = no token may attend to this one.
        """
        # If all tokens of a sample are blocked, none is, because attention without a key is undefined.
        blocked = (x if x is None else x & ~x.all(dim=1, keepdim=True) for x in (query_blocked, target_blocked))
        query_blocked, target_blocked = blocked
        for layer in self.layers[layers]:
            if isinstance(layer, CrossLayer):
                query, target = layer(query, target, target_blocked), layer(target, query, query_blocked)
            else:
                query = layer.query(query, mask, self.position, query_blocked)
                target = layer.target(target, self.position, target_blocked)
        return query, target

    # A prediction needs only the target's tokens. Layers before the first C see only one view, so each object and each
    # target image passes them once, and not once for each pair.

    def encode_query(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """The tokens (B, L, C) of query images after the layers that see only them and their masks."""
        for layer in self.layers[: self.first_cross]:
            tokens = layer.query(tokens, mask, self.position)
        return tokens

    def encode_target(self, tokens: Tensor) -> Tensor:
        """The tokens (B, L, C) of target images after the layers that see only them."""
        for layer in self.layers[: self.first_cross]:
            tokens = layer.target(tokens, self.position)
        return tokens

    def attend_target(self, query: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """The encoded target's tokens after all layers; the query's are computed only until the last C reads them."""
        query, target = self(query, target, mask, layers=slice(self.first_cross, self.last_cross))
        for layer in self.layers[self.last_cross :]:
            target = layer(target, query) if isinstance(layer, CrossLayer) else layer.target(target, self.position)
        return target


def sine_position(cells: int, channels: int, weight: float) -> Tensor:
    """DETR's two-dimensional sine encoding of a square grid, times `weight`: (cells * cells, channels). The first half
    of the channels encodes y, the second half x. Coordinates count from 1 and are normalized to 2 pi; sines and cosines
    alternate; the temperature is 10000.
    """
    per_axis = channels // 2
    exponent = 2 * torch.div(torch.arange(per_axis), 2, rounding_mode="floor") / per_axis
    angle = torch.arange(1, cells + 1) / (cells + 1e-6) * (2 * math.pi)
    angle = angle[:, None] / 10000.0**exponent
    waves = torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), dim=2).flatten(1)  # (cells, per_axis)
    y, x = waves[:, None].expand(-1, cells, -1), waves.expand(cells, -1, -1)
    return weight * torch.cat((y, x), dim=2).flatten(0, 1)
