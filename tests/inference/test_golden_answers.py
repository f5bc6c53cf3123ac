"""The network that the repository ships, and matching, answer as they did when their golden answers were written."""

import json

import numpy as np
import pytest

from common.constants import SETTINGS
from formats.masks import decode_mask
from tests.made.golden_answers import METHODS, PATH, RECORDED, sample_answers, take_answers

GOLDEN = json.loads(PATH.read_text())
CHANGED = "the answers have changed: if this is on purpose, follow tests/made/golden_answers.py"


@pytest.mark.parametrize("method", METHODS)
def test_photographs_get_the_golden_answers_from_the_golden_places(method):
    answers = sample_answers(method)
    assert answers.keys() == GOLDEN["samples"][method].keys()
    for name, expected in GOLDEN["samples"][method].items():
        found = answers[name]
        assert found["answer"] == pytest.approx(expected["answer"], rel=2e-3, abs=2e-3), f"{name}: {CHANGED}"
        assert np.array(found["places"]) == pytest.approx(np.array(expected["places"]), abs=2e-3), f"{name}: {CHANGED}"
        assert found["closely"] == expected["closely"], f"{name}: {CHANGED}"


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_frame_of_a_take_gets_the_golden_masks_and_existences_and_the_runs_record_tells_their_search(
    setting, tmp_path
):
    answers, record = take_answers(setting, tmp_path)
    assert answers.keys() == GOLDEN["takes"][setting].keys()
    for name, expected in GOLDEN["takes"][setting].items():
        assert answers[name]["confidence"] == pytest.approx(expected["confidence"], abs=1e-3), f"{name}: {CHANGED}"
        mask, golden = (decode_mask(entry["pred_mask"]) != 0 for entry in (answers[name], expected))
        assert (mask & golden).sum() >= 0.99 * (mask | golden).sum(), f"{name}: {CHANGED}"
    for name in RECORDED:
        assert record[name] == GOLDEN[name], f"{name}: {CHANGED}"
