"""Each benchmark runs at its smallest size and prints its ratios; the values of the ratios mean nothing here."""

import importlib
import re
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from benchmarks import full_size, inference, measure, network_card, photographs, process_data, train_step
from tests.made.processes import run_main


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """Scripts of the repository are run here, without seconds of imports for each."""

    def run(script: str, *words: object) -> measure.Run:
        if script in ("synthetic/make_takes.py", "data/process_data.py"):
            words += ("--num_workers", 1)
        done = run_main(importlib.import_module(script.removesuffix(".py").replace("/", ".")).main, *words)
        return measure.Run(1.0, 10**9, output_of(done))

    for module in (measure, network_card, process_data, full_size):
        monkeypatch.setattr(module, "run_script_apart", run)


def output_of(run) -> str:
    assert run.returncode == 0, run.stderr
    return run.stdout


def timed_ways(text: str) -> list[str]:
    """The ways that were timed, each with its ratio."""
    return re.findall(r"^  (.*?) +[\d.e-]+ s +[\d.e+]+/s  x[\d.]+ \([\d.]+ to [\d.]+\)$", text, re.MULTILINE)


def test_process_data_writes_what_the_plain_programs_write(tmp_path):
    small = ("--folder", tmp_path, "--frames", 31, "--size", "tiny", "--rounds", 1)
    assert timed_ways(output_of(run_main(process_data.main, *small))) == ["this project", *process_data.READERS]


def test_both_ways_of_inference_give_the_same_masks(monkeypatch):
    monkeypatch.setattr(inference, "SIZE", "tiny")
    text = output_of(run_main(inference.main, "--input_size", 96, "--objects", 2, "--frames", 2, "--rounds", 1))
    assert timed_ways(text) == ["the published way", "this project"]
    assert float(re.search(r"masks of the two ways: mean IoU ([\d.]+), ", text)[1]) > 0.999
    assert float(re.search(r"existence differs by at most (.*)", text)[1]) < 1e-4


def test_training_is_measured_by_loader_and_step():
    small = ("--input_size", 48, "--batch_size", 2, "--rounds", 1, "--loader_samples", 2, "--size", "tiny")
    both = ["the published way", "this project"]
    assert timed_ways(output_of(run_main(train_step.main, *small))) == [*both, *both, "cached features"]


def test_the_card_tells_figures_by_size_angle_and_reason(checkpoint, tmp_path):
    small = ("--size", "tiny", "--num_frames", 31, "--num_exo", 1)
    measure.make_takes(tmp_path / "patterned", "test", 1, *small, "--left_out", 0.3)
    measure.process_takes(tmp_path / "patterned")
    where = ("--folder", tmp_path, "--out", tmp_path / "out", "--ckpt_path", checkpoint)
    tables = output_of(run_main(network_card.main, *where)).split("\n\n| ")
    titles = ("\n| test takes | visible", "test takes | share of", "test takes | degrees", "test takes | why hidden")
    titles += ("threshold", "it says", "existence")
    assert all(table.startswith(title) for table, title in zip(tables, titles, strict=True))


def test_truth_in_photographs_is_where_corners_and_features_say(tmp_path, monkeypatch):
    page, rng = np.full((300, 400, 3), 255, np.uint8), np.random.default_rng(0)
    squares = np.kron(np.indices((7, 10)).sum(0) % 2 * 255, np.ones((20, 20)))
    page[50:190, 80:280] = squares[..., None]
    wall = cv2.resize(rng.integers(0, 256, (50, 60, 3), np.uint8), (480, 400), interpolation=cv2.INTER_CUBIC)
    one, other = photographs.views_of_plane(wall, wall[16:, 16:], ((100, 150), (260, 150), (260, 300), (100, 300)))
    board = photographs.find_board(page)
    for view, (top, bottom, left, right) in ((board, (50, 190, 80, 280)), (other, (134, 284, 84, 244))):
        truth = np.zeros(view.mask.shape, bool)
        truth[top:bottom, left:right] = True
        assert (view.mask & truth).sum() / (view.mask | truth).sum() > 0.97
    masks = {view.image.shape: view.mask for view in (board, one, other)}
    knowing = SimpleNamespace(segment=lambda image, mask, target: (masks[target.shape], 0.9))
    groups = ("board, other camera", "box", "part of a wall")
    pairs = [(group, *views) for group in groups for views in ((board, board), (one, other))]
    monkeypatch.setattr(photographs, "visible_pairs", lambda _: pairs)
    monkeypatch.setattr(photographs.Predictor, "load", lambda _: knowing)
    rows = output_of(run_main(photographs.main, "--samples", tmp_path)).splitlines()[2:]
    assert rows == [*(f"| {group} | 2 | 100 | 2 | 2 |" for group in groups), "| absent | 12 | - | - | 12 |"]


def test_what_grows_with_the_data_set_is_measured_with_half_of_the_takes_and_with_all(tmp_path, monkeypatch):
    monkeypatch.setattr(full_size, "LOADERS", (1,))
    small = ("--folder", tmp_path, "--takes", 6, "--pairs", 3, "--mined", 3)
    rows = [line.split(" | ") for line in output_of(run_main(full_size.main, *small)).splitlines()]
    assert [row[0] for row in rows[2:]] == list(full_size.commands(tmp_path, 3, 3))
