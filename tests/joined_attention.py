"""The transformer written plainly, as the paper draws it: both views' tokens in one sequence, PyTorch's own encoder
layer, and an attention mask that keeps the halves apart. Slow and short; the product must agree with it.
"""

import torch
from torch import Tensor, nn

from model.transformer import CrossLayer, EncoderLayer
from model.xsegtx import SIZES, Prediction, XSegTx


def joined_forward(
    model: XSegTx, query_feat, target_feat, mask_feat, query_blocked=None, target_blocked=None
) -> Prediction:
    """What `model(...)` should return, without dropout."""
    query, target, mask = (model.project(feat) for feat in (query_feat, target_feat, mask_feat))
    unblocked = torch.zeros(query.shape[:2], dtype=torch.bool)
    query_blocked = unblocked if query_blocked is None else query_blocked
    target_blocked = unblocked if target_blocked is None else target_blocked
    for block in model.net.encoder_blocks:
        for layer in (block["layer1"], block["layer2"]):
            if isinstance(layer, nn.Identity):
                continue
            if isinstance(layer, CrossLayer):
                query, target = _layer(model, layer, query, target, True, query_blocked, target_blocked)
            else:
                query, _ = _layer(model, layer.cross_encoder_layer, query, mask, True, unblocked, unblocked)
                query, target = query + model.position, target + model.position
                query, target = _layer(
                    model, layer.inner_encoder_layer, query, target, False, query_blocked, target_blocked
                )
    return Prediction(model._mask_prob(query), model._mask_prob(target), model._existence(target))


def _layer(
    model: XSegTx, layer: CrossLayer | EncoderLayer, a: Tensor, b: Tensor, across: bool, a_blocked, b_blocked
) -> tuple[Tensor, Tensor]:
    """Tokens `a` and `b` through one layer; each attends to the other (`across`) or to itself."""
    own = getattr(layer, "cross_encoder_layer", layer)
    width, heads, feedforward, _ = SIZES[model.config.mode]
    plain = nn.TransformerEncoderLayer(width, heads, feedforward, 0.0, model.config.activation, batch_first=True)
    parameters = dict(own.named_parameters())
    B, L, _ = a.shape
    forbidden = torch.zeros(B, 2 * L, 2 * L, dtype=torch.bool)
    forbidden[:, :L, :L] = forbidden[:, L:, L:] = across
    forbidden[:, :L, L:] = forbidden[:, L:, :L] = not across
    forbidden |= torch.cat((a_blocked, b_blocked), 1)[:, None]
    mask = forbidden.repeat_interleave(heads, 0)
    out = torch.func.functional_call(plain, parameters, (torch.cat((a, b), 1),), {"src_mask": mask})
    return out[:, :L], out[:, L:]
