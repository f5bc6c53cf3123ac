"""evaluate.py gives the official numbers for results files, and only a list of problems for a broken file."""

import copy
import csv
import functools
import itertools
import json
import math
import operator
import re

import numpy as np
import pytest

from common.constants import SETTINGS
from common.errors import UserError
from evaluation import compare, evaluate, paper_rows
from evaluation.metrics import METRICS, OFFICIAL
from formats.masks import encode_mask, resize_mask
from formats.pairs_file import listing_path
from formats.processed import ANNOTATION, SOURCE, ProcessedTake
from formats.takes import iter_takes
from tests.made import EGO, official_evaluation
from tests.made.golden import GOLDEN, golden
from tests.made.processed import LAYOUT, make_data_set, write_data_set
from tests.made.processes import exit_status
from tests.made.results import (
    UIDS,
    eval_mask,
    keyed_entries,
    make_annotations,
    make_results,
    make_results_file,
    make_scored_data,
    options,
)

OFFICIAL_NAMES = {
    "iou": "TOTAL IOU",
    "location_error": "TOTAL LOCATION SCORE",
    "contour_accuracy": "TOTAL SHAPE ACC",
    "balanced_accuracy": "TOTAL EXISTENCE BALANCED ACC",
}


@pytest.fixture(scope="module")
def golden_root(tmp_path_factory):
    """The golden takes as a data set: processed takes, annotation files, split.json."""
    root = tmp_path_factory.mktemp("golden")
    splits = {}
    for split in ("val", "test"):
        takes = golden(f"evaluation/gt_{split}")["annotations"]
        splits[split] = list(takes)
        write_data_set(root, takes, splits)
        looked_at = {uid: take["annotated_frames"] for uid, take in takes.items()}
        make_annotations(root / "annotations" / f"relations_{split}.json", takes, looked_at)
        (root / f"gt_{split}.json").write_text(json.dumps(golden(f"evaluation/gt_{split}")))
        for setting in SETTINGS:
            results = golden(f"evaluation/near_truth_{setting}_{split}")
            (root / f"{setting}_{split}_results.json").write_text(json.dumps(results))
    return root


def run(*argv, workers=0, script=evaluate):
    return script.main(["--num_workers", str(workers), *map(str, argv)])


def print_rows(*words):
    paper_rows.main([*map(str, words)])


def read_cases(folder):
    with (folder / "cases.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_all_numbers_of_the_golden_predictions_are_the_official_ones(golden_root, tmp_path, setting, split):
    pred_file = golden_root / f"{setting}_{split}_results.json"
    where = ["--data_path", golden_root / "processed", "--split", split, "--output_path", tmp_path / "gt.json"]
    run("--setting", setting, "--pred_file", pred_file, "--out", tmp_path, *where)
    official = json.loads((GOLDEN / "evaluation" / "official_evaluation.json").read_text())[f"{setting}_{split}"]

    summary = json.loads((tmp_path / "metrics.json").read_text())
    for name, printed in OFFICIAL_NAMES.items():
        assert summary["official"][name] == pytest.approx(official["printed"][printed], abs=1e-9)
    cases, truth = read_cases(tmp_path), golden(f"evaluation/gt_{split}")["annotations"]
    keys, tracks = [key for key, _ in keyed_entries(truth)], [[*case.values()][:4] for case in cases]
    place = operator.itemgetter("take_uid", "object_name", "query_camera", "frame")
    cases.sort(key=lambda case: (tracks.index([*case.values()][:4]), keys.index(place(case))))  # as the original does
    visible = [case for case in cases if case["visible"] == "1"]
    for name in ("iou", "contour_accuracy", "location_error"):
        np.testing.assert_allclose([float(case[name]) for case in visible], official["per_mask"][name], atol=1e-9)
    presence = [(float(case["truth_pixels"]) > 0) == (float(case["predicted_pixels"]) > 0) for case in visible]
    assert presence == official["per_mask"]["existence_accuracy"]
    assert [int(case["visible"]) for case in cases] == official["scored_existence"]["gt"]
    assert [int(float(case["confidence"]) > 0.5) for case in cases] == official["scored_existence"]["pred"]
    assert json.loads((tmp_path / "gt.json").read_text()) == golden(f"evaluation/gt_{split}")


def test_the_official_ground_truth_file_the_order_of_takes_and_worker_processes_change_no_byte(golden_root, tmp_path):
    pred = ["--setting", "ego-exo", "--pred_file", golden_root / "ego-exo_val_results.json"]
    run(*pred, "--data_path", golden_root / "processed", "--out", tmp_path / "a")
    run(*pred, "--gt_file", golden_root / "gt_val.json", "--out", tmp_path / "b")
    turned = json.loads((golden_root / "ego-exo_val_results.json").read_text())
    turned["ego-exo"]["results"] = dict(reversed(turned["ego-exo"]["results"].items()))
    (tmp_path / "turned.json").write_text(json.dumps(turned))
    pred[-1] = tmp_path / "turned.json"
    run(*pred, "--data_path", golden_root / "processed", "--out", tmp_path / "c", workers=2)
    expected = (tmp_path / "a" / "cases.csv").read_bytes()
    assert (tmp_path / "b" / "cases.csv").read_bytes() == (tmp_path / "c" / "cases.csv").read_bytes() == expected


def test_the_listed_cases_are_the_scored_ones_with_their_pictures_and_query_masks(scored_data, tmp_path):
    run(*options(scored_data), "--out", tmp_path / "out", "--list_cases", tmp_path / "cases.csv")
    scored, listed = read_cases(tmp_path / "out"), read_cases(tmp_path)
    assert len(listed) == 16
    for case, mine in zip(scored, listed, strict=True):
        assert [*case.values()][:5] == [*mine.values()][:5]
        take = ProcessedTake.read(scored_data / "processed", case["take_uid"])
        frame, query = int(case["frame"]), case["query_camera"]
        assert json.loads(mine["query_mask"]) == take.masks[case["object_name"]][query][frame]
        pictures = [take.folder / camera / f"{frame}.jpg" for camera in (query, case["target_camera"])]
        assert [mine["query_picture"], mine["target_picture"]] == list(map(str, pictures))
    before = (tmp_path / "cases.csv").read_bytes()
    with pytest.raises(UserError, match="cases.csv exists; name another file to write, or give --overwrite"):
        run(*options(scored_data)[:-2], "--list_cases", tmp_path / "cases.csv")
    run(*options(scored_data)[:-2], "--list_cases", tmp_path / "cases.csv", "--overwrite")  # and nothing is scored
    assert (tmp_path / "cases.csv").read_bytes() == before and len(list(tmp_path.iterdir())) == 2


def test_rows_for_a_paper_have_the_scores_of_both_settings_and_a_star_where_a_difference_is_sure(
    scored_data, tmp_path, capsys
):
    rows = {}
    for setting in SETTINGS:
        files = [scored_data / model / f"{setting}_val_results.json" for model in ("a", "b")]
        where = ["--setting", setting, "--data_path", scored_data / "processed", "--num", 0, "--out"]
        run(*where, tmp_path / setting, "--pred_file", *files, "--names", "my_a", "b", script=compare)
        run(*where, tmp_path / "alone" / setting, "--pred_file", files[0])
        figures = json.loads((tmp_path / setting / "comparison.json").read_text())["comparisons"][0]["metrics"]
        rows[setting] = [figures[name] for name in OFFICIAL]
    capsys.readouterr()
    for wrong, line in (
        (tmp_path / "*_metrics.json", "no file "),
        (files[0], "of the form .*; give metrics.json of evaluat"),
    ):
        with pytest.raises(UserError, match=line):
            print_rows(wrong, files[0])
    files = [tmp_path / setting / "comparison.json" for setting in reversed(SETTINGS)]
    print_rows(*files)
    *latex, mine, other = capsys.readouterr().out.splitlines()
    texts = {way: [METRICS[n].as_text(x[way]) for xs in rows.values() for n, x in zip(OFFICIAL, xs, strict=True)]
             for way in ("first", "second")}  # fmt: skip
    sure = [x["interval_95"][0] > 0 or x["interval_95"][1] < 0 for xs in rows.values() for x in xs]
    starred = [text + "$^{*}$" * star for text, star in zip(texts["second"], sure, strict=True)]
    assert latex[::2] == [" & ".join([r"my\_a", *texts["first"]]) + r" \\", " & ".join(["b", *starred]) + r" \\"]
    interval = METRICS["iou"].interval_text(rows["ego-exo"][0]["interval_95"], "+")
    assert latex[3].startswith(f" & {interval} & ") and 0 < sum(sure) < 8
    assert [mine, other] == [
        ",".join([x, "", "", "official", "", "", *y]) for x, y in zip(["my_a", "b"], texts.values(), strict=True)
    ]
    print_rows(*(tmp_path / "alone" / setting / "metrics.json" for setting in SETTINGS))
    assert capsys.readouterr().out.startswith(f"a & {texts['first'][0]} & ")  # a method is named as its folder
    run(*where, tmp_path / "other", "--pred_file", scored_data / "b" / f"{setting}_val_results.json")
    with pytest.raises(UserError, match=r"other names \(ego-exo: a; exo-ego: b\); give --names"):  # two methods
        print_rows(tmp_path / "alone" / "ego-exo" / "metrics.json", tmp_path / "other" / "metrics.json")
    for wrong in (files[:1] * 2, [*files, "--names", "a"]):
        with pytest.raises(UserError, match="give one file of ego-exo and one of exo-ego, .* these are "):
            print_rows(*wrong)
    for number in (1, 6):
        assert exit_status(paper_rows.main, *(files * 3)[:number]) == 2
        assert f"{number} file" in (line := capsys.readouterr().err.splitlines()[-1]) and "give one of each" in line
    places = [("setting",), ("frames_visible",), ("official", "iou"), ("interval_95", "iou"), ("interval_95", "iou", 1)]
    places += [("names",), ("warnings",), ("comparisons",), ("results",)]
    places += [("comparisons", 0, "metrics", "iou", "second"), ("comparisons", 0, "metrics", "iou", "interval_95")]
    for (*place, last), value in itertools.product(places, (None, 7e9, {}, True, -0.3, math.nan, math.inf)):
        damaged = json.loads(files[0].read_text())
        functools.reduce(operator.getitem, place, damaged)[last] = value
        (tmp_path / "damaged.json").write_text(json.dumps(damaged))
        with pytest.raises(UserError, match="^[^\n]+damaged.json is not of the form that this version writes; [^\n]+$"):
            print_rows(tmp_path / "damaged.json", files[1])


@pytest.fixture(scope="module")
def good(scored_data):
    return make_results(scored_data / "processed", ["take-a", "take-b"], "ego-exo")


def entry(results, frame="30", take="take-a", name="cup_0", camera="cam01"):
    return results[take]["masks"][name][f"{EGO}_{camera}"][frame]


def change(key, value):
    return lambda results: entry(results).update({key: value})


def drop(*path):
    def edit(results):
        for key in path[:-1]:
            results = results[key]
        del results[path[-1]]

    return edit


PAIR = f"{EGO}_cam01"
FRAME_30 = f"take take-a, object 'cup_0', camera pair {PAIR}, frame 30: "
BROKEN = {
    "a take is missing": (drop("take-b"), "take take-b: missing"),
    "a trailing space of an object's name is lost": (
        lambda r: r["take-a"]["masks"].update({"Milk carton": r["take-a"]["masks"].pop("Milk carton ")}),
        "take take-a, object 'Milk carton ': missing",
    ),
    "frames are missing": (
        lambda r: [drop("take-a", "masks", "cup_0", PAIR, frame)(r) for frame in ("0", "30")],
        f"take take-a, object 'cup_0', camera pair {PAIR}, frames 0, 30: missing",
    ),
    "confidence is a text": (change("confidence", "0.5"), FRAME_30 + "confidence is not a number ('0.5')"),
    "the mask has the network's size": (
        change("pred_mask", encode_mask(np.eye(480))),
        FRAME_30 + "mask has the wrong size ([480, 480], expected [270, 480])",
    ),
    "the counts are of another size": (
        lambda r: entry(r)["pred_mask"].update(counts="1"),
        FRAME_30 + "mask cannot be decoded",
    ),
}


def evaluate_results(root, results, tmp_path, *more):
    path = tmp_path / "ego-exo_val_results.json"
    path.write_text(json.dumps({"ego-exo": {"results": results}}))
    return exit_status(evaluate.main, *options(root, path), "--out", tmp_path / "out", *more)


@pytest.mark.parametrize("kind", BROKEN)
def test_every_problem_of_a_broken_results_file_is_named(scored_data, good, tmp_path, capsys, kind):
    edit, message = BROKEN[kind]
    results = copy.deepcopy(good)
    edit(results)
    assert evaluate_results(scored_data, results, tmp_path) == 1
    errors = capsys.readouterr().err
    assert message in errors
    assert "error: " in errors and "nothing written" in errors
    assert not (tmp_path / "out").exists()


REFUSED = {  # flags -> how the message begins
    "--pred_file {tmp}/none.json": "no file {tmp}/none.json; results are made by `python eval_segswap.py --setting "
    "ego-exo --split val --out {tmp}`",
    "--pred_file {tmp}": "{tmp} is a folder; name a results file, such as {tmp}/ego-exo_val_results.json",
    "--list_cases {root}/processed/videos.json": "cannot write {root}/processed/videos.json: it is a file of the data "
    "set; name another file to write",
    "--all_frames --list_cases {root}/annotations/relations_test.json --overwrite": "cannot write "
    "{root}/annotations/relations_test.json: it is a file of the data set; name another file to write",
    "--write_gt {root}/split.json --overwrite": "cannot write {root}/split.json: it is a file of the data set; name ",
    "--pred_file {root}/exo-ego_val_results.json": "{root}/exo-ego_val_results.json has nothing at ego-exo/results",
    "--pred_file {results} --data_path {tmp} --splits_path {root}/split.json": "no take of split 'val' is in {tmp}",
    "--pred_file {results} --gt_file {root}/split.json": "{root}/split.json has nothing at annotations",
    "--pred_file {tmp}/none.json --out {root}/split.json/out": "cannot write into {root}/split.json (Not a directory)",
    "--pred_file {tmp}/none.json --sheet {root}/split.json/a.jpg": "cannot write into {root}/split.json (",
    "--pred_file {results} --sheet {tmp}/a.jpg --num 151": "--num 151 is too much for --sheet, which shows at most 150",
    "--pred_file {results} {results}": "several results files are compared by python evaluation/compare.py --pred_file",
    "--pred_file {results} {results} --names a b": "--names belongs to python evaluation/compare.py",
    "--row {tmp}/a.json {tmp}/b.json --names a": "--row belongs to python evaluation/paper_rows.py",
}


@pytest.mark.parametrize("flags", REFUSED)
def test_what_cannot_be_scored_is_refused_in_one_line(golden_root, tmp_path, capsys, flags):
    names = {"root": golden_root, "tmp": tmp_path, "results": golden_root / "ego-exo_val_results.json"}
    where = ["--setting", "ego-exo", "--data_path", golden_root / "processed", "--out", tmp_path / "out"]
    assert exit_status(evaluate.main, *where, *flags.format(**names).split(), "--allow_missing") in (1, 2)
    message = capsys.readouterr().err.splitlines()[-1].removeprefix("script.py: ")
    assert message.startswith("error: " + REFUSED[flags].format(**names))
    assert not (tmp_path / "out").exists()


def test_allow_missing_scores_what_is_there_and_allows_nothing_that_is_broken(scored_data, good, tmp_path, capsys):
    results = copy.deepcopy(good)
    drop("take-b")(results)
    drop("take-a", "masks", "cup_0", PAIR, "60")(results)
    assert evaluate_results(scored_data, results, tmp_path, "--allow_missing") == 0
    printed = capsys.readouterr().out
    assert "INCOMPLETE: predictions for 9 of 16 cases are missing" in printed
    assert "take take-b: missing" in printed and f"camera pair {PAIR}, frame 60: missing" in printed
    assert len(read_cases(tmp_path / "out")) == 7
    change("confidence", 7)(results)
    assert evaluate_results(scored_data, results, tmp_path, "--allow_missing") == 1
    assert "1 problem in" in (error := capsys.readouterr().err) and "--allow_missing" not in error
    del results["take-a"]["masks"]["cup_0"][PAIR]
    assert evaluate_results(scored_data, good | {"take-a": results["take-a"]}, tmp_path) == 1
    assert "--allow_missing goes on without what is only missing" in capsys.readouterr().err


def test_a_malformed_take_of_the_ground_truth_is_named_and_left_out_only_if_allowed(good, tmp_path, capsys):
    path = make_scored_data(tmp_path) / "processed" / "take-a" / ANNOTATION
    path.write_text(path.read_text().replace('"size"', '"length"', 1))
    assert evaluate_results(tmp_path, good, tmp_path) == 1
    assert re.search(
        f"take take-a: {path} is malformed .*\nerror: 1 problem in the ground truth", capsys.readouterr().err
    )
    assert evaluate_results(tmp_path, good, tmp_path, "--allow_missing") == 0
    assert "takes of the split without ground truth: take-a\n" in capsys.readouterr().out


def test_a_take_without_ground_truth_is_named(scored_data, good, tmp_path, capsys):
    (tmp_path / "split.json").write_text(json.dumps({"val": ["take-a", "take-b", "take-c"]}))
    splits = ["--splits_path", tmp_path / "split.json"]
    assert evaluate_results(scored_data, good, tmp_path, *splits) == 1
    assert "take take-c" in capsys.readouterr().err
    assert evaluate_results(scored_data, good | {"\x1b[2J\n": {}}, tmp_path, *splits, "--allow_missing") == 0
    printed = capsys.readouterr().out
    assert "takes of the split without ground truth: take-c\n" in printed
    assert "takes of the results without ground truth, not scored: \\x1b[2J\\n\n" in printed


def test_a_column_of_ones_own_is_a_breakdown_whose_cases_are_those_of_its_objects(scored_data, tmp_path, capsys):
    """The name of an object counts in all takes, of a take in all of its objects, and the groups hold all cases."""
    files = [scored_data / model / "ego-exo_val_results.json" for model in "ab"]
    objects = tmp_path / "objects.csv"
    objects.write_text("\ufeffobject_name,category,made of\ncup_0, kitchenware,\nspoon_9,kitchenware,steel\n")
    run(*options(scored_data, files[0]), "--out", tmp_path / "one", "--groups", objects)
    printed, cases = capsys.readouterr().out, read_cases(tmp_path / "one")
    breakdown = json.loads((tmp_path / "one" / "metrics.json").read_text())["breakdown"]
    cups = [case for case in cases if case["object_name"] == "cup_0"]
    assert 0 < len(cups) < len(cases)
    by_label = {group["label"]: group for group in breakdown["category"]}
    assert {label: group["frames"] for label, group in by_label.items()} == {
        "kitchenware": len(cups),
        "no group": len(cases) - len(cups),
    }
    ious = [float(case["iou"]) for case in cups if case["iou"]]
    assert by_label["kitchenware"]["iou"] == pytest.approx(np.mean(ious), abs=1e-12)
    assert [group["label"] for group in breakdown["made of"]] == ["no group"]
    assert "* by category\n" in printed and "* by made of" not in printed
    assert f"{objects}: 1 of 2 names unknown, such as spoon_9\n" in printed and f"{objects} lacks " in printed
    both = tmp_path / "both.csv"
    both.write_text("take_uid;scenario\ntake-a;morning\ntake-b;noon\n", encoding="utf-16")  # as a spreadsheet writes it
    run(*options(scored_data, *files), "--out", tmp_path / "two", "--groups", both, script=compare)
    comparison = json.loads((tmp_path / "two" / "comparison.json").read_text())
    assert [*comparison["comparisons"][0]["by"]["scenario"]] == ["morning", "noon"]
    assert "By scenario" in (tmp_path / "two" / "index.html").read_text()
    assert str(both) not in capsys.readouterr().out  # all is known


GROUPS = {  # content of a file -> what is wrong with it
    "name,category\ncup_0,a\n": " has the columns 'name, category'; give object_name, take_uid or both, and a column",
    "object_name\ncup_0\n": " has the columns 'object_name'; give",
    "object_name|kind\ncup_0|a\n": " has the columns 'object_name|kind'; give object_name, take_uid or both, "
    "and a column with another name for each breakdown",
    "object_name,kind\n": " has no line below its header; give one for each object or take",
    "object_name,take\ncup_0,a\n": " has the columns 'object_name, take'; give",
    "object_name,kind,kind\ncup_0,a,b\n": ": column 'kind' is there twice; rename one",
    "": " has the columns ''; give",
    "object_name,kind\ncup_0,a,b\n": ": the line of 'cup_0' has 3 cells, not 2; quote cells with commas",
    "object_name,kind\ncup_0,a\ncup_0,b\n": ": cup_0 is 'a' and 'b'; drop one of the lines",
    "\xe9,kind\n": " is not in UTF-8 (byte 0); in your spreadsheet, save it as CSV UTF-8",
}


@pytest.mark.parametrize("content", GROUPS)
def test_a_file_of_groups_that_is_none_is_refused_in_one_line(scored_data, tmp_path, capsys, content):
    path = tmp_path / "groups.csv"
    path.write_bytes(content.encode("latin-1"))
    words = [*options(scored_data), "--out", tmp_path / "out", "--groups", path]
    assert exit_status(evaluate.main, *words) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert f"--groups {path}{GROUPS[content]}" in message
    assert not (tmp_path / "out").exists()


def test_masks_of_another_annotation_are_not_scored_and_pairs_listed_of_others_are_listed_again(tmp_path, capsys):
    root = make_scored_data(tmp_path)
    path, (uid, other) = root / "annotations" / "relations_val.json", UIDS
    for take in UIDS:
        write_source(root / "processed" / take, path)
    run(*options(root), "--out", tmp_path / "out")
    listing = listing_path(root / "processed", "val")
    listing.touch()
    run(*options(root), "--out", tmp_path / "out")
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{listing} cannot be used (") and line.endswith(
        "; the pairs of val are listed for this run alone"
    )

    raw = json.loads(path.read_text())
    raw["annotations"][uid]["object_masks"]["cup_0"]["cam01"]["annotated_frames"] = [0]
    path.write_text(json.dumps(raw))
    assert exit_status(evaluate.main, *options(root), "--out", tmp_path / "no") == 1
    errors = capsys.readouterr().err
    assert f"take {uid}: its annotation has changed since it was processed; run data/process_data.py" in errors
    assert other not in errors and not (tmp_path / "no").exists()


def test_a_file_is_replaced_only_if_asked_for(tmp_path):
    root = make_scored_data(tmp_path)
    others = [root / "gt.json", root / "sheet.jpg"]
    for path in others:
        path.touch()
    for words in (["--data_path", root / "processed", "--write_gt", others[0]], [*options(root), "--sheet", others[1]]):
        with pytest.raises(UserError, match="exists; name another file to write, or give --overwrite"):
            run(*words)
        run(*words, "--overwrite")
    assert all(path.read_bytes() for path in others)


def write_source(folder, annotations):
    ((_, take),) = iter_takes(annotations, [folder.name])
    (folder / SOURCE).write_text(json.dumps({"annotation": take.digest}))


def test_annotations_are_found_in_a_folder_or_the_message_says_what_to_do(scored_data, good, tmp_path, capsys):
    for name in ("", "relations_{split}.json"):
        folder = scored_data / "annotations" / name
        assert evaluate_results(scored_data, good, tmp_path, "--annotations_path", folder) == 0
    (tmp_path / "processed").symlink_to(scored_data / "processed")
    (tmp_path / "split.json").symlink_to(scored_data / "split.json")
    assert evaluate_results(tmp_path, good, tmp_path) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    ways = ("relations_val.json", "--annotation_path", "--all_frames", "data/import_take.py", "egoexo")
    assert error.startswith("error: no file ") and all(way in error for way in ways)


def test_where_nothing_is_hidden_no_balanced_accuracy_is_shown_and_the_files_have_the_benchmarks(tmp_path, capsys):
    data_dir = make_data_set(tmp_path, {"val": ["take-a", "take-b"]}, {"cup_0": {EGO: [0, 30], "cam01": [0, 30]}})
    files = [make_results_file(tmp_path / str(n), data_dir, ["take-a", "take-b"], "ego-exo", seed=n) for n in (0, 1)]
    where = ["--setting", "ego-exo", "--data_path", data_dir, "--all_frames", "--out"]
    run(*where, tmp_path / "one", "--pred_file", files[0])
    line = "existence balanced accuracy \\(%\\), no hidden object"
    assert re.search(f"^{line} +- +-$", capsys.readouterr().out, re.M)
    run(*where, tmp_path / "two", "--pred_file", *files, script=compare)
    assert re.search(f"^{line} +- +- +- +- +-$", capsys.readouterr().out, re.M)
    run(*where, tmp_path / "seeds", "--pred_file", *files, "--seeds", script=compare)
    assert re.search(f"^{line} +- +- +- +- +-$", capsys.readouterr().out, re.M)
    visible = [float(case["confidence"]) > 0.5 for case in read_cases(tmp_path / "one")]
    metrics = json.loads((tmp_path / "one" / "metrics.json").read_text())  # of all frames, nothing is official
    accuracy = official_evaluation.balanced_accuracy([1] * len(visible), visible)
    assert metrics["extra"]["balanced_accuracy"] == accuracy and "official" not in metrics


def test_one_take_is_a_take_and_a_comparison_of_it_has_no_verdict(golden_root, tmp_path, capsys):
    results = golden_root / "ego-exo_val_results.json"
    where = ["--setting", "ego-exo", "--data_path", golden_root / "processed", "--out"]
    run(*where, tmp_path / "one", "--pred_file", results)
    printed = capsys.readouterr().out
    assert printed.startswith("ego-exo, split val: 1 take, ") and "no intervals: they come from" in printed
    other = json.loads(results.read_text())
    for _, prediction in keyed_entries(other["ego-exo"]["results"]):
        prediction["confidence"] = 0.0
    (tmp_path / "other.json").write_text(json.dumps(other))
    run(*where, tmp_path / "two", "--pred_file", results, tmp_path / "other.json", "--num", "0", script=compare)
    text = capsys.readouterr().out + (tmp_path / "two" / "index.html").read_text()
    assert "existence balanced accuracy" in text and not re.search("better,|better<|worse,|worse<|worse$", text, re.M)
    assert text.count("o intervals: they come from") == 2


@pytest.mark.parametrize("name", ["cup\n=HYPERLINK(1)", "../../" + "n" * 300, '<b>"&</script>', "tasse grün, 杯子"])
def test_odd_names_are_drawn_and_written_and_lead_nowhere(tmp_path, name):
    data_dir = make_data_set(tmp_path / "data", {"val": ["take-a"]}, {name: LAYOUT["cup_0"]})
    pred_file = make_results_file(tmp_path, data_dir, ["take-a"], "ego-exo")
    out = tmp_path / "out"
    what = ["--all_frames", "--num", "2", "--report", "--out", out / "report", "--sheet", out / "sheet.jpg"]
    run(*options(data_dir.parent, pred_file), *what)
    assert [case["object_name"] for case in read_cases(out / "report")] == [name] * 6
    page = (out / "report" / "index.html").read_text()
    assert page.count("</script>") == 1 and '<b>"' not in page
    assert {path.name for path in tmp_path.iterdir()} == {"data", "out", pred_file.name}
    assert {path.name for path in out.iterdir()} == {"report", "sheet.jpg"}


def test_photos_of_different_sizes_in_one_camera_score_as_in_the_official_evaluation(tmp_path):
    rng, expected = np.random.default_rng(0), {}
    data_dir = make_data_set(tmp_path, {"val": ["take-a"]})
    path = data_dir / "take-a" / ANNOTATION
    raw = json.loads(path.read_text())
    results = make_results(data_dir, ["take-a"], "ego-exo")
    for name, cameras in raw["masks"].items():
        for camera in cameras.keys() - {EGO}:
            for frame, rle in cameras[camera].items():
                size = ((240, 320), (320, 240), (180, 320))[int(frame) // 30]
                cameras[camera][frame] = encode_mask(resize_mask(rle, size))
                truth = eval_mask(cameras[camera][frame])
                if answer := results["take-a"]["masks"][name][f"{EGO}_{camera}"].get(frame):
                    mask = np.roll(truth, rng.integers(-9, 9, 2), (0, 1))
                    answer["pred_mask"] = encode_mask(mask)
                    scores = {metric: score(truth, mask) for metric, score in official_evaluation.SCORES.items()}
                    expected[name, camera, frame] = scores
    path.write_text(json.dumps(raw))
    assert evaluate_results(tmp_path, results, tmp_path, "--all_frames") == 0
    visible = [case for case in read_cases(tmp_path / "out") if case["visible"] == "1"]
    assert len(visible) == len(expected) == 6
    for case in visible:
        for metric, score in expected[case["object_name"], case["target_camera"], case["frame"]].items():
            assert float(case[metric]) == pytest.approx(score, abs=1e-9)
