"""assets/samples: pairs and a video to try; docs/tour.ipynb, whose cells run one after the other as in a notebook.

This command runs the notebook and saves its outputs (pip install nbconvert ipykernel ipywidgets):

    jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False docs/tour.ipynb
"""

import base64
import io
import json
import re
import sys
from pathlib import Path

import matplotlib
import pytest
from PIL import Image

from formats.footage import open_footage
from formats.mask_files import find_masks
from formats.masks import decode_mask
from formats.picture_files import read_mask, read_picture
from inference import predictor
from tests.made import ROOT

NOTEBOOK = ROOT / "docs/tour.ipynb"


def test_the_tour_runs_from_its_first_cell_to_its_last(checkpoint, warm_python, tmp_path, monkeypatch, capsys):
    matplotlib.use("Agg")
    monkeypatch.setattr(predictor, "SHIPPED", checkpoint)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "executable", str(warm_python))
    monkeypatch.chdir(NOTEBOOK.parent)  # where a notebook runs
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    names: dict = {}
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), NOTEBOOK.name, "exec"), names)
    printed = capsys.readouterr().out
    assert "net.pth: tiny network of 96 pixels" in printed and "IoU (%)" in printed
    assert not Path(names["folder"].name).exists()


def test_what_the_tour_shows_is_found_whole_and_visible():
    outputs = [out for cell in json.loads(NOTEBOOK.read_text())["cells"] for out in cell.get("outputs", ())]
    printed = "".join("".join(out["text"]) for out in outputs if out["output_type"] == "stream")
    percents = {name: int(percent) for name, percent in re.findall(r"(?:(\w+): )?existence \d+%, IoU (\d+)%", printed)}
    assert percents.pop("packet") < 50  # shown as a failure
    assert len(percents) == 6 and min(percents.values()) > 50
    assert re.findall(r"(\w+): existence \d+%, not there", printed) == ["cup"]
    assert {out.get("name", "stdout") for out in outputs} == {"stdout"} and "/" not in printed  # no warnings, no paths
    pictures = [base64.b64decode(out["data"]["image/jpeg"]) for out in outputs if "data" in out]
    assert len(pictures) == 11
    assert all(Image.open(io.BytesIO(picture)).width >= 800 for picture in pictures)
    assert NOTEBOOK.stat().st_size < 1_000_000  # the web shows it


SAMPLES = ROOT / "assets" / "samples"
PAIRS = sorted(path.parent.name for path in SAMPLES.glob("*/query.jpg"))
README = (SAMPLES / "README.md").read_text()
ABSENT = {"cup"}


@pytest.mark.parametrize("folder", PAIRS)
def test_each_pair_has_its_pictures_and_their_masks(folder):
    for view in ("query", "target"):
        image = read_picture(SAMPLES / folder / f"{view}.jpg")
        mask = read_mask(SAMPLES / folder / f"{view}_mask.png")
        assert mask.shape == image.shape[:2] and max(mask.shape) <= 960
        assert mask.any() != (folder in ABSENT and view == "target") and not mask.all()


@pytest.mark.parametrize("folder", sorted(path.name for path in SAMPLES.iterdir() if path.is_dir()))
def test_each_sample_has_a_license(folder):
    (entry,) = re.findall(rf"^\* `{folder}/`:(.*?)(?=^\* |\Z)", README, re.MULTILINE | re.DOTALL)
    assert re.search("license|permission", entry, re.IGNORECASE)
    for text in re.findall(r"\]\((\w+/LICENSE)\)", entry):
        assert "Copyright" in (SAMPLES / text).read_text()


@pytest.mark.parametrize("camera", ["cam1", "cam2", "cam3", "cam4"])
def test_each_frame_of_the_video_has_its_mask(camera):
    video = open_footage(SAMPLES / "cap" / f"{camera}.mp4")
    masks = find_masks(SAMPLES / "cap" / f"{camera}.json")
    assert list(masks.objects["cap"]) == list(range(len(video.numbers)))
    for frame in masks.objects["cap"]:
        share = decode_mask(masks.read("cap", frame, video.size)).mean()
        assert 0.0005 < share < 0.01
