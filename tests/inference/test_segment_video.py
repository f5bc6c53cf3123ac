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
from tests.made.scripts import run_main
from tests.made.videos import make_video, read_number

SIZE = (96, 192)
OBJECTS = {"cup": range(0, 38, 3), "red pan": range(0, 40, 6)}


@pytest.fixture(scope="module")
def inputs(checkpoint, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "net.pth").symlink_to(checkpoint)
    for name in ("head", "left", "right"):
        make_video(folder / f"{name}.mp4", 40, SIZE)
    cv2.imwrite(str(folder / "empty.png"), np.zeros(SIZE, np.uint8))
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
    masks = find_masks([found / "masks" / "left"]).objects  # numbered as the frames of their own video
    of_left = {(name, frame) for name, camera, _, frame in expected if camera == "left"}
    assert {(name, frame) for name, frames in masks.items() for frame in frames} == of_left
    assert read_mask(found / "masks" / "left" / "cup" / "00004.png").shape == eval_size(SIZE)


@pytest.mark.parametrize(
    ("offset", "left_out"),
    [
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


def test_answers_are_those_of_the_predictor_told_which_camera_is_head_worn(inputs, strong_checkpoint, tmp_path):
    query, target = (read_frame(inputs / f"{camera}.mp4") for camera in ("head", "left"))
    mask = inputs / "masks" / "cup" / "00000.png"
    for name, setting in {"head": "ego-exo", "left": "exo-ego", "right": None}.items():
        out = tmp_path / name
        assert call(inputs, out, "--ckpt_path", strong_checkpoint, "--stride", 99, "--ego", name).returncode == 0
        alone, existence = Predictor.load(strong_checkpoint, "cpu").segment(query, mask, target, setting=setting)
        answers = {(row["object"], row["camera"], row["frame"]): row["existence"] for row in rows_of(out)}
        assert float(answers["cup", "left", "0"]) == pytest.approx(existence, abs=2e-4)
        written = cv2.resize(read_mask(out / "masks" / "left" / "cup" / "00000.png"), alone.shape[::-1])
        assert (written == alone).mean() > 0.95


def read_frame(path):
    return cv2.cvtColor(cv2.VideoCapture(str(path)).read()[1], cv2.COLOR_BGR2RGB)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--masks", "head={}/empty.png"), "empty.png: no mask shows an object"),
        (("--masks", "left={}/masks"), "--masks takes the masks of one camera here"),
        (("--ego", "glasses"), "--ego names camera 'glasses'; --videos has head, left, right\n"),
        (("--offset", "head=70"), "no mask in .* is of a frame that another camera has"),
        (("--out", "{}"), "exists; give another name, or delete it first"),
    ],
)
def test_what_cannot_be_is_said_in_one_line_and_leaves_nothing(inputs, tmp_path, more, message):
    done = call(inputs, tmp_path / "found", *(str(word).format(inputs) for word in more))
    assert done.returncode == 1 and done.stderr.count("error:") == 1 and not list(tmp_path.iterdir())
    assert re.search(message, done.stderr)


def test_ctrl_c_leaves_nothing_but_a_lock_file(inputs, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(segment_video.csv, "writer", interrupt)
    assert call(inputs, tmp_path / "found").returncode == 130
    assert not list(tmp_path.iterdir())
