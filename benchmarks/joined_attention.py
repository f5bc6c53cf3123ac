"""The transformer as the paper draws it: each layer is one attention over the joined tokens of both views (or of query
and mask) under a mask that keeps the halves apart, and everything is computed, the mask tokens' update included.

Slow and short. The product must agree with it, and the benchmarks time it as the published implementation's way.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from model.transformer import CrossLayer, EncoderLayer, InnerLayer
from model.xsegtx import Look, XSegTx


def joined_forward(
    model: XSegTx,
    query_feat: Tensor,
    target_feat: Tensor,
    mask_feat: Tensor,
    query_blocked: Tensor | None = None,
    target_blocked: Tensor | None = None,
) -> Look:
    """`model.forward` with joined masked attention; same contract, same numbers to rounding."""
    query, target, mask = model.tokens(query_feat), model.tokens(target_feat), model.project(mask_feat)
    batch, tokens = query.shape[:2]
    nobody = torch.zeros(batch, tokens, dtype=torch.bool, device=query.device)
    blocked = torch.cat([nobody if b is None else b for b in (query_blocked, target_blocked)], dim=1)
    same, other = _halves(tokens, query.device)
    for block in model.net["encoder_blocks"]:
        for layer in block.values():
            if isinstance(layer, InnerLayer):
                # Query tokens look at mask tokens only; the mask tokens' own update is computed and dropped.
                joined = torch.cat((query, mask), dim=1)
                query = _layer(layer.cross_encoder_layer.cross_encoder_layer, joined, other, None)[:, :tokens]
                both = torch.cat((query + model.position, target + model.position), dim=1)
                query, target = _layer(layer.inner_encoder_layer, both, same, blocked).chunk(2, dim=1)
            elif isinstance(layer, CrossLayer):
                both = torch.cat((query, target), dim=1)
                query, target = _layer(layer.cross_encoder_layer, both, other, blocked).chunk(2, dim=1)
    return Look(model.mask_prob(target), model.existence_logit(target), model.mask_prob(query))


def _halves(tokens: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(2L, 2L) masks, True = may not attend: to the other half, and to the own half."""
    half = torch.arange(2 * tokens, device=device) >= tokens
    same_view = half[:, None] == half[None]
    return ~same_view, same_view


def _layer(layer: EncoderLayer, tokens: Tensor, forbidden: Tensor, blocked: Tensor | None) -> Tensor:
    """A standard post-norm encoder layer over all tokens."""
    attention = layer.self_attn
    B, L, C = tokens.shape
    q, k, v = F.linear(tokens, attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)
    q, k, v = (x.unflatten(-1, (attention.heads, -1)).transpose(1, 2) for x in (q, k, v))  # (B, heads, L, C / heads)
    allowed = ~forbidden if blocked is None else ~(forbidden | blocked[:, None, None])
    dropout = attention.dropout if layer.training else 0.0
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, dropout_p=dropout)
    out = attention.out_proj(out.transpose(1, 2).reshape(B, L, C))
    tokens = layer.norm1(tokens + layer.dropout(out))
    hidden = layer.dropout(layer.activation(layer.linear1(tokens)))
    return layer.norm2(tokens + layer.dropout(layer.linear2(hidden)))
