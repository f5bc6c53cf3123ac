"""Each benchmark runs at its smallest size and prints its ratios; the figures themselves mean nothing here."""

import importlib
import re

import pytest

from benchmarks import evaluation, inference, measure, network_card, process_data, train_step
from tests.made.networks import write_network
from tests.made.scripts import run_main


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """Scripts of the repository are run here, without seconds of imports for each."""

    def run(script: str, *words: object) -> None:
        lines_of(run_main(importlib.import_module(script.removesuffix(".py").replace("/", ".")).main, *words))

    for module in (measure, network_card):
        monkeypatch.setattr(module, "run_script_apart", run)


def lines_of(run) -> list[str]:
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def ratios(lines: list[str], title: str) -> dict[str, float]:
    """The ratios below the line that begins with `title`, by the way's name."""
    start = next(number for number, line in enumerate(lines) if line.startswith(title))
    found = {}
    for line in lines[start + 2 :]:
        match = re.fullmatch(r"  (.*?) +[\d.e-]+ s +[\d.e+]+/s  x([\d.]+) \([\d.]+ to [\d.]+\)", line)
        if not match:
            break
        found[match[1]] = float(match[2])
    assert found and next(iter(found.values())) == 1 and min(found.values()) > 0
    return found


def test_process_data_writes_what_the_plain_programs_write(tmp_path):
    small = ("--folder", tmp_path, "--frames", 31, "--size", "tiny", "--rounds", 1)
    lines = lines_of(run_main(process_data.main, *small))
    names = ["this project", *process_data.READERS]
    assert list(ratios(lines, "6 videos of 31 frames")) == names
    assert {path.stem for path in (tmp_path / "this project").glob("*/*/*.jpg")} == {"0", "30"}


def test_rendered_takes_are_scored_as_in_the_official_way(monkeypatch):
    monkeypatch.setattr(evaluation, "OPTIONS", ("--size", "tiny", "--num_frames", 31))
    lines = lines_of(run_main(evaluation.main, "--takes", 1, "--rounds", 1))
    assert ratios(lines, "scoring, ego-exo")["this project"] > 0
    assert float(re.fullmatch("  largest difference of a value: (.*)", lines[-1])[1]) < 1e-9


def test_both_ways_of_inference_give_the_same_masks(monkeypatch):
    monkeypatch.setattr(inference, "SIZE", "tiny")
    small = ("--input_size", 96, "--objects", 2, "--exos", 2, "--frames", 2, "--rounds", 1)
    lines = lines_of(run_main(inference.main, *small))
    assert list(ratios(lines, "ego-exo, ")) == ["the published way", "this project"]
    assert float(re.match(r"masks of the two ways: mean IoU ([\d.]+), ", lines[4])[1]) > 0.999
    assert float(re.match(r"existence differs by at most (.*)", lines[5])[1]) < 1e-4


def test_training_is_measured_by_loader_and_step():
    small = ("--input_size", 48, "--batch_size", 2, "--rounds", 1, "--loader_samples", 2, "--size", "tiny")
    lines = lines_of(run_main(train_step.main, *small))
    assert list(ratios(lines, "loader")) == ["the published way", "this project"]
    assert list(ratios(lines, "training step")) == ["the published way", "this project", "cached features"]


def test_the_card_tells_figures_by_size_angle_and_rotation(tmp_path, monkeypatch):
    small = ("--size", "tiny", "--num_frames", 31, "--num_exo", 1)
    measure.make_takes(tmp_path / "patterned", "test", 1, *small)
    measure.process_takes(tmp_path / "patterned")
    monkeypatch.setattr(network_card, "ROTATIONS", (0, 90))
    network = write_network(tmp_path / "net.pth", strong=True)
    where = ("--folder", tmp_path, "--out", tmp_path / "out", "--ckpt_path", network, "--turned_takes", 1)
    lines = lines_of(run_main(network_card.main, *where))
    titles = [
        line.split(" | ")[0].strip("| ")
        for line, rule in zip(lines, lines[1:], strict=False)
        if rule.startswith("|---")
    ]
    kinds = ("object in the target", "degrees between the views", "target turned by degrees")
    assert titles == ["takes", *(f"patterned: {kind}" for kind in kinds)]
    rows = {line.split(" | ")[0].strip("| "): line.split(" | ")[1:] for line in lines if line.startswith("| ")}
    objects, iou = ({name: rows[name][k] for name in ("0", "90")} for k in (0, 1))
    assert objects["0"] == objects["90"] != "0/0" and iou["0"] != iou["90"]  # the same objects, seen turned
