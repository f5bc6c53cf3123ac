"""--outline: what draws the masks in the end. SAM 2 has random weights here, or a stand-in knows the truth."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import eval_segswap
from common.constants import THRESHOLD
from common.errors import UserError
from formats.masks import iou
from inference.predictor import Predictor
from recipes.base import Answer
from recipes.search import outline
from recipes.search.crops import Crop
from tests.made.known_answer import OBJECT, color_recipe, scene
from tests.made.networks import write_network
from tests.made.processed import EGO, make_data_set
from tests.made.processes import killed_at

SIZE = (270, 480)


@pytest.fixture(scope="module")
def sam2(tmp_path_factory) -> Path:
    """The folder of a SAM 2 of 128 pixels with random weights."""
    import transformers
    from transformers import Sam2Config, Sam2HieraDetConfig, Sam2Model, Sam2Processor, Sam2VisionConfig

    layers = {"embed_dim_per_stage": [8, 16, 32, 64], "blocks_per_stage": [1, 1, 2, 1], "global_attention_blocks": [3]}
    heads = {"num_attention_heads_per_stage": [1, 1, 2, 4], "hidden_size": 8, "image_size": [128, 128]}
    sizes = {"backbone_channel_list": [64, 32, 16, 8], "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]]}
    vision = Sam2VisionConfig(backbone_config=Sam2HieraDetConfig(**layers, **heads), fpn_hidden_size=32, **sizes)
    decoder = {"hidden_size": 32, "mlp_dim": 64, "iou_head_hidden_dim": 32, "num_attention_heads": 2}
    prompts = {"hidden_size": 32, "image_size": 128}
    torch.manual_seed(0)
    config = Sam2Config(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)
    kind = getattr(transformers, "Sam2ImageProcessor", None) or transformers.Sam2ImageProcessorFast  # before 5
    folder = tmp_path_factory.mktemp("outline") / "small-sam2"
    Sam2Model(config).save_pretrained(folder)
    Sam2Processor(kind(size={"height": 128, "width": 128}), target_size=128).save_pretrained(folder)
    return folder


class KnowsTheObject:
    """A segmenter whose second mask shows the pixels of the object's color; the first shows the whole crop."""

    side = 256

    def __init__(self):
        self.prompts = []

    def __call__(self, crops, boxes, points, masks):
        self.prompts += zip(crops, boxes, points, masks, strict=True)
        truth = np.stack([np.abs(crop.astype(int) - OBJECT).max(2) < 60 for crop in crops])
        return torch.from_numpy(np.stack([np.full(truth.shape, 9.0), 18.0 * truth - 9], 1))


def test_a_segmenter_that_knows_the_object_draws_it_and_is_asked_where_it_lies():
    image, expected = scene(SIZE, (0.3, 0.55, 0.4, 0.6))
    top, left = np.argwhere(expected)[0] + 12  # a rough answer that lies 12 pixels too low and too far right
    rough = np.zeros(SIZE, np.float32)
    rough[top : top + 60, left : left + 90] = 1
    crop = Crop(0, 100, 270)
    answer = Answer(np.ascontiguousarray(rough[:270, 100:370]), 0.8, crop)
    nothing = Answer(np.zeros((270, 270), np.float32), 0.1, crop)
    segmenter = KnowsTheObject()
    drawn, empty = outline.segmented(segmenter, [answer, nothing], [image, image])
    assert iou(answer.in_image(SIZE) > THRESHOLD, expected.astype(bool)) < 0.7
    assert iou(drawn.in_image(SIZE) > THRESHOLD, expected.astype(bool)) > 0.97 and drawn.existence == 0.8
    assert empty is nothing and len(segmenter.prompts) == 1  # nobody asks for what is not there
    (picture, box, point, mask) = segmenter.prompts[0]
    assert picture.shape == (256, 256, 3) and mask.shape == (64, 64)
    assert np.allclose(box[2:] - box[:2], np.array([1.1 * 90, 1.1 * 60]) * 256 / drawn.crop.side, atol=8)
    assert drawn.crop.side == 3 * 90
    assert np.allclose(point, 128, atol=24)  # on the middle line of the answer, and so of the crop
    assert (mask > 9).sum() == pytest.approx((64 / 270) ** 2 * 60 * 90, rel=0.1) and mask.min() < -9


def test_an_outline_that_does_not_overlap_the_answer_is_refused():
    image, expected = scene(SIZE, (0.3, 0.55, 0.4, 0.6))
    far = np.zeros((100, 100), np.float32)
    far[40:60, 40:60] = 1
    answer = Answer(far, 0.8, Crop(150, 0, 100))
    assert outline.segmented(KnowsTheObject(), [answer], [image]) == [answer]


def test_a_search_draws_with_what_it_is_told(monkeypatch):
    query, query_mask = scene(SIZE, (0.3, 0.42, 0.5, 0.62))
    target, expected = scene(SIZE, (0.25, 0.35, 0.1, 0.2))
    segmenter = KnowsTheObject()
    segmenter.digest = "d"
    monkeypatch.setattr(outline, "Sam2", lambda name, device, precision: segmenter)
    recipe = color_recipe(outline="stand-in")
    mask, existence = Predictor(recipe).segment(query, query_mask, target)
    assert iou(mask.astype(bool), expected.astype(bool)) > 0.9 and len(segmenter.prompts) == 1
    assert recipe.remark() == "SAM 2 drew 1 of 1 mask\n" and color_recipe().remark() == ""
    assert recipe.options["outline"] == "stand-in" and recipe.options["outline_sha256"] == "d"
    assert existence == Predictor(color_recipe()).segment(query, query_mask, target).existence
    assert "outline" not in color_recipe().options and color_recipe(outline="grabcut").options["outline"] == "grabcut"


def test_a_sam2_of_random_weights_runs_and_a_killed_run_continues_to_the_same_bytes(
    sam2, strong_checkpoint, tmp_path, capsys
):
    layout = {"cup": {EGO: [0, 30], "cam01": [0, 30]}}
    data_path = make_data_set(tmp_path, {"val": ["a", "b"]}, layout)
    flags = ["--setting", "ego-exo", "--data_path", str(data_path), "--num_workers", "0", "--device", "cpu"]
    flags += ["--ckpt_path", str(strong_checkpoint), "--outline", str(sam2)]
    assert eval_segswap.main([*flags, "--out_path", str(tmp_path / "whole")]) == 0
    assert "outlines by small-sam2" in (printed := capsys.readouterr().out)
    whole = tmp_path / "whole" / "ego-exo_val_results.json"
    assert killed_at(9, tmp_path / "killed", eval_segswap.main, *flags, "--out_path", tmp_path / "killed")
    assert eval_segswap.main([*flags, "--out_path", str(tmp_path / "killed")]) == 0
    assert (tmp_path / "killed" / whole.name).read_bytes() == whole.read_bytes()
    made_by = json.loads(whole.with_name("ego-exo_val_run.json").read_text())["provenance"]
    assert made_by["outline"] == "small-sam2" and len(made_by["outline_sha256"]) == 64
    with pytest.raises(UserError, match="made by another run"):
        eval_segswap.main([*flags[:-2], "--out_path", str(tmp_path / "whole")])
    # Random weights draw nothing that overlaps an answer, so all answers stay.
    assert eval_segswap.main([*flags[:-2], "--out_path", str(tmp_path / "usual")]) == 0
    assert (tmp_path / "usual" / whole.name).read_bytes() == whole.read_bytes()
    assert re.search(r"^SAM 2 drew 0 of \d masks; the other answers overlap its masks by less than 50%", printed, re.M)


def test_an_outline_that_cannot_be_had_is_named_in_one_line(sam2, monkeypatch, tmp_path):
    with pytest.raises(UserError, match="--outline grabcut: this network looks at whole targets"):
        Predictor.load(write_network(tmp_path / "paper.pth"), outline="grabcut")
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(
        UserError, match=r"is neither none nor grabcut, and transformers loads no SAM 2 from there \(it la"
    ):
        Predictor.load(outline=str(other))
    for file in sam2.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    (other / "model.safetensors").write_bytes((sam2 / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(UserError, match="loads no SAM 2 from there"):
        Predictor.load(outline=str(other))
    weights = load_file(sam2 / "model.safetensors")
    weights.pop("mask_decoder.conv_s0.weight")
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="lacks 1 weights of SAM 2; is it another model"):
        Predictor.load(outline=str(other))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"needs transformers, 4.56 or newer; pip install -r .*requirements-sam2.txt"):
        Predictor.load(outline=str(sam2))
