"""segment_pair.py: picture files in, a mask and an overlay out."""

import csv
import itertools
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from common.drawing import write_picture
from common.errors import UserError
from formats.mask_pictures import read_mask
from inference import predictor, segment_pair
from tests.made.kills import killed_at
from tests.made.known_answer import KnownAnswer, scene
from tests.made.networks import write_network
from tests.made.raw_takes import tree
from tests.made.scripts import run_main


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    """Argument -> path of a valid call."""
    folder = tmp_path_factory.mktemp("pair")
    write_network(folder / "net.pth")
    rng = np.random.default_rng(0)
    for name, size in {"query": (64, 64), "target": (90, 160)}.items():
        cv2.imwrite(str(folder / f"{name}.jpg"), rng.integers(0, 256, (*size, 3), np.uint8))
    mask = np.zeros((64, 64), np.uint8)
    cv2.imwrite(str(folder / "empty.png"), mask)
    mask[20:40, 10:50] = 255
    cv2.imwrite(str(folder / "mask.png"), mask)
    (folder / "text.jpg").write_text("no picture")
    names = {"query_image": "query.jpg", "query_mask": "mask.png", "target_image": "target.jpg", "ckpt_path": "net.pth"}
    return {name: str(folder / file) for name, file in names.items()} | {"out": str(folder / "found")}


def call(files: dict[str, str]) -> None:
    segment_pair.main([word for name, path in files.items() for word in (f"--{name}", path)] + ["--device", "cpu"])


def test_the_setting_says_which_picture_is_of_a_head_worn_camera(files, tmp_path, capsys):
    network = str(write_network(tmp_path / "net.pth", strong=True))
    said = set()
    for setting in ({"setting": "ego-exo"}, {"setting": "exo-ego"}):
        call(files | {"ckpt_path": network} | setting)
        said.add(capsys.readouterr().out.splitlines()[1])
    assert len(said) == 2


def test_the_repositorys_network_is_named_the_mask_is_as_large_as_the_target_and_the_overlay_shows_both(
    files, monkeypatch, capsys
):
    monkeypatch.setattr(segment_pair, "SHIPPED", Path(files["ckpt_path"]))
    call({name: path for name, path in files.items() if name != "ckpt_path"})
    mask = cv2.imread(files["out"] + "_mask.png", cv2.IMREAD_UNCHANGED)
    assert mask.shape == (90, 160) and set(np.unique(mask)) <= {0, 255}
    assert cv2.imread(files["out"] + "_overlay.jpg").shape == (90, 90 + 160, 3)
    said = capsys.readouterr().out
    assert f"{files['ckpt_path']}: tiny network of 96 pixels" in said and "visible with probability" in said


def test_the_predictor_loads_the_repositorys_network_unless_told_otherwise(files, monkeypatch, tmp_path):
    monkeypatch.setattr(predictor, "SHIPPED", Path(files["ckpt_path"]))
    assert predictor.Predictor.load(device="cpu").matcher.side == 96
    monkeypatch.setattr(predictor, "SHIPPED", tmp_path / "xsegtx_tiny.pth")
    with pytest.raises(UserError, match="no file .*xsegtx_tiny.pth, the network of this repository") as caught:
        predictor.Predictor.load()
    assert "\n" not in str(caught.value)


def test_a_mask_may_be_of_another_size_than_its_image(files, side=704):
    call(files)
    same = cv2.imread(files["out"] + "_mask.png", cv2.IMREAD_UNCHANGED)
    other = Path(files["query_mask"]).with_name(f"mask{side}.png")
    cv2.imwrite(str(other), cv2.resize(cv2.imread(files["query_mask"]), (side, side), interpolation=cv2.INTER_NEAREST))
    call(files | {"query_mask": str(other)})
    found = cv2.imread(files["out"] + "_mask.png", cv2.IMREAD_UNCHANGED)
    assert (found == same).mean() > 0.99


@pytest.mark.parametrize(
    ("argument", "file", "message"),
    [
        ("target_image", "text.jpg", "text.jpg is no picture"),
        ("query_mask", "target.jpg", "target.jpg holds many values, as photographs do"),
        ("query_mask", "empty.png", "query mask is empty"),
        ("ckpt_path", "text.jpg", "text.jpg"),
    ],
)
def test_bad_files_are_named_in_one_line(files, argument, file, message):
    folder = files["out"].removesuffix("found")
    with pytest.raises(UserError, match=message) as caught:
        call(files | {argument: folder + file})
    assert "\n" not in str(caught.value)


@pytest.fixture()
def pairs(tmp_path, monkeypatch):
    """A list of pairs of known answers, by mask, by box, and of label maps; returns its path."""
    monkeypatch.setattr(segment_pair.Predictor, "load", lambda *args, **options: predictor.Predictor(KnownAnswer(96)))
    (tmp_path / "net.pth").write_text("weights")
    for name, box in {"query": (0.3, 0.6, 0.5, 0.8), "target": (0.25, 0.7, 0.1, 0.5)}.items():
        image, mask = scene((96, 96), box)
        write_picture(tmp_path / f"{name}.png", image)
        write_picture(tmp_path / f"{name}_mask.png", mask * 255)
        write_picture(tmp_path / f"{name}_labels.png", mask * 2 + np.eye(96, dtype=np.uint8) * (1 - mask))
    rows = "name,query_image,query_mask,query_box,target_image,setting,object\n"
    rows += "a,query.png,query_mask.png,,target.png,ego-exo,\nb,query.png,,47.5 28 78 59,target.png,,\n"
    rows += f"c,{tmp_path}/target.png,target_labels.png,,query.png,exo-ego,2\n"
    (tmp_path / "pairs.csv").write_text(rows)
    return tmp_path / "pairs.csv"


def words_of(pairs: Path) -> list[str]:
    return ["--pairs", str(pairs), "--out", str(pairs.parent / "out"), "--ckpt_path", str(pairs.parent / "net.pth")]


def test_a_list_of_pairs_gives_a_mask_and_a_row_for_each(pairs):
    assert segment_pair.main(words_of(pairs)) == 0
    with (pairs.parent / "out" / "existence.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["name"], row["existence"]) for row in rows] == [(name, "1.000000") for name in "abc"]
    for row, target in zip(rows, ("target", "target", "query"), strict=True):
        found = read_mask(pairs.parent / "out" / row["mask"])
        assert np.array_equal(found, read_mask(pairs.parent / f"{target}_mask.png"))
        assert float(row["share"]) == pytest.approx(found.mean(), abs=1e-6)


def test_a_list_that_is_killed_at_any_file_event_is_continued_to_the_same_bytes(pairs):
    out = pairs.parent / "out"
    assert run_main(segment_pair.main, *words_of(pairs)).returncode == 0
    whole = tree(out)
    for event in itertools.count(1):
        shutil.rmtree(out)
        killed = killed_at(event, out, segment_pair.main, *words_of(pairs))
        assert run_main(segment_pair.main, *words_of(pairs)).returncode == 0
        assert tree(out) == whole, event
        if not killed:
            break
    assert event > 12


def test_a_list_makes_anew_what_was_made_of_other_files_and_nothing_else(pairs):
    out = pairs.parent / "out"
    segment_pair.main(words_of(pairs))
    made = {path.name: path.stat().st_mtime_ns for path in (out / "masks").iterdir()}
    (pairs.parent / "query_mask.png").touch()
    write_picture(pairs.parent / "target_labels.png", read_mask(pairs.parent / "target_mask.png") * 2)
    segment_pair.main(words_of(pairs))
    assert {name for name in made if made[name] != (out / "masks" / name).stat().st_mtime_ns} == {"00003.png"}
    (pairs.parent / "net.pth").write_text("other weights")
    segment_pair.main(words_of(pairs))
    assert all(made[name] != (out / "masks" / name).stat().st_mtime_ns for name in made)


def test_rows_that_cannot_be_read_are_left_out_and_named(pairs, capsys):
    bad = "d,nowhere.png,query_mask.png,,target.png,,\ne,query.png,,,target.png,,\nf,query.png,,1 2 x 4,target.png,,\n"
    bad += "g,query.png,query_labels.png,,target.png,,\nh,query.png,query_mask.png,,target.png,ego,,\n"
    pairs.write_text(pairs.read_text() + bad)
    assert segment_pair.main(words_of(pairs)) == 3
    said = capsys.readouterr().err
    for message in (
        "row 4: .*nowhere.png does not exist",
        "row 5: give query_image",
        "row 6: the box '1 2 x 4' is not left",
    ):
        assert re.search(f"^{message}", said, re.MULTILINE)
    assert "row 7: " in said and "holds the values 1, 2; " in said and "row 8: " in said
    assert said.endswith(f"5 rows of {pairs} left out\n")
    assert (pairs.parent / "out" / "existence.csv").read_text().count("\n") == 4


def test_a_box_stands_for_the_mask_and_a_value_chooses_from_a_label_map(pairs):
    folder, out = pairs.parent, pairs.parent / "found"
    common = ["--query_image", f"{folder}/query.png", "--target_image", f"{folder}/target.png", "--out", str(out)]
    labels = ["--query_mask", f"{folder}/query_labels.png"]
    for given in (["--query_box", "47.5", "28", "78", "59"], [*labels, "--object", "2"]):
        (folder / ".found_mask.png.0123abcd.tmp").touch()  # left by a kill
        assert segment_pair.main([*common, *given]) == 0
        assert np.array_equal(read_mask(folder / "found_mask.png"), read_mask(folder / "target_mask.png"))
        assert not list(folder.glob(".*.tmp"))
    for given, message in {
        (): "give query_image, target_image, and query_mask or query_box",
        ("--pairs", str(pairs)): "--pairs names a list of pairs; leave out --query_image",
        tuple(labels): "query_labels.png holds the values 1, 2",
    }.items():
        with pytest.raises(UserError, match=message):
            segment_pair.main([*common, *given])


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "has no column"), (b"query_image\na", "has no column target_image"), (b"\xff\xfe", "is no CSV file")],
)
def test_a_list_that_is_none_is_said_in_one_line(pairs, content, message):
    pairs.write_bytes(content)
    with pytest.raises(UserError, match=f"pairs.csv {message}"):
        segment_pair.main(words_of(pairs))
