"""The cross-image transformer has properties that hold for every size."""

import pytest
import torch
import torch.nn.functional as F

from common.errors import UserError
from model.xsegtx import MODES, Look, XSegTx, XSegTxConfig, parse_layer_types

CONFIGS = [{"mode": mode} for mode in MODES] + [{"layer_types": "C I I C C N"}]


def make_model(**config) -> XSegTx:
    """Random weights, eval mode, no dropout in training mode either."""
    torch.manual_seed(0)
    return XSegTx(XSegTxConfig(**{"input_size": 96, "dropout": 0.0, "drop_feat": 0.0, **config})).eval()


def make_features(batch: int = 2, cells: int = 6, seed: int = 1) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    draw = (torch.randn(batch, 1024, cells, cells, generator=generator) for _ in range(3))
    return tuple(10 * F.normalize(x.relu(), dim=1) for x in draw)


def probabilities(look: Look) -> list[torch.Tensor]:
    return [look.target_mask_prob, look.logit.sigmoid(), look.query_mask_prob]


def largest_difference(a: Look, b: Look) -> float:
    return max((x - y).abs().max().item() for x, y in zip(probabilities(a), probabilities(b), strict=True))


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_a_look_without_the_querys_mask_says_the_same_of_the_target(config):
    model, (query_feat, target_feat, mask_feat) = make_model(**config), make_features()
    with torch.no_grad():
        look = model.look(model.encode(query_feat, mask_feat), model.encode_target(target_feat))
        both = model(query_feat, target_feat, mask_feat)
    assert look.query_mask_prob is None and both.query_mask_prob is not None
    look.query_mask_prob = both.query_mask_prob
    assert largest_difference(look, both) < 1e-6


def test_a_view_with_every_token_blocked_counts_as_not_blocked():
    model, features = make_model(), make_features()
    blocked = torch.zeros(2, 36, dtype=torch.bool)
    blocked[1] = True
    with torch.no_grad():
        assert largest_difference(model(*features, blocked, blocked), model(*features)) < 1e-6


def test_dropout_acts_in_training_only_and_channel_dropout_spares_the_mask_and_takes_whole_channels():
    model, inputs = make_model(mode="tiny", dropout=0.1), make_features()
    with torch.no_grad():
        assert torch.equal(model(*inputs).logit, model(*inputs).logit)
        assert not torch.equal(model.train()(*inputs).logit, model(*inputs).logit)
    model = make_model(mode="tiny", drop_feat=0.5).train()
    seen = {}
    layer = model.net.encoder_blocks[0]["layer1"]
    layer.query = lambda query, mask, *_: seen.update(query=query, mask=mask) or query
    model(*inputs)
    dropped = (seen["query"] == 0).float().mean(1)  # (B, C): share of a channel's tokens
    assert set(dropped.unique().tolist()) == {0.0, 1.0}
    assert not (seen["mask"] == 0).any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_valid_float32_probabilities_near_float32(dtype):
    model, features = make_model(), make_features()
    with torch.no_grad():
        exact = model(*features)
        with torch.autocast("cpu", dtype):
            half = model(*features)
    assert all(x.dtype == torch.float32 for x in vars(half).values())
    assert largest_difference(exact, half) < 0.03
    with torch.autocast("cpu", dtype):
        extreme = model.train()(*[1e4 * x for x in features])
        (extreme.target_mask_prob.log().mean() + extreme.query_mask_prob.log().mean()).backward()
    assert all(x.isfinite().all() for x in vars(extreme).values())
    assert all(x.min() > 0 and x.max() < 1 for x in (extreme.target_mask_prob, extreme.query_mask_prob))
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_layer_types_are_read_in_both_spellings():
    assert parse_layer_types(["I_C", "I_N"]) == parse_layer_types(["I", "C", "I", "N"]) == ["I", "C", "I", "N"]
    assert XSegTxConfig("large").layers == ["I", "C"] * 5 + ["I", "N"]
    for wrong in ([], ["I"], ["I_C", "I"], ["I_X"]):
        with pytest.raises(UserError, match="I_C I_C I_N"):
            parse_layer_types(wrong)
