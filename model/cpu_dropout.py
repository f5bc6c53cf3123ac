"""Dropout for training on a CPU, where PyTorch's own draws random numbers for longer than it multiplies matrices."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

VALUES = 1 << 16  # of a random int16


class Dropout(nn.Dropout):
    """`nn.Dropout`, with `keep_mask` on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.p and use_fast_dropout(x):
            return x * keep_mask(x.shape, self.p).to(x.dtype)
        return super().forward(x)


def use_fast_dropout(x: Tensor) -> bool:
    """Whether this module's way is the faster one for `x`; a compiled network brings its own random numbers."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def keep_mask(shape: Sequence[int], dropout: float) -> Tensor:
    """Float32 factors on the CPU: 0 with probability `dropout`, to 1 / 65536, else such that their expectation is 1."""
    count, dropped = math.prod(shape), min(round(dropout * VALUES), VALUES - 1)
    # One 64-bit number of PyTorch's generator for four elements, where `F.dropout` takes one for each.
    numbers = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(1 << 63), None).view(torch.int16)
    keep = torch.empty(shape)
    torch.ge(numbers[:count].view(shape), dropped - VALUES // 2, out=keep)
    return keep.mul_(VALUES / (VALUES - dropped))


def dropout_attention(q: Tensor, k: Tensor, v: Tensor, blocked: Tensor | None, dropout: float) -> Tensor:
    """`F.scaled_dot_product_attention` with dropout, a sample at a time: its matrices stay in the processor's cache,
    and blocked tokens are left out instead of masked.

    q, k, v: (B, heads, L, D); blocked: (B, L) bool or None, True = no token attends to this one. Returns
    (B, heads, L, D).
    """
    outs = []
    for i, (query, key, value) in enumerate(zip(q * q.shape[-1] ** -0.5, k, v, strict=True)):
        if blocked is not None:
            allowed = (~blocked[i]).nonzero()[:, 0]
            if len(allowed) < len(blocked[i]):
                key, value = key[:, allowed], value[:, allowed]
        prob = torch.bmm(query, key.transpose(1, 2)).softmax(-1, dtype=torch.float32)
        prob = prob * keep_mask(prob.shape, dropout)
        outs.append(torch.bmm(prob.to(value.dtype), value))
    return torch.stack(outs)
