"""segment_video.py: masks of one camera in; video, masks and existence of the others out."""

import csv
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from formats.geometry import eval_size
from formats.mask_files import find_masks
from formats.mask_pictures import read_mask
from inference import segment_video
from inference.predictor import Predictor
from tests.made.networks import write_network
from tests.made.scripts import run_main
from tests.made.videos import make_video, read_number

SIZE = (96, 192)
OBJECTS = {"cup": range(0, 38, 3), "red pan": range(0, 40, 6)}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_network(folder / "net.pth")
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
    given = ["--masks", f"head={inputs / masks}", "--ckpt_path", inputs / "net.pth", "--device", "cpu", "--out", out]
    return run_main(segment_video.main, "--videos", *videos, *given, *more)


@pytest.fixture(scope="module")
def found(inputs, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("made") / "found"
    done = call(inputs, out, "--offset", "left=4")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in out.iterdir()} == {"masks", "video.mp4", "existence.csv"}
    return out


def rows_of(found):
    with (found / "existence.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_object_is_sought_in_each_other_camera_in_each_frame_in_which_it_is_visible(found):
    """Also where only one of the other cameras has a picture."""
    rows = [(row["object"], row["camera"], int(row["frame"]), int(row["camera_frame"])) for row in rows_of(found)]
    expected = {
        (name, camera, frame, frame + offset)
        for name, frames in OBJECTS.items()
        for camera, offset in {"left": 4, "right": 0}.items()
        for frame in frames
        if frame != 6 and frame + offset < 40
    }
    assert set(rows) == expected and len(rows) == len(expected)


@pytest.mark.parametrize(
    ("offset", "left_out"),
    [
        (["left=4"], {"left": "1 frame with a mask, not answered there: 36"}),
        (["head=7"], dict.fromkeys(("left", "right"), "3 frames with a mask, not answered there: 0, 3, 6")),
        (["left=-5", "right=-2"], {"left": "2 frames with a mask, not answered there: 0, 3", "right": "there: 0"}),
    ],
)
def test_frames_with_masks_that_cannot_be_answered_are_counted_and_named(inputs, tmp_path, offset, left_out):
    done = call(inputs, tmp_path / "found", "--offset", *offset)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if "no picture" in line]
    assert len(lines) == len(left_out)
    for line, (name, text) in zip(lines, left_out.items(), strict=True):
        assert line.startswith(f"{name} has no picture at ") and line.endswith(text)


def test_the_video_shows_the_cameras_side_by_side_at_one_moment(found):
    video = cv2.VideoCapture(str(found / "video.mp4"))
    frames = [image for ok, image in iter(video.read, (False, None)) if ok]
    assert len(frames) == 13 and frames[0].shape == (480, 3 * 960, 3)  # also the one in which both are hidden
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(10)  # every third frame, in the time that it took
    for image, frame in zip(frames, range(0, 39, 3), strict=True):
        head, left, right = (read_number(panel) >> 2 for panel in np.hsplit(image, 3))  # names lie over two bits
        assert (head, left, right) == (frame >> 2, 0 if frame == 36 else frame + 4 >> 2, frame >> 2)


def test_masks_can_be_read_again_and_are_numbered_as_their_own_videos_frames(found):
    masks = find_masks([found / "masks" / "left"])
    assert {name: set(frames) for name, frames in masks.objects.items()} == {
        name: {frame + 4 for frame in frames if frame != 6 and frame < 36} for name, frames in OBJECTS.items()
    }
    assert read_mask(found / "masks" / "left" / "cup" / "00004.png").shape == eval_size(SIZE)


def test_answers_are_those_of_the_predictor_told_which_camera_is_head_worn(inputs, tmp_path):
    network = write_network(tmp_path / "net.pth", strong=True)
    query, target = (read_frame(inputs / f"{camera}.mp4") for camera in ("head", "left"))
    mask = inputs / "masks" / "cup" / "00000.png"
    for name, setting in {"head": "ego-exo", "left": "exo-ego", "right": None}.items():
        found = tmp_path / name
        given = ("--ckpt_path", network, "--stride", 99, "--ego", name)
        assert call(inputs, found, *given).returncode == 0
        alone, existence = Predictor.load(network, "cpu").segment(query, mask, target, setting=setting)
        answers = {(row["object"], row["camera"], row["frame"]): row["existence"] for row in rows_of(found)}
        assert float(answers["cup", "left", "0"]) == pytest.approx(existence, abs=2e-4)
        written = cv2.resize(read_mask(found / "masks" / "left" / "cup" / "00000.png"), alone.shape[::-1])
        assert (written == alone).mean() > 0.95


def read_frame(path):
    return cv2.cvtColor(cv2.VideoCapture(str(path)).read()[1], cv2.COLOR_BGR2RGB)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--masks", "left={}/masks"), "--masks takes the masks of one camera here"),
        (("--ego", "glasses"), "--ego names camera 'glasses'; --videos has head, left, right\n"),
        (("--offset", "head=70"), "no mask in .* is of a frame that another camera has"),
        (("--ckpt_path", "nowhere.pth"), "nowhere.pth"),
        (("--out", "{}"), "exists; give another name, or delete it first"),
    ],
)
def test_what_cannot_be_is_said_in_one_line_and_leaves_nothing(inputs, tmp_path, more, message):
    done = call(inputs, tmp_path / "found", *(str(word).format(inputs) for word in more))
    assert done.returncode == 1 and done.stderr.count("error:") == 1 and not list(tmp_path.iterdir())
    assert re.search(message, done.stderr)


def test_a_mask_that_is_empty_is_said_before_anything_is_made(inputs, tmp_path):
    cv2.imwrite(str(tmp_path / "cup.png"), np.zeros(SIZE, np.uint8))
    done = call(inputs, tmp_path / "found", masks=tmp_path / "cup.png")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1) and "cup.png: no mask shows an object" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["cup.png"]


def test_ctrl_c_leaves_nothing_but_a_lock_file(inputs, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(segment_video.csv, "writer", interrupt)
    assert call(inputs, tmp_path / "found").returncode == 130
    assert not list(tmp_path.iterdir())
