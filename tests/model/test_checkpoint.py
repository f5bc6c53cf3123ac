"""Checkpoint files: the published layout, round trips, and the errors for wrong files."""

import functools
import json
import os
import re
import subprocess
from dataclasses import make_dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from common.constants import SHIPPED
from common.errors import UserError
from model.backbones import make_backbone
from model.checkpoint import load_fitting, load_optimizer, save_checkpoint, stored_config
from model.xsegtx import MODES, XSegTx, XSegTxConfig
from recipes.table import load_checkpoint, stored_options
from tests.made import ROOT
from tests.made.golden import GOLDEN
from tests.made.networks import random_backbone, strong_network

LAYOUT = json.loads((GOLDEN / "checkpoint_layout.json").read_text())


@pytest.fixture(scope="module")
def backbone():
    return random_backbone(0)


def trained(model: XSegTx) -> torch.optim.Adam:
    """An Adam that has made a step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    sum((p**2).sum() for p in model.parameters()).backward()
    optimizer.step()
    return optimizer


@functools.cache
def published() -> dict:
    """What a published file holds: no config. Shared: do not change it."""
    torch.manual_seed(1)
    model = XSegTx()
    content = {"backbone": random_backbone(1).network.state_dict(), "encoder": model.state_dict()}
    return content | {"optimiser": trained(model).state_dict()}


def published_file(path: Path, **changes) -> Path:
    torch.save(published() | changes, path)
    return path


@pytest.fixture(scope="module")
def ours(tmp_path_factory) -> dict:
    """What a checkpoint on another backbone than the published one holds."""
    path, model = tmp_path_factory.mktemp("ours") / "net.pth", XSegTx(XSegTxConfig("tiny", 96, feature_channels=112))
    save_checkpoint(path, "paper", make_backbone("efficientnet_lite0"), model, optimiser=trained(model).state_dict())
    return torch.load(path, weights_only=True)


def refused(path: Path) -> str:
    with pytest.raises(UserError, match=path.name) as error:
        load_checkpoint(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600
    return str(error.value)


def test_a_saved_file_has_the_published_layout(backbone, tmp_path):
    model = XSegTx()
    save_checkpoint(tmp_path / "net.pth", "paper", backbone, model, optimiser=trained(model).state_dict())
    content = torch.load(tmp_path / "net.pth", weights_only=True)
    for part in ("backbone", "encoder"):
        assert {name: list(tensor.shape) for name, tensor in content[part].items()} == LAYOUT[part]
    assert [name for name, _ in model.named_parameters()] == list(LAYOUT["encoder"])  # the optimizer's order
    shapes = [list(content["optimiser"]["state"][i]["exp_avg"].shape) for i in range(len(LAYOUT["encoder"]))]
    assert shapes == list(LAYOUT["encoder"].values())


@pytest.mark.parametrize("strong", [False, True])
def test_weights_configuration_and_extras_survive_a_round_trip(backbone, tmp_path, strong):
    model = strong_network(dropout=0.3) if strong else XSegTx(XSegTxConfig("tiny", 112, dropout=0.3))
    extra, arguments = {"epoch": 3, "best": 0.25, "none": None}, {"out_dir": str(tmp_path), "names": ["a"]}
    random_state = torch.get_rng_state()
    recipe = "strong" if strong else "paper"
    extra |= {"arguments": arguments, "random": random_state}
    save_checkpoint(tmp_path / "net.pth", recipe, backbone, model, **extra)
    loaded, content = load_checkpoint(tmp_path / "net.pth"), torch.load(tmp_path / "net.pth", weights_only=True)
    assert loaded.network.config == model.config
    assert all(torch.equal(a, b) for a, b in zip(loaded.network.parameters(), model.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(loaded.backbone.parameters(), backbone.parameters(), strict=True))
    assert content["random"].equal(random_state) and {"epoch": 3, "best": 0.25, "none": None}.items() <= content.items()
    assert loaded.arguments == arguments and not loaded.network.training


@pytest.mark.parametrize(("mode", "layers"), [*((mode, None) for mode in MODES), ("small", "C I I C")])
def test_a_file_without_configuration_of_a_wrapped_network_tells_its_size(mode, layers, backbone, tmp_path):
    model = XSegTx(XSegTxConfig(mode, 96, layers))
    encoder = {f"module._orig_mod.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"backbone": backbone.network.state_dict(), "encoder": encoder}, tmp_path / "net.pth")
    config = load_checkpoint(tmp_path / "net.pth").network.config
    assert config.layers == model.config.layers and MODES[config.mode][:3] == MODES[mode][:3]
    assert config == (replace(model.config, layer_types=None) if layers is None else replace(config, input_size=96))


def test_what_train_network_keeps_of_a_training_is_all_that_prediction_needs(tmp_path, warm_python):
    script = (ROOT / "model" / "pretrained" / "train_network.sh").read_text()
    code = script.partition("<<'END'")[2].partition("\n")[2].partition("\nEND\n")[0]
    command = [warm_python, "-", SHIPPED, tmp_path / "net.pth"]
    subprocess.run(command, input=code, text=True, cwd=ROOT, check=True)
    kept, whole = load_checkpoint(tmp_path / "net.pth"), load_checkpoint(SHIPPED)
    assert kept.network.config == whole.network.config and kept.arguments == whole.arguments
    assert all(torch.equal(x, whole.network.state_dict()[name]) for name, x in kept.network.state_dict().items())


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")
def test_an_optimizer_goes_on_where_it_stopped_and_one_of_another_model_is_refused(tmp_path):
    model, stored = load_checkpoint(published_file(tmp_path / "net.pth")).network, published()["optimiser"]
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-4)
    load_optimizer(optimizer, stored, "net.pth, optimizer")
    assert optimizer.param_groups[0]["lr"] == 2e-4  # its own
    first = next(model.parameters())
    assert torch.equal(optimizer.state[first]["exp_avg"], stored["state"][0]["exp_avg"])
    other = torch.optim.Adam(XSegTx(XSegTxConfig("large")).parameters())
    odd = stored | {"param_groups": torch.zeros(1)}, stored | {"state": {0: torch.zeros(3)}}
    for state in (stored, {}, [1], *odd):
        with pytest.raises(UserError, match="net.pth, optimizer: does not fit this model"):
            load_optimizer(other, state, "net.pth, optimizer")


def test_a_damaged_file_is_refused_in_one_line(tmp_path):
    path = published_file(tmp_path / "net.pth")
    whole = path.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"<html>404</html>"):
        path.write_bytes(damaged)
        refused(path)
    torch.save({"backbone": {}, "encoder": {}}, path)
    whole = path.read_bytes()
    for position in range(0, len(whole), 9):  # of the archive's directory, too
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 255]) + whole[position + 1 :])
        refused(path)


@pytest.mark.parametrize("value", ["96", 10**400, float("nan"), {}, torch.zeros(3)])
def test_a_configuration_of_odd_values_is_refused_in_one_line(ours, tmp_path, value):
    for name in ours["config"]:
        torch.save(ours | {"config": ours["config"] | {name: value}}, tmp_path / "net.pth")
        refused(tmp_path / "net.pth")
    torch.save(ours | {"config": [1] if value == {} else value}, tmp_path / "net.pth")
    refused(tmp_path / "net.pth")


def test_options_of_a_recipe_of_ones_own_may_be_lists_and_are_checked_one_by_one(tmp_path):
    kind = make_dataclass("Config", [("sides", list[int] | None, None), ("parts", list[float], ())])
    for options in ({"sides": [1, 2], "parts": [0.5, 2]}, {"sides": None}):
        content = {"recipe": "own", "config": options}
        assert stored_config(content, tmp_path, ["own"], lambda _: SimpleNamespace(Config=kind))[1] == kind(**options)
    for odd in ({"sides": [1.5]}, {"sides": 3}, {"parts": [float("nan")]}, {"parts": None}):
        content = {"recipe": "own", "config": odd}
        with pytest.raises(UserError, match="no network that this version knows .(sides|parts) is "):
            stored_config(content, tmp_path, ["own"], lambda _: SimpleNamespace(Config=kind))


@pytest.mark.parametrize("backbone", [0, {"digest": 0, "name": [1], "weights": torch.zeros(3)}])
def test_a_backbone_of_an_odd_type_is_refused_in_one_line_and_its_options_are_still_told(ours, tmp_path, backbone):
    content = ours | {"backbone": backbone}
    torch.save(content, tmp_path / "net.pth")
    assert isinstance(stored_options(content, tmp_path)["backbone"], str)
    with pytest.raises(UserError):
        load_checkpoint(tmp_path / "net.pth")


def test_a_file_that_is_no_checkpoint_is_one_plain_line_and_its_code_is_not_run(tmp_path):
    class Bomb:
        def __init__(self, function, place):
            self.call = function, (place,)

        def __reduce__(self):
            return self.call

    (tmp_path / "picture.pth").write_bytes(b"\xff\xd8\xff\xe0\0\x10JFIF")
    bombs = {"code": Bomb(Path.touch, tmp_path / "exploded"), "command": Bomb(os.mkdir, str(tmp_path / "exploded"))}
    for name, bomb in bombs.items():  # PyTorch has two errors for these
        torch.save({"backbone": {}, "encoder": {}, "bomb": bomb}, tmp_path / f"{name}.pth")
    torch.save(published()["encoder"], tmp_path / "bare.pth")
    (tmp_path / "folder.pth").mkdir()
    for name, words in {
        "picture": "it is damaged, or no file of a network; give a checkpoint of train.py, or a published",
        **dict.fromkeys(bombs, "it holds other Python objects than tensors"),
        "bare": "is no XSegTx checkpoint",
        "folder": "folder.pth is a folder",
        "missing": "no file ",
    }.items():
        assert words in (line := refused(tmp_path / f"{name}.pth")) and "PyTorch" not in line
    assert not (tmp_path / "exploded").exists()


def test_too_little_memory_for_a_checkpoint_is_no_fault_of_the_file(monkeypatch, tmp_path):
    path = published_file(tmp_path / "net.pth")
    monkeypatch.setattr(torch, "load", lambda *_, **__: torch.empty(1 << 60))
    assert refused(path) == f"the memory of this machine is full; {path} needs more to be loaded"


def test_a_checkpoint_of_another_model_or_of_no_numbers_names_what_does_not_fit(ours, tmp_path):
    state, config = ours["encoder"], ours["config"]
    name = "net.decoder.deconv2.bias"
    for changes, message in (
        ({"encoder": {key: x * torch.nan for key, x in state.items()}}, "encoder: 108 tensors hold NaN"),
        ({"encoder": {key: tensor for key, tensor in state.items() if key != name}}, f'Missing key.*"{name}"'),
        ({"encoder": state | {name: torch.zeros(4)}}, f"size mismatch for {name}"),
        ({"encoder": state | {name: torch.zeros(3) > 0}}, f"{name} is torch.bool, not torch.float32"),
        ({"encoder": state | {name: torch.full((3,), torch.nan).to(torch.float8_e5m2)}}, f"1 tensors .* is {name}"),
        ({"encoder": state | {"net.extra": torch.zeros(1)}}, 'Unexpected key.*"net.extra"'),
        ({"encoder": {"conv1.weight": torch.zeros(1)}, "config": None}, "net.feat_proj.weight"),
        ({"config": config | {"option_of_tomorrow": 1}}, "option_of_tomorrow"),
        ({"config": config | {"mode": "huge"}}, "mode 'huge'"),
        ({"config": config | {"feature_channels": 1024}}, "efficientnet_lite0 has 112"),
        ({"backbone": ours["backbone"] | {"blocks": [[0], 1]}}, "--blocks .* needs version 3.0"),
        ({"backbone": ours["backbone"] | {"no_positions": True}}, "--no_positions True needs version 3.0"),
        ({"config": config | {"activation": "gelu"}}, "--activation 'gelu' needs version 3.0"),
    ):
        torch.save(ours | changes, tmp_path / "net.pth")
        assert re.search(message, refused(tmp_path / "net.pth"))


def test_a_related_model_gives_the_tensors_that_fit_and_the_rest_is_listed(tmp_path):
    """SegSwap's own transformer has no mask conditioning and another head."""
    torch.manual_seed(2)
    source = XSegTx().state_dict()
    state = {name: tensor for name, tensor in source.items() if "layer1.cross_encoder_layer" not in name}
    state["net.cls_branch.mlp.0.weight"] = torch.zeros(32, 100)
    state["net.other"] = torch.zeros(1)
    model, content = XSegTx(), {"backbone": {"conv1.weight": torch.zeros(1)}, "encoder": state, "optimiser": {}}
    untouched = model.state_dict()["net.cls_branch.mlp.0.weight"].clone()
    loaded, left_out = load_fitting(model, content, tmp_path)
    assert set(loaded) == {n for n in source if "layer1.cross_encoder_layer" not in n and "mlp.0.weight" not in n}
    assert all(torch.equal(model.state_dict()[name], source[name]) for name in loaded)
    assert torch.equal(model.state_dict()["net.cls_branch.mlp.0.weight"], untouched)
    assert len(left_out) == 3 * 12 + 2
    assert "net.other: unknown here" in left_out
    assert "net.cls_branch.mlp.0.weight: (32, 100) instead of (32, 784)" in left_out
    headless = {name: tensor for name, tensor in source.items() if "cls_branch" not in name}
    assert stored_options(content | {"encoder": headless}, tmp_path) == {}


def test_a_checkpoint_names_no_place_to_get_its_backbone_from(ours, tmp_path):
    for name in ("hf-hub:somebody/model", f"local-dir:{tmp_path}"):
        torch.save(ours | {"backbone": ours["backbone"] | {"name": name}}, tmp_path / "net.pth")
        with pytest.raises(UserError, match="is unknown"):
            load_checkpoint(tmp_path / "net.pth", tmp_path / "net.pth")
