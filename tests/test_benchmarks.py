"""Each benchmark runs at its smallest size and prints its ratios; the figures themselves mean nothing here."""

import csv
import json
import re
from types import SimpleNamespace

import pytest
import torch

from benchmarks import evaluation, inference, process_data, roofline, train_step, training_options
from common.files import read_json
from evaluation.truth import GroundTruth
from model.backbone import Backbone
from tests import official_evaluation
from tests.made.scripts import run_main


def lines_of(run) -> list[str]:
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def ratios(lines: list[str], title: str) -> dict[str, float]:
    """The ratios below the line that begins with `title`, by the way's name."""
    start = next(number for number, line in enumerate(lines) if line.startswith(title))
    found = {}
    for line in lines[start + 1 :]:
        match = re.fullmatch(r"  (.*?) +[\d.e-]+ s +[\d.e+]+/s  x([\d.]+) \([\d.]+ to [\d.]+\)", line)
        if not match:
            break
        found[match[1]] = float(match[2])
    assert found and next(iter(found.values())) == 1 and min(found.values()) > 0
    return found


def test_process_data_writes_what_the_plain_programs_write(tmp_path):
    small = ("--folder", tmp_path, "--frames", 61, "--shrink", 8, "--rounds", 1)
    lines = lines_of(run_main(process_data.main, *small))
    names = ["this project", *process_data.READERS]
    assert list(ratios(lines, "wall time")) == list(ratios(lines, "cpu time")) == names
    memory = lines[lines.index("peak memory:") + 1 :]
    assert len(memory) == len(names) and all(re.fullmatch(r"  .* \d\d+ MB", line) for line in memory)
    frames = {path.stem for path in (tmp_path / "takes_to_process/out/this project").glob("*/*/*.jpg")}
    assert frames == {"0", "30", "60"}


@pytest.fixture
def small_split(monkeypatch):
    monkeypatch.setattr(evaluation, "POOL", 4)
    monkeypatch.setattr(evaluation, "MEAN_FRAMES", 3)
    monkeypatch.setattr(evaluation, "PARTS", (0.5, 1.0))


def test_a_made_split_is_scored_whole_and_as_in_the_official_way(small_split, tmp_path):
    small = ("--folder", tmp_path, "--takes", 4, "--frames", 2, "--rounds", 1)
    lines = lines_of(run_main(evaluation.main, *small, "--num_workers", 0))
    assert ratios(lines, "scoring, ego-exo")["this project"] > 1
    text = "\n".join(lines)
    assert re.search(
        r"evaluate.py, 2 takes, .* peak memory \d\d+ MB\n  the official way would take .*; x[\d.]+\n", text
    )
    for what in ("evaluate.py, 4 takes, ", "evaluate.py --describe, 4 takes: ", "create_pairs.py, both settings, "):
        assert what in text

    folder = tmp_path / "4_takes"
    found = json.loads((folder / "out" / "metrics.json").read_text())
    uids = read_json(folder / "split.json", "")["test"]
    truth = GroundTruth.from_processed(folder / "processed", uids, folder / "annotations/relations_test.json")
    truth.write_official(tmp_path / "gt.json")
    results = read_json(folder / "ego-exo_test_results.json", "")["ego-exo"]["results"]
    official = official_evaluation.evaluate(read_json(tmp_path / "gt.json", "")["annotations"], results, "ego-exo")
    assert found["takes"] == 4 and found["frames_scored"] == found["frames_wanted"] == len(official["gt"])
    mean = sum(official["iou"]) / len(official["iou"])
    assert found["official"]["iou"] == pytest.approx(mean, abs=1e-9) and 0.2 < mean < 0.9


def test_both_ways_of_inference_give_the_same_masks():
    lines = lines_of(run_main(inference.main, "--input_size", 96, "--objects", 2, "--rounds", 1))
    assert list(ratios(lines, "ego-exo, ")) == ["the published way", "this project"]
    assert float(re.match(r"masks of the two ways: mean IoU ([\d.]+), ", lines[3])[1]) > 0.999
    assert float(re.match(r"existence differs by at most (.*)", lines[4])[1]) < 1e-4
    plain, ours = map(float, re.findall(r"[\d.]+", lines[5]))
    assert plain > ours > 0


def test_training_is_measured_by_loader_step_recipe_and_backbone():
    small = ("--input_size", 48, "--batch_size", 2, "--rounds", 1, "--loader_samples", 2)
    lines = lines_of(run_main(train_step.main, *small))
    assert list(ratios(lines, "loader")) == ["the published way", "this project", "stored frames"]
    cached = ["cached features", "cached features, strong recipe"]
    assert list(ratios(lines, "training step")) == ["the published way", "this project", *cached]

    lines = lines_of(run_main(train_step.main, *small, "--backbones", "efficientnet_lite0"))
    for title in ("training step", "prediction"):
        assert list(ratios(lines, title)) == ["efficientnet_lite0, paper", "efficientnet_lite0, strong"]


def test_training_options_trains_scores_and_draws(tmp_path):
    small = ("--takes", 1, "--test_takes", 2, "--input_size", 48, "--steps", 54, "--seeds", 0, "--jobs", 1)
    only = ("--variants", "paper", "--settings", "ego-exo", "--backbones", "random")
    lines = lines_of(run_main(training_options.main, "--out_dir", tmp_path, *small, *only))
    assert "ego-exo, objects of 0.2, 48 px, random: IoU, right object, existence; mean (lowest to highest)" in lines[1]
    assert re.fullmatch(r"  paper +(  +[\d.nan]+ \([\d.nan]+ to [\d.nan]+\)){3}", lines[2])
    (row,) = csv.DictReader((tmp_path / "figures.csv").open())
    assert row["variant"] == "paper" and row["steps"] == "54" and float(row["samples per second"]) > 0
    assert (tmp_path / "curves_0.2_48_random.png").stat().st_size > 1000


def test_the_roofline_counts_a_product_and_names_what_bounds_each_job(monkeypatch):
    rates = SimpleNamespace(hbm=3.0, conv_tflops=300.0, matmul_tflops=400.0, fp32_tflops=50.0, cores=16)
    with roofline.Meter(rates) as meter:
        product = roofline.FAKE.from_tensor(torch.zeros(640, 320)) @ torch.zeros(320, 160)
        product.t()  # a view costs nothing
        del product
    moved = 4 * (640 * 320 + 320 * 160 + 640 * 160)
    assert (meter.flops, meter.launches, meter.traffic, meter.peak) == (2 * 640 * 320 * 160, 1, moved, moved)
    assert meter.seconds == meter.products == meter.flops / 50e12 > meter.traffic / 3e12 and meter.live < moved
    assert roofline.bounded(meter, 1, True, reading=1.0)[3:] == ["4.6 h, loader", "8.7 h, loader"]
    assert roofline.bounded(meter, 1, True, reading=1e-9)[3:] == ["0.0 h, launches", "0.0 h, launches"]

    closer = "predict strong, closer look"
    small = {"RECIPES": ["paper"], "PREDICTIONS": {closer: (2, True)}, "MAX_BATCH": 5, "POOL": 2, "ROUNDS": 1}
    plain = {"random_backbone": lambda seed: Backbone("conv", torch.nn.Conv2d(3, 1024, 16, 16), 1024)}
    for name, value in (small | plain | {"COUNTED": ["bf16"]}).items():
        monkeypatch.setattr(roofline, name, value)
    lines = lines_of(run_main(roofline.main, "--input_size", 48, "--batch_size", 2, "--cores", 2))
    for line, name in zip(lines[2:4], ("train paper", closer), strict=True):
        gflop, moved, launches, peak, *milliseconds = map(float, line.removeprefix(name).split()[1:9])
        assert gflop > 0 and moved > peak > 0 and milliseconds[3] == milliseconds[2] > milliseconds[0] > 0
        assert milliseconds[2] == pytest.approx(0.006 * launches, rel=0.01)
    assert re.fullmatch(r"train paper +bf16( +\d+){3}(  +\d+\.\d h, loader){2}", lines[6])
    assert re.fullmatch(closer + r" +bf16( +\d+){3}(  +\d+\.\d min, loader){2}", lines[7])
