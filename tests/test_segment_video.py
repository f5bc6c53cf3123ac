"""segment_video.py: masks of one camera in; video, masks and existence of the others out."""

import csv
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from formats.geometry import eval_size
from formats.mask_files import find_masks
from formats.results import THRESHOLD
from inference import segment_video
from inference.matcher import Matcher, mask_in_image
from inference.predictor import Predictor
from model.backbone import normalize_image
from model.checkpoint import save_checkpoint
from model.xsegtx import XSegTx, XSegTxConfig
from tests.made.networks import calibrate_batch_norm, random_backbone
from tests.made.scripts import run_main
from tests.made.videos import make_video, read_number

SIZE = (96, 192)
OBJECTS = {"cup": range(0, 38, 3), "red pan": range(0, 40, 6)}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    torch.manual_seed(0)
    backbone = random_backbone(0)
    calibrate_batch_norm(backbone, [normalize_image(torch.randint(0, 256, (2, 96, 96, 3), dtype=torch.uint8))])
    save_checkpoint(folder / "net.pth", backbone, XSegTx(XSegTxConfig("tiny", 96)))
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


def words(inputs, out):
    videos = [f"{name}={inputs}/{name}.mp4" for name in ("head", "left", "right")]
    network = ["--ckpt_path", inputs / "net.pth", "--device", "cpu"]
    return ["--videos", *videos, "--masks", f"head={inputs}/masks", *network, "--out", out]


def call(inputs, out, *more):
    return run_main(segment_video.main, *words(inputs, out), *more)


@pytest.fixture(scope="module")
def found(inputs, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("made") / "found"
    done = call(inputs, out, "--offset", "left=4", "--height", 96)
    assert done.returncode == 0, done.stderr
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
        ({"left": 4}, {"left": "1 frame with a mask, not answered there: 36"}),
        ({"left": -5}, {"left": "2 frames with a mask, not answered there: 0, 3"}),
        ({"head": 7}, dict.fromkeys(("left", "right"), "3 frames with a mask, not answered there: 0, 3, 6")),
        ({"left": -5, "right": -2}, {"left": "2 frames with a mask, not answered there: 0, 3", "right": "there: 0"}),
        ({"left": 30}, {"left": "9 frames with a mask, not answered there: 12, 15, 18, 21, 24, 27, 30, 33, 36"}),
        ({}, {}),
    ],
)
def test_frames_with_masks_that_cannot_be_answered_are_counted_and_named(inputs, tmp_path, offset, left_out):
    done = call(
        inputs, tmp_path / "found", "--offset", *(f"{name}={frame}" for name, frame in (offset or {"left": 0}).items())
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if "no picture" in line]
    assert len(lines) == len(left_out)
    for line, (name, text) in zip(lines, left_out.items(), strict=True):
        assert line.startswith(f"{name} has no picture at ") and line.endswith(text)


def test_the_video_shows_the_cameras_side_by_side_at_one_moment(found):
    video = cv2.VideoCapture(str(found / "video.mp4"))
    frames = [image for ok, image in iter(video.read, (False, None)) if ok]
    assert len(frames) == 13 and frames[0].shape == (96, 3 * 192, 3)  # also the one in which both are hidden
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(10)  # every third frame, in the time that it took
    for image, frame in zip(frames, range(0, 39, 3), strict=True):
        head, left, right = (read_number(panel) >> 2 for panel in np.hsplit(image, 3))  # names lie over two bits
        assert (head, left, right) == (frame >> 2, 0 if frame == 36 else frame + 4 >> 2, frame >> 2)


def test_masks_can_be_read_again_and_are_numbered_as_their_own_videos_frames(found):
    masks = find_masks([found / "masks" / "left"])
    assert {name: set(frames) for name, frames in masks.objects.items()} == {
        name: {frame + 4 for frame in frames if frame != 6 and frame < 36} for name, frames in OBJECTS.items()
    }
    shape = cv2.imread(str(found / "masks" / "left" / "cup" / "00004.png"), cv2.IMREAD_UNCHANGED).shape
    assert shape == eval_size(SIZE)


def test_answers_are_those_of_the_predictor(inputs, found):
    predictor = Predictor.load(inputs / "net.pth", "cpu")
    query, target = (read_frame(inputs / f"{name}.mp4", number) for name, number in (("head", 12), ("left", 16)))
    query_mask = cv2.imread(str(inputs / "masks" / "cup" / "00012.png"), cv2.IMREAD_UNCHANGED)
    _, existence = predictor.segment(query, query_mask, target)
    row = next(row for row in rows_of(found) if (row["object"], row["camera"], row["frame"]) == ("cup", "left", "12"))
    assert float(row["existence"]) == pytest.approx(existence, abs=2e-4)


def read_frame(path, number):
    video = cv2.VideoCapture(str(path))
    images = [image for _, image in (video.read() for _ in range(number + 1))]
    return cv2.cvtColor(images[-1], cv2.COLOR_BGR2RGB)


def test_a_frames_images_are_encoded_once(inputs, tmp_path, monkeypatch):
    batches = []
    original = Matcher.predict
    monkeypatch.setattr(Matcher, "predict", lambda self, batch: batches.append(batch) or original(self, batch))
    assert call(inputs, tmp_path / "found", "--stride", 4).returncode == 0
    assert [(len(batch.images), len(batch.masks), len(batch.pair_mask)) for batch in batches] == [
        (3, 2, 4) if frame % 6 == 0 else (3, 1, 2) for frame in range(0, 40, 12)
    ]


def test_a_mask_in_its_image_is_the_probability_enlarged_and_cut(size=(45, 80)):
    prob = torch.rand(1, 32, 32)
    expected = cv2.resize(prob[0].numpy(), (80, 80), interpolation=cv2.INTER_LINEAR)[17:62] > THRESHOLD
    assert (mask_in_image(prob, size)[0].numpy() != expected).mean() < 0.01


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--masks", "left={}/masks"), "--masks takes the masks of one camera here"),
        (("--offset", "head=70"), "no mask in .* is of a frame that another camera has"),
        (("--ckpt_path", "nowhere.pth"), "nowhere.pth"),
        (
            ("--height", 20000),
            "--height 20000 makes a video of 120000x20000 pixels, more than H.264's 16384; give less",
        ),
        (("--out", "{}"), "exists; give another name, or delete it first"),
    ],
)
def test_what_cannot_be_is_said_in_one_line_and_leaves_nothing(inputs, tmp_path, more, message):
    done = call(inputs, tmp_path / "found", *(str(word).format(inputs) for word in more))
    assert done.returncode == 1 and done.stderr.count("error:") == 1 and not list(tmp_path.iterdir())
    assert re.search(message, done.stderr)


def test_masks_hours_apart_make_a_video_that_players_show(inputs, tmp_path):
    for name in ("head", "left"):
        (tmp_path / name).mkdir()
        for number in range(3):
            cv2.imwrite(str(tmp_path / name / f"{number}.png"), np.full((*SIZE, 3), 80 * number, np.uint8))
    videos = [f"{name}={tmp_path / name}" for name in ("head", "left")]
    masks = ["--masks", f"head={inputs / 'masks' / 'cup' / '00000.png'}", "--mask_frame", 2]
    done = run_main(segment_video.main, "--videos", *videos, *masks, "--fps", 0.001, "--out", tmp_path / "found")
    assert done.returncode == 0, done.stderr
    assert [float(row["seconds"]) for row in rows_of(tmp_path / "found")] == [2000]


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.97])
def test_a_disk_that_is_full_before_the_video_is_written_is_said_in_one_line_and_nothing_stays(
    inputs, found, tmp_path, share
):
    limit = int(share * (found / "video.mp4").stat().st_size)
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, former[1]))
    try:
        done = call(inputs, tmp_path / "found", "--offset", "left=4", "--height", 96)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and last.startswith("error: ") and "video.mp4" in last and "too large" in last
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]


def test_a_second_run_into_the_same_folder_waits_and_then_leaves_it_alone(inputs, tmp_path, monkeypatch):
    runs = []

    def run_again(*given):
        command = [sys.executable, segment_video.__file__, *map(str, words(inputs, tmp_path / "found"))]
        runs.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        said = iter(runs[0].stderr.readline, "")
        assert any(line.startswith(f"waiting for process {os.getpid()} ") for line in said)
        plot_existence(*given)

    plot_existence = segment_video.plot_existence
    monkeypatch.setattr(segment_video, "plot_existence", run_again)
    assert call(inputs, tmp_path / "found").returncode == 0
    _, said = runs[0].communicate(timeout=300)
    assert runs[0].returncode == 1 and "exists; give another name, or delete it first" in said
    answers = {
        f"masks/{row['camera']}/{row['object']}/{int(row['camera_frame']):05d}.png"
        for row in rows_of(tmp_path / "found")
    }
    files = {str(path.relative_to(tmp_path / "found")) for path in (tmp_path / "found").rglob("*.*")}
    assert files == answers | {"video.mp4", "existence.csv", "existence.png"}


def test_ctrl_c_leaves_nothing_but_a_lock_file(inputs, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(segment_video, "plot_existence", interrupt)
    assert call(inputs, tmp_path / "found").returncode == 130
    assert [path.name for path in tmp_path.iterdir()] == [".found.lock"]
