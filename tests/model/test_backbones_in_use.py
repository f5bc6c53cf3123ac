"""Training, resuming and inference with backbones whose weights are in another file than the checkpoint."""

import shutil
from pathlib import Path

import pytest
import timm
import torch

import eval_segswap
from common.errors import UserError
from inference.predictor import Predictor
from model import checkpoint
from model.backbone import Backbone
from recipes.table import load_checkpoint
from tests.made.training import run_training
from tests.model.test_backbones import DINOV2, original_state
from train import start


def test_training_and_inference_work_on_another_backbone(training_set, tmp_path):
    weights = tmp_path / "weights.pth"
    torch.save({key: tensor.half() for key, tensor in original_state(DINOV2).items()}, weights)
    backbone = ["--backbone", DINOV2, "--backbone_weights", weights, "--warmUpIter", 1, "--iter-epoch", 2]
    last = tmp_path / "netLast.pth"
    assert run_training(training_set, tmp_path, *backbone) is None
    assert set(torch.load(last, weights_only=True)["backbone"]) == {"name", "digest", "weights"}

    words = ["--setting", "ego-exo", "--ckpt_path", last, "--data_path", training_set, "--out_path", tmp_path / "out"]
    assert eval_segswap.main([str(word) for word in [*words, "--num_workers", 0]]) == 0


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


def test_a_checkpoint_whose_backbone_has_gone_names_it_and_takes_the_file_given(tmp_path, training_set):
    first, other = tmp_path / "first.pth", tmp_path / "other.pth"
    for seed, path in enumerate((first, other)):
        torch.manual_seed(seed)
        torch.save(timm.create_model("resnet10t").state_dict(), path)
    flags = ["--backbone", "resnet10t", "--backbone_weights"]
    run_training(training_set, tmp_path / "run", *flags, first)
    last = tmp_path / "run" / "netLast.pth"
    moved = Path(shutil.move(first, tmp_path / "moved.pth"))
    assert load_checkpoint(last, moved).backbone.name == "resnet10t"
    assert run_training(training_set, tmp_path / "run", *flags, moved, "--n-epoch", 2) is None
    words = ["--setting", "ego-exo", "--ckpt_path", str(last), "--data_path", str(training_set)]
    with pytest.raises(UserError, match="netLast.pth was trained on other weights of resnet10t than .*other.pth"):
        eval_segswap.main([*words, "--backbone_weights", str(other), "--out_path", str(tmp_path / "results")])
    with pytest.raises(UserError, match="holds another network .backbone resnet10t -> efficientnet_lite0."):
        run_training(training_set, tmp_path / "else", "--resume-pth", last)
