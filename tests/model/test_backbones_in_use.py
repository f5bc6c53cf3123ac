"""Training, resuming and inference with backbones whose weights are in another file than the checkpoint."""

import shutil
from pathlib import Path

import pytest
import torch

import eval_segswap
from common.errors import UserError
from inference.predictor import Predictor
from model import checkpoint
from model.backbone import Backbone
from recipes.table import load_checkpoint
from tests.made.networks import write_transformer
from tests.made.training import run_training
from train import start


def test_a_backbone_of_ones_own_trains_and_is_loaded_with_the_same_weights_only(training_set, tmp_path, monkeypatch):
    """As docs/extending.md says: `make_backbone` returns a `Backbone`, and nothing else is needed."""
    weights = torch.randn(20, 3, 16, 16, generator=torch.Generator().manual_seed(0))

    def make_own(name: str, *_: object) -> Backbone:
        network = torch.nn.Conv2d(3, 20, 16, stride=16)
        network.load_state_dict({"weight": weights, "bias": torch.zeros(20)})
        return Backbone(name, network, 20)

    for module in (start, checkpoint):
        monkeypatch.setattr(module, "make_backbone", make_own)
    last = tmp_path / "netLast.pth"
    assert run_training(training_set, tmp_path, "--backbone", "own", "--n-epoch", 0) is None
    assert torch.equal(Predictor.load(last, "cpu").recipe.encoder.backbone.network.weight, weights)
    weights[0] += 1
    with pytest.raises(UserError, match="other weights of own"):
        load_checkpoint(last)


def test_a_checkpoint_whose_transformer_has_gone_names_it_and_takes_the_file_given(tmp_path, training_set):
    first, other = tmp_path / "first.pth", tmp_path / "other.pth"
    for seed, path in enumerate((first, other)):
        torch.manual_seed(seed)
        *flags, _ = write_transformer(path)
    run_training(training_set, tmp_path / "run", *flags, first)
    last = tmp_path / "run" / "netLast.pth"
    assert set(torch.load(last, weights_only=True)["backbone"]) == {"name", "digest", "weights"}
    moved = Path(shutil.move(first, tmp_path / "moved.pth"))
    with pytest.raises(UserError, match="no file .*first.pth; give the weights of test_vit as --backbone_weights"):
        load_checkpoint(last)
    assert load_checkpoint(last, moved).backbone.name == "test_vit"
    assert run_training(training_set, tmp_path / "run", *flags, moved, "--n-epoch", 2) is None
    words = ["--setting", "ego-exo", "--ckpt_path", str(last), "--data_path", str(training_set), "--num_workers", "0"]
    words += ["--out_path", str(tmp_path / "results"), "--backbone_weights"]
    with pytest.raises(UserError, match="netLast.pth was trained on other weights of test_vit than .*other.pth"):
        eval_segswap.main([*words, str(other)])
    assert eval_segswap.main([*words, str(moved)]) == 0
    with pytest.raises(UserError, match="holds another network .backbone test_vit -> efficientnet_lite0."):
        run_training(training_set, tmp_path / "else", "--resume-pth", last)
