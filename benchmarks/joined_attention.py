"""The transformer as the paper draws it. Each layer is one attention over the joined tokens of both views (or of query
and mask), with an attention mask that separates the two halves. Everything is computed, also the update of the mask
tokens, which is not used.

This transformer is slow and short. Tests compare the network with this transformer; the benchmarks time it as the
published implementation.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from model.transformer import CrossLayer, EncoderLayer, InnerLayer
from model.xsegtx import Look, XSegTx, as_grid, probabilities


def joined_forward(
    model: XSegTx,
    query_feat: Tensor,
    target_feat: Tensor,
    mask_feat: Tensor,
    query_blocked: Tensor | None = None,
    target_blocked: Tensor | None = None,
) -> Look:
    """The same as `model.forward`, up to rounding, with joined attention."""
    project, blocks = model.net.feat_proj, model.net.encoder_blocks
    query, target, mask = project.image(query_feat), project.image(target_feat), project(mask_feat)
    batch, tokens = query.shape[:2]
    nobody = torch.zeros(batch, tokens, dtype=torch.bool, device=query.device)
    blocked = torch.cat([nobody if b is None else b for b in (query_blocked, target_blocked)], dim=1)
    same, other = _attention_masks(tokens, query.device)
    for layer in blocks.layers:
        if isinstance(layer, InnerLayer):
            # Query tokens attend only to mask tokens; the update of the mask tokens is computed, but not used.
            joined = torch.cat((query, mask), dim=1)
            query = _joined_layer(layer.cross_encoder_layer.cross_encoder_layer, joined, other, None)[:, :tokens]
            both = torch.cat((query + blocks.position, target + blocks.position), dim=1)
            query, target = _joined_layer(layer.inner_encoder_layer, both, same, blocked).chunk(2, dim=1)
        elif isinstance(layer, CrossLayer):
            both = torch.cat((query, target), dim=1)
            query, target = _joined_layer(layer.cross_encoder_layer, both, other, blocked).chunk(2, dim=1)
    target_prob, query_prob = (probabilities(model.net.decoder(as_grid(view))) for view in (target, query))
    return Look(target_prob, model.net.cls_branch(as_grid(target)).float(), query_prob)


def _attention_masks(tokens: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Two (2L, 2L) masks, True = may not attend. In the first, no token attends to the other half, so both halves are
    separate; in the second, no token attends to its own half.
    """
    half = torch.arange(2 * tokens, device=device) >= tokens
    same_view = half[:, None] == half[None]
    return ~same_view, same_view


def _joined_layer(layer: EncoderLayer, tokens: Tensor, forbidden: Tensor, blocked: Tensor | None) -> Tensor:
    """A post-norm encoder layer in which all tokens attend to all tokens that are not `forbidden` or `blocked`."""
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
