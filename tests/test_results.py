"""Results files, in the forms of other programs too: each scores as the official one, with the flag that accepts it."""

import copy
import gzip
import json

import cv2
import numpy as np
import pytest

from common.errors import UserError
from evaluation import evaluate, report, visualize
from formats.masks import decode_mask, encode_mask, resize_mask
from formats.processed import ANNOTATION
from formats.results import iter_results
from tests.made import EGO
from tests.made.processed import make_data_set
from tests.made.results import UIDS, make_annotations, make_results

SETTINGS = ("ego-exo", "exo-ego")
ODD_NAMES = {  # as they occur in the data set
    "bicycle _0": {EGO: [60, 0, 30], "cam01": [0, 30]},
    "CPR dummy": {EGO: [0, 30], "cam01": [0, 30, 60]},
    "salt/pepper shaker_0": {EGO: [0, 30], "cam02": [30]},
    "Milk carton ": {"cam02": [0, 60], EGO: [30, 60]},
}
NETWORK_SIZES = {480: (700, 700), 270: (540, 952)}  # official height -> (H, W)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("odd")
    data_dir = make_data_set(root, {"val": UIDS}, ODD_NAMES)
    takes = {uid: json.loads((data_dir / uid / ANNOTATION).read_text()) for uid in UIDS}
    make_annotations(root / "annotations" / "relations_val.json", takes)
    return root


@pytest.fixture(scope="module", params=SETTINGS)
def setting(request):
    return request.param


@pytest.fixture(scope="module")
def results(root, setting):
    """The official form, with confidences that a mask's presence gives too."""
    results = make_results(root / "processed", UIDS, setting)
    for entry in entries(results):
        entry["confidence"] = float(decode_mask(entry["pred_mask"]).any())
    return results


@pytest.fixture(scope="module")
def expected(root, setting, results, tmp_path_factory):
    """What the official form scores: cases.csv and the official numbers."""
    folder = tmp_path_factory.mktemp("expected")
    (folder / "results.json").write_text(json.dumps({setting: {"results": results}}))
    return scored(root, setting, folder / "results.json", folder / "out")


def entries(results):
    for take in results.values():
        for pairs in take["masks"].values():
            for frames in pairs.values():
                yield from frames.values()


def scored(root, setting, pred_file, out, *flags):
    where = ["--data_path", root / "processed", "--pred_file", pred_file, "--out", out, "--num_workers", 0]
    evaluate.main([*map(str, ["--setting", setting, *where, *flags])])
    return (out / "cases.csv").read_text(), json.loads((out / "metrics.json").read_text())["official"]


def refusal(capsys, *args):
    """The list of problems and the last line of a file that is refused."""
    with pytest.raises(UserError) as error:
        scored(*args)
    return capsys.readouterr().err, str(error.value)


def test_version_and_challenge_may_stand_anywhere_and_subsample_idx_is_not_needed(
    root, setting, results, expected, tmp_path
):
    bare = {uid: {"masks": take["masks"]} for uid, take in results.items()}
    about = {"version": "00", "challenge": "correspondence"}
    for number, content in enumerate(
        [{setting: {"results": bare}}, {**about, setting: {"results": bare}}, {setting: {**about, "results": bare}}]
    ):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(content))
        assert scored(root, setting, path, tmp_path / str(number)) == expected


def test_a_take_twice_in_a_results_file_is_refused_by_name(tmp_path):
    (tmp_path / "r.json").write_text('{"ego-exo": {"results": {"a": {}, "b": {}, "a": {}}}}')
    with pytest.raises(UserError, match="r.json holds take a at two places; keep one"):
        list(iter_results(tmp_path / "r.json", "ego-exo"))


def test_gzip_is_read_and_its_scores_lie_beside_it_under_the_same_name(root, setting, results, expected, tmp_path):
    path = tmp_path / f"{setting}_val_results.json.gz"
    path.write_bytes(gzip.compress(json.dumps({setting: {"results": results}}).encode()))
    where = ["--data_path", root / "processed", "--pred_file", path, "--num_workers", 0]
    evaluate.main([*map(str, ["--setting", setting, *where])])
    assert (tmp_path / f"{setting}_val_evaluation" / "cases.csv").read_text() == expected[0]


def test_a_confidence_in_a_list_is_listed_and_accepted_by_lenient(root, setting, results, expected, tmp_path, capsys):
    listed = copy.deepcopy(results)
    for entry in entries(listed):
        entry["confidence"] = [entry["confidence"]]
    (tmp_path / "r.json").write_text(json.dumps({setting: {"results": listed}}))
    problems, last = refusal(capsys, root, setting, tmp_path / "r.json", tmp_path / "no")
    assert "frames 0, 30" in problems and "confidence is a list of one number ([" in problems
    assert "; --lenient accepts it" in problems and "--lenient would accept" in last
    assert scored(root, setting, tmp_path / "r.json", tmp_path / "out", "--lenient") == expected
    count = sum(1 for _ in entries(listed))
    assert f"accepted: {count} confidences given as a list of one number" in capsys.readouterr().out


@pytest.mark.parametrize("confidence", [[], [0.5, 0.5], ["0.5"], [2]])
def test_lenient_does_not_accept_any_list(root, setting, results, tmp_path, capsys, confidence):
    broken = copy.deepcopy(results)
    next(entries(broken))["confidence"] = confidence
    (tmp_path / "r.json").write_text(json.dumps({setting: {"results": broken}}))
    problems, _ = refusal(capsys, root, setting, tmp_path / "r.json", tmp_path / "no", "--lenient")
    assert "confidence is not " in problems and "accepts it" not in problems


def test_a_missing_confidence_is_listed_and_lenient_takes_a_mask_for_a_yes(
    root, setting, results, expected, tmp_path, capsys
):
    bare = copy.deepcopy(results)
    for entry in entries(bare):
        del entry["confidence"]
    (tmp_path / "r.json").write_text(json.dumps({setting: {"results": bare}}))
    problems, last = refusal(capsys, root, setting, tmp_path / "r.json", tmp_path / "no")
    assert "no confidence; --lenient accepts it" in problems and "--lenient would accept" in last
    assert scored(root, setting, tmp_path / "r.json", tmp_path / "out", "--lenient") == expected
    assert "predictions without confidence: 1 where the mask is not empty, else 0" in capsys.readouterr().out


def test_masks_of_another_size_are_listed_and_resized_by_nearest_neighbor(root, setting, results, tmp_path, capsys):
    given, resized = copy.deepcopy(results), copy.deepcopy(results)
    for before, after in zip(entries(given), entries(resized), strict=True):
        height, width = after["pred_mask"]["size"]
        mask = resize_mask(before["pred_mask"], NETWORK_SIZES[height])
        before["pred_mask"] = encode_mask(mask)
        after["pred_mask"] = encode_mask(cv2.resize(mask.copy(), (width, height), interpolation=cv2.INTER_NEAREST))
    for name, content in {"given": given, "resized": resized}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps({setting: {"results": content}}))
    problems, last = refusal(capsys, root, setting, tmp_path / "given.json", tmp_path / "no", "--lenient")
    size = [540, 952] if setting == "ego-exo" else [700, 700]
    assert f"mask has another size ({size}, expected [" in problems and "; --resize_masks accepts it" in problems
    assert "--resize_masks would accept" in last and not (tmp_path / "no").exists()
    expected = scored(root, setting, tmp_path / "resized.json", tmp_path / "a")
    assert scored(root, setting, tmp_path / "given.json", tmp_path / "b", "--resize_masks") == expected
    count = sum(1 for _ in entries(given))
    assert f"accepted: {count} masks of another size, resized by nearest neighbor" in capsys.readouterr().out


@pytest.mark.parametrize("size", [(480, 480), (480, 270), (270, 240)])
def test_masks_of_another_shape_are_padded_or_cut_and_never_resized(root, tmp_path, capsys, size):
    results = make_results(root / "processed", UIDS, "ego-exo")
    next(entries(results))["pred_mask"] = encode_mask(np.ones(size))
    (tmp_path / "r.json").write_text(json.dumps({"ego-exo": {"results": results}}))
    problems, last = refusal(capsys, root, "ego-exo", tmp_path / "r.json", tmp_path / "no", "--resize_masks")
    assert f"mask has the wrong size ({list(size)}, expected [270, 480])" in problems and "1 problem in" in last


def test_an_empty_mask_of_any_size_is_accepted_by_resize_masks(root, setting, results, tmp_path, capsys):
    given, resized = copy.deepcopy(results), copy.deepcopy(results)
    count = 0
    for before, after in zip(entries(given), entries(resized), strict=True):
        if not decode_mask(before["pred_mask"]).any() or count < 3:  # as some writers leave what they did not find
            before["pred_mask"] = encode_mask(np.zeros((480, 481)))
            after["pred_mask"] = encode_mask(np.zeros(after["pred_mask"]["size"]))
            count += 1
    for name, content in {"given": given, "resized": resized}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps({setting: {"results": content}}))
    problems, last = refusal(capsys, root, setting, tmp_path / "given.json", tmp_path / "no")
    assert "mask has another size ([480, 481], expected [" in problems and "--resize_masks would accept" in last
    expected = scored(root, setting, tmp_path / "resized.json", tmp_path / "a", "--protocol", "all")
    assert (
        scored(root, setting, tmp_path / "given.json", tmp_path / "b", "--resize_masks", "--protocol", "all")
        == expected
    )
    assert f"accepted: {count} masks of another size" in capsys.readouterr().out


def test_ground_truth_without_subsample_idx_is_listed_and_accepted_by_lenient(
    root, setting, results, expected, tmp_path, capsys
):
    evaluate.main(["--data_path", str(root / "processed"), "--write_gt", str(tmp_path / "gt.json")])
    truth = json.loads((tmp_path / "gt.json").read_text())
    for take in truth["annotations"].values():
        del take["subsample_idx"]
    (tmp_path / "gt.json.gz").write_bytes(gzip.compress(json.dumps({"annotations": truth["annotations"]}).encode()))
    (tmp_path / "r.json").write_text(json.dumps({setting: {"results": results}}))
    where = root, setting, tmp_path / "r.json", tmp_path / "out", "--gt_file", tmp_path / "gt.json.gz"
    problems, last = refusal(capsys, *where)
    assert "no subsample_idx, which --lenient accepts" in problems and "2 problems in the ground truth" in last
    assert scored(*where, "--lenient") == expected
    assert "accepted: 2 takes of the ground truth without subsample_idx" in capsys.readouterr().out


def write_mask_folder(folder, results):
    for uid, take in results.items():
        for name, pairs in take["masks"].items():
            for pair, frames in pairs.items():
                (folder / uid / name / pair).mkdir(parents=True)
                for frame, entry in frames.items():
                    picture = np.ascontiguousarray(decode_mask(entry["pred_mask"])) * 255
                    cv2.imwrite(str(folder / uid / name / pair / f"{frame}.png"), picture)


def test_a_folder_of_png_masks_scores_as_the_results_file(root, setting, results, expected, tmp_path, capsys):
    write_mask_folder(tmp_path / "masks", results)
    _, last = refusal(capsys, root, setting, tmp_path / "masks", tmp_path / "no")
    assert "--lenient would accept" in last  # there is no confidence
    assert scored(root, setting, tmp_path / "masks", tmp_path / "out", "--lenient") == expected


def test_a_broken_and_a_missing_png_mask_are_named(root, tmp_path, capsys):
    write_mask_folder(tmp_path / "masks", make_results(root / "processed", UIDS, "ego-exo"))
    folder = tmp_path / "masks" / "take-a" / "bicycle _0" / f"{EGO}_cam01"
    (folder / "0.png").write_bytes((folder / "0.png").read_bytes()[:40])
    (folder / "30.png").unlink()
    (folder / "notes.png").write_bytes(b"")
    problems, last = refusal(capsys, root, "ego-exo", tmp_path / "masks", tmp_path / "no", "--lenient")
    place = f"take take-a, object 'bicycle _0', camera pair {EGO}_cam01"
    assert f"{place}, frame 0: mask cannot be decoded (mask 'no picture that can be read'" in problems
    assert f"{place}, frame 30: missing" in problems and "2 problems in" in last


def test_linked_folders_are_read(root, tmp_path):
    write_mask_folder(tmp_path / "masks", make_results(root / "processed", UIDS, "ego-exo"))
    expected = scored(root, "ego-exo", tmp_path / "masks", tmp_path / "a", "--lenient")
    for linked in (tmp_path / "masks" / "take-a" / "bicycle _0", tmp_path / "masks" / "take-b"):
        linked.rename(tmp_path / linked.name)
        linked.symlink_to(tmp_path / linked.name)
    assert scored(root, "ego-exo", tmp_path / "masks", tmp_path / "b", "--lenient") == expected


def detections(results):
    """COCO's form, a worse detection beside each."""
    found = []
    for uid, take in results.items():
        for name, pairs in take["masks"].items():
            for pair, frames in pairs.items():
                for frame, entry in frames.items():
                    image = {"image_id": f"{uid}/{pair}/{frame}", "category_id": name}
                    nothing = encode_mask(np.zeros(entry["pred_mask"]["size"]))
                    found.append({**image, "segmentation": entry["pred_mask"], "score": entry["confidence"]})
                    found.append({**image, "segmentation": nothing, "score": -1})
    return found


def test_a_list_of_detections_scores_as_the_results_file_by_the_best_of_each(
    root, setting, results, expected, tmp_path
):
    listed = detections(results)
    for name, content in {"a": listed, "b": listed[::-1]}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content, indent=1))
        assert scored(root, setting, tmp_path / f"{name}.json", tmp_path / name) == expected


def test_detections_are_read_a_take_at_a_time_and_a_scattered_take_is_refused(results, tmp_path):
    listed = detections(results)
    (tmp_path / "r.json").write_text(json.dumps(listed)[:-1] + ", broken")
    takes = iter_results(tmp_path / "r.json", "ego-exo")
    assert next(takes)[0] == UIDS[0]
    with pytest.raises(UserError, match="not valid JSON"):
        next(takes)
    (tmp_path / "r.json").write_text(json.dumps([*listed, listed[0]]))
    with pytest.raises(UserError, match="take take-a at two places; keep one, or sort detections by image_id"):
        list(iter_results(tmp_path / "r.json", "ego-exo"))


def test_what_is_no_detection_is_named_with_its_place(results, tmp_path):
    named = {"category_id": "cup"}
    images = (3, "take/pair", "take/pair/x")
    bad = [7, *(named | {"image_id": image} for image in images), {"image_id": "take/pair/3", "category_id": 1}]
    for detection in bad:
        (tmp_path / "r.json").write_text(json.dumps([detections(results)[0], detection]))
        with pytest.raises(UserError, match=r"^[^\n]*r.json: entry 1 \(.*is not {\"image_id\": [^\n]*$"):
            list(iter_results(tmp_path / "r.json", "ego-exo"))


def test_report_and_pictures_are_drawn_of_another_form_too(root, tmp_path):
    write_mask_folder(tmp_path / "masks", make_results(root / "processed", UIDS, "ego-exo"))
    where = ["--setting", "ego-exo", "--data_path", root / "processed", "--pred_file", tmp_path / "masks"]
    where = [*map(str, where), "--lenient", "--num_workers", "0", "--num", "2"]
    report.main([*where, "--out", str(tmp_path / "report")])
    assert "predictions without confidence" in (tmp_path / "report" / "index.html").read_text()
    visualize.main([*where, "--out", str(tmp_path / "sheet.jpg")])
    assert (tmp_path / "sheet.jpg").is_file()
