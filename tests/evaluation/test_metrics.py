"""Every metric equals the official evaluation, which tests/made/official_evaluation.py implements simply. Scores by the
rules of other groups equal golden ones, which implementations without shortcuts gave for each rule.
"""

import itertools
import json
import re

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco

from evaluation import evaluate
from evaluation.metrics import METRICS, OFFICIAL, MaskScores, score_masks
from evaluation.protocols import PROTOCOLS
from formats.masks import encode_mask
from tests.made import ROOT
from tests.made import official_evaluation as official
from tests.made.golden import GOLDEN, golden
from tests.made.results import keyed_entries, make_cases

SIZES = [(270, 480), (480, 480), (480, 270), (271, 480), (1, 480), (480, 1)]


def score(truth, prediction):
    return score_masks(encode_mask(truth), prediction)


def blobs(rng, size):
    """A mask of up to three ellipses, some across the border."""
    mask = np.zeros(size, np.uint8)
    for _ in range(rng.integers(0, 4)):
        center = rng.integers(-10, (size[1] + 10, size[0] + 10)).tolist()
        cv2.ellipse(mask, center, rng.integers(1, 60, 2).tolist(), rng.uniform(0, 180), 0, 360, 1, -1)
    return mask


def with_pixels(size, *pixels):
    mask = np.zeros(size, np.uint8)
    for y, x in pixels:
        mask[y, x] = 1
    return mask


def square(size, top, left, side=40):
    mask = np.zeros(size, np.uint8)
    mask[top : top + side, left : left + side] = 1
    return mask


def scorer_of_the_documents() -> dict:
    """The functions under "Exact rules" in docs/evaluation.md, by name."""
    text = (ROOT / "docs" / "evaluation.md").read_text().partition("### Exact rules")[2]
    exec(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1], names := {})
    return names


DOCUMENTED = scorer_of_the_documents()


def assert_official(truth, prediction):
    scores = score(truth, prediction)
    assert score(np.asfortranarray(truth), np.asfortranarray(prediction)) == scores  # as RLE are decoded
    assert scores.iou == pytest.approx(official.iou(truth, prediction), abs=1e-12)
    assert scores.contour_accuracy == pytest.approx(official.contour_accuracy(truth, prediction), abs=1e-12)
    assert scores.location_error == pytest.approx(official.location_error(truth, prediction), abs=1e-12)
    for name in official.SCORES:
        assert DOCUMENTED[name](truth, prediction) == pytest.approx(getattr(scores, name), abs=1e-12), name
    assert scores.mask_presence == (truth.any() == prediction.any())
    assert (scores.truth_pixels, scores.predicted_pixels) == (truth.sum(), prediction.sum())
    return scores


@pytest.mark.parametrize("size", SIZES)
def test_random_and_hand_made_masks_score_as_in_the_official_evaluation(size):
    empty, full = np.zeros(size, np.uint8), np.ones(size, np.uint8)
    last = (size[0] - 1, size[1] - 1)
    masks = [empty, full, with_pixels(size, (0, 0)), with_pixels(size, (0, 0), last)]
    masks += [square(size, 0, 0), square(size, size[0] - 20, size[1] - 20), square(size, 100, 100), 1 - masks[2]]
    for truth, prediction in itertools.product(masks, masks if size == SIZES[0] else masks[:2]):
        assert_official(truth, prediction)
    rng = np.random.default_rng(sum(size))
    for _ in range(4):
        truth = blobs(rng, size)
        near = np.roll(truth, rng.integers(-8, 9, 2), axis=(0, 1))
        for prediction in (blobs(rng, size), near, (rng.random(size) < 0.002).astype(np.uint8)):
            assert_official(truth, prediction)


def test_the_corrected_location_error_puts_an_empty_mask_in_the_middle_of_the_image():
    size = (270, 480)
    middle = square(size, 135 - 20, 240 - 20)
    scores = score(middle, np.zeros(size, np.uint8))
    assert scores.location_error_corrected < 0.003 < 0.2 < scores.location_error
    portrait = score(np.ascontiguousarray(middle.T), np.zeros((480, 270), np.uint8))
    assert portrait.location_error_corrected < 0.003 < 0.2 < portrait.location_error
    moved = square(size, 10, 10)
    assert score(middle, moved).location_error == score(middle, moved).location_error_corrected


def test_the_documents_explain_each_score_by_its_name_and_their_examples_are_right():
    text = (ROOT / "docs" / "evaluation.md").read_text()
    titles = [metric.title for metric in METRICS.values()]
    assert [title for title in titles if not re.search(rf"^\| (.*, )?{title}[,` ].*\|$", text, re.M)] == []
    assert METRICS["mask_presence"].over == "visible" and "visible objects" in METRICS["mask_presence"].title
    example, size = re.search(r"columns (\d+) to (\d+) and (\d+) to (\d+), .* = (\S+) \|", text), (270, 480)
    first, second = (np.zeros(size, np.uint8) for _ in range(2))
    left, right, other_left, other_right = map(int, example.groups()[:4])
    first[9:30, left : right + 1], second[9:30, other_left : other_right + 1] = 1, 1
    assert f"{score(first, second).location_error:.3f}" == example[5]


NETWORK_SIZES = {480: (700, 700), 270: (540, 952)}  # official height -> size of the masks of O-MaMa's results


def golden_takes(setting, frames_per_track):
    """Truth and results of the golden takes, the first frames of each track."""
    truth, results = {}, {}
    for split in ("val", "test"):
        truth |= golden(f"evaluation/gt_{split}")["annotations"]
        results |= golden(f"evaluation/near_truth_{setting}_{split}")[setting]["results"]
    for take in truth.values():
        for cameras in take["masks"].values():
            for camera in cameras:
                cameras[camera] = dict(list(cameras[camera].items())[:frames_per_track])
    return truth, results


@pytest.mark.parametrize(("setting", "flags"), [("ego-exo", ()), ("exo-ego", ("--resize_masks",))])
def test_each_rule_gives_its_golden_scores_for_masks_of_any_size(tmp_path, capsys, setting, flags):
    truth, results = golden_takes(setting, frames_per_track=2)
    for _, entry in keyed_entries(results) if flags else ():
        mask = coco.decode(entry["pred_mask"])
        entry["pred_mask"] = encode_mask(np.roll(official.resized(mask, NETWORK_SIZES[len(mask)]), 1, axis=0))
    (tmp_path / "gt.json").write_text(json.dumps({"annotations": truth}))
    (tmp_path / "pred.json").write_text(json.dumps({setting: {"results": results}}))
    files = ["--gt_file", tmp_path / "gt.json", "--pred_file", tmp_path / "pred.json", "--out", tmp_path / "out"]
    evaluate.main([*map(str, ["--setting", setting, *files, "--num_workers", 0, "--protocol", "all", *flags])])
    summary, printed = json.loads((tmp_path / "out" / "metrics.json").read_text()), capsys.readouterr().out.splitlines()
    figures = summary["protocols"]
    golden_scores = json.loads((GOLDEN / "evaluation" / "other_protocols.json").read_text())[setting]
    assert list(figures) == list(PROTOCOLS)
    for name, of_rule in figures.items():
        expected = golden_scores[name]
        assert {key for key in OFFICIAL if of_rule[key] is not None} == expected.keys(), name
        for key, value in expected.items():
            assert of_rule[key] == pytest.approx(value, abs=1e-9), (name, key)
        (line,) = [line for line in printed if line.removeprefix("* ").startswith(name)]
        assert line.startswith("* ") == (name != "official")
    assert {key: figures["official"][key] for key in OFFICIAL} == summary["official"]
    assert (figures["omama"]["iou"] != figures["official"]["iou"]) == bool(flags)
    assert not flags or f"accepted: {summary['frames_scored']} masks of another size" in summary["warnings"][-1]


def test_what_vanished_at_480_pixels_is_hidden_for_lmeec_and_only_for_it():
    whole = MaskScores(0.5, 0.5, 0.1, 0.1, True, 50, 50)
    vanished = MaskScores(0.0, 0.0, 0.1, 0.1, False, 0, 50)
    cases = make_cases((0.9, whole), (0.9, vanished), (0.9, None))
    cases["predicted_area"] = 0.0012, 0.0008, 0.5
    figures = {rule: PROTOCOLS[rule](None, cases) for rule in ("official", "lmeec_visibility")}
    assert figures["official"]["iou"] == 0.25 and figures["official"]["balanced_accuracy"] == 0.5
    assert figures["lmeec_visibility"]["iou"] == 0.5 and figures["lmeec_visibility"]["balanced_accuracy"] == 0.75
