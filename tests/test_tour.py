"""docs/tour.ipynb, whose cells run one after the other as in a notebook; licenses of the samples that it shows.

This command runs the notebook and saves its outputs (pip install nbconvert ipykernel ipywidgets):

    jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False docs/tour.ipynb
"""

import json
import re
import sys
from pathlib import Path

from common import constants
from recipes import table
from tests.made import ROOT

NOTEBOOK = ROOT / "docs/tour.ipynb"


def test_the_tour_runs_from_its_first_cell_to_its_last(checkpoint, warm_python, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "999")  # processes here: each script starts no workers, which import
    for module in (constants, table):
        monkeypatch.setattr(module, "SHIPPED", checkpoint)
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
    assert {out.get("name", "stdout") for out in outputs} == {"stdout"} and "/" not in printed  # no warnings, no paths
    assert sum("image/jpeg" in out.get("data", ()) for out in outputs) == 11 and NOTEBOOK.stat().st_size < 1_000_000


def test_each_sample_has_a_license():
    samples = ROOT / "assets" / "samples"
    entries = re.findall(r"^\* `(\w+)/`:(.*?)(?=^\* |\Z)", (samples / "README.md").read_text(), re.M | re.S)
    assert sorted(name for name, _ in entries) == sorted(path.name for path in samples.iterdir() if path.is_dir())
    for name, entry in entries:
        assert re.search("license|permission", entry, re.IGNORECASE), name
        for text in re.findall(r"\]\((\w+/LICENSE)\)", entry):
            assert "Copyright" in (samples / text).read_text()
