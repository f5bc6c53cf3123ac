"""Does the prediction cover its own object better than any other? The figure, its chance, and where both are shown."""

import csv
import json
import math
import re
from collections import Counter

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco

from evaluation import evaluate, report
from evaluation.metrics import MaskScores, cut_out, score_masks
from evaluation.score import Case, SplitScores, TakeScores, score_results
from evaluation.summary import breakdowns, intervals, metrics, summarize_scores
from evaluation.truth import GroundTruth
from formats import masks
from formats.geometry import eval_size
from formats.masks import encode_mask
from formats.processed import ProcessedTake
from formats.results import camera_pair_key
from tests.made import EGO
from tests.made.results import make_scored_data, options

SIZES = {EGO: (512, 512), "cam01": (1080, 1920), "cam02": (180, 320)}
OBJECTS = ("cup_0", "bowl_0", "ball_0", "exo only_0")
FRAMES = [0, 30, 60, 90, 120]


def random_mask(rng, size):
    """Up to two ellipses; a tenth are empty, a tenth a single pixel, which may vanish at 480 pixels."""
    mask, kind = np.zeros(size, np.uint8), rng.random()
    if kind < 0.1:
        mask[rng.integers(size[0]), rng.integers(size[1])] = 1
    elif kind < 0.9:
        for _ in range(rng.integers(1, 3)):
            center, axes = rng.integers(0, size[::-1]).tolist(), (rng.uniform(0.02, 0.3, 2) * size[0]).astype(int)
            cv2.ellipse(mask, center, axes.tolist(), 0, 0, 360, 1, -1)
    return mask


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Two takes of four objects; each has a mask in about two thirds of the frames of its cameras."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for uid in ("take-a", "take-b"):
        masks = {
            name: {
                camera: {frame: encode_mask(random_mask(rng, SIZES[camera])) for frame in FRAMES if rng.random() < 0.7}
                for camera in SIZES
                if (name, camera) != ("exo only_0", EGO)
            }
            for name in OBJECTS
        }
        ProcessedTake(uid, root / uid, masks, FRAMES).write_annotation()
    return root


def random_results(truth, setting, seed=1):
    rng, results = np.random.default_rng(seed), {}
    for uid in truth.uids:
        take = truth.load(uid).take
        masks = {name: {} for name in take.masks}
        for pair in take.camera_pairs(setting):
            masks[pair.object_name][camera_pair_key(pair.query_camera, pair.target_camera)] = {
                str(frame): {
                    "pred_mask": encode_mask(random_mask(rng, eval_size(SIZES[pair.target_camera]))),
                    "confidence": float(rng.random()),
                }
                for frame in take.masks[pair.object_name][pair.query_camera]
            }
        results[uid] = {"masks": masks, "subsample_idx": FRAMES}
    return results


def oracle(annotation, predicted, query, target):
    """The definition, plainly: (object, frame) of visible objects -> right or nan, number of objects in view."""

    def at_480(rle):
        mask = coco.decode(rle)
        height, width = mask.shape
        scale = 480 / max(height, width)
        return cv2.resize(mask, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_NEAREST) > 0

    found = {}
    for name, cameras in annotation["masks"].items():
        if query not in cameras or target not in cameras:
            continue
        for frame in set(cameras[query]) & set(cameras[target]):
            prediction = coco.decode(predicted["masks"][name][f"{query}_{target}"][frame]["pred_mask"]) > 0
            covered = {}
            for other, of_other in annotation["masks"].items():
                if frame in of_other.get(target, {}):
                    mask = at_480(of_other[target][frame])
                    if mask.sum() > 0:
                        covered[other] = np.logical_and(mask, prediction).sum() / mask.sum()
            in_view = len(covered)
            own = covered.pop(name, None)
            counts = own is not None and covered
            found[name, int(frame)] = (float(own > max(covered.values())) if counts else math.nan), in_view
    return found


@pytest.mark.parametrize("setting", ["ego-exo", "exo-ego"])
def test_random_masks_score_as_the_definition_says(data_dir, setting):
    truth = GroundTruth.from_processed(data_dir, ["take-a", "take-b"], None)
    results = random_results(truth, setting)
    scores = score_results(truth, results.items(), setting)
    expected = []
    for uid in truth.uids:
        annotation = json.loads((data_dir / uid / "annotation.json").read_text())
        for exo in ("cam01", "cam02"):
            query, target = (EGO, exo) if setting == "ego-exo" else (exo, EGO)
            plain = oracle(annotation, results[uid], query, target)
            cases = [c for c in scores.cases if c.visible and c.track[0] == uid and c.track[2:] == (query, target)]
            ours = {(c.object_name, c.frame): (c.mask.right_object, c.mask.objects_in_view) for c in cases}
            assert ours.keys() == plain.keys()
            for key, (right, in_view) in plain.items():
                assert ours[key] == (pytest.approx(right, abs=1e-12, nan_ok=True), in_view)
            expected += plain.values()
    counted = [(right, in_view) for right, in_view in expected if not math.isnan(right)]
    assert 5 < len(counted) < len(expected)  # frames of both kinds are there
    summary = summarize_scores(scores)
    assert summary["frames_several_objects"] == len(counted)
    assert summary["extra"]["right_object"] == pytest.approx(np.mean([right for right, _ in counted]), abs=1e-12)
    assert summary["right_object_chance"] == pytest.approx(np.mean([1 / n for _, n in counted]), abs=1e-12)
    assert 0 < summary["extra"]["right_object"] < 1


def box(left, width=20, height=40):
    mask = np.zeros((270, 480), np.uint8)
    mask[100 : 100 + height, left : left + width] = 1
    return mask


CUP, BOWL, NOTHING = box(50), box(300, height=80), np.zeros((270, 480), np.uint8)
HAND_MADE = {
    "on the object": (CUP, [BOWL], CUP, 1),
    "on its neighbor": (CUP, [BOWL], BOWL, 0),
    "one pixel of it": (CUP, [BOWL], box(50, 1, 1), 1),
    "half of each, more pixels of the larger": (CUP, [BOWL], box(50, 10) | box(300, 10, 80), 0),
    "three quarters of the small one, half of the large one": (CUP, [BOWL], box(50, 15) | box(300, 10, 80), 1),
    "all of everything": (CUP, [BOWL], np.ones_like(CUP), 0),
    "beside both": (CUP, [BOWL], box(150), 0),
    "empty": (CUP, [BOWL], NOTHING, 0),
    "better than one, worse than the other": (CUP, [BOWL, box(200)], box(50, 15) | box(200), 0),
    "alone in view": (CUP, [], CUP, math.nan),
    "the other's mask is empty": (CUP, [NOTHING], CUP, math.nan),
    "its own mask is empty": (NOTHING, [BOWL], NOTHING, math.nan),
}


@pytest.mark.parametrize("case", HAND_MADE)
def test_only_the_object_that_is_covered_best_is_the_right_one(case):
    own, others, prediction, expected = HAND_MADE[case]
    for order in (np.ascontiguousarray, np.asfortranarray):  # decoded masks run down the columns
        scores = score_masks(cut_out(order(own)), order(prediction), [cut_out(order(other)) for other in others])
        assert scores.right_object == pytest.approx(expected, nan_ok=True)
        assert scores.objects_in_view == sum(mask.any() for mask in (own, *others))


@pytest.mark.parametrize("mask", [CUP, NOTHING, np.ones_like(CUP), CUP | BOWL])
def test_a_cut_out_gives_the_mask_back(mask):
    for same in (mask, np.asfortranarray(mask)):
        assert np.array_equal(cut_out(same).whole(), mask) and cut_out(same).pixels == mask.sum()


def test_each_true_mask_is_checked_and_decoded_once(data_dir, monkeypatch):
    truth = GroundTruth.from_processed(data_dir, ["take-a"], None)
    take = truth.in_memory["take-a"] = truth.load("take-a").take  # so that the ids stay
    true_masks = {id(rle) for cameras in take.masks.values() for frames in cameras.values() for rle in frames.values()}
    calls = {"check_rle": Counter(), "run_lengths": Counter()}

    def counted(name, function):
        def call(rle):
            calls[name][id(rle)] += 1
            return function(rle)

        return call

    for name in calls:
        monkeypatch.setattr(masks, name, counted(name, getattr(masks, name)))
    scores = score_results(truth, random_results(truth, "exo-ego").items(), "exo-ego")
    assert metrics(scores.cases)["right_object"] > 0
    for count in calls.values():
        assert set(count) & true_masks and all(count[mask] <= 1 for mask in true_masks)


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


def test_its_interval_comes_from_drawing_takes_and_not_frames():
    rights = np.random.default_rng(0).integers(0, 2, 100).astype(float)
    takes = [[made_case(str(take), right)] * 50 for take, right in enumerate(rights)]  # all frames of a take are alike
    low, high = intervals(takes)["right_object"]
    half = 1.96 * rights.std() / 10
    assert (low, high) == pytest.approx((rights.mean() - half, rights.mean() + half), abs=0.15 * half)


def test_it_is_in_every_output_and_marked_as_not_official(tmp_path, capsys):
    root = make_scored_data(tmp_path / "data")
    evaluate.main([*options(root), "--out", str(tmp_path / "one")])
    summary = json.loads((tmp_path / "one" / "metrics.json").read_text())
    value, chance = summary["extra"]["right_object"], summary["right_object_chance"]
    assert "right_object" not in summary["official"] and summary["interval_95"]["right_object"][0] is not None
    assert summary["frames_several_objects"] == 6 and chance == 0.5  # in cam02: the cup twice, the carton once
    line = re.search(
        r"^\* right object \(%\), in 6 frames .*chance 50\.00 +(\S+) .* to .*$", capsys.readouterr().out, re.M
    )
    assert line[1] == f"{100 * value:.2f}"
    with (tmp_path / "one" / "cases.csv").open() as file:
        cases = [case["right_object"] for case in csv.DictReader(file)]
    known = [float(right) for right in cases if right]
    assert len(known) == 6 < len(cases) and np.mean(known) == value
    with (tmp_path / "one" / "breakdown.csv").open() as file:
        cameras = {row["label"]: row for row in csv.DictReader(file) if row["by"] == "target camera"}
    assert float(cameras["cam02"]["right_object"]) == value and cameras["cam01"]["right_object"] == ""

    files = [str(root / model / "ego-exo_val_results.json") for model in "ab"]
    where = ["--data_path", str(root / "processed"), "--num_workers", "0", "--num", "0", "--out", str(tmp_path / "two")]
    evaluate.main(["--setting", "ego-exo", "--pred_file", *files, *where])
    comparison = json.loads((tmp_path / "two" / "comparison.json").read_text())["comparisons"][0]
    assert comparison["metrics"]["right_object"]["first"] == value
    assert comparison["by"]["target camera"]["cam01"]["right_object"]["first"] is None
    assert re.search(r"^\* right object \(%\)", capsys.readouterr().out, re.M)
    assert "<th>* right object (%)</th>" in (tmp_path / "two" / "index.html").read_text()

    report.main([*options(root), "--num", "1", "--out", str(tmp_path / "page")])
    page = (tmp_path / "page" / "index.html").read_text()
    assert "chance 50.00</td>" in page and "<th>* right object (%)</th>" in page
