"""Results files, also in the forms of other programs, have the official scores if the right flag accepts them."""

import copy
import gzip
import json

import numpy as np
import pytest

from common.errors import UserError
from evaluation import evaluate
from formats.masks import decode_mask, encode_mask
from tests.made import EGO
from tests.made.results import UIDS, keyed_entries, make_results, make_scored_data, options

ODD_NAMES = {  # as they occur in the data set
    "bicycle _0": {EGO: [60, 0, 30], "cam01": [0, 30]},
    "CPR dummy": {EGO: [0, 30], "cam01": [0, 30, 60]},
    "salt/pepper shaker_0": {EGO: [0, 30], "cam02": [30]},
    "Milk carton ": {"cam02": [0, 60], EGO: [30, 60]},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_scored_data(tmp_path_factory.mktemp("odd"), ODD_NAMES)


@pytest.fixture(scope="module")
def results(root):
    """The official form, with confidences that a mask's presence gives too."""
    results = make_results(root / "processed", UIDS, "ego-exo")
    for entry in entries(results):
        entry["confidence"] = float(decode_mask(entry["pred_mask"]).any())
    return results


@pytest.fixture(scope="module")
def expected(root, results, tmp_path_factory):
    """What the official form scores: cases.csv and the official numbers."""
    folder = tmp_path_factory.mktemp("expected")
    return scored(root, written(folder / "results.json", results), folder / "out")


def written(path, results):
    path.write_text(json.dumps({"ego-exo": {"results": results}}))
    return path


def entries(results):
    return (entry for _, entry in keyed_entries(results))


def scored(root, pred_file, out, *flags):
    evaluate.main([*options(root, pred_file), "--out", str(out), *map(str, flags)])
    return (out / "cases.csv").read_text(), json.loads((out / "metrics.json").read_text())["official"]


def refusal(capsys, *args):
    """The list of problems and the last line of a file that is refused."""
    with pytest.raises(UserError) as error:
        scored(*args)
    return capsys.readouterr().err, str(error.value)


def test_version_and_challenge_may_stand_anywhere_also_in_gzip_and_subsample_idx_is_not_needed(
    root, results, expected, tmp_path
):
    bare = {uid: {"masks": take["masks"]} for uid, take in results.items()}
    about = {"version": "00", "challenge": "correspondence"}
    for content in ({**about, "ego-exo": {"results": bare}}, {"ego-exo": {**about, "results": bare}}):
        (tmp_path / "r.json").write_text(json.dumps(content))
        assert scored(root, tmp_path / "r.json", tmp_path / "out") == expected
    path = tmp_path / "ego-exo_val_results.json.gz"
    path.write_bytes(gzip.compress((tmp_path / "r.json").read_bytes()))
    evaluate.main(options(root, path))
    assert (tmp_path / "ego-exo_val_evaluation" / "cases.csv").read_text() == expected[0]
    evaluate.main(["--data_path", str(root / "processed"), "--write_gt", str(tmp_path / "gt.json")])
    truth = json.loads((tmp_path / "gt.json").read_text())["annotations"]
    truth = {uid: {key: take[key] for key in ("masks", "annotated_frames")} for uid, take in truth.items()}
    (tmp_path / "gt.json.gz").write_bytes(gzip.compress(json.dumps({"annotations": truth}).encode()))
    assert scored(root, path, tmp_path / "out", "--gt_file", tmp_path / "gt.json.gz") == expected


def list_confidence(entry):
    entry["confidence"] = [entry["confidence"]]


def drop_confidence(entry):
    del entry["confidence"]


def enlarge_mask(entry):
    entry["pred_mask"] = encode_mask(np.kron(decode_mask(entry["pred_mask"]), np.ones((2, 2))))


def empty_of_any_size(entry):  # as some writers leave what they did not find
    if not decode_mask(entry["pred_mask"]).any():
        entry["pred_mask"] = encode_mask(np.zeros((480, 481)))


FORMS = {  # change of each entry: its problem, the flag that accepts it, what is said then
    list_confidence: ("confidence is a list of one number ([", "--lenient", "{} confidences given as a list of one"),
    drop_confidence: ("no confidence", "--lenient", "predictions without confidence: 1 where the mask is not empty"),
    enlarge_mask: ("mask has another size ([", "--resize_masks", "{} masks of another size, resized by nearest"),
    empty_of_any_size: ("mask has another size ([480, 481], expected", "--resize_masks", "{} masks of another size"),
}


@pytest.mark.parametrize("change", FORMS)
def test_each_other_form_scores_the_same_with_its_flag_alone(root, results, expected, tmp_path, capsys, change):
    changed = copy.deepcopy(results)
    for entry in entries(changed):
        change(entry)
    path, (problem, flag, said) = written(tmp_path / "r.json", changed), FORMS[change]
    other = {"--lenient": "--resize_masks", "--resize_masks": "--lenient"}[flag]
    problems, last = refusal(capsys, root, path, tmp_path / "no", other)
    assert f": {problem}" in problems and f"{flag} would accept" in last
    assert not (tmp_path / "no").exists()
    assert scored(root, path, tmp_path / "out", flag) == expected
    count = sum(a != b for a, b in zip(entries(changed), entries(results), strict=True))
    assert f"{said.format(count)}" in capsys.readouterr().out


def test_masks_of_nearly_the_same_shape_are_resized_and_others_were_padded_or_cut(root, tmp_path, capsys):
    results = make_results(root / "processed", UIDS, "ego-exo")
    for size in ((540, 925), (300, 480), (270, 240)):
        next(entries(results))["pred_mask"] = encode_mask(np.ones(size))
        path = written(tmp_path / "r.json", results)
        if size == (540, 925):
            scored(root, path, tmp_path / "out", "--resize_masks")
        else:
            problems, last = refusal(capsys, root, path, tmp_path / "no", "--resize_masks")
            assert f"mask has the wrong size ({list(size)}, expected [270, 480])" in problems and "1 problem in" in last
