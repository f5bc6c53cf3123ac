"""Results files against each other, from files to files."""

import json
import re

import pytest

from evaluation import evaluate
from evaluation.metrics import METRICS
from tests.made.browser import needs_browser
from tests.made.results import options


@needs_browser
def test_the_comparison_works_in_a_browser(scored_data, tmp_path, chromium):
    compare_main(scored_data, tmp_path, "--num", "6", "--names", "a", "b")
    assert chromium.open_report(tmp_path) == 6
    distances = [distance for distance, *_ in values(chromium)]
    assert distances == sorted(distances, reverse=True)
    chromium.set("order", "1 up")
    changes = [change for _, change, _ in values(chromium) if change != ""]
    assert changes == sorted(changes) and len(changes) == 5  # and one that is not visible
    chromium.set("kind", "b is best")
    assert all(change > 0 for _, change, _ in values(chromium) if change != "")
    chromium.set("kind", "object not visible")
    assert [change for _, change, _ in values(chromium)] == [""]
    assert chromium.errors() == []


def values(chromium):
    """Distance, change and size of the cards that are shown."""
    return [json.loads(card["values"]) for card in chromium.shown()]


def compare_main(scored_data, out, *more):
    files = (scored_data / model / "ego-exo_val_results.json" for model in ("a", "b"))
    evaluate.main([*options(scored_data, *files), "--out", str(out), *more])


def test_a_comparison_is_written_as_page_json_and_csv(scored_data, tmp_path, capsys):
    compare_main(scored_data, tmp_path, "--num", "0")
    comparison = json.loads((tmp_path / "comparison.json").read_text())
    assert comparison["first"] == "a" and comparison["frames_compared"] == 16
    header = (tmp_path / "cases.csv").read_text().splitlines()[0]
    assert header.startswith("take_uid,") and "iou of a" in header and "iou of b" in header
    printed, text = capsys.readouterr().out, (tmp_path / "index.html").read_text()
    found = comparison["comparisons"][0]["metrics"]
    expected = {"iou": (-1, "worse"), "location_error": (1, "worse"), "balanced_accuracy": (1, "better")}
    for name, (sign, verdict) in expected.items():
        change, title = found[name]["difference"], re.escape(METRICS[name].heading)
        assert change == pytest.approx(found[name]["second"] - found[name]["first"]) and sign * change > 0
        assert verdict in re.search(rf"<td>{title}</td>.*?</tr>", text, re.DOTALL)[0]
        assert re.search(f"^{title} .* {verdict}", printed, re.M)


def test_a_comparison_says_what_any_of_the_files_lacks(scored_data, tmp_path, capsys):
    results = json.loads((scored_data / "b" / "ego-exo_val_results.json").read_text())
    del results["ego-exo"]["results"]["take-b"]
    less = tmp_path / "less_results.json"
    less.write_text(json.dumps(results))
    files = ["--pred_file", str(scored_data / "a" / "ego-exo_val_results.json"), str(less), "--allow_missing"]
    compare_main(scored_data, tmp_path / "out", *files, "--num", "0")
    assert capsys.readouterr().out.count("take take-b: missing") == 1
    assert "take take-b: missing" in (tmp_path / "out" / "index.html").read_text()
