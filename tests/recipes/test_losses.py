"""The losses equal the published trainer's numbers and their definition."""

import json

import numpy as np
import pytest
import torch

from model.config import XSegTxConfig
from model.xsegtx import Look, XSegTx
from recipes.losses import compute_losses, total_loss
from tests.made.golden import GOLDEN
from tests.made.golden_network import CASES, fill, golden_batch, golden_inputs

STEPS = json.loads((GOLDEN / "training_steps.json").read_text())
WEIGHTS = {"mask": 1.0, "dice": 1.0, "existence": 1.0}  # of the paper
TERMS = {"total": "trainLoss", "mask": "trainLossMask", "dice": "trainLossDice", "existence": "trainLossCls"}


def random_batch(batch: int = 6, side: int = 16, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    probs = [torch.rand(batch, side, side, generator=generator) for _ in range(2)]
    look = Look(probs[0], torch.randn(batch, generator=generator), probs[1])
    masks = [torch.rand(batch, side, side, generator=generator) < 0.2 for _ in range(2)]
    return look, (*masks, torch.arange(batch) % 3 != 1)  # query and target masks, what is visible


@pytest.mark.parametrize("case", CASES)
def test_two_training_steps_agree_with_the_published_trainer(case):
    """The golden weights amplify rounding: with the features' last bits changed at random, and nothing else, three in
    four gradient norms of `batch1` move by 2e-4 to 1e-3, and float64 is 3e-3 away from golden. So this cannot hold them
    to 1e-4, although with two threads and AVX-512 the features are golden's bit for bit and the losses are within 1e-6.
    The second step's existence loss of `batch1`, 0.002, moves by 1e-5.
    """
    batch, golden = golden_batch(case), STEPS[case]
    model = XSegTx(XSegTxConfig(dropout=0.0, drop_feat=0.0))
    fill(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-4)
    for step in range(2):
        look = model(*golden_inputs(case))
        truth = (batch[name] for name in ("query_mask", "target_mask", "visible"))
        losses = compute_losses(look, *truth)
        losses["total"] = total_loss(losses, WEIGHTS)
        for term, name in TERMS.items():
            tolerance = {"rel": 1e-4} if step == 0 or term == "total" else {"rel": 3e-4, "abs": 3e-5}
            assert losses[term].item() == pytest.approx(golden["history"][name][step], **tolerance), term
        if step == 0:
            losses["total"].backward()
            norms = {name: parameter.grad.norm().item() for name, parameter in model.named_parameters()}
            off = np.array([abs(norms[name] / value - 1) for name, value in golden["grad_norms"].items()])
            assert norms.keys() == golden["grad_norms"].keys()
            assert off.max() < 6e-3
            assert np.median(off) < 3e-3
            optimizer.step()


def test_a_batch_of_negatives_has_an_existence_loss_only():
    look, (*masks, visible) = random_batch()
    losses = compute_losses(look, *masks, torch.zeros_like(visible))
    assert losses["mask"] == losses["dice"] == 0 < losses["existence"]


def test_certain_and_wrong_predictions_give_finite_losses_and_gradients():
    prob = torch.full((2, 4, 4), 1 - 1e-7).requires_grad_()
    logit = torch.tensor([-1e4, 1e4]).requires_grad_()
    masks = torch.zeros(2, 4, 4)
    truth = masks, masks, torch.tensor([True, False])
    total = total_loss(compute_losses(Look(prob, logit, prob), *truth), WEIGHTS)
    total.backward()
    assert total.isfinite() and prob.grad.isfinite().all() and logit.grad.isfinite().all()


def test_losses_are_float32_under_autocast():
    look, (*masks, visible) = random_batch()
    expected = compute_losses(look, *masks, visible)
    with torch.autocast("cpu", torch.bfloat16):
        losses = compute_losses(look, *(mask.byte() for mask in masks), visible)
    assert all(torch.equal(losses[name], loss) and loss.dtype == torch.float32 for name, loss in expected.items())
