"""Validation uses the same pairs each time, and its scores equal the scores of the official evaluation."""

import contextlib
import csv
import json
import math
import re
import shutil
import signal
from types import SimpleNamespace

import numpy as np
import pytest

import eval_segswap
from common.distributed import Stopped, World
from evaluation import evaluate
from formats.pairs import BOTH, open_pairs
from formats.processed import ANNOTATION
from inference.predictor import Predictor
from recipes.paper import Paper
from tests.made.training import log_lines
from train import engine
from train.engine import PairScore, Validation, validation_figures
from train.log import Log


def of_pairs(pairs, size=0, rank=0, world_size=1):
    """A validation by no network, as one of several processes has it."""
    recipe, log = SimpleNamespace(prepare=None), SimpleNamespace(world=World())
    log.world.rank, log.world.size = rank, world_size
    return Validation(pairs, size, recipe, log, {})


def run(pairs, checkpoint, out_dir, sent=None, size=0):
    """Validate `size` pairs (0: all) -> the line of the log."""
    out_dir.mkdir(exist_ok=True)
    log = Log(out_dir, 0, World(), 1)
    log.world.signal = sent
    with contextlib.closing(log):
        Validation(pairs, size, Predictor.load(checkpoint, "cpu", batch_size=3).recipe, log, {}).run(7, "start")
        log.count_unreadable()
    [line] = log_lines(out_dir, "val")
    return line


@pytest.mark.parametrize("strong", [False, True], ids=["paper", "strong"])
def test_each_pair_is_answered_and_scored_as_by_prediction_and_the_official_evaluation(
    training_set, checkpoint, strong_checkpoint, tmp_path, monkeypatch, strong
):
    checkpoint = strong_checkpoint if strong else checkpoint
    words = ["--setting", "ego-exo", "--data_path", str(training_set), "--num_workers", "0"]
    how = ["--device", "cpu", "--batch_size", "3"]
    assert eval_segswap.main([*words, "--ckpt_path", str(checkpoint), "--out_path", str(tmp_path), *how]) == 0
    evaluate.main([*words, "--all_frames", "--pred_file", str(tmp_path / "ego-exo_val_results.json")])
    scored = tmp_path / "ego-exo_val_evaluation"
    with (scored / "cases.csv").open() as file:
        cases = {(x["object_name"], x["target_camera"], int(x["frame"])): x for x in csv.DictReader(file)}

    seen, pairs = [], open_pairs([training_set], "val", "ego-exo")
    monkeypatch.setattr(engine, "validation_figures", lambda all: (seen.extend(all), validation_figures(all))[1])
    line = run(pairs, checkpoint, tmp_path)
    assert [score.row for score in seen] == list(range(len(cases)))
    for score in seen:
        pair = pairs.named(score.row)
        case = cases[pair.object_name, pair.target_camera, pair.frame]
        assert score.visible == (case["visible"] == "1") and math.isnan(score.iou) == (not score.visible)
        assert score.existence == pytest.approx(float(case["confidence"]), rel=1e-5)
        assert not score.visible or score.iou == pytest.approx(float(case["iou"]), rel=1e-5)
    scores = json.loads((scored / "metrics.json").read_text())["extra"]  # of all frames, nothing is official
    assert (line["step"], line["samples"]) == (7, len(cases))
    assert line["iou"] == pytest.approx(scores["iou"], rel=1e-5)
    assert line["existence_accuracy"] == pytest.approx(scores["balanced_accuracy"], rel=1e-12)


def test_the_pairs_are_the_same_in_every_run_and_processes_share_their_frames_equally(training_set):
    pairs = open_pairs([training_set], "val", BOTH)
    few = [np.concatenate(of_pairs(pairs, 5).scenes.dataset.groups).tolist() for _ in range(2)]
    assert few[0] == few[1] and len(few[0]) == 5
    for world_size in (1, 3, 4):
        parts = [of_pairs(pairs, 0, rank, world_size) for rank in range(world_size)]
        counts = [len(part.scenes) for part in parts]
        assert max(counts) - min(counts) <= 1
        asked = np.concatenate([rows for part in parts for rows in part.scenes.dataset.groups])
        assert sorted(asked.tolist()) == list(range(len(pairs)))


def test_a_take_that_is_annotated_anew_meanwhile_changes_nothing_and_one_that_is_gone_is_named(
    training_set, checkpoint, tmp_path, capsys
):
    data_dir = shutil.copytree(training_set, tmp_path / "data")
    pairs = open_pairs([data_dir], "val", "ego-exo")
    before = run(pairs, checkpoint, tmp_path / "before")
    path = data_dir / "uid-d" / ANNOTATION
    content = json.loads(path.read_text())["masks"]
    masks = {f"renamed {name}": {camera: {} for camera in cameras} for name, cameras in content.items()}
    path.write_text(json.dumps({"masks": masks, "subsample_idx": []}))
    after = run(pairs, checkpoint, tmp_path / "after")
    assert after | {"time": before["time"]} == before
    shutil.rmtree(data_dir / "uid-d")
    assert run(pairs, checkpoint, tmp_path / "gone")["samples"] == 0
    assert re.search(f"left out: uid-d .*: frame {data_dir / 'uid-d'}/.* is missing", capsys.readouterr().err)


def test_a_signal_ends_it_after_the_frame_in_which_it_comes(training_set, checkpoint, tmp_path, monkeypatch):
    asked, predict = [], Paper.predict
    monkeypatch.setattr(Paper, "predict", lambda *given: (asked.append(given), predict(*given))[1])
    pairs = open_pairs([training_set], "val", "ego-exo")
    with pytest.raises(Stopped):
        run(pairs, checkpoint, tmp_path, signal.SIGTERM)
    assert len(asked) == 1 and not log_lines(tmp_path, "val")


def test_processes_communicate_as_often_for_all_pairs_as_for_one_and_all_stop_if_one_got_a_signal(
    training_set, checkpoint, tmp_path, monkeypatch
):
    """While they predict, no process waits for another."""
    pairs, calls = open_pairs([training_set], "val", "ego-exo"), []

    def noted(name):
        method = getattr(World, name)
        return lambda *given: (calls.append((name, *given[1:])), method(*given))[1]

    with monkeypatch.context() as patch:
        for name in ("gather", "broadcast", "sum", "stop_requested"):
            patch.setattr(World, name, noted(name))
        run(pairs, checkpoint, tmp_path / "one", size=1)
        for_one = [name for name, *_ in calls]
        calls.clear()
        run(pairs, checkpoint, tmp_path / "all")
        assert [name for name, *_ in calls] == for_one
        calls.clear()
        with pytest.raises(Stopped):
            run(pairs, checkpoint, tmp_path / "stopped", signal.SIGTERM)
    [(_, gathered)] = calls
    monkeypatch.setattr(World, "gather", lambda _, value: [value, gathered])
    with pytest.raises(Stopped):
        run(pairs, checkpoint, tmp_path / "other")
    assert not log_lines(tmp_path / "other", "val")


def test_figures_are_left_out_where_they_have_nothing_to_rest_on():
    visible, hidden = [PairScore(0, 0.5, 0.9, True), PairScore(1, 1, 0.4, True)], [PairScore(2, math.nan, 0.1, False)]
    assert validation_figures(visible) == pytest.approx({"iou": 0.75, "samples": 2})
    assert validation_figures(hidden) == {"samples": 1}
    assert validation_figures([]) == {"samples": 0}
