"""segment_pair.py: picture files in, a mask and an overlay out."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from common.errors import UserError
from inference import predictor, segment_pair
from tests.made import ROOT
from tests.made.networks import make_network

SAMPLES = sorted(path for path in (ROOT / "assets/samples").iterdir() if path.is_dir())


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    """Argument -> path of a valid call."""
    folder = tmp_path_factory.mktemp("pair")
    make_network(folder / "net.pth")
    rng = np.random.default_rng(0)
    for name, size in {"query": (64, 64), "target": (90, 160)}.items():
        cv2.imwrite(str(folder / f"{name}.jpg"), rng.integers(0, 256, (*size, 3), np.uint8))
    mask = np.zeros((64, 64), np.uint8)
    cv2.imwrite(str(folder / "empty.png"), mask)
    mask[20:40, 10:50] = 255
    cv2.imwrite(str(folder / "mask.png"), mask)
    cv2.imwrite(str(folder / "wide.png"), np.ones((90, 160), np.uint8))
    (folder / "text.jpg").write_text("no picture")
    names = {"query_image": "query.jpg", "query_mask": "mask.png", "target_image": "target.jpg", "ckpt_path": "net.pth"}
    return {name: str(folder / file) for name, file in names.items()} | {"out": str(folder / "found")}


def call(files: dict[str, str]) -> None:
    segment_pair.main([word for name, path in files.items() for word in (f"--{name}", path)] + ["--device", "cpu"])


def test_the_mask_has_the_target_images_size_and_the_overlay_shows_both(files, capsys):
    call(files)
    mask = cv2.imread(files["out"] + "_mask.png", cv2.IMREAD_UNCHANGED)
    assert mask.shape == (90, 160) and set(np.unique(mask)) <= {0, 255}
    assert cv2.imread(files["out"] + "_overlay.jpg").shape == (90, 90 + 160, 3)
    assert "visible with probability" in capsys.readouterr().out


def test_the_setting_says_which_picture_is_of_a_head_worn_camera(files, tmp_path, capsys):
    network = str(make_network(tmp_path / "net.pth", two_sizes=True))
    said = set()
    for setting in ({}, {"setting": "ego-exo"}, {"setting": "exo-ego"}):
        call(files | {"ckpt_path": network} | setting)
        said.add(capsys.readouterr().out.splitlines()[1])
    assert len(said) == 3


@pytest.mark.parametrize("pair", SAMPLES, ids=lambda path: path.name)
def test_a_sample_pair_is_segmented_by_the_repositorys_network_which_is_named(files, pair, monkeypatch, capsys):
    monkeypatch.setattr(segment_pair, "SHIPPED", Path(files["ckpt_path"]))
    pictures = {"query_image": "query.jpg", "query_mask": "query_mask.png", "target_image": "target.jpg"}
    call({name: str(pair / picture) for name, picture in pictures.items()} | {"out": files["out"]})
    assert f"{files['ckpt_path']}: tiny network of 96 pixels" in capsys.readouterr().out
    found = cv2.imread(files["out"] + "_mask.png", cv2.IMREAD_UNCHANGED)
    assert found.shape == cv2.imread(str(pair / "target_mask.png"), cv2.IMREAD_UNCHANGED).shape


def test_the_predictor_loads_the_repositorys_network_unless_told_otherwise(files, monkeypatch, tmp_path):
    monkeypatch.setattr(predictor, "SHIPPED", Path(files["ckpt_path"]))
    assert predictor.Predictor.load(device="cpu").matcher.side == 96
    monkeypatch.setattr(predictor, "SHIPPED", tmp_path / "xsegtx_tiny.pth")
    with pytest.raises(UserError, match="no file .*xsegtx_tiny.pth, the network of this repository") as caught:
        predictor.Predictor.load()
    assert "\n" not in str(caught.value)


def test_a_mask_may_be_of_another_size_than_its_image(files, side=704):
    call(files)
    same = cv2.imread(files["out"] + "_mask.png", cv2.IMREAD_UNCHANGED)
    other = Path(files["query_mask"]).with_name(f"mask{side}.png")
    cv2.imwrite(str(other), cv2.resize(cv2.imread(files["query_mask"]), (side, side), interpolation=cv2.INTER_NEAREST))
    call(files | {"query_mask": str(other)})
    found = cv2.imread(files["out"] + "_mask.png", cv2.IMREAD_UNCHANGED)
    assert (found == same).mean() > 0.99


@pytest.mark.parametrize(
    ("argument", "file", "message"),
    [
        ("query_image", "nowhere.jpg", "nowhere.jpg does not exist"),
        ("target_image", "text.jpg", "text.jpg is no picture"),
        ("query_mask", "target.jpg", "target.jpg holds many values, as photographs do"),
        ("query_mask", "wide.png", "is 160x90, its image 64x64; .* not of another shape"),
        ("query_mask", "empty.png", "empty.png is empty"),
        ("ckpt_path", "text.jpg", "text.jpg"),
    ],
)
def test_bad_files_are_named_in_one_line(files, argument, file, message):
    folder = files["out"].removesuffix("found")
    with pytest.raises(UserError, match=message) as caught:
        call(files | {argument: folder + file})
    assert "\n" not in str(caught.value)
