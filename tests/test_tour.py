"""docs/tour.ipynb, its cells run one after the other as a notebook runs them.

This runs it and saves its outputs (pip install nbconvert ipykernel):

    jupyter nbconvert --to notebook --execute --inplace docs/tour.ipynb
"""

import json
import sys
from pathlib import Path

import matplotlib

from inference import predictor
from tests.made import ROOT
from tests.made.networks import make_network

NOTEBOOK = ROOT / "docs/tour.ipynb"


def test_the_tour_runs_from_its_first_cell_to_its_last(tmp_path, monkeypatch, capsys):
    matplotlib.use("Agg")
    monkeypatch.setattr(predictor, "SHIPPED", make_network(tmp_path / "net.pth"))
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


def test_the_tour_is_small_enough_to_open_on_the_web():
    assert NOTEBOOK.stat().st_size < 1_500_000
