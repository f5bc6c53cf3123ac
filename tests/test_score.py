"""Scoring take by take, in this process and in others."""

import pytest

from evaluation import score
from evaluation.score import score_results
from evaluation.truth import GroundTruth
from tests.made.processed import make_data_set
from tests.made.results import make_results

UIDS = ["take-a", "take-b", "take-c"]


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    data_dir = make_data_set(tmp_path_factory.mktemp("data"), {"val": UIDS})
    return GroundTruth.from_processed(data_dir, UIDS, None)


@pytest.fixture(scope="module")
def results(truth):
    return make_results(truth.data_dir, UIDS, "ego-exo")


def test_takes_come_in_the_order_of_the_ground_truth_whatever_that_of_the_results(truth, results):
    forwards = score_results(truth, results.items(), "ego-exo")
    backwards = score_results(truth, reversed(results.items()), "ego-exo")
    assert repr(forwards) == repr(backwards)  # nan is not equal to itself
    assert [take.take_uid for take in forwards.takes] == UIDS


def test_processes_change_nothing_and_all_takes_are_reported_as_progress(truth, results, capsys):
    here = score_results(truth, results.items(), "ego-exo")
    there = score_results(truth, results.items(), "ego-exo", 2)
    assert repr(here) == repr(there)
    bars = capsys.readouterr().err.split("\n")  # a bar that is drawn again, on a busy machine, stays in its line
    assert sum("3/3" in bar for bar in bars) == 2


def test_results_are_read_no_faster_than_they_are_scored(truth, results, monkeypatch):
    read, scored = [], []
    score_take = score.score_take
    monkeypatch.setattr(score, "score_take", lambda *given: scored.append(given) or score_take(*given))

    def items():
        for item in results.items():
            read.append(item[0])
            assert len(read) == len(scored) + 1
            yield item

    score_results(truth, items(), "ego-exo")
    assert len(read) == len(scored) == 3


def test_takes_that_only_the_results_have_are_named(truth, results):
    scores = score_results(truth, [*results.items(), ("take-z", {})], "ego-exo")
    assert scores.not_in_truth == ["take-z"] and not scores.problems
