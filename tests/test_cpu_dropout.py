"""Dropout on a CPU against PyTorch's."""

import pytest
import torch

from model.cpu_dropout import Dropout, dropout_attention, keep_mask

B, HEADS, TOKENS, WIDTH = 3, 2, 20, 8


def make_inputs():
    """q, k, v (B, heads, L, D) and blocked tokens: none of the first sample, some of the second, all but one of the
    third."""
    torch.manual_seed(0)
    q, k, v = torch.randn(3, B, HEADS, TOKENS, WIDTH, dtype=torch.float64).requires_grad_().unbind()
    blocked = torch.zeros(B, TOKENS, dtype=torch.bool)
    blocked[1, ::3] = True
    blocked[2, 1:] = True
    return q, k, v, blocked


def gradients(out, inputs):
    return torch.autograd.grad(out.square().sum(), inputs)


@pytest.mark.parametrize("dropout", [0.01, 0.1, 0.5])
def test_the_asked_share_is_dropped_and_the_mean_stays_one(dropout):
    torch.manual_seed(0)
    keep = keep_mask((1000, 1001), dropout)
    assert (keep == 0).double().mean() == pytest.approx(dropout, rel=0.02)
    assert keep.double().mean() == pytest.approx(1, abs=0.003)
    assert len(keep.unique()) == 2


def test_neighbours_are_dropped_independently():
    torch.manual_seed(0)
    dropped = (keep_mask((1_000_000,), 0.1) == 0).double()
    for lag in range(1, 9):
        assert (dropped[lag:] * dropped[:-lag]).mean() == pytest.approx(0.01, abs=0.0006)


def test_the_layer_drops_in_training_only():
    layer, x = Dropout(0.5), torch.ones(100, 100)
    assert set(layer(x).unique().tolist()) == {0.0, 2.0}
    assert torch.equal(layer.eval()(x), x)


@pytest.mark.parametrize("blocks", [True, False])
def test_attention_drops_probabilities_after_the_softmax(blocks):
    q, k, v, blocked = make_inputs()
    blocked &= blocks
    torch.manual_seed(3)
    keep = torch.zeros(B, HEADS, TOKENS, TOKENS, dtype=torch.float64)
    for i in range(B):
        count = int((~blocked[i]).sum())
        keep[i, :, :, ~blocked[i]] = keep_mask((HEADS, TOKENS, count), 0.3).double()
    scores = (q @ k.transpose(2, 3) / WIDTH**0.5).masked_fill(blocked[:, None, None], -torch.inf)
    expected = (scores.softmax(-1) * keep) @ v
    torch.manual_seed(3)
    out = dropout_attention(*(x.float() for x in (q, k, v)), blocked if blocks else None, dropout=0.3).double()
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(gradients(out, (q, k, v)), gradients(expected, (q, k, v)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_bfloat16_stays_bfloat16():
    q, k, v, blocked = make_inputs()
    out = dropout_attention(*(x.bfloat16() for x in (q, k, v)), blocked, dropout=0.1)
    assert out.dtype == torch.bfloat16 and out.shape == q.shape
