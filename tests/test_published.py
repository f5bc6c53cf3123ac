"""The published results: one source for docs/results.md, the report and the rank that evaluate.py prints."""

import html
import json
import re

import pytest

from evaluation import evaluate, report
from evaluation.metrics import METRICS, OFFICIAL
from evaluation.outputs import rank_lines
from evaluation.published import PUBLISHED, SPLIT, TAKES, XSEGTX, leaderboard, published_rank
from formats.processed import ANNOTATION
from formats.takes import SETTINGS
from tests.made import EGO, ROOT
from tests.made.processed import make_data_set
from tests.made.results import make_annotations, make_results_file


def table(rows):
    return [f"| {' | '.join(row)} |" for row in rows]


def figures(setting):
    """A setting's table of docs/results.md, best first."""
    rows = [["method", *(METRICS[name].heading for name in OFFICIAL), "scorer"], ["---"] * 6]
    for row in leaderboard(setting):
        bold = "**" if row.method == XSEGTX else ""
        values = [METRICS[name].show(value) for name, value in row.values(setting).items()]
        rows.append([f"{bold}{cell}{bold}" for cell in (row.method, *values, row.protocol)])
    return table(rows)


def origins():
    rows = [["method", "venue", "backbone", "what is known to be wrong", "source"], ["---"] * 5]
    for row in PUBLISHED:
        link = f"[{row.source}](https://{row.source})"
        rows.append([row.method, row.venue, row.backbone, row.caveat or "-", link])
    return table(rows)


def test_the_document_holds_just_the_tables_of_the_data():
    lines = [line for line in (ROOT / "docs/results.md").read_text().splitlines() if line.startswith("|")]
    expected = [*figures("ego-exo"), *figures("exo-ego"), *origins()]
    assert lines == expected, "the tables should be:\n" + "\n".join(expected)


def shown_in_readme(values):
    """A cell of the README's table, which drops the zero before the point of fractions."""
    texts = [METRICS[name].show(value) for name, value in values.items()]
    return " / ".join(
        text if METRICS[name].percent else text.lstrip("0") for name, text in zip(values, texts, strict=True)
    )


def test_the_readme_repeats_the_figures_of_the_benchmarks_authors():
    text = (ROOT / "README.md").read_text().replace("**", "")
    complete = [row for row in PUBLISHED if None not in (*row.ego_exo, *row.exo_ego)]
    assert len(complete) == 4
    for row in complete:
        name = "XSegTx, trained (original code, as published)" if row.method == XSEGTX else row.method
        cells = [shown_in_readme(row.values(setting)) for setting in SETTINGS]
        assert f"| {name} | {' | '.join(cells)} |" in text


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_leaderboard_is_sorted_and_holds_this_system_once(setting):
    board = leaderboard(setting)
    iou = [row.values(setting)["iou"] for row in board]
    assert iou == sorted(iou, reverse=True) and len(board) == len(PUBLISHED)
    assert len({row.method for row in board}) == len(board)
    assert [row.method for row in board].count(XSEGTX) == 1
    assert all(row.source and "//" not in row.source for row in board)


def whole_split(iou, **change):
    """What the rank depends on of metrics.json."""
    found = {"setting": "ego-exo", "split": SPLIT, "takes": TAKES, "frames_scored": 9, "frames_wanted": 9}
    return {**found, "official": {"iou": iou}, **change}


def test_a_result_ranks_below_all_that_have_a_higher_iou():
    board = leaderboard("ego-exo")
    values = [row.values("ego-exo")["iou"] for row in board]
    for iou in values:
        same = published_rank(whole_split(iou), official=True)
        assert same == {"rank": 1 + values.index(iou), "of": len(board) + 1}  # equal values share the better place
        less = published_rank(whole_split(iou - 1e-6), official=True)
        assert less["rank"] == 1 + sum(value >= iou for value in values)
    assert published_rank(whole_split(1.0), official=True)["rank"] == 1


@pytest.mark.parametrize(
    "summary, official",
    [
        (whole_split(0.5, split="val"), True),
        (whole_split(0.5, split=None), True),
        (whole_split(0.5, takes=TAKES - 1), True),
        (whole_split(0.5, frames_scored=8), True),
        (whole_split(0.5), False),
    ],
)
def test_only_the_whole_test_split_scored_officially_has_a_rank(summary, official):
    assert published_rank(summary, official) is None


def test_the_rank_is_printed_for_the_test_split_and_its_lack_is_explained():
    ranked = whole_split(0.5, published_rank={"rank": 3, "of": 24})
    (line,) = rank_lines(ranked)
    assert line.startswith("* rank by IoU among the published results: 3 of 24")
    (line,) = rank_lines({**ranked, "published_rank": None})
    assert line.startswith("* no rank") and str(TAKES) in line
    assert rank_lines({**ranked, "split": "val"}) == []


@pytest.fixture(scope="module")
def test_split(tmp_path_factory):
    """As many takes as the published split has, of one frame each, predicted nearly right."""
    root = tmp_path_factory.mktemp("split")
    uids = [f"take-{number}" for number in range(TAKES)]
    data_dir = make_data_set(root, {"test": uids}, {"cup_0": {EGO: [0], "cam01": [0]}})
    takes = {uid: json.loads((data_dir / uid / ANNOTATION).read_text()) for uid in uids}
    make_annotations(root / "annotations" / "relations_test.json", takes)
    make_results_file(root, data_dir, uids, "ego-exo", "test")
    return root


def evaluated(root, out, script, *more):
    where = ["--data_path", root / "processed", "--pred_file", root / "ego-exo_test_results.json", "--num_workers", "0"]
    script.main(list(map(str, ["--setting", "ego-exo", "--split", "test", *where, "--out", out, *more])))
    return json.loads((out / "metrics.json").read_text())


def test_evaluate_prints_and_writes_the_rank_of_a_whole_test_split_and_of_nothing_else(test_split, tmp_path, capsys):
    found = evaluated(test_split, tmp_path / "a", evaluate)
    place = found["published_rank"]
    better = [row for row in leaderboard("ego-exo") if row.values("ego-exo")["iou"] > found["official"]["iou"]]
    assert place == {"rank": len(better) + 1, "of": len(PUBLISHED) + 1}
    assert f"published results: {place['rank']} of {place['of']}" in capsys.readouterr().out
    assert evaluated(test_split, tmp_path / "b", evaluate, "--all_frames")["published_rank"] is None
    assert "* no rank among the published results" in capsys.readouterr().out


def test_the_report_puts_a_run_of_the_whole_test_split_into_the_leaderboard(test_split, tmp_path):
    place = evaluated(test_split, tmp_path / "a", report, "--num", "1")["published_rank"]
    rows = leaderboard_of(tmp_path / "a")
    assert rows.index("this run") == place["rank"] - 1
    assert [row for row in rows if row != "this run"] == [row.method for row in leaderboard("ego-exo")]
    evaluated(test_split, tmp_path / "b", report, "--num", "1", "--all_frames")
    assert "this run" not in leaderboard_of(tmp_path / "b")


def leaderboard_of(folder):
    text = (folder / "index.html").read_text()
    part = re.search(r'<section id="published-results">(.*?)</section>', text, re.DOTALL)[1]
    return [html.unescape(name) for name in re.findall(r"<tr[^>]*><td[^>]*>(.*?)<", part)]
