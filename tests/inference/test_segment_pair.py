"""segment_pair.py: picture files in, a mask and an overlay out."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from common.drawing import write_picture
from common.errors import UserError
from formats.mask_pictures import read_mask
from inference import predictor, segment_pair
from tests.made.known_answer import KnownAnswer, scene


@pytest.fixture(scope="module")
def files(checkpoint, tmp_path_factory) -> dict[str, str]:
    """Argument -> path of a valid call."""
    folder = tmp_path_factory.mktemp("pair")

    rng = np.random.default_rng(0)
    for name, size in {"query": (64, 64), "target": (90, 160)}.items():
        cv2.imwrite(str(folder / f"{name}.jpg"), rng.integers(0, 256, (*size, 3), np.uint8))
    mask = np.zeros((64, 64), np.uint8)
    cv2.imwrite(str(folder / "empty.png"), mask)
    mask[20:40, 10:50] = 255
    cv2.imwrite(str(folder / "mask.png"), mask)
    (folder / "text.jpg").write_text("no picture")
    names = {"query_image": "query.jpg", "query_mask": "mask.png", "target_image": "target.jpg", "out": "found"}
    return {name: str(folder / file) for name, file in names.items()} | {"ckpt_path": str(checkpoint)}


def call(files: dict[str, str]) -> None:
    segment_pair.main([word for name, path in files.items() for word in (f"--{name}", path)] + ["--device", "cpu"])


def test_the_setting_says_which_picture_is_of_a_head_worn_camera(files, strong_checkpoint, capsys):
    answers = set()
    for setting in ("ego-exo", "exo-ego"):
        call(files | {"ckpt_path": str(strong_checkpoint), "setting": setting})
        answers.add(capsys.readouterr().out.splitlines()[1])
    assert len(answers) == 2


def test_the_network_is_named_and_mask_and_overlay_are_as_large_as_the_pictures(files, monkeypatch, capsys):
    monkeypatch.setattr(segment_pair, "SHIPPED", Path(files["ckpt_path"]))
    call({name: path for name, path in files.items() if name != "ckpt_path"})
    mask = cv2.imread(files["out"] + "_mask.png", cv2.IMREAD_UNCHANGED)
    assert mask.shape == (90, 160) and set(np.unique(mask)) <= {0, 255}
    assert cv2.imread(files["out"] + "_overlay.jpg").shape == (90, 90 + 160, 3)
    said = capsys.readouterr().out
    assert f"{files['ckpt_path']}: tiny network of 96 pixels" in said and "visible with probability" in said


def test_the_predictor_loads_the_repositorys_network_unless_told_otherwise(files, monkeypatch, tmp_path):
    monkeypatch.setattr(predictor, "SHIPPED", Path(files["ckpt_path"]))
    assert predictor.Predictor.load(device="cpu").matcher.network.config.input_size == 96
    monkeypatch.setattr(predictor, "SHIPPED", tmp_path / "xsegtx_tiny.pth")
    with pytest.raises(UserError, match="^no file [^\n]*xsegtx_tiny.pth, the network of this repository[^\n]*$"):
        predictor.Predictor.load()


@pytest.mark.parametrize(
    ("argument", "file", "message"),
    [
        ("target_image", "text.jpg", "text.jpg is no picture"),
        ("query_mask", "target.jpg", "target.jpg holds many values, as photographs do"),
        ("query_mask", "empty.png", "query mask is empty"),
    ],
)
def test_bad_files_are_named_in_one_line(files, argument, file, message):
    folder = files["out"].removesuffix("found")
    with pytest.raises(UserError, match=f"^[^\n]*{message}[^\n]*$"):
        call(files | {argument: folder + file})


def test_a_box_stands_for_the_mask_and_a_value_chooses_from_a_label_map(tmp_path, monkeypatch):
    monkeypatch.setattr(segment_pair.Predictor, "load", lambda *args, **options: predictor.Predictor(KnownAnswer(96)))
    for name, box in {"query": (0.3, 0.6, 0.5, 0.8), "target": (0.25, 0.7, 0.1, 0.5)}.items():
        image, mask = scene((96, 96), box)
        write_picture(tmp_path / f"{name}.png", image)
        write_picture(tmp_path / f"{name}_mask.png", mask * 255)
        labels = mask * 2 + np.eye(96, dtype=np.uint8) * (1 - mask)
        write_picture(tmp_path / f"{name}_labels.png", np.kron(labels, np.ones((2, 2), np.uint8)))  # of another size
    common = ["--query_image", f"{tmp_path}/query.png", "--target_image", f"{tmp_path}/target.png"]
    common += ["--out", f"{tmp_path}/found"]
    labels = ["--query_mask", f"{tmp_path}/query_labels.png"]
    for given in (["--query_box", "47.5", "28", "78", "59"], [*labels, "--object", "0x2"]):
        (tmp_path / ".found_mask.png.0123abcd.tmp").touch()  # left by a kill
        segment_pair.main([*common, *given])
        assert np.array_equal(read_mask(tmp_path / "found_mask.png"), read_mask(tmp_path / "target_mask.png"))
        assert not list(tmp_path.glob(".*.tmp"))
    with pytest.raises(UserError, match="query_labels.png holds the values 1, 2"):
        segment_pair.main([*common, *labels])
