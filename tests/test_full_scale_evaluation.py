"""The benchmark of the scoring at full size, on a few takes."""

import json

import pytest

from benchmarks import full_scale_evaluation as benchmark
from evaluation import evaluate
from formats.files import read_json
from tests import official_evaluation


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "POOL", 4)
        patch.setattr(benchmark, "MEAN_FRAMES", 3)
        folder = tmp_path_factory.mktemp("split")
        benchmark.write_split(folder, 5)
    return folder


def test_a_made_split_is_scored_whole_and_as_in_the_official_way(folder, tmp_path):
    results = folder / "ego-exo_test_results.json"
    where = ["--data_path", folder / "processed", "--pred_file", results, "--num_workers", "0", "--out", tmp_path]
    written = ["--write_gt", tmp_path / "gt.json"]
    evaluate.main(list(map(str, ["--setting", "ego-exo", "--split", "test", *where, *written])))
    found = json.loads((tmp_path / "metrics.json").read_text())
    truth = json.loads((tmp_path / "gt.json").read_text())["annotations"]
    official = official_evaluation.evaluate(truth, read_json(results, "")["ego-exo"]["results"], "ego-exo")
    assert found["takes"] == 5 and found["frames_scored"] == found["frames_wanted"] == len(official["gt"])
    assert 0 < found["frames_visible"] < found["frames_scored"]
    mean = sum(official["iou"]) / len(official["iou"])
    assert found["official"]["iou"] == pytest.approx(mean, abs=1e-9) and 0.2 < mean < 0.9


def test_a_part_of_the_split_is_measured_in_time_and_memory(folder):
    uids = read_json(folder / "split.json", "")["test"][:2]
    wall, own, together = benchmark.measure(folder, uids, 0, "--describe", "--out", folder / "data")
    assert 0 < wall < 60 and 20 < own <= together
    assert json.loads((folder / "data" / "description.json").read_text())["takes"] == 2


def test_the_official_way_takes_some_time_per_frame(folder):
    assert 0 < benchmark.official_seconds_per_frame(folder, read_json(folder / "split.json", "")["test"][:1]) < 5
