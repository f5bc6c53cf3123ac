"""The report's page, as files and in a real browser."""

import gzip
import hashlib
import html
import json
import re
from pathlib import Path

import numpy as np
import pytest

from common.errors import UserError
from evaluation import evaluate, report
from evaluation.outputs import made_by
from formats.masks import encode_mask
from tests.browser import chromium, needs_browser
from tests.made import EGO
from tests.made.processed import make_data_set
from tests.made.results import UIDS, make_scored_data, options

__all__ = ["chromium"]  # a fixture


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_scored_data(tmp_path_factory.mktemp("data"))


def links(folder):
    text = (folder / "index.html").read_text()
    return re.findall(r'(?:src|href)="([^"#][^"]*)"', text)


def test_a_report_needs_nothing_outside_its_folder(root, tmp_path):
    report.main([*options(root), "--num", "6", "--out", str(tmp_path)])
    inside = [link for link in links(tmp_path) if link != "data:,"]
    assert len(inside) >= 1 + 2 * 7 and all((tmp_path / link).is_file() for link in inside)
    assert "http" not in (tmp_path / "index.html").read_text().replace("http://www.w3.org", "")
    assert {path.name for path in tmp_path.iterdir()} >= {"metrics.json", "cases.csv", "breakdown.csv"}


def test_a_report_of_the_same_results_is_the_same(root, tmp_path):
    for name in ("a", "b"):
        report.main([*options(root), "--num", "6", "--out", str(tmp_path / name)])
    for path in (tmp_path / "a").rglob("*.*"):
        other = tmp_path / "b" / path.relative_to(tmp_path / "a")
        assert without_dates(path.read_bytes()) == without_dates(other.read_bytes())


def without_dates(data):
    return re.sub(rb"20\d\d-\d\d-\d\dT[0-9:+-]+", b"", data)


def record_of(results, checkpoint):
    """What eval_segswap.py writes beside its results: here of one checkpoint."""
    made = {"checkpoint": checkpoint, "checkpoint_sha256": "12ab" * 16, "precision": "bf16", "commit": None}
    record = {"results_sha256": hashlib.sha256(results.read_bytes()).hexdigest(), "provenance": made}
    results.with_name("ego-exo_val_run.json").write_text(json.dumps(record))
    return made


def test_a_report_says_how_the_predictions_were_made_and_what_is_unknown(root, tmp_path):
    results = tmp_path / "ego-exo_val_results.json"
    results.write_bytes((root / "a" / results.name).read_bytes())
    made = record_of(results, "netBest.pth")
    report.main([*options(root), "--pred_file", str(results), "--num", "2", "--out", str(tmp_path / "out")])
    text = (tmp_path / "out" / "index.html").read_text()
    assert all(value in text for value in made.values() if value) and "unknown" in text
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())["provenance"]
    assert found["predictions"] == [{"results": str(results), "date": None, "command": None, **made}]
    assert set(found["evaluation"]) == {"date", "command", "commit"} and found["evaluation"]["date"].startswith("20")


def edited(results):
    results.write_text(results.read_text().replace('"confidence": 0', '"confidence":  0', 1))
    return results


def renamed(results):
    return results.rename(results.with_name("mine_results.json"))


def gzipped(results):
    results.with_name(f"{results.name}.gz").write_bytes(gzip.compress(results.read_bytes()))
    results.unlink()
    return results.with_name(f"{results.name}.gz")


@pytest.mark.parametrize(("change", "maker"), [(str, "A.pth"), (gzipped, "A.pth"), (edited, None), (renamed, None)])
def test_results_are_said_to_be_a_checkpoints_only_if_it_made_these_very_bytes(root, tmp_path, change, maker):
    results = tmp_path / "ego-exo_val_results.json"
    results.write_bytes((root / "a" / results.name).read_bytes())
    record_of(results, "A.pth")
    assert made_by(Path(change(results)))["checkpoint"] == maker


def test_a_report_never_replaces_what_it_did_not_make(root, tmp_path):
    for name in ("index.html", "cases.csv", "pictures/0001.jpg"):
        out = tmp_path / name.replace("/", "_")
        (out / name).parent.mkdir(parents=True)
        (out / name).write_text("mine")
        with pytest.raises(UserError, match="is of another origin"):
            report.main([*options(root), "--num", "2", "--out", str(out)])
        assert [path for path in out.rglob("*") if path.is_file()] == [out / name]
        assert (out / name).read_text() == "mine"


def test_a_report_that_cannot_be_finished_leaves_the_former_one_whole(root, tmp_path):
    data_dir = make_data_set(tmp_path, {"val": UIDS})
    where = ["--data_path", str(data_dir), "--all_frames", "--out", str(tmp_path / "out")]
    report.main([*options(root), *where, "--num", "4"])
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    for path in (data_dir / "take-b" / "cam02").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="cam02/.* is missing"):
        report.main([*options(root), *where, "--num", "12"])
    assert before == {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert not list(tmp_path.glob(".out.*.tmp"))


def test_page_and_terminal_show_the_same_figures(root, tmp_path, capsys):
    report.main([*options(root), "--num", "2", "--out", str(tmp_path / "report")])
    capsys.readouterr()
    evaluate.main([*options(root), "--out", str(tmp_path / "evaluation")])
    printed = {tuple(re.split("  +", line)) for line in capsys.readouterr().out.splitlines()}
    text = html.unescape((tmp_path / "report" / "index.html").read_text())
    rows = [tuple(filter(None, re.findall("<td>(.*?)</td>", row))) for row in re.findall("<tr>(.*?)</tr>", text)]
    assert {"IoU (%)", "* right object (%), in 6 frames with several objects, chance 50.00"} <= {
        row[0] for row in rows if row
    }
    for row in rows[:9]:
        assert any(row == line[: len(row)] for line in printed), row


def test_results_without_any_visible_target_can_be_reported(root, tmp_path):
    layout = {"cup_0": {EGO: [0, 30], "cam01": []}}
    data_dir = make_data_set(tmp_path, {"val": UIDS}, layout)
    results = {
        uid: {"masks": {"cup_0": {f"{EGO}_cam01": {f: empty_prediction() for f in ("0", "30")}}}} for uid in UIDS
    }
    (tmp_path / "results.json").write_text(json.dumps({"ego-exo": {"results": results}}))
    where = ["--data_path", str(data_dir), "--pred_file", str(tmp_path / "results.json"), "--all_frames"]
    report.main(["--setting", "ego-exo", *where, "--num_workers", "0", "--out", str(tmp_path / "out")])
    assert "not the official protocol" in (tmp_path / "out" / "index.html").read_text()


def empty_prediction():
    return {"pred_mask": encode_mask(np.zeros((270, 480), np.uint8)), "confidence": 0.7}


@needs_browser
def test_the_report_works_in_a_browser(root, tmp_path, chromium):
    report.main([*options(root), "--num", "8", "--out", str(tmp_path)])
    assert chromium.open_report(tmp_path) == 1 + 9
    assert chromium.errors() == []
    run = chromium.run

    iou = [float(card["iou"]) for card in chromium.shown() if card["iou"]]
    assert iou == sorted(iou, reverse=True) and len(iou) == 8
    chromium.set("order", "0 up")
    assert [float(card["iou"]) for card in chromium.shown() if card["iou"]] == iou[::-1]
    chromium.set("kind", "object not visible")
    assert [card["iou"] for card in chromium.shown()] == [""]
    chromium.set("kind", "")
    chromium.set("low", "50")
    assert len(chromium.shown()) == sum(value >= 50 for value in iou)
    assert run("return document.querySelector('.count').textContent") == f"{sum(v >= 50 for v in iou)} of 9"
    chromium.set("low", "0")
    chromium.set("search", "MILK take_take")
    assert {card["text"][:11] for card in chromium.shown()} == {"milk carton"}

    column = "return [...document.querySelectorAll('#by-object tbody tr')].map(row => row.cells[3].textContent)"
    run("document.querySelectorAll('#by-object th')[3].click()")
    down = [float(value) for value in run(column)]
    run("document.querySelectorAll('#by-object th')[3].click()")
    assert [float(value) for value in run(column)] == down[::-1] == sorted(down)

    assert chromium.errors() == []
