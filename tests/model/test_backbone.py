"""The frozen backbone: the published features, folding, calibration and the MoCo files."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import resnet50

from common.errors import UserError
from model import backbone as module
from model.backbone import MOCO_PATH, MOCO_RAW_PATH, mask_to_image, moco_backbone, normalize_image
from model.features import fold_batch_norm
from tests.made.golden import GOLDEN
from tests.made.golden_network import CASES, golden_batch, golden_networks


@pytest.mark.parametrize("case", CASES)
def test_the_backbone_is_frozen_and_its_features_of_images_and_masks_are_the_published_ones(case):
    batch, golden, backbone = golden_batch(case), np.load(GOLDEN / "network.npz"), golden_networks()[0].train()
    assert not any(part.training for part in backbone.modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    for network, tolerance in ((backbone, 1e-5), (fold_batch_norm(backbone), 1e-4)):
        for name, image in (("x", normalize_image(batch["query_image"])), ("mask", mask_to_image(batch["query_mask"]))):
            ours = network(image[:1])[0, ::32, ::6, ::6].numpy()  # golden has the first sample's
            assert np.abs(ours - golden[f"{case}/feature_{name}"]).max() < tolerance


@pytest.fixture(scope="module")
def moco_files(tmp_path_factory) -> dict[str, Path]:
    """Both file forms, with the same random weights."""
    folder = tmp_path_factory.mktemp("moco")
    torch.manual_seed(5)
    state = resnet50().state_dict()
    raw = {f"module.encoder_q.{name}": tensor for name, tensor in state.items() if not name.startswith("fc.")}
    raw |= {"module.encoder_q.fc.0.weight": torch.zeros(2), "module.queue": torch.zeros(2)}
    paths = {form: folder / f"{form}.pth.tar" for form in ("raw", "converted")}
    torch.save({"epoch": 800, "arch": "resnet50", "state_dict": raw, "optimizer": {"state": {}}}, paths["raw"])
    converted = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    torch.save({"model": converted}, paths["converted"])
    return paths


def test_both_moco_file_forms_give_the_same_backbone(moco_files):
    torch.manual_seed(5)
    expected = torch.nn.Sequential(*list(resnet50().children())[:7]).state_dict()
    for path in moco_files.values():
        state = moco_backbone(path).network.state_dict()
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[name], expected[name]) for name in expected)


@pytest.mark.parametrize("form", ["raw", "converted"])
def test_moco_weights_are_found_where_script_and_original_put_them(form, moco_files, tmp_path, monkeypatch):
    name = {"raw": MOCO_RAW_PATH.name, "converted": MOCO_PATH.name}[form]
    monkeypatch.setattr(module, "MODEL_DIR", tmp_path)
    monkeypatch.setattr(module, "MOCO_PATH", tmp_path / "pretrained" / MOCO_PATH.name)
    with pytest.raises(UserError, match="no file .*--backbone efficientnet_lite0.*download_model.sh"):
        moco_backbone()
    shutil.copy(moco_files[form], tmp_path / name)
    assert moco_backbone().name == "moco"
    (tmp_path / "pretrained").mkdir()
    (tmp_path / "pretrained" / name).write_text("looked for first")
    with pytest.raises(UserError, match="pretrained.* cannot be read"):
        moco_backbone()


@pytest.mark.parametrize("content", [{"model": {"conv1.weight": torch.zeros(1)}}, {"state_dict": {}}, [1]])
def test_a_file_that_is_no_moco_model_is_refused_in_one_line(content, tmp_path):
    torch.save(content, tmp_path / "bad.pth.tar")
    with pytest.raises(UserError, match="^[^\n]*bad.pth.tar[^\n]*$"):
        moco_backbone(tmp_path / "bad.pth.tar")
