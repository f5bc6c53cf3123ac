"""Stored frames are the letterboxed JPEG files bit for bit, or they are not used."""

import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from common.errors import UserError
from data import store_frames as script
from formats import geometry, stored_frames
from formats.geometry import letterbox
from formats.pairs import PairSet
from formats.processed import ProcessedTake, frame_path, read_frame
from formats.stored_frames import (
    check_stored_frames,
    count_stored,
    problem_of,
    read_letterboxed,
    store_frames,
    stored_path,
)
from inference.predict_takes import ChunkDataset, plan_take
from tests.made import EGO, ROOT
from tests.made.processed import make_unreadable
from tests.made.scripts import run_main
from tests.made.training import make_training_set
from train.dataset import SampleOptions, StepSampler, TrainSamples, make_loader

SIDE, FRAMES = 48, (0, 30, 90)


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(stored_frames, "_warned", set())


def write_frame(camera, frame, size=(90, 160), seed=0):
    camera.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed + frame).integers(0, 256, (*size, 3), np.uint8)
    cv2.imwrite(str(frame_path(camera, frame)), noise)


def decoded(camera, frame, side=SIDE):
    return letterbox(read_frame(frame_path(camera, frame)), side)


def forbid_decoding(monkeypatch):
    monkeypatch.setattr(stored_frames, "read_frame", lambda path: pytest.fail(f"{path} was decoded"))


@pytest.fixture
def camera(tmp_path):
    """A camera with three frames, which are stored."""
    for frame in FRAMES:
        write_frame(tmp_path / "cam01", frame)
    store_frames(tmp_path / "cam01", FRAMES, SIDE)
    return tmp_path / "cam01"


@pytest.fixture
def data_dir(tmp_path):
    return make_training_set(tmp_path / "data")


def store_all(data_dir, *flags, side=SIDE):
    return run_main(script.main, "--data_dir", data_dir, "--side", side, "--num_workers", 0, *flags)


@pytest.mark.parametrize("side", [33, 48, 160, 480])
@pytest.mark.parametrize(
    "size", [(88, 88), (90, 160), (91, 161), (61, 37), (160, 90), (48, 48), (7, 300), (1, 200), (704, 704), (540, 960)]
)
def test_stored_frames_are_the_letterboxed_ones_bit_for_bit(tmp_path, monkeypatch, size, side):
    for frame in FRAMES:
        write_frame(tmp_path / "cam01", frame, size)
    expected = {frame: decoded(tmp_path / "cam01", frame, side) for frame in FRAMES}
    store_frames(tmp_path / "cam01", FRAMES[::-1], side)
    assert problem_of(tmp_path / "cam01", FRAMES, side) is None
    forbid_decoding(monkeypatch)
    for frame, pixels in expected.items():
        found, its_size = read_letterboxed(tmp_path / "cam01", frame, side)
        assert its_size == size and found.dtype == np.uint8 and np.array_equal(found, pixels)


def test_without_stored_frames_of_the_input_size_the_jpeg_file_is_read(camera, capsys):
    found, size = read_letterboxed(camera, 30, 96)
    assert size == (90, 160) and np.array_equal(found, decoded(camera, 30, 96))
    with pytest.raises(UserError, match=r"frame .*/60\.jpg is missing"):
        read_letterboxed(camera, 60, 96)
    assert not capsys.readouterr().err


def test_the_file_has_no_padding_and_is_not_left_open(camera):
    assert stored_path(camera, SIDE).stat().st_size == 40 + 3 * (24 + 27 * 48 * 3)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for frame in FRAMES:
        read_letterboxed(camera, frame, SIDE)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def rewrite(camera):
    write_frame(camera, 30, seed=1)


def rewrite_with_as_many_bytes(camera):
    path = frame_path(camera, 30)
    n_bytes, mtime_ns = path.stat().st_size, path.stat().st_mtime_ns
    flat = cv2.imencode(".jpg", np.full((90, 160, 3), 200, np.uint8))[1].tobytes()
    path.write_bytes(flat.ljust(n_bytes, b"\0"))
    os.utime(path, ns=(0, mtime_ns + 1))


def forget_times(camera):
    for frame in FRAMES:
        os.utime(frame_path(camera, frame), (10**9, 10**9))


def take_another_camera(camera):
    other = camera.with_name("cam02")
    for frame in FRAMES:
        write_frame(other, frame, seed=1)
    store_frames(other, FRAMES, SIDE)
    stored_path(other, SIDE).replace(stored_path(camera, SIDE))
    shutil.rmtree(other)


def take_another_side(camera):
    store_frames(camera, FRAMES, 33)
    stored_path(camera, 33).replace(stored_path(camera, SIDE))


def without_frame_30(camera):
    store_frames(camera, (0, 90), SIDE)


def cut(n_bytes):
    return lambda camera: os.truncate(stored_path(camera, SIDE), n_bytes)


def cut_end(camera):
    os.truncate(stored_path(camera, SIDE), stored_path(camera, SIDE).stat().st_size - 1)


def write_at(place, content):
    def damage(camera):
        with stored_path(camera, SIDE).open("r+b") as file:
            file.seek(place, os.SEEK_SET if place >= 0 else os.SEEK_END)
            file.write(content)

    return damage


UNFIT, OTHER, PART = "does not fit .*30.jpg", "holds no frames of 48 pixels", "is not whole"


def put_pipe(camera):
    stored_path(camera, SIDE).unlink()
    os.mkfifo(stored_path(camera, SIDE))


DAMAGES = {
    "another JPEG file": (rewrite, UNFIT),
    "another JPEG file of as many bytes": (rewrite_with_as_many_bytes, UNFIT),
    "copied without times": (forget_times, "does not fit .*.jpg"),
    "another camera's": (take_another_camera, "does not fit .*.jpg"),
    "of another input size": (take_another_side, OTHER),
    "lacks a frame": (without_frame_30, UNFIT),
    "empty": (cut(0), OTHER),
    "cut in its head": (cut(20), OTHER),
    "cut in its rows": (cut(90), PART),
    "cut in its pixels": (cut_end, PART),
    "longer": (lambda camera: stored_path(camera, SIDE).open("ab").write(b"x"), PART),
    "foreign": (lambda camera: stored_path(camera, SIDE).write_bytes(b"x" * 9000), OTHER),
    "of another version": (write_at(0, b"frames 0"), OTHER),
    "of another shape": (write_at(16, (160).to_bytes(8, "little")), PART),
    "of an absurd shape": (write_at(16, b"\x7f" * 8), OTHER),
    "of no frames": (write_at(32, bytes(8)), PART),
    "of absurdly many frames": (write_at(32, b"\x7f" * 8), PART),
    "of negatively many frames": (write_at(32, b"\xff" * 8), PART),
    "a pipe": (put_pipe, "cannot be read"),
    "unreadable": (lambda camera: make_unreadable(stored_path(camera, SIDE)), "cannot be read"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_what_does_not_fit_is_said_once_and_not_used(camera, capsys, name):
    damage, reason = DAMAGES[name]
    damage(camera)
    for _ in range(2):
        found, size = read_letterboxed(camera, 30, SIDE)
        assert size == (90, 160) and np.array_equal(found, decoded(camera, 30))
    (line,) = capsys.readouterr().err.splitlines()
    path = re.escape(str(stored_path(camera, SIDE)))
    assert re.fullmatch(rf"warning: {path} {reason}.*; run data/store_frames.py --side 48 again", line)
    assert re.search(reason, problem_of(camera, FRAMES, SIDE))
    (problem,) = check_stored_frames(camera, FRAMES)
    assert re.fullmatch(rf"cam01.48.frames {reason}.*; run data/store_frames.py --side 48 again or delete it", problem)
    store_frames(camera, FRAMES, SIDE)
    assert not check_stored_frames(camera, FRAMES)


def test_a_frame_whose_jpeg_file_is_gone_is_missing_though_it_is_stored(camera):
    frame_path(camera, 30).unlink()
    with pytest.raises(UserError, match=r"frame .*/30\.jpg is missing"):
        read_letterboxed(camera, 30, SIDE)
    assert "does not fit 1 JPEG file, the first is 30.jpg" in check_stored_frames(camera, FRAMES)[0]


def test_an_archive_may_cut_the_times_of_jpeg_files_to_seconds(camera, monkeypatch, capsys):
    path = frame_path(camera, 30)
    second = path.stat().st_mtime_ns // 10**9
    os.utime(path, ns=(0, second * 10**9))
    with monkeypatch.context() as patched:
        forbid_decoding(patched)
        read_letterboxed(camera, 30, SIDE)
    os.utime(path, ns=(0, (second + 1) * 10**9))
    read_letterboxed(camera, 30, SIDE)
    assert "does not fit 30.jpg" in capsys.readouterr().err


def test_a_check_looks_at_the_files_of_its_camera_for_all_input_sizes(camera):
    for name in ("cam01", "cam01.b", "cam0"):
        for side in (33, 40):
            stored_path(camera.with_name(name), side).write_bytes(b"foreign")
    assert [line.split()[0] for line in check_stored_frames(camera, FRAMES)] == ["cam01.33.frames", "cam01.40.frames"]


def test_training_says_how_many_cameras_have_stored_frames_and_that_some_do_not_fit(camera, capsys):
    other, bare = camera.with_name("cam02"), camera.with_name("cam03")
    a_frame = {camera: 30, other: 0, bare: 0}
    for folder in (other, bare):
        write_frame(folder, 0)
    store_frames(other, [0], SIDE)
    assert count_stored(a_frame, SIDE) == "2 of 3 cameras"
    assert count_stored(a_frame, 96) == "0 of 3 cameras"
    write_frame(other, 0, seed=1)
    text = f"1 of 3 cameras; 1 more cannot be used, the first: {stored_path(other, SIDE)} does not fit 1 JPEG file"
    assert count_stored(a_frame, SIDE).startswith(text)
    read_letterboxed(other, 0, SIDE)
    assert not capsys.readouterr().err  # it has been said


def arrays(sample):
    return {name: value.tobytes() if isinstance(value, np.ndarray) else value for name, value in sample.items()}


@pytest.mark.parametrize(
    "options", [SampleOptions(), SampleOptions(block=0, zoom=2, closer_look=True)], ids=["paper", "strong"]
)
def test_200_samples_of_either_recipe_are_the_same_with_stored_frames(data_dir, monkeypatch, options):
    monkeypatch.setattr(geometry, "CROP_EXTENT", 1)  # these objects are large
    samples = TrainSamples(PairSet.open(data_dir, "train", "ego-exo"), SIDE, 0, options=options)
    before = [arrays(samples[n]) for n in range(200)]
    assert any(sample["sources"].target.corner for sample in before) == options.closer_look
    assert store_all(data_dir, side=options.zoom * SIDE).returncode == 0
    forbid_decoding(monkeypatch)
    assert [arrays(samples[n]) for n in range(200)] == before


def test_two_workers_and_a_pickled_copy_read_the_same_stored_frames(data_dir, monkeypatch):
    samples = TrainSamples(PairSet.open(data_dir, "train", "ego-exo"), SIDE, 0)
    before = list(make_loader(samples, StepSampler(range(6), 4), 0, pin=False))
    assert store_all(data_dir).returncode == 0
    forbid_decoding(monkeypatch)  # workers are forked
    for batch, former in zip(make_loader(samples, StepSampler(range(6), 4), 2, pin=False), before, strict=True):
        assert batch.sources == former.sources and not batch.unreadable
        assert all(torch.equal(tensor, former.tensors()[name]) for name, tensor in batch.tensors().items())
    assert arrays(pickle.loads(pickle.dumps(samples))[7]) == arrays(samples[7])


@pytest.mark.parametrize("video_size", [True, False])
def test_prediction_reads_the_same_chunks_with_stored_frames(data_dir, monkeypatch, video_size):
    if not video_size:
        monkeypatch.setattr(ProcessedTake, "video_size", lambda *_: None)  # then that of the frame
    take = ProcessedTake.read(data_dir, "uid-a")
    chunks = ChunkDataset(data_dir, "ego-exo", SIDE, plan_take(take, "ego-exo", 4).chunks)
    before = [chunks[n] for n in range(len(chunks))]
    assert store_all(data_dir).returncode == 0
    forbid_decoding(monkeypatch)
    for n, former in enumerate(before):
        chunk = chunks[n]
        assert chunk[:2] == former[:2]
        assert all(map(torch.equal, chunk.batch, former.batch))


def stored_files(data_dir):
    return {path: path.stat().st_mtime_ns for path in data_dir.glob(f"*/*.{SIDE}.frames")}


def test_a_rerun_writes_only_what_is_missing_or_out_of_date(data_dir):
    run = store_all(data_dir)
    assert run.returncode == 0 and re.fullmatch(r"stored frames: 12 cameras of 4 takes, [\d.]+ GB\n", run.stdout)
    before = stored_files(data_dir)
    assert len(before) == 12
    changed, gone = (stored_path(data_dir / "uid-a" / camera, SIDE) for camera in ("cam01", "cam02"))
    gone.unlink()
    write_frame(data_dir / "uid-a" / "cam01", 60)
    assert store_all(data_dir).returncode == 0
    after = stored_files(data_dir)
    assert after.keys() == before.keys()
    assert {path for path in before if after[path] != before[path]} == {changed, gone}


def test_a_camera_with_a_frame_that_cannot_be_read_is_left_out_and_listed(data_dir):
    take = data_dir / "uid-a"
    frame_path(take / "cam01", 30).unlink()
    frame_path(take / "cam02", 60).write_bytes(b"no picture")
    write_frame(take / EGO, 60, (90, 160))
    (data_dir / "uid-b" / "annotation.json").write_text("{}")
    run = store_all(data_dir)
    assert run.returncode == 1 and run.stdout.startswith("stored frames: 6 cameras of 4 takes, ")
    lines = [line for line in run.stderr.splitlines() if line.startswith("left out: ")]
    expected = [
        rf"take uid-a, camera {EGO}: frame .*/60\.jpg has another size than those before it; process its take again",
        r"take uid-a, camera cam01: frame .*/30\.jpg is missing; .*",
        r"take uid-a, camera cam02: frame .*/60\.jpg cannot be decoded; .*",
        r".*/uid-b/annotation\.json is malformed .*",
    ]
    assert len(lines) == 4 and all(map(re.fullmatch, [f"left out: {text}" for text in expected], lines))
    assert not list(take.glob("*.frames*"))


def test_frames_that_no_pair_needs_are_not_stored(data_dir):
    write_frame(data_dir / "uid-a" / "cam01", 120)
    write_frame(data_dir / "uid-a" / "cam09", 0)
    assert store_all(data_dir, "--split", "train").returncode == 0
    assert len(stored_files(data_dir)) == 9 and not list((data_dir / "uid-d").glob("*.frames"))
    assert problem_of(data_dir / "uid-a" / "cam01", [0, 30, 60, 90], SIDE) is None
    assert problem_of(data_dir / "uid-a" / "cam01", [120], SIDE)


def test_without_a_processed_take_there_is_nothing_to_store(tmp_path):
    (tmp_path / "split.json").write_text(json.dumps({"train": ["uid-a"]}))
    run = run_main(script.main, "--data_dir", tmp_path)
    assert run.returncode == 1 and "holds no take of train; run data/process_data.py first" in run.stderr


KILLED_AT_A_FRAME = """
import os, signal, sys
from data import store_frames
from formats import stored_frames

read_frame, last = stored_frames.read_frame, int(sys.argv.pop())
def read(path):
    global last
    last -= 1
    if last == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return read_frame(path)

stored_frames.read_frame = read
store_frames.main()
"""


@pytest.mark.parametrize("frame", [1, 3, 6])
def test_a_killed_run_leaves_whole_files_only_and_the_next_one_continues(data_dir, tmp_path, frame):
    expected = shutil.copytree(data_dir.parent, tmp_path / "whole") / "processed"
    assert store_all(expected).returncode == 0
    words = ["--data_dir", data_dir, "--side", SIDE, "--num_workers", 0, frame]
    run = subprocess.run([sys.executable, "-c", KILLED_AT_A_FRAME, *map(str, words)], cwd=ROOT, capture_output=True)
    assert run.returncode == -signal.SIGKILL
    assert len(list(data_dir.glob("*/.*.tmp"))) == 1
    before = stored_files(data_dir)
    assert len(before) == (frame - 1) // 4  # of four frames each
    assert store_all(data_dir).returncode == 0
    assert before.items() <= stored_files(data_dir).items() and not list(data_dir.glob("*/.*.tmp"))
    for path in stored_files(expected):
        assert path.read_bytes() == (data_dir / path.relative_to(expected)).read_bytes()


def test_two_writers_wait_for_each_other_and_write_each_file_once(data_dir):
    words = ["--data_dir", data_dir, "--side", SIDE, "--num_workers", 0]
    command = [sys.executable, str(ROOT / "data/store_frames.py"), *map(str, words)]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    texts = [run.communicate(timeout=60) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], texts
    assert [out for out, _ in texts] == ["stored frames: 12 cameras of 4 takes, 0.0 GB\n"] * 2
    assert not list(data_dir.glob("*/.*.tmp"))
    assert all(
        problem_of(path.parent / path.name.split(".")[0], FRAMES, SIDE) is None for path in stored_files(data_dir)
    )
