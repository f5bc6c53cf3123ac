"""The paper's network has the original's numbers: features, masks and existence, losses and gradients."""

import json

import numpy as np
import pytest
import torch

from model.backbone import normalize_image
from model.features import fold_batch_norm
from model.xsegtx import XSegTx, XSegTxConfig
from recipes.losses import compute_losses
from tests.made.golden import GOLDEN
from tests.made.golden_network import CASES, fill, golden_batch, golden_features, golden_inputs, golden_networks

NAMES = {"out1": "query_mask_prob", "out2": "target_mask_prob"}
STEPS = json.loads((GOLDEN / "training_steps.json").read_text())
TERMS = {"total": "trainLoss", "mask": "trainLossMask", "dice": "trainLossDice", "existence": "trainLossCls"}


@pytest.mark.parametrize("case", CASES)
def test_the_backbone_is_frozen_and_its_features_of_images_and_masks_are_the_published_ones(case):
    batch, golden, backbone = golden_batch(case), np.load(GOLDEN / "network.npz"), golden_networks()[0].train()
    assert not any(part.training for part in backbone.modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    query, _, mask = golden_features(case)
    folded = fold_batch_norm(backbone)(normalize_image(batch["query_image"][:1]))
    for name, ours, tolerance in (("x", query, 1e-5), ("mask", mask, 1e-5), ("x", folded, 1e-4)):
        ours = ours[0, ::32, ::6, ::6].numpy()  # golden has the first sample's
        assert np.abs(ours - golden[f"{case}/feature_{name}"]).max() < tolerance


@pytest.mark.parametrize("kind", ["plain", "masked"])
@pytest.mark.parametrize("case", CASES)
def test_masks_and_existence_agree_with_the_published_model(case, kind):
    """The golden weights make attention so sharp that float32 rounding moves single pixels of the query's mask by
    more than 1e-4, in the published implementation as well (another number of threads does it).
    """
    with torch.no_grad():  # not inference mode: the features are cached, and training tests differentiate through them
        look = golden_networks()[1](*golden_inputs(case, blocked=kind == "masked"))
    golden = np.load(GOLDEN / "network.npz")
    assert np.abs(look.logit.sigmoid().numpy() - golden[f"{case}/{kind}_exist"][:, 0]).max() < 1e-4
    difference = {}
    for name in ("out1", "out2"):
        ours = getattr(look, NAMES[name])[:, ::8, ::8].numpy()
        difference[name] = np.abs(ours - golden[f"{case}/{kind}_{name}"])
    assert difference["out2"].max() < 1e-4
    assert difference["out1"].mean() < 8e-5
    assert difference["out1"].max() < 3e-3


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
        losses["total"] = sum(losses.values())
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
