"""docs/tour.ipynb, its cells run one after the other as a notebook runs them.

This runs it and saves its outputs (pip install nbconvert ipykernel ipywidgets):

    jupyter nbconvert --to notebook --execute --inplace docs/tour.ipynb
"""

import base64
import io
import json
import re
import sys
from pathlib import Path

import matplotlib
from PIL import Image

from inference import predictor
from tests.made import ROOT

NOTEBOOK = ROOT / "docs/tour.ipynb"


def test_the_tour_runs_from_its_first_cell_to_its_last(checkpoint, tmp_path, monkeypatch, capsys):
    matplotlib.use("Agg")
    monkeypatch.setattr(predictor, "SHIPPED", checkpoint)
    monkeypatch.setattr(sys, "path", list(sys.path))
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
    found = {name: int(percent) for name, percent in re.findall(r"(?:(\w+): )?existence \d+%, IoU (\d+)%", printed)}
    assert found.pop("packet") < 50  # shown as a failure
    assert len(found) == 6 and min(found.values()) > 50
    assert re.findall(r"(\w+): existence \d+%, not there", printed) == ["cup"]
    assert {out.get("name", "stdout") for out in outputs} == {"stdout"} and "/" not in printed  # no warnings, no paths
    pictures = [base64.b64decode(out["data"]["image/jpeg"]) for out in outputs if "data" in out]
    assert len(pictures) == 11
    assert all(Image.open(io.BytesIO(picture)).width >= 800 for picture in pictures)
    assert NOTEBOOK.stat().st_size < 1_000_000  # the web shows it
