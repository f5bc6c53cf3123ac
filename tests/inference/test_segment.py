"""segment_video.py and segment_pair.py: from masks of one camera or picture to masks and existence in the others."""

import csv
import errno
import itertools
import os
import re
import shutil
import threading
import time
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from common.drawing import PREDICTION, QUERY, TRUTH, write_picture
from common.errors import UserError, warn_once
from common.existence import verdict
from common.files import file_digest
from formats.geometry import eval_size
from formats.mask_files import find_masks
from formats.picture_files import read_mask
from inference import pair_table, predictor, segment_pair, segment_video
from inference.predictor import Predictor
from recipes import table as recipes
from tests.made.known_answer import KnownAnswer, scene
from tests.made.processes import claimed_elsewhere, killed_at, run_main
from tests.made.videos import make_video, read_number

PAIR = "--query_image here.png --query_mask here_mask.png --target_image"
SIZE = (96, 192)
OBJECTS = {"cup": range(0, 38, 3), "red pan": range(0, 40, 6)}


@pytest.fixture(scope="module")
def inputs(checkpoint, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "net.pth").symlink_to(checkpoint)
    (folder / "dangling").symlink_to("nowhere")
    (folder / "pointer.mp4").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    for name in ("head", "left", "right"):
        make_video(folder / f"{name}.mp4", 40, SIZE)
    for name, frames in OBJECTS.items():
        for frame in frames:
            mask = np.zeros(SIZE, np.uint8)
            if frame != 6:  # hidden there
                mask[50:80, 20 + frame : 60 + frame] = 255
            path = folder / "masks" / name / f"{frame:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), mask)
    return folder


def call(inputs, out, *more, masks="masks"):
    videos = [f"{name}={inputs}/{name}.mp4" for name in ("head", "left", "right")]
    words = ["--masks", f"head={inputs / masks}", "--ckpt_path", inputs / "net.pth", "--device", "cpu", "--out", out]
    return run_main(segment_video.main, "--videos", *videos, *words, *more)


@pytest.fixture(scope="module")
def answers_dir(inputs, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("made") / "found"
    done = call(inputs, out, "--offset", "left=4")
    assert done.returncode == 0, done.stderr
    assert "no camera counts as head-worn; if one is, name it with --ego CAMERA" in done.stdout
    assert {path.name for path in out.iterdir()} == {"masks", "video.mp4", "existence.csv", "run.json"}
    assert re.search(r"\nred pan in left: there in \d of 5 frames, existence \d+% on average\n", done.stdout)
    return out


def test_the_same_command_again_says_that_all_is_there_and_a_replaced_video_is_noticed(inputs, answers_dir, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in answers_dir.rglob("*")}
    done = call(inputs, answers_dir, "--offset", "left=4")
    line = f"{answers_dir} is complete already; delete it to predict again\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, line, "")
    shutil.copy(inputs / "left.mp4", tmp_path)
    done = call(inputs, answers_dir, "--offset", "left=4", "--videos", f"more={tmp_path}/left.mp4")
    assert done.returncode == 1 and "found exists, and was not made from the same by this command; " in done.stderr
    assert before == {path: path.stat().st_mtime_ns for path in answers_dir.rglob("*")}


def rows_of(answers_dir):
    with (answers_dir / "existence.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_object_is_sought_in_each_other_camera_in_each_frame_in_which_it_is_visible(answers_dir):
    """Also where only one of the other cameras has a picture."""
    rows = [(row["object"], row["camera"], int(row["frame"]), int(row["camera_frame"])) for row in rows_of(answers_dir)]
    expected = {
        (name, camera, frame, frame + offset)
        for name, frames in OBJECTS.items()
        for camera, offset in {"left": 4, "right": 0}.items()
        for frame in frames
        if frame != 6 and frame + offset < 40
    }
    assert set(rows) == expected and len(rows) == len(expected)
    assert {row["seconds"] for row in rows_of(answers_dir)} >= {"0.0", "0.3", "0.6"}
    masks = find_masks(answers_dir / "masks" / "left").objects  # numbered as the frames of their own video
    of_left = {(name, frame) for name, camera, _, frame in expected if camera == "left"}
    assert {(name, frame) for name, frames in masks.items() for frame in frames} == of_left
    with Image.open(answers_dir / "masks" / "left" / "cup" / "00004.png") as mask:
        assert mask.size == eval_size(SIZE)[::-1] and mask.mode == "L" and set(np.unique(mask)) <= {0, 255}


def test_of_several_answers_to_a_frame_the_one_nearest_in_time_stays(inputs, tmp_path):
    slow = tmp_path / "slow"  # 0.25 s from picture to picture, and masks of the cup at each 0.1 s but 0.2
    for number in range(6):
        write_picture(slow / f"{number}.png", np.zeros((*SIZE, 3), np.uint8))
    cameras = ["--videos", f"head={inputs}/head.mp4", f"slow={slow}", "--fps", 4, "--masks", f"head={inputs}/masks"]
    words = ["--ckpt_path", inputs / "net.pth", "--device", "cpu", "--out", tmp_path / "found"]
    assert run_main(segment_video.main, *cameras, *words).returncode == 0
    rows = {int(row["camera_frame"]): row for row in rows_of(tmp_path / "found") if row["object"] == "cup"}
    assert [int(rows[number]["frame"]) for number in (0, 1, 2, 4, 5)] == [0, 9, 15, 30, 36]
    assert len(rows_of(tmp_path / "found")) == len(list((tmp_path / "found").glob("masks/*/*/*.png")))


def test_frames_with_masks_that_cannot_be_answered_are_counted_and_named(inputs, tmp_path):
    done = call(inputs, tmp_path / "found", "--offset", "left=-5", "right=-2")
    assert done.returncode == 0, done.stderr
    left, right = (line for line in done.stdout.splitlines() if "no picture" in line)
    assert left.startswith("left has no picture") and left.endswith("2 frames with a mask, so no answer there: 0, 3")
    assert right.startswith("right has no picture at ") and right.endswith("there: 0")


def test_the_video_shows_the_cameras_side_by_side_at_one_moment(answers_dir):
    video = cv2.VideoCapture(str(answers_dir / "video.mp4"))
    frames = [image for ok, image in iter(video.read, (False, None)) if ok]
    assert len(frames) == 13 and frames[0].shape == (480, 3 * 960, 3)  # also the one in which both are hidden
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(10)  # every third frame, in the time that it took
    for image, frame in zip(frames, range(0, 39, 3), strict=True):
        head, left, right = (read_number(panel) >> 2 for panel in np.hsplit(image, 3))  # names lie over two bits
        assert (head, left, right) == (frame >> 2, 0 if frame == 36 else frame + 4 >> 2, frame >> 2)


def test_answers_are_those_of_the_predictor_told_which_camera_is_head_worn(
    inputs, strong_checkpoint, tmp_path, monkeypatch
):
    monkeypatch.setattr("recipes.strong.recipe.RAW_AGREEMENT_WEIGHT", 0.0)  # for pictures of unknown cameras alone
    frames = (cv2.VideoCapture(str(inputs / f"{camera}.mp4")).read()[1] for camera in ("head", "left"))
    query, target = (cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) for frame in frames)
    mask = inputs / "masks" / "cup" / "00000.png"
    for name, size in {"head": "smaller", "left": "larger", "right": "same"}.items():
        out = tmp_path / name
        done = call(inputs, out, "--ckpt_path", strong_checkpoint, "--stride", 99, "--ego", name)
        assert done.returncode == 0 and "--ego CAMERA" not in done.stdout
        alone, existence = Predictor.load(strong_checkpoint, "cpu").segment(query, mask, target, size=size)
        answers = {(row["object"], row["camera"], row["frame"]): row["existence"] for row in rows_of(out)}
        assert float(answers["cup", "left", "0"]) == pytest.approx(existence, abs=2e-4)
        written = cv2.resize(read_mask(out / "masks" / "left" / "cup" / "00000.png"), alone.shape[::-1])
        assert (written == alone).mean() > 0.95


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--masks", "left={}/masks"), "--masks takes the masks of one camera here"),
        (("--ego", "glasses"), "--ego names camera 'glasses'; --videos has head, left, right\n"),
        (("--offset", "head=70"), "no mask in .* is of a frame that another camera has"),
        (("--out", "{}"), "exists, and was not made from the same by this command; delete it to predict anew, or give"),
        (
            ("--videos", "more={}/gone.mp4"),
            "error: no file .*gone.mp4; give a whole video, or the folder of a camera's",
        ),
        (("--videos", "more={}/net.pth"), r"net.pth has no readable header .*; give a whole video, or the folder"),
        (("--out", "{}/dangling"), "dangling is a link to nowhere; delete it, or give another --out\n"),
        (("--videos", "more={}/left.mp4"), "error: --videos left and more are both .*/left.mp4; did you mean another"),
        (("--videos", "more={}/pointer.mp4"), "error: .*/pointer.mp4 is a Git LFS pointer, not the file"),
        (("--out", "{}/left.mp4/found"), r"cannot write into .*left.mp4 \(Not a directory\)"),
    ],
)
def test_what_cannot_be_is_said_in_one_line_and_leaves_nothing(inputs, answers_dir, tmp_path, more, message):
    done = call(inputs, tmp_path / "found", *(str(word).format(inputs, found=answers_dir) for word in more))
    assert done.returncode == 1 and done.stderr.count("error:") == 1 and not list(tmp_path.iterdir())
    assert re.search(message, done.stderr)


def test_a_mask_that_is_empty_is_said_before_anything_is_made(inputs, tmp_path):
    cv2.imwrite(str(tmp_path / "cup.png"), np.zeros(SIZE, np.uint8))
    done = call(inputs, tmp_path / "found", masks=tmp_path / "cup.png")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1) and "cup.png: no mask shows an object" in done.stderr
    assert done.stdout == f"{tmp_path}/cup.png counts as the mask of frame 0 of head (--mask_frame)\n"
    assert [path.name for path in tmp_path.iterdir()] == ["cup.png"]


@pytest.fixture(scope="module")
def files(checkpoint, tmp_path_factory) -> dict[str, str]:
    """Argument -> path of a valid call."""
    folder = tmp_path_factory.mktemp("pair")
    rng = np.random.default_rng(0)
    for name, size in {"query": (64, 64), "target": (90, 160)}.items():
        cv2.imwrite(str(folder / f"{name}.jpg"), rng.integers(0, 256, (*size, 3), np.uint8))
    mask = np.zeros((64, 64), np.uint8)
    cv2.imwrite(str(folder / "empty.png"), mask)
    mask[20:40, 10:50] = 255
    cv2.imwrite(str(folder / "mask.png"), mask)
    (folder / "text.jpg").write_text("no picture")
    (folder / "pointer.jpg").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    names = {"query_image": "query.jpg", "query_mask": "mask.png", "target_image": "target.jpg", "out": "found"}
    return {name: str(folder / file) for name, file in names.items()} | {"ckpt_path": str(checkpoint)}


def segment(files: dict[str, str], *flags: str) -> None:
    words = [word for name, path in files.items() for word in (f"--{name}", path)]
    segment_pair.main([*words, "--device", "cpu", *flags])


def test_the_size_makes_a_difference_and_the_likeliest_places_have_a_mask_each(
    files, strong_checkpoint, tmp_path, capsys
):
    files = files | {"ckpt_path": str(strong_checkpoint)}
    said = []
    for size in ("larger", "smaller"):
        segment(files | {"size": size, "out": str(tmp_path / size)})
        said.append(capsys.readouterr().out.splitlines()[1])
    assert said[0] != said[1]
    predictor, out = Predictor.load(strong_checkpoint, "cpu"), tmp_path / "three"
    segment(files | {"places": "3", "out": str(out)})
    places = predictor.places(files["query_image"], files["query_mask"], files["target_image"], 3)
    names = [f"target{place}_mask.png" for place in ("", "_place2", "_place3")][: len(places)]
    assert len(places) > 1 and {path.name for path in out.iterdir()} == {*names, "target_overlay.jpg"}
    with Image.open(out / "target_overlay.jpg") as sheet:
        assert (
            sheet.width > (1 + len(places)) * segment_pair.TILE_WIDTH
        )  # each place and the query have a captioned tile
    half = tmp_path / "half.png"  # a mask may be smaller than its picture
    write_picture(half, read_mask(Path(files["query_mask"]))[::2, ::2] * 255)
    segment(files | {"places": "3", "query_mask": str(half), "out": str(tmp_path / "half")})
    assert (tmp_path / "half" / "target_overlay.jpg").read_bytes() == (out / "target_overlay.jpg").read_bytes()
    capsys.readouterr()
    with pytest.raises(SystemExit):
        segment(files, "--gpu", "0")
    assert capsys.readouterr().err == "error: there is no --gpu, but --device; see --help\n"
    segment(files | {"places": "99", "out": str(tmp_path / "all")})
    assert " places found, not 99: no further place has a mask of its own\n" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        segment(files | {"places": "3", "object": "all", "out": str(out)})
    assert "--places is for one pair; leave it out" in capsys.readouterr().err
    for name, place in zip(names, places, strict=True):
        assert np.array_equal(read_mask(out / name), place.mask)


def test_the_network_is_named_and_mask_and_overlay_are_as_large_as_the_pictures(files, monkeypatch, capsys):
    monkeypatch.setattr(recipes, "SHIPPED", Path(files["ckpt_path"]))
    segment({name: path for name, path in files.items() if name != "ckpt_path"})
    mask = cv2.imread(files["out"] + "/target_mask.png", cv2.IMREAD_UNCHANGED)
    assert mask.shape == (90, 160) and set(np.unique(mask)) <= {0, 255}
    assert cv2.imread(files["out"] + "/target_overlay.jpg").shape == (90, 90 + 160, 3)
    printed = capsys.readouterr().out
    assert printed.startswith(f"{Path(files['ckpt_path']).name}: tiny network of 96 pixels")
    assert re.search(r"\n(unsure|(probably not )?there) \(\d+ %\), [\d.]+% of the target image\n", printed)


def test_the_percentage_is_one_of_which_the_same_word_is_said():
    for existence in np.linspace(0, 1, 1001).tolist():
        word, percent = re.fullmatch(r"(.+) \((\d+) %\)", verdict(existence)).groups()
        assert verdict(int(percent) / 100).startswith(f"{word} ("), existence
    edges = {0.199: "probably not there", 0.2: "unsure", 0.899: "unsure", 0.9: "there"}  # as docs/own_data.md says
    assert {existence: verdict(existence).partition(" (")[0] for existence in edges} == edges


def test_words_go_by_the_limits_of_the_recipe_and_where_no_pixel_is_outlined_the_word_is_not_found(
    table, monkeypatch, capsys
):
    class Surer(KnownAnswer):
        """Surer of what it does not see, on a scale of its own."""

        limits = 0.4, 0.7

        def predict(self, frame):
            return [answer._replace(existence=0.5 if answer.existence else 0.6) for answer in super().predict(frame)]

    surer, folder = predictor.Predictor(Surer(96)), table.parent
    load = lambda path, device, limits, **options: Predictor(Surer(96), limits)  # noqa: E731
    monkeypatch.setattr(segment_pair.Predictor, "load", load)
    write_picture(folder / "gray.png", np.full((96, 96, 3), 90, np.uint8))
    given = ["--query_image", f"{folder}/here.png", "--query_mask", f"{folder}/here_mask.png", "--target_image"]
    targets, out = [f"{folder}/gray.png", f"{folder}/there.png"], ["--out", f"{folder}/answers"]
    for limits, word in ([], "unsure"), (["--limits", "0.2", "0.45"], "there"), (["--limits", "0.55", "1"], "probably"):
        assert segment_pair.main([*given, *targets, *out, *limits]) == 0
        printed = capsys.readouterr().out
        assert "\ngray: not found, 0.00% of the target\n" in printed and f"\nthere: {word}" in printed
        rows = list(csv.DictReader((folder / "answers" / "answers.csv").open()))
        assert [row["name"] for row in rows] == ["there", "gray"] and rows[1]["verdict"] == "not found"
    segment_pair.main([*given, targets[0], *out])
    assert "\nnot found, 0.00% of the target image\n" in capsys.readouterr().out
    found = surer.segment(folder / "here.png", folder / "here_mask.png", folder / "there.png", probability=True)
    nothing = surer.found(0 * found.mask, 0.6)
    assert [surer.verdict(*x) for x in (found, nothing)] == ["unsure (50 %)", "not found"]
    assert [(x.word, x.said) for x in (found, nothing)] == [("unsure", "unsure (50 %)"), ("not found", "not found")]
    assert predictor.distinct([found, nothing], 2) == [found]
    lines = []
    monkeypatch.setattr(segment_video, "captioned_inside", lambda _, of_panel: lines.extend(of_panel))
    moment, image = segment_video.Moment(0, 0, "head", {}, {}), np.zeros((96, 96, 3), np.uint8)
    answers = {("cup", "left"): found, ("pan", "left"): nothing}
    segment_video.draw_camera(moment, answers, dict.fromkeys(("cup", "pan"), QUERY), "left", image, 96)
    assert [text for text, _ in lines] == ["left", "cup: unsure (50 %)", "pan: not found"]


def test_letters_in_a_video_stand_on_dark_ground_whatever_the_picture_shows():
    white = np.full((480, 640, 3), 255, np.uint8)
    drawn = segment_video.captioned_inside(white, [("head", (255, 255, 255)), ("cup: there (93 %)", (64, 200, 255))])
    changed = (drawn != white).any(-1)
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    ground = drawn[rows[0] : rows[-1] + 1, columns[0] : columns[0] + 30].min(-1)
    assert np.mean(ground < 80) > 0.7 and not changed[:, 320:].any() and not changed[100:].any()


def test_without_a_name_for_the_output_it_is_the_targets_or_the_first_free_number(files, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    given = {name: path for name, path in files.items() if name != "out"}
    (tmp_path / "target_2_overlay.jpg").touch()
    for name, more in (("target", []), ("target_3", ["--places", "2"]), ("target_4", [])):
        times = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir() if not path.name.startswith(f"{name}_")}
        segment(given, *more)
        printed = capsys.readouterr().out.splitlines()
        assert f"{name}_mask.png" in printed and printed[-1] == f"{name}_overlay.jpg" and Path(printed[-1]).is_file()
        assert times == {path: path.stat().st_mtime_ns for path in times}


def test_the_predictor_loads_the_repositorys_network_unless_told_otherwise(files, monkeypatch, tmp_path):
    monkeypatch.setattr(recipes, "SHIPPED", Path(files["ckpt_path"]))
    assert predictor.Predictor.load(device="cpu").recipe.network.config.input_size == 96
    monkeypatch.setattr(recipes, "SHIPPED", tmp_path / "xsegtx_tiny.pth")
    with pytest.raises(UserError, match="^no file [^\n]*xsegtx_tiny.pth[^\n]*$"):
        predictor.Predictor.load()


@pytest.mark.parametrize(
    ("argument", "file", "message"),
    [
        ("target_image", "text.jpg", "text.jpg cannot be read as a picture"),
        ("target_image", "pointer.jpg", "pointer.jpg is a Git LFS pointer, not the file; run git lfs pull in its"),
        ("query_mask", "target.jpg", "target.jpg looks like a photograph, not a mask"),
        ("query_mask", "empty.png", "empty.png is empty"),
        ("out", "text.jpg/other", r"cannot write into .*text.jpg \(Not a directory\)"),
    ],
)
def test_bad_files_are_named_in_one_line_before_the_network_is_loaded(files, monkeypatch, argument, file, message):
    monkeypatch.delattr(segment_pair.Predictor, "load")
    folder = files["out"].removesuffix("found")
    with pytest.raises(UserError, match=f"^[^\n]*{message}[^\n]*$"):
        segment(files | {"out": folder + "other", argument: folder + file})


def test_a_box_stands_for_the_mask_and_a_value_chooses_from_a_label_map(tmp_path, monkeypatch):
    monkeypatch.setattr(segment_pair.Predictor, "load", load_known_answer)
    for name, box in {"query": (0.3, 0.6, 0.5, 0.8), "target": (0.25, 0.7, 0.1, 0.5)}.items():
        image, mask = scene((96, 96), box)
        write_picture(tmp_path / f"{name}.png", image)
        write_picture(tmp_path / f"{name}_mask.png", mask * 255)
        labels = mask * 2 + np.eye(96, dtype=np.uint8) * (1 - mask) * (np.arange(96) < 80)
        write_picture(tmp_path / f"{name}_labels.png", np.kron(labels, np.ones((2, 2), np.uint8)))  # of another size
    common = ["--query_image", f"{tmp_path}/query.png", "--target_image", f"{tmp_path}/target.png"]
    common += ["--out", f"{tmp_path}/found"]
    labels = ["--query_mask", f"{tmp_path}/query_labels.png"]
    flags = ["--query_box", "47.5", "28", "78", "59"], [*labels, "--object", "0x2"]
    for name, marked in zip(("target", "target_2"), flags, strict=True):
        segment_pair.main([*common, *marked])
        found = read_mask(tmp_path / "found" / f"{name}_mask.png")
        assert np.array_equal(found, read_mask(tmp_path / "target_mask.png"))
    segment_pair.main([*common, *labels, "--object", "all"])
    rows = list(csv.DictReader((tmp_path / "found" / "answers.csv").open()))
    assert [row["name"] for row in rows] == ["target_1", "target_2"]
    assert np.array_equal(read_mask(tmp_path / "found" / "target_2.png"), read_mask(tmp_path / "target_mask.png"))
    write_picture(tmp_path / "query.png", np.zeros((38, 760, 3), np.uint8))
    write_picture(tmp_path / "target.png", np.zeros((8000, 400, 3), np.uint8))
    segment_pair.main([*common, "--query_box", "9", "1", "19", "9"])
    with Image.open(tmp_path / "found" / "target_3_overlay.jpg") as picture:  # a JPEG has at most 65535 pixels
        assert picture.size == (32_000 + 80, 1600)
    with pytest.raises(UserError, match="query_labels.png holds the values 1, 2"):
        segment_pair.main([*common, *labels])
    write_picture(tmp_path / "query_labels.png", np.zeros((96, 96), np.uint8))
    with pytest.raises(UserError, match="query_labels.png: no object to seek; add a row, or mark one"):
        segment_pair.main([*common, *labels, "--object", "all"])


def load_known_answer(path, device, limits=None, **options) -> Predictor:
    return predictor.Predictor(KnownAnswer(96), limits)


def main_with_known_answer() -> int | None:
    """For another process, in which no test has replaced anything."""
    segment_pair.Predictor.load = load_known_answer
    return segment_pair.main()


@pytest.fixture
def table(tmp_path, monkeypatch) -> Path:
    """A table of four pairs, one of them without its target. The object has one color in all pictures."""
    monkeypatch.setattr(segment_pair.Predictor, "load", load_known_answer)
    for name, box in {"here": (0.3, 0.6, 0.5, 0.8), "there": (0.25, 0.7, 0.1, 0.5)}.items():
        image, mask = scene((96, 96), box)
        write_picture(tmp_path / f"{name}.png", image)
        write_picture(tmp_path / f"{name}_mask.png", mask * 255)
    path = tmp_path / "pairs.csv"
    path.write_text(
        "\ufeffname,query_image,query_mask,query_box,target_image,truth\n"
        "a,here.png,here_mask.png,,there.png,there_mask.png\n"
        "lost,here.png,here_mask.png,,gone.png,\n"
        'b,here.png,,"47, 28, 78, 59",there.png,absent\n'
        "c,there.png,there_mask.png,,here.png,Visible\n",
        encoding="utf-8",
    )
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_row_of_a_table_is_answered_as_alone_and_a_broken_one_costs_only_itself(table):
    folder, out = table.parent, table.parent / "answers"
    done = run_main(segment_pair.main, "--pairs", table, "--out", out)
    assert (done.returncode, done.stderr) == (3, f"left out: lost: {folder}/gone.png does not exist\n")
    rows = {row["name"]: row for row in csv.DictReader((out / "answers.csv").open())}
    assert {name: (row["verdict"], row["iou"], row["absent"]) for name, row in rows.items()} == {
        "a": ("there", "1.0", "False"),
        "b": ("there", "", "True"),
        "c": ("there", "", "False"),
    }
    assert float(rows["a"]["share"]) == pytest.approx(read_mask(out / "a.png").mean(), abs=1e-6)
    assert (
        "\ntrue masks: 1, mean IoU 1.000, right (IoU above 0.5) 1\n"
        "visible: 2, called there 2, unsure 0, probably not there 0\n"
        "absent: 1, called there 1, unsure 0, probably not there 0\n"
        "--limits 0.2 0.5: there 2 of 2 visible, 1 of 1 absent\n"
    ) in done.stdout
    shown = f"wrong ones first in {out / 'answers.jpeg'}"
    boxes = f"1 query mask cut out of boxes: look at the outlines in {out / 'answers.jpeg'}"
    assert done.stdout.endswith(f"\n{boxes}\n3 answers in {out / 'answers.csv'}, {shown}, 1 row left out\n")
    sheet = np.asarray(Image.open(out / "answers.jpeg")).astype(int)
    is_blue = abs(sheet - TRUTH).max(2) < 60  # only a has a truth to draw, and b, which is wrong, comes before it
    assert is_blue[:, sheet.shape[1] // 2 :].any() and not is_blue[:, : sheet.shape[1] // 2].any()
    pair = "--query_image", folder / "there.png", "--query_mask", folder / "there_mask.png", "--target_image"
    done = run_main(segment_pair.main, *pair, folder / "gone.png", "--out", folder / "alone")
    assert (done.returncode, done.stderr) == (1, f"error: {folder}/gone.png does not exist\n")
    assert run_main(segment_pair.main, *pair, folder / "here.png", "--out", folder / "alone").returncode == 0
    assert np.array_equal(read_mask(folder / "alone" / "here_mask.png"), read_mask(out / "c.png"))

    before, times = contents(out), {path: path.stat().st_mtime_ns for path in out.glob("?.*")}
    shutil.copy(folder / "there.png", folder / "gone.png")
    shutil.copy(
        folder / "here_mask.png", folder / "there_mask.png"
    )  # now c marks background, and the truth of a is wrong
    assert run_main(segment_pair.main, "--pairs", table, "--out", out).returncode == 0
    assert {path.stem for path in times if path.stat().st_mtime_ns != times[path]} == {"a", "c"}
    after = contents(out)
    assert after["a.png"] != before["a.png"]


def test_a_row_without_its_pictures_costs_only_itself(table, monkeypatch):
    def digest(path):
        assert path.is_file()  # to read a pipe would wait for its writer, and to read /dev/zero never ends
        return file_digest(path)

    monkeypatch.setattr(pair_table, "file_digest", digest)
    folder = table.parent
    os.mkfifo(folder / "pipe")
    (folder / "clip.mp4").touch()
    reasons = {
        "short,here.png": "target_image is empty; name a picture",
        "empty,,here_mask.png,,there.png,": "query_image is empty; name a picture",
        "word,here.png,here_mask.png,,absent,": "target_image is absent; name a picture",
        "odd,here.png,here_mask.png,left,there.png,": "could not convert string to float: 'left'; look at the row's "
        "query_box and object",
        "yes,here.png,here_mask.png,,there.png,Yes": "truth 'Yes' is no file; give a mask, visible or absent",
        f"long,here.png,here_mask.png,,there.png,{'x' * 999}": f"truth '{'x' * 999}' is no file; give a mask, visible "
        "or absent",
        "bare,here.png,,,there.png,": "give either query_mask or query_box",
        "query,pipe,here_mask.png,,there.png,": f"{folder}/pipe is no file",
        "mask,here.png,pipe,,there.png,": f"{folder}/pipe is no file",
        "truth,here.png,here_mask.png,,there.png,/dev/zero": "/dev/zero is no file",
        "video,here.png,here_mask.png,,clip.mp4,": f"{folder}/clip.mp4 is a video; inference/segment_video.py finds "
        "objects in videos",
        '"line",here.png,"a\nb",,there.png,': f"{folder}/a\\nb does not exist",
    }
    header, *rows = table.read_text(encoding="utf-8").splitlines()
    table.write_text("\n".join([header, *reasons, *rows]), encoding="utf-8")
    done = run_main(segment_pair.main, "--pairs", table, "--out", folder / "answers")
    said = [f"left out: {row.split(',')[0].strip(chr(34))}: {reason}" for row, reason in reasons.items()]
    assert done.returncode == 3 and done.stderr.splitlines()[:-1] == said
    assert [row["name"] for row in csv.DictReader((folder / "answers" / "answers.csv").open())] == ["a", "b", "c"]


def test_a_table_may_have_semicolons_columns_of_its_own_and_absent_with_a_capital(table, capsys):
    expected, _ = pair_table.read_table(table)
    text = table.read_text(encoding="utf-8").replace(',"47, 28, 78, 59",', ",47 28 78 59,").replace("absent", "Absent")
    for separator in ",;\t":
        table.write_text(text.replace("\n", ",note\n").replace(",", separator))
        assert pair_table.read_table(table) == (expected, {})
        assert "pairs.csv: ignored: 1 column 'note'; known are name, query_image" in capsys.readouterr().err
        warn_once.cache_clear()


def test_a_picture_that_is_replaced_while_a_table_runs_leaves_no_wrong_answer(table, monkeypatch):
    folder = table.parent
    rows = [row for row in pair_table.read_table(table)[0] if row.name in "ab"]  # both with the target there.png
    known, replacing = (Predictor(KnownAnswer(96)) for _ in range(2))

    def replace_and_find(*inputs, size):
        shutil.copy(folder / "here.png", folder / "there.png")
        return known.find(*inputs, size=size)

    monkeypatch.setattr(replacing, "find", replace_and_find)
    pair_table.answer_table(rows, {}, folder / "answers", replacing)
    for out in folder / "answers", folder / "anew":
        pair_table.answer_table(rows, {}, out, known)
    assert contents(folder / "answers") == contents(folder / "anew")


def test_many_targets_are_answered_as_rows_and_the_likeliest_comes_first_on_a_sheet(table):
    folder, photos, out = table.parent, table.parent / "photos", table.parent / "answers"
    photos.mkdir()
    for name in "here.png", "here_mask.png", "there.png":
        shutil.copy(folder / name, photos)
    write_picture(photos / "gray.jpg", np.full((96, 96, 3), 90, np.uint8))  # without the object
    (photos / "broken.jpg").touch()
    for name in "IMG_1.HEIC", "moving.gif", f"{'é' * 120}.jpg":
        (photos / name).touch()
    given = ["--query_image", f"{photos}/here.png", "--query_mask", f"{photos}/here_mask.png", "--target_image"]
    done = run_main(segment_pair.main, *given, photos, "--out", out)
    assert done.returncode == 3
    assert f"2 answers in {out}/answers.csv, the likeliest first in {out}/answers.jpeg, 2 rows" in done.stdout
    unread, broken, long = done.stderr.splitlines()
    assert unread.startswith(f"warning: not read in {photos}: IMG_1.HEIC, moving.gif; it takes .avif, .bmp, ")
    assert broken.startswith(f"left out: broken: {photos}/broken.jpg cannot be read as a picture")
    assert long.endswith("é: its name is too long or not of readable letters; rename it")
    rows = list(csv.DictReader((out / "answers.csv").open()))
    assert [row["name"] for row in rows] == ["there", "gray"] and rows[0]["existence"] > rows[1]["existence"]
    assert np.array_equal(read_mask(out / "there.png"), read_mask(folder / "there_mask.png"))
    sheet = np.asarray(Image.open(out / "answers.jpeg")).astype(int)
    assert sheet.shape[1] > 2 * 320 and (abs(sheet[:, :340] - PREDICTION).max(2) < 60).sum() > 300
    before = contents(out)
    targets = photos / "there.png", photos / "gray.jpg"
    assert run_main(segment_pair.main, *given, *targets, "--out", out).returncode == 0
    assert contents(out) == before
    two = "--query_image", photos / "here.png", folder / "there.png"
    masks = "--query_mask", folder / "here_mask.png", folder / "there_mask.png"
    assert run_main(segment_pair.main, *two, *masks, *given[-1:], *targets, "--out", folder / "two").returncode == 0
    assert read_mask(folder / "two" / "there.png").any()
    done = run_main(segment_pair.main, *two, *masks[:2], *given[-1:], *targets, "--out", out)
    assert done.stderr == "error: give one --query_mask for each --query_image, in the same order; see --help\n"
    same = folder / "there.png", photos / "there.png"
    assert run_main(segment_pair.main, *given, *same, "--out", folder / "same").returncode == 0
    assert {path.stem for path in (folder / "same").glob("*.png")} == {f"{x.parent.name}_there" for x in same}
    shutil.copytree(photos, folder / "more" / "photos")
    with pytest.raises(UserError, match="two targets are called 'photos_there'; rename one"):
        segment_pair.main([*map(str, (*given, photos, folder / "more" / "photos" / "there.png", "--out", out))])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("lost,", "b,", "'b' has two rows; give each row a name of its own"),
        ("lost,", "../lost,", "'../lost' names no file"),
        ("lost,", "lost,,,,,,,,", "'lost' names no file, or its row has too many commas"),
        ("target_image", "", "column 'target_image' is missing"),
        ("truth", "target_image", "column 'target_image' is there twice"),
        ("(?s).*", "", "column 'name' is missing"),
        (r"(?s)(?<=truth\n).*", "", "no object to seek; add a row, or mark one"),
    ],
)
def test_a_table_that_is_none_is_said_in_one_line_before_anything_is_made(table, monkeypatch, old, new, message):
    monkeypatch.delattr(segment_pair.Predictor, "load")
    table.write_text(re.sub(old, new, table.read_text(), count=1))
    (table.parent / "pointer.csv").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    (table.parent / "latin.csv").write_text("name,query_image,target_image\ncafé,a.png,b.png\n", encoding="latin-1")
    for name, fault in {
        "nowhere.csv": "does not exist; name a table of comma-separated values",
        "": "is a folder; name a table of comma-separated values",
        "latin.csv": "is not in UTF-8 (byte 33); in your spreadsheet, save it as CSV UTF-8",
    }.items():
        with pytest.raises(UserError) as error:
            segment_pair.main(["--pairs", str(table.parent / name), "--out", str(table.parent / "answers")])
        assert str(error.value) == f"--pairs {table.parent / name} {fault}"
    with pytest.raises(UserError, match="pointer.csv is a Git LFS pointer, not the file; run git lfs pull"):
        segment_pair.main(["--pairs", str(table.parent / "pointer.csv"), "--out", str(table.parent / "answers")])
    with pytest.raises(UserError, match=f"^[^\n]*pairs.csv: {message}[^\n]*$"):
        segment_pair.main(["--pairs", str(table), "--out", str(table.parent / "answers")])


def test_a_table_that_was_stopped_anywhere_continues_to_the_same_files(table, tmp_path):
    words = "--pairs", table, "--out"
    run_main(segment_pair.main, *words, tmp_path / "whole")
    for number in itertools.count(1, 5):
        out = tmp_path / "stopped" / str(number)
        was_killed = killed_at(number, out, main_with_known_answer, *words, out)
        run_main(segment_pair.main, *words, out)
        assert contents(out) == contents(tmp_path / "whole")
        if not was_killed:
            break
    assert number > 20


def test_a_table_never_replaces_what_it_reads(table, monkeypatch):
    monkeypatch.chdir(table.parent)
    run_main(segment_pair.main, "--pairs", "pairs.csv", "--out", "found")
    header = "name,query_image,query_mask,target_image\n"
    Path("found/answers.csv").write_text(f"{header}d,../here.png,../here_mask.png,../there.png\n")
    Path("next.csv").write_text(f"{header}b,here.png,here_mask.png,there.png\nc,there.png,found/b.png,here.png\n")
    shutil.copy("there.png", "answers.jpeg")
    before = {path: path.read_bytes() for path in table.parent.rglob("*.*")}
    for file, words in {
        "found/answers.csv": "--pairs found/answers.csv --out found",
        "answers.jpeg": f"{PAIR} answers.jpeg here.png --out .",
        "found/b.png": "--pairs next.csv --out found",  # of row c, and written by row b
        "found/a.jpg": "--pairs pairs.csv --out found --ckpt_path found/a.jpg",
        "found/a.png": "--pairs pairs.csv --out found --recipe found/a.png:Recipe",
    }.items():
        done = run_main(segment_pair.main, *words.split())
        line = f"error: cannot write {file}: this command reads {file}; name another place for what it writes\n"
        assert (done.returncode, done.stderr) == (1, line)
    words = ("--pairs", "pairs.csv", "--out")
    done = run_main(segment_pair.main, *words, "found", "--outline", "found")
    assert "cannot write found/answers.csv: this command reads found; name another place" in done.stderr
    for name in "answers.csv", "answers.jpeg":  # of the user, who finds them there afterwards
        Path(f"own/{name}").parent.mkdir(exist_ok=True)
        Path(f"own/{name}").write_text("my notes")
        done = run_main(segment_pair.main, *words, "own")
        line = f"error: own/{name} is of no table's run, and stays; rename it, or give another --out\n"
        assert (done.returncode, done.stderr, contents(Path("own"))) == (1, line, {name: b"my notes"})
        Path(f"own/{name}").unlink()
    Path("own/answers.csv").symlink_to("nowhere")
    assert "own/answers.csv is of no table's run" in run_main(segment_pair.main, *words, "own").stderr
    shutil.rmtree("own")
    assert {path: path.read_bytes() for path in table.parent.rglob("*.*")} == before


def test_a_damaged_mask_of_a_table_is_answered_anew(table):
    out, words = table.parent / "answers", ("--pairs", table, "--out", table.parent / "answers")
    run_main(segment_pair.main, *words)
    whole, path = contents(out), out / "a.png"
    with Image.open(path) as mask:
        mask.load()
        digest, _ = mask.info[pair_table.MADE_OF].split()
    for text in "nan", "1e999", "0x10", "-1", "", "0.5 0.5":
        info = PngInfo()
        info.add_text(pair_table.MADE_OF, f"{digest} {text}")
        write_picture(path, np.asarray(mask), pnginfo=info)
        assert run_main(segment_pair.main, *words).returncode == 3 and contents(out) == whole
    for size in 20, 150, 300:
        path.write_bytes(whole["a.png"][:size])
        done = run_main(segment_pair.main, *words)
        if size == 20:  # it does not say any more that a table made it
            assert f"left out: a: {path} is of no table's run, and stays; give another name" in done.stderr
        else:
            assert contents(out) == whole


def test_a_pair_that_was_stopped_anywhere_leaves_whole_files_and_the_next_run_nothing_of_its_own(table, tmp_path):
    pair = "--query_image", tmp_path / "here.png", "--query_mask", tmp_path / "here_mask.png"
    words = *pair, "--target_image", tmp_path / "there.png", "--out"
    run_main(segment_pair.main, *words, tmp_path / "whole")
    whole = contents(tmp_path / "whole")
    both = whole | {name.replace("there", "there_2"): content for name, content in whole.items()}
    found = []
    for number in itertools.count(1):
        out = tmp_path / "stopped" / str(number)
        was_killed = killed_at(number, out, main_with_known_answer, *words, out)
        run_main(segment_pair.main, *words, out)
        found.append(contents(out))
        if not was_killed:
            break
    assert number > 6 and whole in found and both in found and all(files in (whole, both) for files in found)


def test_a_pair_on_a_full_disk_leaves_no_mask_without_its_overlay(table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pair = f"{PAIR} there.png --out found".split()
    with monkeypatch.context() as patch:
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        patch.setattr(os, "fsync", Mock(side_effect=[None, full]))
        assert run_main(segment_pair.main, *pair).stderr.startswith(
            "error: OSError: [Errno 28] No space left on device"
        )
    assert not contents(Path("found"))
    assert run_main(segment_pair.main, *pair).returncode == 0
    assert {*contents(Path("found"))} == {"there_mask.png", "there_overlay.jpg"}


def test_two_targets_whose_numbered_names_meet_wait_for_each_other(table, tmp_path, monkeypatch, capsys):
    """there.png would take the names there_2, and there_2.png as well."""
    shutil.copy(tmp_path / "there.png", tmp_path / "there_2.png")
    monkeypatch.chdir(tmp_path)
    pair = f"{PAIR} there_2.png --out found".split()
    second = threading.Thread(target=segment_pair.main, args=(pair,))
    with claimed_elsewhere(tmp_path / "found", "output"):
        second.start()
        while "waiting for another process, which writes into found" not in capsys.readouterr().err:
            assert second.is_alive()
            time.sleep(0.01)
        (tmp_path / "found" / "there_2_mask.png").touch()  # by the other process
    second.join()
    assert {*contents(tmp_path / "found")} == {"there_2_mask.png", "there_2_2_mask.png", "there_2_2_overlay.jpg"}
