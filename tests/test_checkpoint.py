"""Checkpoint files: the published layout, round trips, and what a wrong file says."""

import functools
import json
import resource
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import timm
import torch

from common.errors import UserError
from model import checkpoint
from model.backbone import random_backbone
from model.backbones import make_backbone
from model.checkpoint import load_checkpoint, load_matching, load_optimizer, save_checkpoint, stored_options
from model.features import fold_batch_norm
from model.weights import write_torch
from model.xsegtx import MODES, XSegTx, XSegTxConfig

LAYOUT = json.loads((Path(__file__).parent / "golden" / "checkpoint_layout.json").read_text())


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
    write_torch(path, published() | changes)
    return path


def test_a_saved_file_has_the_published_layout(backbone, tmp_path):
    model = XSegTx()
    save_checkpoint(tmp_path / "net.pth", backbone, model, trained(model))
    content = torch.load(tmp_path / "net.pth", weights_only=True)
    for part in ("backbone", "encoder"):
        assert {name: list(tensor.shape) for name, tensor in content[part].items()} == LAYOUT[part]
    assert [name for name, _ in model.named_parameters()] == list(LAYOUT["encoder"])  # the optimizer's order
    shapes = [list(content["optimiser"]["state"][i]["exp_avg"].shape) for i in range(len(LAYOUT["encoder"]))]
    assert shapes == list(LAYOUT["encoder"].values())


def test_weights_configuration_and_extras_survive_a_round_trip(backbone, tmp_path):
    model = XSegTx(XSegTxConfig("tiny", 112, dropout=0.3, similarity_prior=True))
    extra, arguments = {"epoch": 3, "best": 0.25, "none": None}, {"out_dir": str(tmp_path), "names": ["a"]}
    random_state = torch.get_rng_state()
    save_checkpoint(tmp_path / "net.pth", backbone, model, None, **extra, arguments=arguments, random=random_state)
    loaded = load_checkpoint(tmp_path / "net.pth")
    assert loaded.model.config == model.config
    assert all(torch.equal(a, b) for a, b in zip(loaded.model.parameters(), model.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(loaded.backbone.parameters(), backbone.parameters(), strict=True))
    assert loaded.extra.pop("random").equal(random_state)
    assert loaded.extra == extra and loaded.arguments == arguments
    assert loaded.optimizer is None and not loaded.model.training


@pytest.mark.parametrize(("mode", "layers"), [*((mode, None) for mode in MODES), ("small", "C I I C")])
def test_a_file_without_configuration_tells_its_size_by_its_shapes(mode, layers, backbone, tmp_path):
    model = XSegTx(XSegTxConfig(mode, 96, layers))
    write_torch(tmp_path / "net.pth", {"backbone": backbone.network.state_dict(), "encoder": model.state_dict()})
    config = load_checkpoint(tmp_path / "net.pth").model.config
    assert config.layers == model.config.layers and MODES[config.mode][:3] == MODES[mode][:3]
    assert config == (replace(model.config, layer_types=None) if layers is None else replace(config, input_size=96))


def test_overrides_change_what_does_not_shape_the_network(tmp_path):
    path = published_file(tmp_path / "net.pth")
    assert asdict(load_checkpoint(path, dropout=0.2).model.config) == asdict(XSegTxConfig(dropout=0.2))


def test_wrapped_models_are_loaded_without_their_prefix(backbone, tmp_path):
    model = XSegTx(XSegTxConfig("tiny", 96))
    encoder = {f"module._orig_mod.{name}": tensor for name, tensor in model.state_dict().items()}
    write_torch(tmp_path / "wrapped.pth", {"backbone": backbone.network.state_dict(), "encoder": encoder})
    assert load_checkpoint(tmp_path / "wrapped.pth").model.config == model.config


def test_an_optimizer_goes_on_where_it_stopped(tmp_path):
    loaded = load_checkpoint(published_file(tmp_path / "net.pth"))
    optimizer = torch.optim.Adam(loaded.model.parameters(), lr=2e-4)
    load_optimizer(optimizer, loaded.optimizer, "net.pth, optimizer")
    assert optimizer.param_groups[0]["lr"] == 2e-4  # its own
    first = next(loaded.model.parameters())
    assert torch.equal(optimizer.state[first]["exp_avg"], loaded.optimizer["state"][0]["exp_avg"])


def test_an_optimizer_of_another_model_is_refused(tmp_path):
    state = load_checkpoint(published_file(tmp_path / "net.pth")).optimizer
    for mode, size in (("large", 480), ("small", 96)):
        optimizer = torch.optim.Adam(XSegTx(XSegTxConfig(mode, size)).parameters())
        with pytest.raises(UserError, match="belongs to another model"):
            load_optimizer(optimizer, state, "net.pth, optimizer")
    with pytest.raises(UserError, match="no Adam state"):
        load_optimizer(optimizer, {}, "net.pth, optimizer")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="absent.pth"):
        load_checkpoint(tmp_path / "absent.pth")


def refused(path: Path) -> str:
    with pytest.raises(UserError, match=path.name) as error:
        load_checkpoint(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600
    return str(error.value)


def test_a_damaged_file_is_refused_in_one_line(tmp_path):
    path = published_file(tmp_path / "net.pth")
    whole = path.read_bytes()
    for damaged in (b"", whole[:10], whole[: len(whole) // 2], whole[:-1000], b"<html>404</html>"):
        path.write_bytes(damaged)
        refused(path)
    torch.save({"backbone": {}, "encoder": {}}, path)
    whole = path.read_bytes()
    for position in range(0, len(whole), 3):  # of the archive's directory, too
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 255]) + whole[position + 1 :])
        refused(path)


def test_code_in_a_file_is_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    torch.save({"backbone": {}, "encoder": {}, "bomb": Bomb()}, tmp_path / "net.pth")
    with pytest.raises(UserError, match="net.pth"):
        load_checkpoint(tmp_path / "net.pth")
    assert not (tmp_path / "exploded").exists()


def test_a_checkpoint_of_another_model_names_the_first_tensors_at_fault(tmp_path):
    state = XSegTx().state_dict()
    dropped = {name: tensor for name, tensor in state.items() if "linear1" not in name}
    shaped = state | {"net.decoder.deconv2.bias": torch.zeros(4), "net.extra": torch.zeros(1)}
    for encoder, message in (
        (
            dropped,
            r"16 missing \(net.encoder_blocks.0.layer1.inner_encoder_layer.linear1.weight, .*, ...\)",
        ),
        (shaped, r"1 unexpected \(net.extra\).*net.decoder.deconv2.bias \(4,\) instead of \(3,\)"),
        ({"backbone.conv1.weight": torch.zeros(1)}, "net.feat_proj.weight missing"),
        (state | {"net.feat_proj.weight": torch.zeros(300, 1024, 1, 1)}, "width 300 is none of tiny 128, small 256"),
    ):
        path = published_file(tmp_path / "net.pth", encoder=encoder)
        with pytest.raises(UserError, match=message) as error:
            load_checkpoint(path)
        assert "\n" not in str(error.value) and "net.pth" in str(error.value)


def test_a_failed_save_leaves_the_former_file_and_no_other(backbone, tmp_path):
    model = XSegTx(XSegTxConfig("tiny", 96))
    path = tmp_path / "net.pth"
    save_checkpoint(path, backbone, model, epoch=1)
    with pytest.raises(ValueError, match="folded"):
        save_checkpoint(path, fold_batch_norm(backbone), model)
    with pytest.raises(AttributeError):
        save_checkpoint(path, backbone, model, unpicklable=lambda: 0)
    assert [file.name for file in tmp_path.iterdir()] == ["net.pth"]
    assert load_checkpoint(path).extra == {"epoch": 1}


@pytest.mark.parametrize("form", ["encoder", "bare", "without prefix"])
def test_a_related_model_gives_the_tensors_that_fit_and_the_rest_is_listed(form, tmp_path):
    """SegSwap's own transformer has no mask conditioning and another head."""
    torch.manual_seed(2)
    source = XSegTx().state_dict()
    state = {name: tensor for name, tensor in source.items() if "layer1.cross_encoder_layer" not in name}
    state["net.cls_branch.mlp.0.weight"] = torch.zeros(32, 100)
    state["net.other"] = torch.zeros(1)
    if form == "without prefix":
        state = {name.removeprefix("net."): tensor for name, tensor in state.items()}
    torch.save({"encoder": state} if form == "encoder" else state, tmp_path / "segswap.pth")
    model = XSegTx()
    untouched = model.state_dict()["net.cls_branch.mlp.0.weight"].clone()
    loaded, left_out = load_matching(model, tmp_path / "segswap.pth")
    assert set(loaded) == {n for n in source if "layer1.cross_encoder_layer" not in n and "mlp.0.weight" not in n}
    assert all(torch.equal(model.state_dict()[name], source[name]) for name in loaded)
    assert torch.equal(model.state_dict()["net.cls_branch.mlp.0.weight"], untouched)
    assert len(left_out) == 3 * 12 + 2
    assert "net.other: unknown here" in left_out
    assert "net.cls_branch.mlp.0.weight: (32, 100) instead of (32, 784)" in left_out


def test_a_file_of_which_less_than_half_fits_is_refused_and_changes_nothing(tmp_path):
    model = XSegTx()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.save(XSegTx(XSegTxConfig("tiny")).state_dict(), tmp_path / "tiny.pth")
    with pytest.raises(UserError, match=r"tiny.pth has 14 of the 108 tensors of this network \(net.*instead of"):
        load_matching(model, tmp_path / "tiny.pth")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    "options", [{}, {"layer_types": "I C I C"}, {"similarity_prior": True, "zoom": 2, "pos_weight": 0.3}]
)
def test_the_options_that_a_file_holds_make_a_network_in_which_all_of_it_fits(options, tmp_path):
    backbone = make_backbone("efficientnet_lite0")
    model = XSegTx(XSegTxConfig("tiny", 96, feature_channels=backbone.channels, **options))
    closer_look = "zoom" in options
    save_checkpoint(tmp_path / "net.pth", backbone, model, arguments={"closer_look": closer_look, "lr": 1})
    found = stored_options(tmp_path / "net.pth")
    assert found.pop("closer_look") == closer_look and found.pop("backbone") == "efficientnet_lite0"
    again = XSegTx(XSegTxConfig(**found, feature_channels=112))
    assert load_matching(again, tmp_path / "net.pth") == (list(model.state_dict()), [])
    assert again.config == model.config


def test_a_published_file_tells_its_options_by_its_tensors_and_a_related_model_tells_none(tmp_path):
    found = stored_options(published_file(tmp_path / "net.pth"))
    assert (found["mode"], found["input_size"], found["backbone"]) == ("small", 480, "moco")
    torch.save(published()["encoder"], tmp_path / "bare.pth")
    assert stored_options(tmp_path / "bare.pth") == {}


def test_a_file_that_cannot_grow_is_an_error_of_the_disk_and_leaves_the_former_one(tmp_path):
    path, limits = tmp_path / "net.pth", resource.getrlimit(resource.RLIMIT_FSIZE)
    write_torch(path, {"a": 1})
    before = path.read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))  # as a full disk, to the process
    try:
        with pytest.raises(OSError):
            write_torch(path, {"a": torch.zeros(2**20)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [file.name for file in tmp_path.iterdir()] == ["net.pth"] and path.read_bytes() == before


def lite0_file(path: Path) -> tuple[Path, XSegTx]:
    """A checkpoint on another backbone than the published one."""
    torch.manual_seed(3)
    model = XSegTx(XSegTxConfig("tiny", 96, feature_channels=112))
    save_checkpoint(path, make_backbone("efficientnet_lite0"), model, trained(model), step=5)
    return path, model


def test_a_checkpoint_of_another_backbone_holds_its_name_and_digest_and_finds_it_again(tmp_path):
    path, model = lite0_file(tmp_path / "net.pth")
    content = torch.load(path, weights_only=True)
    assert set(content["backbone"]) == {"name", "digest", "weights"}
    loaded = load_checkpoint(path)
    assert loaded.backbone.name == "efficientnet_lite0" and loaded.backbone.channels == 112
    assert loaded.model.config == model.config and loaded.extra == {"step": 5}
    save_checkpoint(tmp_path / "again.pth", fold_batch_norm(loaded.backbone), loaded.model)
    assert torch.load(tmp_path / "again.pth", weights_only=True)["backbone"] == content["backbone"]


def test_a_backbone_from_a_file_is_looked_for_where_it_was_and_where_one_says(tmp_path):
    def weights(name: str, seed: int) -> Path:
        torch.manual_seed(seed)
        torch.save(timm.create_model("resnet10t").state_dict(), tmp_path / name)
        return tmp_path / name

    first, path = weights("first.pth", 0), tmp_path / "net.pth"
    backbone = make_backbone("resnet10t", first, 96)
    save_checkpoint(path, backbone, XSegTx(XSegTxConfig("tiny", 96, feature_channels=backbone.channels)))
    assert load_checkpoint(path).backbone.digest == backbone.digest
    moved = first.rename(tmp_path / "moved.pth")
    assert load_checkpoint(path, moved).backbone.digest == backbone.digest
    with pytest.raises(UserError, match="net.pth was trained on other weights of resnet10t.*--backbone_weights"):
        load_checkpoint(path, weights("second.pth", 1))


def test_a_checkpoint_of_closer_looks_that_its_network_cannot_take_is_refused(backbone, tmp_path):
    save_checkpoint(tmp_path / "net.pth", backbone, XSegTx(XSegTxConfig("tiny", 96)), arguments={"closer_look": True})
    assert "its zoom is 1" in refused(tmp_path / "net.pth")


def test_a_checkpoint_names_no_place_to_get_its_backbone_from(tmp_path):
    path, _ = lite0_file(tmp_path / "net.pth")
    content = torch.load(path, weights_only=True)
    for name in ("hf-hub:somebody/model", f"local-dir:{tmp_path}"):
        torch.save(changed(content, ("backbone", "name"), name), path)
        with pytest.raises(UserError, match="is a place, not a model"):
            load_checkpoint(path, path)


def test_the_similarity_prior_of_another_checkpoint_starts_a_training(backbone, tmp_path):
    first, second = (XSegTx(XSegTxConfig("tiny", 96, similarity_prior=True)) for _ in range(2))
    save_checkpoint(tmp_path / "net.pth", backbone, first)
    loaded, left_out = load_matching(second, tmp_path / "net.pth")
    assert not left_out and set(loaded) == set(first.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_weights_that_would_give_no_number_are_refused(tmp_path):
    state = XSegTx().state_dict()
    for bad in (torch.nan, torch.inf, 1e30):
        encoder = {name: torch.full_like(tensor, bad) for name, tensor in state.items()}
        assert "encoder: 108 tensors hold NaN" in refused(published_file(tmp_path / "net.pth", encoder=encoder))


ODD = [  # what a file may hold where something else belongs
    None, True, -1, 10**30, float("nan"), "text", b"bytes", [], [[1, "a"]], (), {}, {"a": 1}, {1: torch.zeros(2)},
    {"x" * 10_000: {}}, set(), torch.zeros(()), torch.zeros(3, dtype=torch.complex64), torch.zeros(0, 5),
    torch.eye(3).to_sparse(), torch.zeros((), dtype=torch.int64).expand(10**6, 10**6),
]  # fmt: skip


def changed(value, path, new):
    return value | {path[0]: new if len(path) == 1 else changed(value[path[0]], path[1:], new)}


@pytest.fixture(scope="module")
def ours(tmp_path_factory) -> dict:
    path, _ = lite0_file(tmp_path_factory.mktemp("odd") / "net.pth")
    return torch.load(path, weights_only=True)


def test_odd_content_at_any_place_is_refused_in_one_line_or_harmless(ours, tmp_path, monkeypatch):
    backbone = make_backbone("efficientnet_lite0")

    def known_name_only(name, weights, input_size):
        return backbone if name == "efficientnet_lite0" else make_backbone(name, Path("absent.pth"), input_size)

    monkeypatch.setattr(checkpoint, "make_backbone", known_name_only)
    moment = ("optimiser", "state", 0)
    places = [(name,) for name in ours] + [(part, name) for part in ("backbone", "config") for name in ours[part]]
    places += [("encoder", next(iter(ours["encoder"]))), moment, (*moment, "step"), (*moment, "exp_avg")]
    path, refused, loaded = tmp_path / "net.pth", 0, 0
    for number, place in enumerate(places):
        for odd in ODD[number % 5 :: 5]:  # each at a fifth of the places, to be quick
            torch.save(changed(ours, place, odd), path)
            try:
                content = load_checkpoint(path)
                load_optimizer(torch.optim.Adam(content.model.parameters()), content.optimizer, "optimizer")
                loaded += 1
            except UserError as error:
                assert "\n" not in str(error) and len(str(error)) < 600, place
                refused += 1
    assert refused > 5 * loaded  # a number instead of a truth, say, does no harm


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("input_size", 10**9, "input size 1000000000"),
        ("feature_channels", 10**9, "feature_channels 1000000000"),
        ("layer_types", "I C " * 10**5, "does not fit its tensors"),
        ("dropout", 1.5, "dropout 1.5"),
        ("pos_weight", float("inf"), "pos_weight inf"),
        ("mode", "huge", "mode 'huge'"),
    ],
)
def test_a_huge_or_odd_configuration_is_refused_before_anything_is_made(field, value, message, ours, tmp_path):
    torch.save(changed(ours, ("config", field), value), tmp_path / "net.pth")
    with pytest.raises(UserError, match=f"net.pth.*{message}") as error:
        load_checkpoint(tmp_path / "net.pth")
    assert len(str(error.value)) < 600


def test_an_option_that_is_gone_matters_only_where_it_was_used(ours, tmp_path):
    torch.save(changed(ours, ("config", "mask_position"), False), tmp_path / "without.pth")
    assert load_checkpoint(tmp_path / "without.pth").model.config == XSegTxConfig(**ours["config"])
    torch.save(changed(ours, ("config", "mask_position"), True), tmp_path / "with.pth")
    with pytest.raises(UserError, match="with.pth needs the option mask_position"):
        load_checkpoint(tmp_path / "with.pth")


@pytest.mark.parametrize("name", ["net.feat_proj.weight", "net.cls_branch.mlp.0.weight"])
def test_shapes_that_would_fill_the_memory_are_refused(name, ours, tmp_path):
    tensor = torch.zeros(()).expand(128, 10**9, 1, 1) if "feat" in name else torch.zeros(()).expand(32, 10**14)
    torch.save(changed(ours, ("encoder", name), tensor) | {"config": None}, tmp_path / "net.pth")
    with pytest.raises(UserError, match="net.pth"):
        load_checkpoint(tmp_path / "net.pth")
