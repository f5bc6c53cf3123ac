"""Scores by the rules of other groups equal golden ones, which implementations without shortcuts gave for each rule."""

import json

import numpy as np
import pytest
from pycocotools import mask as coco

from evaluation import evaluate
from evaluation.metrics import OFFICIAL, MaskScores
from evaluation.protocols import PROTOCOLS, under_protocols
from evaluation.score import Case
from formats.masks import encode_mask
from tests.made.golden import GOLDEN, golden
from tests.made.official_evaluation import resized
from tests.made.results import keyed_entries

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
        entry["pred_mask"] = encode_mask(np.roll(resized(mask, NETWORK_SIZES[len(mask)]), 1, axis=0))
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
    assert not flags or summary["accepted"] == {"mask has another size": summary["frames_scored"]}


def test_what_vanished_at_480_pixels_is_hidden_for_lmeec_and_only_for_it():
    place = ("take", "cup", "aria01", "cam01")
    whole = MaskScores(0.5, 0.5, 0.1, 0.1, True, 50, 50)
    vanished = MaskScores(0.0, 0.0, 0.1, 0.1, False, 0, 50)
    cases = [
        Case(*place, 0, True, 0.9, whole, None, 0.002),
        Case(*place, 30, True, 0.9, vanished, None, 0.0005),
        Case(*place, 60, False, 0.9, None, None, 0.5),
    ]
    figures = under_protocols("lmeec_visibility", cases)
    assert figures["official"]["iou"] == 0.25 and figures["official"]["balanced_accuracy"] == 0.5
    assert figures["lmeec_visibility"]["iou"] == 0.5 and figures["lmeec_visibility"]["balanced_accuracy"] == 0.75
