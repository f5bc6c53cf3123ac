"""Each benchmark runs at its smallest size and prints its ratios; the values of the ratios mean nothing here."""

import importlib
import re

import cv2
import numpy as np
import pytest
import torch

from benchmarks import counting, gpu, inference, measure, network_card, photographs, train_step
from common.drawing import write_picture
from common.files import file_digest, read_json, write_json
from formats.masks import check_rle, encode_mask, mask_area
from formats.pairs import Pairs, open_pairs
from tests.made.processes import run_main


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """Scripts of the repository are run here, without seconds of imports for each."""

    def run(script: str, *words: object) -> None:
        if script in ("synthetic/make_takes.py", "data/process_data.py"):
            words += ("--num_workers", 1)
        output_of(run_main(importlib.import_module(script.removesuffix(".py").replace("/", ".")).main, *words))

    for module in (measure, network_card):
        monkeypatch.setattr(module, "run_script_apart", run)


def output_of(run) -> str:
    assert run.returncode == 0, run.stderr
    return run.stdout


def timed_ways(text: str) -> list[str]:
    """The ways that were timed, each with its ratio."""
    return re.findall(r"^  (.*?) +[\d.e-]+ s +[\d.e+]+/s  x[\d.]+ \([\d.]+ to [\d.]+\)$", text, re.MULTILINE)


def test_both_ways_of_inference_give_the_same_masks(monkeypatch):
    monkeypatch.setattr(inference, "SIZE", "tiny")
    text = output_of(run_main(inference.main, "--input_size", 96, "--objects", 2, "--frames", 2, "--rounds", 1))
    assert timed_ways(text) == ["the published way", "this project"]
    assert float(re.search(r"masks of the two ways: mean IoU ([\d.]+), ", text)[1]) > 0.999
    assert float(re.search(r"existence differs by at most (.*)", text)[1]) < 1e-4


def test_reading_the_samples_of_a_training_is_timed_both_ways():
    small = ("--input_size", 48, "--rounds", 1, "--loader_samples", 2, "--size", "tiny")
    assert timed_ways(output_of(run_main(train_step.main, *small))) == ["the published way", "this project"]


def every_fourth(*given) -> Pairs:
    pairs = open_pairs(*given)
    return pairs[np.arange(0, len(pairs), 4)]


def test_steps_and_predictions_of_both_recipes_are_counted_and_hours_follow_from_the_counts(monkeypatch):
    monkeypatch.setattr(counting, "BATCH_SIZE", 2)
    monkeypatch.setattr(train_step, "FRAMES", 1)
    monkeypatch.setattr(train_step, "open_pairs", every_fourth)
    small = ("--count", "--input_size", 48, "--batch_size", 1, "--size", "tiny")
    text = output_of(run_main(train_step.main, *small)).replace(",", "")
    counts = {
        what: [*map(float, row.split())] for what, row in re.findall(r"^(\w+ .*?[a-z]) {3,}(\d.*)$", text, re.MULTILINE)
    }
    kinds = [re.sub(r"\d+", "N", what) for what in counts]
    both = ("paper", "strong")
    assert [x for x in kinds if x.endswith("samples")] == [f"{x} a step of N samples" for x in (*both, "strong")]
    assert [x for x in kinds if x.endswith("predicted")] == [f"{x} N pairs predicted" for x in both]
    assert kinds[-2:] == ["strong N pairs mined", "strong N pairs searched for the fit"] and len(kinds) == 7
    assert all(operations > 100 and min(row) >= 0 for operations, *row in counts.values())
    starts, busy = counts["paper a step of 1 samples"][3:]
    paper = [max(starts, gpus * busy) for gpus in (counting.GPUS, 1)]
    strong = [max(counts[f"strong a step of {gpus} samples"][3:]) for gpus in (counting.GPUS, 1)]
    for name, milliseconds in zip(both, (paper, strong), strict=True):
        with_64_cores = re.search(rf"^{name} +.* (\S+) / (\S+)$", text, re.MULTILINE)
        hours = [counting.STEPS * step / 3.6e6 for step in milliseconds]
        assert [float(x) for x in with_64_cores.groups()] == pytest.approx(hours, rel=0.1)
    assert counting.hours((0.1, 0.02), 0.2, 12) == "7 / 3.5"  # the processes of 8 GPUs leave 4 cores to the loaders
    text = output_of(run_main(train_step.main, *small[:1], *small[-2:], "--backbone", "efficientnet_lite0"))
    needs = re.findall(r"^the GPU needs (.*) ms a pair, (.*) of them for the backbone$", text, re.MULTILINE)
    assert len(needs) == 2 and all(float(whole) >= float(own) > 0 for whole, own in needs)


def test_what_is_measured_on_a_gpu_stands_beside_what_was_computed_and_beside_a_cpu(monkeypatch):
    monkeypatch.setattr(counting, "BATCH_SIZE", 1)
    monkeypatch.setattr(gpu, "open_pairs", every_fourth)
    monkeypatch.setattr(gpu, "RECIPES", ("paper",))
    small = ("--device", "cpu", "--precision", "fp32", "--frames", 1, "--size", "tiny", "--input_size", 48)
    words = ("--rounds", 1, "--batch_size", 1, "--backbone", "efficientnet_lite0")
    text = output_of(run_main(gpu.main, *small, *words))
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if re.match(r"\| \w+, \d+ ", line)]
    assert [row[0].partition(",")[0] for row in rows] == ["paper", "efficientnet_lite0", "paper"]
    assert all(len(row) == 6 and min(map(float, row[1:4])) > 0 for row in rows)
    assert "beside a CPU's: mean IoU 1.0000, least 1.0000" in text
    assert "existence differs by 0.0e+00 on average, and by 0.0e+00 at most" in text


def test_what_is_counted_are_operations_with_their_flop_and_bytes_and_no_views():
    x, weight = torch.ones(4, 8), torch.ones(16, 8)
    with torch.inference_mode(), counting.Counter() as counter:
        y = torch.nn.functional.linear(x, weight).view(2, 32)  # a product, and views
        y.expand(5, 2, 32).add(1)  # reads what is there once
    assert (counter.operations, counter.flop) == (2, 2 * 4 * 8 * 16)
    assert counter.bytes == 4 * (4 * 8 + 16 * 8 + 4 * 16) + 4 * (64 + 5 * 64)


def test_the_card_tells_figures_by_kind_of_take_and_by_existence(checkpoint, tmp_path):
    measure.make_takes(tmp_path / "patterned", "test", 1, "--size", "tiny", "--num_frames", 31, "--num_exo", 1)
    measure.process_takes(tmp_path / "patterned")
    where = ("--folder", tmp_path, "--out", tmp_path / "out", "--ckpt_path", checkpoint)
    tables = output_of(run_main(network_card.main, *where)).split("\n\n| ")
    titles = ("\n| test takes | visible", "threshold", "it says", "existence")
    assert all(table.startswith(title) for table, title in zip(tables, titles, strict=True))


def test_photographs_are_judged_by_part_with_absent_things_apart(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (2, 60, 80, 3), np.uint8)
    image, other = (cv2.resize(small, (320, 240), interpolation=cv2.INTER_CUBIC) for small in noise)
    mask = np.zeros((240, 320), np.uint8)
    mask[80:180, 100:220] = 1
    known, moved = {"packages": {}, "pictures": {}, "pairs": []}, np.roll(image, 25, axis=1)
    for name, picture in {"here": image, "there": moved, "elsewhere": other}.items():
        write_picture(path := tmp_path / "samples" / "package" / f"{name}.png", picture)
        known["pictures"][name] = {"package": "package", "member": path.name, "sha256": file_digest(path)}
    for part, target, truth in (("chooses", "there", np.roll(mask, 25, axis=1)), ("strangers", "elsewhere", None)):
        masks = {"query_mask": encode_mask(mask), "target_mask": None if truth is None else encode_mask(truth)}
        known["pairs"] += [{"part": part, "object": "patch", "query": "here", "target": target} | masks] * 2
    known["pairs"].append(known["pairs"][0] | {"part": "strangers"})
    known["packages"]["lost"] = {"get": "false lost"}  # a program that always fails
    known["pictures"]["nowhere"] = known["pictures"]["there"] | {"package": "lost"}
    known["pairs"].append(known["pairs"][0] | {"target": "nowhere"})
    write_json(tmp_path / "pairs.json", known)
    monkeypatch.setattr(photographs, "PAIRS", tmp_path / "pairs.json")
    words = ("--samples", tmp_path / "samples")
    fetched = run_main(photographs.main, *words, "--fetch")
    assert fetched.returncode == 3 and "left out: 1 pair, since 1 package cannot be downloaded; " in fetched.stdout
    said = {}
    for part in ("chooses", "strangers"):
        done = run_main(photographs.main, *words, "--part", part, "--out", tmp_path / part)
        lines = [line for line in output_of(done).splitlines() if line.startswith(("true masks", "visible", "absent"))]
        said[part] = [re.sub(r"0\.9[5-9]\d|1\.000", "0.9", line) for line in lines]
    assert said["chooses"] == [
        "true masks: 2, mean IoU 0.9, right (IoU above 0.5) 2",
        "visible: 2, called there 2, unsure 0, probably not there 0",
    ]
    assert said["strangers"] == [
        "true masks: 1, mean IoU 0.9, right (IoU above 0.5) 1",
        "visible: 1, called there 1, unsure 0, probably not there 0",
        "absent: 2, called there 0, unsure 0, probably not there 0, not found 2",
    ]
    figures = output_of(run_main(photographs.main, *words, "--figures", tmp_path / "strangers"))
    assert 'IoU above 50 %: 100.0% (100.0% to 100.0%) of 1\nabsent, not called "there": 100.0%' in figures
    assert "there: 1, there 1, mask right 1" in figures
    write_picture(tmp_path / "samples" / "package" / "there.png", image)
    assert "is not the file that was outlined" in run_main(photographs.main, *words, "--fetch").stderr


def test_outlined_photographs_are_in_one_part_each():
    known = read_json(photographs.PAIRS, "")
    parts = {}
    for pair in known["pairs"]:
        for key in ("query", "target"):
            assert parts.setdefault(pair[key], pair["part"]) == pair["part"]
        assert mask_area(check_rle(pair["query_mask"])) > 0
        assert pair["target_mask"] is None or mask_area(check_rle(pair["target_mask"])) > 0
    assert parts.keys() == known["pictures"].keys()
    assert {picture["package"] for picture in known["pictures"].values()} == known["packages"].keys()
    assert set(parts.values()) == set(photographs.PARTS)
    assert len(known["pairs"]) >= 60 and sum(pair["target_mask"] is None for pair in known["pairs"]) >= 15
