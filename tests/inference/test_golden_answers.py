"""The network that the repository ships answers as it did when its golden answers were written."""

import json

import pytest

from common.arguments import SETTINGS
from formats.masks import decode_mask
from tests.made.golden_answers import PATH, RECORDED, sample_answers, take_answers

GOLDEN = json.loads(PATH.read_text())
CHANGED = "the answers have changed: if this is on purpose, follow tests/made/golden_answers.py"


def test_photographs_get_the_golden_iou_and_existence():
    answers = sample_answers()
    assert answers.keys() == GOLDEN["samples"].keys()
    for name, expected in GOLDEN["samples"].items():
        assert answers[name] == pytest.approx(expected, abs=1e-2), f"{name}: {CHANGED}"


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
