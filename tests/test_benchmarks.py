"""Each benchmark runs at its smallest size and prints its ratios; the values of the ratios mean nothing here."""

import importlib
import itertools
import re

import cv2
import numpy as np
import pytest

from benchmarks import full_size, inference, measure, network_card, photographs, process_data, train_step
from common.arguments import SETTINGS
from evaluation.score import ScoreOptions, score_file
from evaluation.truth import GroundTruth
from formats.results import results_path
from tests.made.processes import run_main


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """Scripts of the repository are run here, without seconds of imports for each."""

    def run(script: str, *words: object) -> measure.Run:
        done = run_main(importlib.import_module(script.removesuffix(".py").replace("/", ".")).main, *words)
        return measure.Run(1.0, 10**9, "\n".join(lines_of(done)))

    for module in (measure, network_card, full_size):
        monkeypatch.setattr(module, "run_script_apart", run)


def lines_of(run) -> list[str]:
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def ratios(lines: list[str], title: str) -> dict[str, float]:
    """The ratios below the line that begins with `title`, by the way's name."""
    start = next(number for number, line in enumerate(lines) if line.startswith(title))
    by_name = {}
    for line in lines[start + 2 :]:
        match = re.fullmatch(r"  (.*?) +[\d.e-]+ s +[\d.e+]+/s  x([\d.]+) \([\d.]+ to [\d.]+\)", line)
        if not match:
            break
        by_name[match[1]] = float(match[2])
    assert by_name and next(iter(by_name.values())) == 1 and min(by_name.values()) > 0
    return by_name


def test_process_data_writes_what_the_plain_programs_write(tmp_path):
    small = ("--folder", tmp_path, "--frames", 31, "--size", "tiny", "--rounds", 1)
    lines = lines_of(run_main(process_data.main, *small))
    names = ["this project", *process_data.READERS]
    assert list(ratios(lines, "6 videos of 31 frames")) == names
    assert {path.stem for path in (tmp_path / "this project").glob("*/*/*.jpg")} == {"0", "30"}


def test_both_ways_of_inference_give_the_same_masks(monkeypatch):
    monkeypatch.setattr(inference, "SIZE", "tiny")
    small = ("--input_size", 96, "--objects", 2, "--frames", 2, "--rounds", 1)
    lines = lines_of(run_main(inference.main, *small))
    assert list(ratios(lines, "ego-exo, ")) == ["the published way", "this project"]
    assert float(re.match(r"masks of the two ways: mean IoU ([\d.]+), ", lines[4])[1]) > 0.999
    assert float(re.match(r"existence differs by at most (.*)", lines[5])[1]) < 1e-4


def test_training_is_measured_by_loader_and_step():
    small = ("--input_size", 48, "--batch_size", 2, "--rounds", 1, "--loader_samples", 2, "--size", "tiny")
    lines = lines_of(run_main(train_step.main, *small))
    assert list(ratios(lines, "loader")) == ["the published way", "this project"]
    assert list(ratios(lines, "training step")) == ["the published way", "this project", "cached features"]


def test_the_card_tells_figures_by_size_angle_and_reason(checkpoint, tmp_path):
    small = ("--size", "tiny", "--num_frames", 31, "--num_exo", 1)
    measure.make_takes(tmp_path / "patterned", "test", 1, *small, "--left_out", 0.3)
    measure.process_takes(tmp_path / "patterned")
    where = ("--folder", tmp_path, "--out", tmp_path / "out", "--ckpt_path", checkpoint)
    lines = lines_of(run_main(network_card.main, *where))
    heads = [line for line, rule in zip(lines, lines[1:], strict=False) if rule.startswith("|---")]
    kinds = [f"test takes | {kind} | " for kind in ("share of the target", "degrees", "why hidden")]
    starts = (
        "| test takes | visible | ",
        *(f"| {kind}" for kind in kinds),
        "| threshold | ",
        "| it says | ",
        "| existence | ",
    )
    assert all(head.startswith(start) for head, start in zip(heads, starts, strict=True))
    rows = [[word.strip() for word in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    hidden = [
        {row[1]: int(row[2].split("/")[k].replace("-", "0")) for row in rows if row[1] in network_card.HIDDEN}
        for k in (0, 1)
    ]
    assert any(of.get("left out") for of in hidden)
    for setting, of in zip(SETTINGS, hidden, strict=True):
        results = results_path(tmp_path / "out" / "patterned", setting, "test")
        truth = GroundTruth.of_split(tmp_path / "patterned" / measure.PROCESSED, "test")
        cases = score_file(truth, results, ScoreOptions(setting)).cases
        assert sum(of.values()) == sum(not case.visible for case in cases)


def write_samples(folder) -> dict[str, tuple[slice, slice]]:
    """Pictures as OpenCV's samples -> rows and columns of what is sought in them."""
    rng, places = np.random.default_rng(0), {}

    def paper(height, width):
        dots = rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
        return cv2.resize(dots, (width, height), interpolation=cv2.INTER_CUBIC)

    def write(name, picture, top, left, height, width):
        cv2.imwrite(str(folder / name), picture)
        places[name] = slice(top, top + height), slice(left, left + width)

    squares = np.kron(np.indices((7, 10)).sum(0) % 2 * 255, np.ones((20, 20))).astype(np.uint8)
    for number, (side, moment) in enumerate(itertools.product(("left", "right"), (1, 2))):
        picture, top, left = np.full((300, 400), 255, np.uint8), 50 + 10 * number, 80 + 20 * number
        picture[top : top + 140, left : left + 200] = squares
        write(f"{side}{moment:02d}.jpg", picture, top, left, 140, 200)
    box, scene, wall = paper(160, 240), paper(400, 480), paper(640, 800)
    scene[90:250, 130:370] = box
    write("box.png", box, 2, 2, 156, 236)
    write("box_in_scene.png", scene, 92, 132, 156, 236)
    for name, shift in (("graf1.png", 0), ("graf3.png", 16)):
        write(name, wall[shift:, shift:], 150 - shift, 300 - shift, 251, 261)
    return places


def test_truth_in_photographs_is_where_corners_and_features_say(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(photographs, "MOMENTS", (1, 2))
    places = write_samples(tmp_path)
    pairs = list(photographs.visible_pairs(tmp_path))
    boards, flat = ("left01", "right01", "left02", "right02"), ("box", "box_in_scene", "graf1", "graf3")
    names = [f"{boards[k]}.jpg" for k in (0, 1, 2, 3, 0, 2, 2, 0)]
    names += [f"{flat[k]}.png" for k in (0, 1, 1, 0, 2, 3, 3, 2)]
    views = [view for _, *both in pairs[:8] for view in both]
    for name, view in zip(names, views, strict=False):
        true = np.zeros(view.mask.shape, bool)
        true[places[name]] = True
        assert (view.mask & true).sum() / (view.mask | true).sum() > 0.97, name
    lines = lines_of(run_main(photographs.main, "--samples", tmp_path, "--ckpt_path", checkpoint))
    assert [line.split(" | ")[1] for line in lines[2:]] == ["2", "2", "2", "6", "12"]


def test_what_grows_with_the_data_set_is_measured_with_half_of_the_takes_and_with_all(tmp_path, monkeypatch):
    monkeypatch.setattr(full_size, "LOADERS", (1,))
    small = ("--folder", tmp_path, "--takes", 6, "--pairs", 3, "--mined", 3)
    rows = [line.split(" | ") for line in lines_of(run_main(full_size.main, *small))]
    assert rows[0][1:5] == ["3 takes: CPU s", "GB", "6 takes: CPU s", "GB"]
    assert [row[0] for row in rows[2:]] == list(full_size.commands(tmp_path, 3, 3))
    assert all(row[1:6] == ["1.0", "1.00", "1.0", "1.00", "1.0"] for row in rows[2:])
    assert all(int(row[6].split()[0]) for row in rows[2:] if row[6])


def test_made_takes_have_the_counts_of_real_takes():
    masks = {kind: [full_size.draw_mask(np.random.default_rng(0), view)] for kind, view in full_size.VIEWS.items()}
    takes = [full_size.draw_take(np.random.default_rng(number), masks) for number in range(200)]
    objects = [cameras for take in takes for cameras in take.masks.values()]
    tracks = [len(cameras[full_size.EGO]) for cameras in objects if full_size.EGO in cameras]
    both = [cameras for cameras in objects if len(cameras) == 2]
    seen = [len(ego.keys() & exo.keys()) / len(ego) for ego, exo in (cameras.values() for cameras in both)]
    assert len(objects) / len(takes) == pytest.approx(4, abs=0.3) and max(len(take.masks) for take in takes) <= 18
    assert np.mean(tracks) == pytest.approx(245, abs=15) and np.mean(seen) == pytest.approx(0.83, abs=0.02)
