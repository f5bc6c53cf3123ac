"""Does the prediction cover its own object better than any other? The figure, its chance, and where both are shown."""

import json
import math

import numpy as np
import pytest

from evaluation import evaluate
from evaluation.metrics import MaskScores, score_masks
from evaluation.score import Case, SplitScores, TakeScores
from evaluation.summary import breakdowns, metrics
from formats.masks import encode_mask
from tests.made import EGO
from tests.made.results import options


def box(left, width=20, height=40):
    mask = np.zeros((270, 480), np.uint8)
    mask[100 : 100 + height, left : left + width] = 1
    return mask


CUP, BOWL, NOTHING = box(50), box(300, height=80), np.zeros((270, 480), np.uint8)
HAND_MADE = {
    "on the object": (CUP, [BOWL], CUP, 1),
    "on its neighbor": (CUP, [BOWL], BOWL, 0),
    "three quarters of the small one, half of the large one": (CUP, [BOWL], box(50, 15) | box(300, 10, 80), 1),
    "all of everything": (CUP, [BOWL], np.ones_like(CUP), 0),
    "empty": (CUP, [BOWL], NOTHING, 0),
    "better than one, worse than the other": (CUP, [BOWL, box(200)], box(50, 15) | box(200), 0),
    "the other's mask is empty": (CUP, [NOTHING], CUP, math.nan),
    "its own mask is empty": (NOTHING, [BOWL], NOTHING, math.nan),
}


@pytest.mark.parametrize("case", HAND_MADE)
def test_only_the_object_that_is_covered_best_is_the_right_one(case):
    own, others, prediction, expected = HAND_MADE[case]
    scores = score_masks(encode_mask(own), prediction, list(map(encode_mask, others)))
    assert scores.right_object == pytest.approx(expected, nan_ok=True)
    assert scores.objects_in_view == sum(mask.any() for mask in (own, *others))


def test_objects_of_the_same_target_frame_are_what_it_is_told_apart_from(scored_data, tmp_path):
    evaluate.main([*options(scored_data), "--out", str(tmp_path)])
    summary = json.loads((tmp_path / "metrics.json").read_text())
    cameras = {group["label"]: group for group in summary["breakdown"]["target camera"]}
    assert "right_object" not in summary["official"]
    assert summary["frames_several_objects"] == 6  # in cam02: the cup twice, the carton once, in each take
    assert summary["right_object_chance"] == 0.5
    assert cameras["cam02"]["right_object"] == summary["extra"]["right_object"]
    assert cameras["cam01"]["right_object"] is None


def made_case(take, right, in_view=2):
    mask = MaskScores(0.5, 0.5, 0, 0, True, 100, 100, right, in_view)
    return Case(take, "cup_0", EGO, "cam01", 0, True, 0.9, mask)


def test_frames_without_another_object_and_frames_without_the_object_do_not_count():
    alone, hidden = made_case("a", math.nan, 1), Case("a", "cup_0", EGO, "cam01", 30, False, 0.1)
    cases = [made_case("a", 1.0), made_case("a", 0.0, 4), made_case("a", 1.0), alone, hidden]
    assert metrics(cases)["right_object"] == pytest.approx(2 / 3)
    assert math.isnan(metrics([alone, hidden])["right_object"]) and metrics([alone, hidden])["iou"] == 0.5
    scores = SplitScores("ego-exo", [TakeScores("a", "", "", cases, 5, [])], [])
    (group,) = breakdowns(scores)["take"]
    assert (group["frames"], group["frames_several_objects"]) == (5, 3)
    assert (group["right_object"], group["right_object_chance"]) == pytest.approx((2 / 3, (0.5 + 0.25 + 0.5) / 3))
