"""Matching: objects are found by the features of a frozen backbone alone, with nothing trained."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

import eval_segswap
from common.errors import UserError
from formats.masks import iou
from inference.predictor import Predictor
from model.backbone import Backbone
from recipes.matching import Matching
from tests.made.known_answer import Colors, edges, scene
from tests.made.networks import write_transformer
from tests.made.processed import EGO, make_data_set
from tests.made.processes import killed_at

COLORS = Backbone("colors", Colors(), channels=3, early_channels=3)


@pytest.fixture(scope="module")
def transformer(tmp_path_factory) -> list[str]:
    """The flags of a vision transformer with random weights."""
    flags = write_transformer(tmp_path_factory.mktemp("weights") / "weights.pth")
    return [*flags, "--input_size", "96", "--device", "cpu"]


@pytest.mark.parametrize("size", [(270, 480), (480, 270), (601, 333)], ids=str)
def test_a_thing_whose_color_tells_it_is_found_with_nothing_trained(size):
    query, query_mask = scene(size[::-1], (0.3, 0.42, 0.5, 0.62))
    target, expected = scene(size, (0.25, 0.35, 0.1, 0.2))
    predictor = Predictor(Matching.of(COLORS, torch.device("cpu")))
    mask, existence = predictor.segment(query, query_mask, target)
    assert predictor.verdict(mask, 0.85) == "there (85 %)" and predictor.verdict(mask, 0.39).startswith("probably not")
    assert iou(mask.astype(bool), expected.astype(bool)) > 0.8 and existence > 0.5
    assert np.abs(edges(mask) - edges(expected)).max() <= 4
    absent, _ = scene(size, (0.25, 0.25, 0.1, 0.1))
    assert Predictor(Matching.of(COLORS, torch.device("cpu"))).segment(query, query_mask, absent).existence < 0.5


def test_a_run_with_a_vision_transformer_that_is_killed_continues_to_the_same_bytes(transformer, tmp_path):
    layout = {"cup": {EGO: [0], "cam01": [0]}}
    data_path = make_data_set(tmp_path, {"val": ["a", "b"]}, layout)
    flags = ["--setting", "ego-exo", "--data_path", str(data_path), "--num_workers", "0", *transformer]
    assert eval_segswap.main([*flags, "--out_path", str(tmp_path / "whole")]) == 0
    whole = tmp_path / "whole" / "ego-exo_val_results.json"
    assert killed_at(9, tmp_path / "killed", eval_segswap.main, *flags, "--out_path", tmp_path / "killed")
    assert eval_segswap.main([*flags, "--out_path", str(tmp_path / "killed")]) == 0
    assert (tmp_path / "killed" / whole.name).read_bytes() == whole.read_bytes()
    made_by = json.loads(whole.with_name("ego-exo_val_run.json").read_text())["provenance"]
    assert [made_by[key] for key in ("checkpoint", "backbone", "input_size")] == ["test_vit", "test_vit", 96]
    with pytest.raises(UserError, match="made by another run"):  # another size, other answers
        eval_segswap.main([*flags, "--input_size", "112", "--out_path", str(tmp_path / "whole")])


def test_a_transformer_is_compared_cell_by_cell_and_looks_back_at_pictures_that_are_not_enlarged(transformer):
    query, query_mask = scene((90, 60), (0.3, 0.42, 0.5, 0.62))
    target, _ = scene((60, 120), (0.25, 0.35, 0.1, 0.2))
    name, weights = transformer[1:4:2]
    predictor = Predictor.load(backbone=name, backbone_weights=Path(weights), input_size=96, device="cpu")
    levels, read = predictor.recipe.encoder.levels, []
    predictor.recipe.encoder.levels = lambda images: read.append(tuple(images.shape[1:3])) or levels(images)
    predictor.segment(query, query_mask, target)
    assert {height for height, width in read if height > width} == {96}  # 90, to whole cells
    picture = torch.zeros(1, 96, 64, 3, dtype=torch.uint8)
    assert predictor.recipe.network.locator.cells(levels(picture)).shape[1:3] == (6, 4)


def test_what_does_not_go_together_is_said_in_one_line(checkpoint, tmp_path):
    with pytest.raises(UserError, match="has its own backbone; leave out --backbone"):
        Predictor.load(checkpoint, backbone="efficientnet_lite0")
    with pytest.raises(UserError, match="--input_size goes with --backbone"):
        Predictor.load(checkpoint, input_size=96)
    with pytest.raises(UserError, match="reads an earlier layer of the backbone, and one has none"):
        Matching.of(Backbone("one", torch.nn.Identity(), 3), torch.device("cpu"))
    with pytest.raises(UserError, match="frame size 426666, with input size 100000, must be from 64 to 8192 pixels"):
        Predictor.load(backbone="efficientnet_lite0", input_size=100000)
    tuned, backbone = tmp_path / "tuned.pth", {"name": "efficientnet_lite0", "digest": "0"}
    torch.save({"recipe": "matching", "config": {"input_size": 240}, "backbone": backbone, "encoder": {}}, tuned)
    with pytest.raises(UserError, match="existence was fitted by version 3.0; give --backbone in place of the file"):
        Predictor.load(tuned)
    weights = tmp_path / "weights.pth"
    torch.save(timm.create_model("resnet10t").state_dict(), weights)
    with pytest.raises(UserError, match="does not fit resnet18"):
        Predictor.load(backbone="resnet18", backbone_weights=weights)
