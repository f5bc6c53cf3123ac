"""Pages of evaluations and comparisons, as files and in a real browser, and the folder into which they are written."""

import hashlib
import json
import re
import shutil
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import pytest

from common.drawing import QUERY, side_by_side
from common.errors import UserError
from evaluation import compare, evaluate
from evaluation.case_pictures import MOST_ON_SHEET, _draw_panel, draw_sheet, row_of_panels
from evaluation.metrics import METRICS
from formats.masks import encode_mask
from formats.results import read_provenance
from tests.made import EGO
from tests.made.browser import needs_browser
from tests.made.processed import LAYOUT, make_data_set
from tests.made.raw_takes import tree
from tests.made.results import UIDS, make_results_file, options


def report(*words):
    evaluate.main([*map(str, words), "--report"])


def test_a_report_needs_nothing_outside_its_folder_and_is_the_same_each_time(scored_data, tmp_path):
    for name in ("a", "b"):
        sheet = tmp_path / f"{name}.jpg"
        report(*options(scored_data), "--num", 6, "--out", tmp_path / name, "--sheet", sheet)
    assert sheet.read_bytes() == (tmp_path / "a.jpg").read_bytes()
    text = (tmp_path / "a" / "index.html").read_text()
    links = [link for link in re.findall(r'(?:src|href)="([^"#][^"]*)"', text) if link != "data:,"]
    assert len(links) >= 2 * 7 and all((tmp_path / "a" / link).is_file() for link in links)
    assert "results of ego-exo_val_results.json" in text and "http" not in text and str(scored_data) not in text
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"index.html", "pictures", "metrics.json", "cases.csv"}
    assert re.search('data-text="milk carton take_take-a, .* take-a"', text)  # the search finds the name and the uid
    date = rb"20\d\d-\d\d-\d\dT[0-9:+-]+"
    for path in (tmp_path / "a").rglob("*.*"):
        other = tmp_path / "b" / path.relative_to(tmp_path / "a")
        assert re.sub(date, b"", path.read_bytes()) == re.sub(date, b"", other.read_bytes())


def test_the_figures_name_a_checkpoint_only_if_it_made_these_very_results(scored_data, tmp_path):
    results = Path(shutil.copy(scored_data / "a" / "ego-exo_val_results.json", tmp_path))
    made = {"checkpoint": "netBest.pth", "checkpoint_sha256": "12ab" * 16, "precision": "bf16", "commit": None}
    made |= {"predictor": "Method", "predictor_args": "{'share': '0.7'}"}
    record = {"results_sha256": hashlib.sha256(results.read_bytes()).hexdigest(), "provenance": made}
    for about in ({}, record):  # a damaged record counts as none
        run = results.with_name("ego-exo_val_run.json")  # as eval_segswap.py writes it beside them
        run.write_text(json.dumps(about))
        evaluate.main([*options(scored_data, results), "--out", str(tmp_path / "out")])
    provenance = json.loads((tmp_path / "out" / "metrics.json").read_text())["provenance"]
    assert provenance["predictions"] == [{"results": str(results), **made}]
    assert set(provenance["evaluation"]) == {"date", "command", "commit"}
    assert provenance["evaluation"]["date"].startswith("20")
    renamed = shutil.copy(results, tmp_path / "mine_results.json")
    results.write_text(results.read_text().replace('"confidence": 0', '"confidence":  0', 1))
    assert read_provenance(Path(renamed)) == read_provenance(results) == {}


def test_the_page_in_a_folder_is_always_of_the_figures_beside_it(scored_data, tmp_path):
    for model, more in (("a", []), ("b", []), ("a", ["--report", "--num", "5"]), ("b", ["--report", "--num", "2"])):
        results = scored_data / model / "ego-exo_val_results.json"
        evaluate.main([*options(scored_data, results), "--out", str(tmp_path), *more])
        figures, page = json.loads((tmp_path / "metrics.json").read_text()), (tmp_path / "index.html").read_text()
        assert f"<td>{METRICS['iou'].as_text(figures['official']['iou'])}</td>" in page
        pictures = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.jpg")}
        assert pictures == {*re.findall(r"pictures/\w+.jpg", page)} and bool(pictures) == bool(more)


def test_a_page_with_pictures_is_replaced_by_one_with_pictures_of_the_same_script(scored_data, tmp_path):
    report(*options(scored_data), "--num", 2, "--out", tmp_path / "one")
    compare_main(scored_data, tmp_path / "two", "--num", "2")
    before = tree(tmp_path)
    with pytest.raises(UserError, match="one/index.html shows 3 cases, which would go; give --report, name another"):
        evaluate.main([*options(scored_data), "--out", str(tmp_path / "one")])
    with pytest.raises(UserError, match="two/index.html shows 2 cases, which would go; give --num above 0, name"):
        compare_main(scored_data, tmp_path / "two", "--num", "0")
    with pytest.raises(UserError, match="metrics.json and its page are of evaluate.py; name another --out"):
        compare_main(scored_data, tmp_path / "one")
    with pytest.raises(UserError, match="comparison.json and its page are of compare.py; name another --out"):
        report(*options(scored_data), "--out", tmp_path / "two")
    assert tree(tmp_path) == before


def test_a_report_that_cannot_be_finished_leaves_the_former_one_whole(scored_data, tmp_path):
    data_dir = make_data_set(tmp_path, {"val": UIDS})
    where = ["--data_path", data_dir, "--all_frames", "--out", tmp_path / "out" / "val"]
    where += ["--sheet", tmp_path / "out" / "sheet.png"]
    report(*options(scored_data), *where, "--num", 4)
    before = tree(tmp_path / "out")
    for path in (data_dir / "take-b" / "cam02").iterdir():
        path.unlink()
    for what in (["--out", str(tmp_path / "new")], ["--report"]):
        with pytest.raises(UserError, match="cam02/.* is missing"):
            evaluate.main([*map(str, [*options(scored_data), *where]), "--num", "12", "--overwrite", *what])
    assert before == tree(tmp_path / "out") and not list(tmp_path.rglob("*.tmp")) and not (tmp_path / "new").exists()


def test_upright_pictures_stand_in_columns_and_their_captions_end_in_them():
    panel = _draw_panel(np.full((320, 180, 3), 90, np.uint8), None, QUERY, "prediction (visible: wrong)", None)
    is_black = (panel < 60).all(-1)
    assert is_black.any() and not is_black[:, -5:].any() and is_black.mean() < 0.05
    picture = row_of_panels([panel] * 3)
    for pictures, size in (([picture] * 4, (2, 2)), ([picture], (1, 1)), ([np.hstack([picture] * 4)] * 3, (3, 1))):
        sheet = draw_sheet(pictures, ["cup: IoU 50 %"] * len(pictures))
        scale = min(1, 1200 / pictures[0].shape[1])
        assert abs(sheet.shape[1] / (size[1] * scale * pictures[0].shape[1]) - 1) < 0.1
        assert abs(sheet.shape[0] / (size[0] * scale * 350) - 1) < 0.2
    one, two = (len(draw_sheet([np.hstack([picture] * 4)] * count, [""] * count)) for count in (1, 2))
    row = side_by_side([np.zeros((99, 1500, 3), np.uint8)] * 50)
    assert one + (MOST_ON_SHEET - 1) * (two - one) < 65_500 > row.shape[1]  # pixels of a JPEG's side


def test_results_without_any_visible_target_can_be_reported(tmp_path):
    make_data_set(tmp_path, {"val": UIDS}, {"cup_0": {EGO: [0, 30], "cam01": []}})
    empty = {"pred_mask": encode_mask(np.zeros((270, 480), np.uint8)), "confidence": 0.7}
    results = {uid: {"masks": {"cup_0": {f"{EGO}_cam01": dict.fromkeys(("0", "30"), empty)}}} for uid in UIDS}
    (tmp_path / "results.json").write_text(json.dumps({"ego-exo": {"results": results}}))
    words = [*options(tmp_path, tmp_path / "results.json"), "--all_frames", "--out", tmp_path / "out"]
    with pytest.raises(UserError, match="no case to draw: .* hidden need --order random"):
        report(*words, "--sheet", tmp_path / "sheet.jpg")
    assert not (tmp_path / "out").exists()
    report(*words, "--sheet", tmp_path / "sheet.jpg", "--order", "random")
    assert (tmp_path / "sheet.jpg").stat().st_size > 1000
    page = (tmp_path / "out" / "index.html").read_text()
    assert "not the official protocol" in page and "IoU (%), no visible object" in page


@needs_browser
def test_the_report_works_in_a_browser(scored_data, tmp_path, chromium):
    report(*options(scored_data), "--num", 8, "--out", tmp_path)
    assert chromium.open_report(tmp_path) == 9
    assert chromium.errors() == []
    run = chromium.run

    iou = [value for value, *_ in values(chromium)]
    assert iou[:-1] == sorted(iou[:-1], reverse=True) and len(iou) == 9 and iou[-1] == ""
    chromium.set("order", "0 up")
    assert [value for value, *_ in values(chromium)] == [*iou[-2::-1], ""]
    chromium.set("kind", "object hidden")
    assert [value for value, *_ in values(chromium)] == [""]
    assert run("return document.querySelector('.count').textContent") == "1 of 9"
    chromium.set("kind", "")
    chromium.set("search", "MILK take_take")
    assert {card["text"][:11] for card in chromium.shown()} == {"milk carton"}

    column = "return [...document.querySelectorAll('#by-object tbody tr')].map(row => row.cells[3].textContent)"
    run("document.querySelectorAll('#by-object th')[3].click()")
    down = [float(value) for value in run(column)]
    run("document.querySelectorAll('#by-object th')[3].click()")
    assert [float(value) for value in run(column)] == down[::-1] == sorted(down)

    chromium.set("search", "")
    assert_readable_on_a_phone(chromium, "scores")
    assert chromium.errors() == []


@needs_browser
def test_the_comparison_works_in_a_browser(scored_data, tmp_path, chromium):
    compare_main(scored_data, tmp_path, "--num", "6", "--names", "a", "b")
    assert chromium.open_report(tmp_path) == 6
    distances = [distance for distance, *_ in values(chromium)]
    assert distances == sorted(distances, reverse=True)
    chromium.set("order", "1 up")
    changes = [change for _, change, *_ in values(chromium) if change != ""]
    assert changes == sorted(changes) and len(changes) == 5  # and one that is not visible
    chromium.set("kind", "b is best")
    assert all(change > 0 for _, change, *_ in values(chromium) if change != "")
    chromium.set("kind", "object hidden")
    assert [change for _, change, *_ in values(chromium)] == [""]
    chromium.set("kind", "")
    assert_readable_on_a_phone(chromium, "scores")
    assert chromium.errors() == []


@needs_browser
def test_tables_with_long_names_end_in_the_page_and_their_lines_between_words(tmp_path, chromium):
    names = [f"unc_basketball_03-30-23_02_34_{number}" for number in range(20)]
    data_dir = make_data_set(
        tmp_path, {"val": names}, {"Stainless_steel_mixing_bowl_with_two_handles_0": LAYOUT["cup_0"]}
    )
    results = make_results_file(tmp_path, data_dir, names, "ego-exo")
    evaluate.main([*options(tmp_path, results), "--all_frames", "--out", str(tmp_path / "out")])
    chromium.open_report(tmp_path / "out")
    surplus = "return Math.max(...[...document.querySelectorAll('.scroll')].map(x => x.scrollWidth - x.clientWidth))"
    chromium.resize(1400, 900)
    assert chromium.run(surplus) == 0
    chromium.resize(390, 844)
    assert chromium.run(LINES_OF_WORDS) == 1
    chromium.resize(1300, 1000)


LINES_OF_WORDS = """
const lines = [];
for (const cell of document.querySelectorAll('td:first-child')) for (const node of cell.childNodes) {
  for (const word of (node.textContent || "").matchAll(/\\w[a-z]*/g)) {
    const range = document.createRange();
    range.setStart(node, word.index), range.setEnd(node, word.index + word[0].length);
    lines.push(range.getClientRects().length);
  }
}
return Math.max(...lines);
"""


def assert_readable_on_a_phone(chromium, section):
    """Nothing is wider than the page, all columns of the section's tables are in view, and panels are not tiny."""
    chromium.resize(390, 844)
    assert chromium.run("return document.documentElement.scrollWidth") == 390
    cells = f"[...document.querySelectorAll('#{section} td')]"
    assert chromium.run(f"return Math.max(...{cells}.map(cell => cell.getBoundingClientRect().right))") <= 390
    assert chromium.run("return Math.min(...[...document.images].map(image => image.height))") >= 140
    chromium.resize(1300, 1000)


def values(chromium):
    """By what the cards that are shown can be ordered: IoU first in a report, distance and change in a comparison."""
    return [json.loads(card["values"]) for card in chromium.shown()]


@pytest.mark.parametrize("more", ["--names a a", "--names a", "--pred_file one.json"])
def test_a_comparison_needs_several_files_with_names_of_their_own(scored_data, tmp_path, capsys, more):
    with pytest.raises(SystemExit):
        compare_main(scored_data, tmp_path / "out", *more.split())
    assert f"{more.split()[0]} needs " in capsys.readouterr().err and not (tmp_path / "out").exists()


def compare_main(scored_data, out, *more):
    files = (scored_data / model / "ego-exo_val_results.json" for model in ("a", "b"))
    compare.main([*options(scored_data, *files), "--out_path", str(out), *more])


def test_a_comparison_is_written_as_page_json_and_csv(scored_data, tmp_path, capsys):
    compare_main(scored_data, tmp_path, "--num", "0")
    comparison = json.loads((tmp_path / "comparison.json").read_text())
    assert comparison["first"] == "a" and comparison["frames_compared"] == 16
    header = (tmp_path / "cases.csv").read_text().splitlines()[0]
    assert header.startswith("take_uid,") and "iou of a" in header and "iou of b" in header
    printed, text = capsys.readouterr().out, (tmp_path / "index.html").read_text()
    figures = comparison["comparisons"][0]["metrics"]
    expected = {"iou": (-1, "worse"), "location_error": (1, "worse"), "balanced_accuracy": (1, "better")}
    for name, (sign, verdict) in expected.items():
        change, title = figures[name]["difference"], re.escape(METRICS[name].heading)
        assert change == pytest.approx(figures[name]["second"] - figures[name]["first"]) and sign * change > 0
        assert verdict in re.findall(rf"<td>{title}</td>.*?</tr>", text, re.DOTALL)[1]
        assert re.search(f"^{title} .* {verdict}", printed, re.M)
    for camera, arrow in (("cam01", " ▼"), ("cam02", "")):  # only where the interval lacks 0
        assert re.search(rf"^{camera} +-\d+\.\d\d{arrow} \[", printed, re.M)
    assert "2 takes are few: such intervals are too narrow" in printed and "an arrow shows what is better" in text


def test_a_comparison_of_other_files_is_not_replaced(scored_data, tmp_path):
    compare_main(scored_data, tmp_path, "--num", "0", "--names", "a", "b")
    before = (tmp_path / "comparison.json").read_bytes()
    with pytest.raises(UserError, match="compares a, b; give another --out, or delete the folder"):
        compare_main(scored_data, tmp_path, "--num", "0", "--names", "a", "c")
    assert (tmp_path / "comparison.json").read_bytes() == before
    compare_main(scored_data, tmp_path, "--num", "0", "--names", "a", "b")


def test_runs_of_one_method_are_shown_with_mean_and_deviation_and_breakdowns_of_the_mean(scored_data, tmp_path, capsys):
    alone, groups = [], []
    for model in ("a", "b"):
        results = scored_data / model / "ego-exo_val_results.json"
        evaluate.main([*options(scored_data, results), "--out", str(tmp_path / model)])
        metrics = json.loads((tmp_path / model / "metrics.json").read_text())
        alone.append(metrics["official"] | metrics["extra"])
        groups.append(metrics["breakdown"]["target camera"])
    capsys.readouterr()
    compare_main(scored_data, tmp_path, "--num", "0", "--seeds")
    printed, page = capsys.readouterr().out, (tmp_path / "index.html").read_text()
    comparison = json.loads((tmp_path / "comparison.json").read_text())
    for of_mean, *of_runs in zip(comparison["breakdown"]["target camera"], *groups, strict=True):
        for name in ("iou", "balanced_accuracy"):
            assert of_mean[name] == pytest.approx(mean(group[name] for group in of_runs))
    assert re.search("^\\* by target camera\nmean +cases", printed, re.M) and "b - a" not in page
    seeds = comparison["seeds"]
    for name, metric in METRICS.items():
        values = [scores[name] for scores in alone]
        expected = [*values, mean(values), stdev(values)]
        assert [*seeds[name]["values"], seeds[name]["mean"], seeds[name]["deviation"]] == pytest.approx(expected)
        shown = [*map(metric.as_text, expected), metric.interval_text(comparison["interval_95"][name])]
        assert re.search(f"^{re.escape(metric.heading)} +{' +'.join(shown)}$", printed, re.M)
        assert "".join(f"<td>{x}</td>" for x in (metric.heading, *shown)) in re.sub(r">\s+<", "><", page)
    assert "is worse" not in printed and "deviation: the standard deviation" in printed


def test_a_comparison_says_what_any_of_the_files_lacks(scored_data, tmp_path, capsys):
    results = json.loads((scored_data / "b" / "ego-exo_val_results.json").read_text())
    del results["ego-exo"]["results"]["take-b"]
    less = tmp_path / "less_results.json"
    less.write_text(json.dumps(results))
    files = ["--pred_file", str(scored_data / "a" / "ego-exo_val_results.json"), str(less), "--allow_missing"]
    compare_main(scored_data, tmp_path / "out", *files, "--num", "0")
    assert capsys.readouterr().out.count("take take-b: missing") == 1
    assert "take take-b: missing" in (tmp_path / "out" / "index.html").read_text()
    assert json.loads((tmp_path / "out" / "comparison.json").read_text())["frames_compared"] == 8  # of both files
