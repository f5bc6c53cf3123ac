"""Means, breakdowns, intervals and differences of scored cases; whether a prediction covers the right object best."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from evaluation import evaluate
from evaluation.figures import Change
from evaluation.groups import Groups, read_groups
from evaluation.metrics import MaskScores, score_masks
from evaluation.pages import choose_rows
from evaluation.summary import case_sums, group_of, labels_of, paired_differences, summarize
from evaluation.tables import better_or_worse
from formats.masks import encode_mask
from formats.pairs import Pairs
from tests.made.results import make_cases, options


def random_cases(n=40, seed=0, better=0.0):
    rng = np.random.default_rng(seed)
    cases = []
    for frame in range(n):
        iou, visible, existence = rng.random(3)
        iou = min(1, iou + better)
        mask = MaskScores(iou, iou, 1 - iou, 1 - iou, True, 10 * frame, 5 * frame, float(iou > 0.5), 3)
        cases.append((existence, mask if visible < 0.7 else None))
    return make_cases(*cases)


TAKES = np.repeat(range(6), 40)


def cases_of_takes(better=0.0):
    return np.concatenate([random_cases(seed=seed, better=better) for seed in range(6)])


def test_the_interval_of_a_mean_is_that_of_the_normal_approximation_if_there_are_many_takes():
    rng = np.random.default_rng(0)
    values = rng.random(400)
    cases = make_cases(*((1, MaskScores(v, v, v, v, True, 1, 1)) for v in values))
    low, high = summarize(np.arange(400), {}, cases[None]).intervals["iou"]
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_a_small_gain_on_every_take_is_certain_though_takes_differ_more_than_that():
    cases = np.stack([cases_of_takes(), cases_of_takes(better=0.02)])
    gain = paired_differences(TAKES, case_sums(cases))["iou"]
    low, high = gain.interval_95
    assert 0 < low <= gain.difference <= high < 0.021 and better_or_worse("iou", gain) == "better"
    low, high = summarize(TAKES, {}, cases[:1]).intervals["iou"]
    assert high - low > 0.02  # unpaired, nothing could be said


def test_the_interval_of_the_mean_of_runs_is_that_of_one_run_if_they_are_equal_and_wider_if_not():
    cases, better = cases_of_takes(), cases_of_takes(better=0.3)

    def width(*runs):
        low, high = summarize(TAKES, {}, np.stack(runs)).intervals["iou"]
        return high - low

    assert width(cases, cases) == pytest.approx(width(cases)) and width(cases, better) > 2 * width(cases)


def test_draws_without_a_hidden_object_say_nothing_about_the_balanced_accuracy():
    """A program that calls everything visible has 50 %, whatever is drawn."""
    mask, takes = MaskScores(0.5, 0.5, 0, 0, True, 9, 9), np.repeat(range(4), 2)
    always = make_cases(*((1, mask) for _ in range(7)), (1, None))  # the last take alone has a hidden object
    right = make_cases(*((1, mask) for _ in range(7)), (0, None))
    figures = summarize(takes, {"take": ["a"] * 6 + ["b"] * 2}, always[None])
    assert figures.intervals["balanced_accuracy"] == (0.5, 0.5) and figures.intervals["false_existence"] == (1, 1)
    assert [group.text("balanced_accuracy") for group in figures.breakdown["take"]] == ["-", "50.00"]
    change = paired_differences(takes, case_sums(np.stack([right, always])))["balanced_accuracy"]
    assert change == (1, 0.5, -0.5, (-0.5, -0.5))
    apart = summarize(np.array([0, 1]), {}, make_cases((1, mask), (1, None))[None])  # half of the draws have both
    assert apart.total.scores["balanced_accuracy"] == 0.5 and math.isnan(apart.intervals["balanced_accuracy"][0])


def test_a_difference_is_called_better_or_worse_and_uncertain_if_the_interval_holds_0():
    assert better_or_worse("location_error", Change(0.1, 0.2, 0.1, (-0.1, 0.2))) == "worse, uncertain"
    assert better_or_worse("iou", Change(0.1, 0.2, 0.1, (math.nan, math.nan))) == "-"  # of a single take
    for unseen in (0, 4e-5):  # 0.00 percent, or 0.000
        assert better_or_worse("iou", Change(0, unseen, unseen, (-1e-3, 1e-3))) == "-"


def test_chosen_cases_are_the_best_the_worst_or_spread_between_them():
    cases, pairs = random_cases(n=60), Pairs(None, *np.zeros((7, 60), int))
    ranked = sorted(cases["iou"][cases["visible"]])

    def chosen(order, number):
        return cases["iou"][choose_rows(pairs, cases, order, number)].tolist()

    assert chosen("best", 2)[0] == ranked[-1] and chosen("worst", 1)[0] == ranked[0]
    spread = chosen("spread", 5)
    assert spread[0] == ranked[-1] and spread[-1] == ranked[0] and spread == sorted(spread, reverse=True)
    assert len(chosen("spread", 1000)) == len(ranked)
    *_, first, second = with_hidden = choose_rows(pairs, cases, "worst", 10, with_hidden=True)
    assert len(with_hidden) == 12 and cases["existence"][first] == cases["existence"][~cases["visible"]].max()
    assert not cases["visible"][[first, second]].any()


def test_missed_and_invented_objects_are_counted_and_chance_is_one_of_the_objects_in_view():
    rows = ((1.0, 2, 0.5), (0.0, 4, 1.0), (1.0, 2, 1.0), (math.nan, 1, 1.0))  # the first is missed
    cases = [(existence, MaskScores(0.5, 0.5, 0, 0, True, 9, 9, *row)) for *row, existence in rows]
    cases += [(existence, None) for existence in (0.1, 0.6)]
    group = group_of("", case_sums(make_cases(*cases)))
    assert (group.missed, group.invented) == (1, 1)
    assert group.scores["right_object"] == pytest.approx(2 / 3)
    assert group.scores["right_object_chance"] == pytest.approx((0.5 + 0.25 + 0.5) / 3)


def test_the_label_of_an_objects_size_tells_the_share_of_the_image_that_it_covers():
    labels = {
        **{0: "vanished at 480 px", 0.04: "under 0.05 %", 0.06: "0.05 to 0.15 %", 0.14: "0.05 to 0.15 %"},
        **{0.16: "0.15 to 0.5 %", 0.49: "0.15 to 0.5 %", 0.51: "0.5 to 2 %", 1.9: "0.5 to 2 %", 2.1: "from 2 %"},
    }
    scores = (MaskScores(1, 1, 0, 0, True, round(100 * percent), 9, image_pixels=10_000) for percent in labels)
    pairs = Pairs(SimpleNamespace(takes=[], objects=[], cameras=[]), *np.zeros((7, 0), int))
    cases, truth = (
        make_cases(*((1, of_one) for of_one in scores)),
        SimpleNamespace(infos={}, take_names=[], groups=Groups()),
    )
    assert labels_of(truth, pairs, cases)["object size"] == [*labels.values()]


def test_an_object_whose_name_ends_with_a_space_is_found_in_a_file_of_groups(tmp_path):
    """People copy names from cases.csv, where they may end so. Cells of the file are read without such a space."""
    path = tmp_path / "groups.csv"
    path.write_text("object_name,kind\nwhite carton_0 ,box\n")
    store = SimpleNamespace(takes=["take"], objects=["white carton_0 "], cameras=["aria01", "cam01"])
    pairs, groups = Pairs(store, *np.zeros((7, 1), int)), read_groups(path)
    assert groups.labels_of(pairs, ["name"]) == {"kind": ["box"]} and groups.warnings(pairs, ["name"]) == []


def box(left, width=20, height=40):
    mask = np.zeros((270, 480), np.uint8)
    mask[100 : 100 + height, left : left + width] = 1
    return mask


CUP, BOWL, NOTHING = box(50), box(300, height=80), np.zeros((270, 480), np.uint8)
HAND_MADE = {
    "on the object": (CUP, [BOWL], CUP, 1),
    "on its neighbor": (CUP, [BOWL], BOWL, 0),
    "all of everything": (CUP, [BOWL], np.ones_like(CUP), 0),
    "empty": (CUP, [BOWL], NOTHING, 0),
    "better than one, worse than the other": (CUP, [BOWL, box(200)], box(50, 15) | box(200), 0),
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
    for kind, groups in summary["breakdown"].items():
        assert groups and (kind == "object size" or sum(group["frames"] for group in groups) == 16), kind
    assert [group["label"] for group in summary["breakdown"]["scenario"]] == ["Cooking"]
    assert summary["frames_several_objects"] == 6  # in cam02: the cup twice, the carton once, in each take
    assert summary["right_object_chance"] == 0.5
    assert cameras["cam02"]["right_object"] == summary["extra"]["right_object"]
    assert cameras["cam01"]["right_object"] is None
