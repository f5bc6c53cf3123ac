"""What the losses are for negatives, for certain predictions and under autocast."""

import torch

from model.xsegtx import Look
from recipes.losses import compute_losses


def random_batch(batch: int = 6, side: int = 16, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    probs = [torch.rand(batch, side, side, generator=generator) for _ in range(2)]
    look = Look(probs[0], torch.randn(batch, generator=generator), probs[1])
    masks = [torch.rand(batch, side, side, generator=generator) < 0.2 for _ in range(2)]
    return look, (*masks, torch.arange(batch) % 3 != 1)  # query and target masks, what is visible


def test_a_batch_of_negatives_has_an_existence_loss_only():
    look, (*masks, visible) = random_batch()
    losses = compute_losses(look, *masks, torch.zeros_like(visible))
    assert losses["mask"] == losses["dice"] == 0 < losses["existence"]


def test_certain_and_wrong_predictions_give_finite_losses_and_gradients():
    prob = torch.full((2, 4, 4), 1 - 1e-7).requires_grad_()
    logit = torch.tensor([-1e4, 1e4]).requires_grad_()
    masks = torch.zeros(2, 4, 4)
    truth = masks, masks, torch.tensor([True, False])
    total = sum(compute_losses(Look(prob, logit, prob), *truth).values())
    total.backward()
    assert total.isfinite() and prob.grad.isfinite().all() and logit.grad.isfinite().all()


def test_losses_are_float32_under_autocast():
    look, (*masks, visible) = random_batch()
    expected = compute_losses(look, *masks, visible)
    with torch.autocast("cpu", torch.bfloat16):
        losses = compute_losses(look, *(mask.byte() for mask in masks), visible)
    assert all(torch.equal(losses[name], loss) and loss.dtype == torch.float32 for name, loss in expected.items())
