"""A data set goes through a small disk take by take, whatever the download and kills do to it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data import stream_takes
from tests.made import EGO, ROOT
from tests.made.raw_takes import EXO_1, NAMES, assert_complete, failures, process, tree, video, write_takes
from tests.made.scripts import exit_status

A, B, C = "uid-a", "uid-b", "uid-c"

# In the place of the real one: copies takes from a folder, in the ways that `modes` says, call by call.
EGOEXO = """#!{python} -ES
import json, os, shutil, sys, time
from pathlib import Path

source, out, uid = Path("{source}"), Path(sys.argv[2]), sys.argv[sys.argv.index("--uids") + 1]
calls = source / "calls"
calls.open("a").write(" ".join(sys.argv[1:]) + "\\n")
number = calls.read_text().count(uid) - 1
modes = json.loads((source / "modes.json").read_text()).get(uid, ["copy"])
mode = modes[min(number, len(modes) - 1)]
name = {names!r}[uid]
if mode == "fail":
    print("WARN: failed to fetch 3 files\\nPlease retry the download")
    sys.exit(2)
if mode == "warn":
    print("WARN: failed to get stats for 3 files, will skip.")
    sys.exit(0)
for path in sorted((source / "takes" / name).rglob("*.mp4")) if mode != "nothing" else []:
    if mode == "no exo" and path.stem == "cam01":
        continue
    target = out / path.relative_to(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    time.sleep({{"slow": 0.1, "slower": 0.4}}.get(mode, 0))
    data = path.read_bytes()
    if target.exists() and target.stat().st_size == len(data):
        continue
    half = mode == "half" and path.stem == "cam01"
    target.write_bytes(data[: len(data) // 2] if half else data)
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    root = tmp_path_factory.mktemp("original")
    write_takes(root)
    return root


@pytest.fixture(scope="module")
def undisturbed(original, tmp_path_factory):
    """What process_data.py makes of the same takes."""
    out = tmp_path_factory.mktemp("undisturbed")
    assert process(original, "--outputpath", out) == 0
    return tree(out)


class Disk:
    """A data set's folder without videos, and an `egoexo` that delivers them."""

    def __init__(self, folder, original):
        self.root, self.source = folder / "root", folder / "source"
        shutil.copytree(original / "annotations", self.root / "annotations")
        shutil.copy(original / "split.json", self.root)
        self.source.mkdir()
        (self.source / "takes").symlink_to(original / "takes")
        self.modes()
        (folder / "bin").mkdir()
        egoexo = folder / "bin" / "egoexo"
        egoexo.write_text(EGOEXO.format(python=sys.executable, source=self.source, names=NAMES))
        egoexo.chmod(0o755)
        self.processed = self.root / "processed"

    def modes(self, **modes):
        by_uid = {name.replace("_", "-"): mode for name, mode in modes.items()}
        (self.source / "modes.json").write_text(json.dumps(by_uid))
        (self.source / "calls").write_text("")

    @property
    def calls(self):
        return (self.source / "calls").read_text().splitlines()

    @property
    def videos(self):
        return sorted(str(path.relative_to(self.root / "takes")) for path in self.root.rglob("*.mp4"))

    def command(self, *flags):
        return [str(part) for part in ("--root", self.root, "--num_workers", 1, *flags)]

    def stream(self, *flags):
        """Run stream_takes.py in this process; returns its exit status."""
        return exit_status(stream_takes.main, *self.command(*flags))

    def start(self, *flags):
        """Start it in a process of its own."""
        command = [sys.executable, str(ROOT / "data" / "stream_takes.py"), *self.command(*flags)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture
def disk(original, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return Disk(tmp_path, original)


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def without_lists(files):
    return {name: content for name, content in files.items() if "failed" not in name}


def test_all_takes_are_processed_and_no_video_is_left(disk, undisturbed):
    assert disk.stream() == 0
    assert tree(disk.processed) == undisturbed
    assert disk.videos == []
    assert list((disk.root / "takes").iterdir()) == []
    assert disk.calls == [f"-o {disk.root} --parts takes --uids {uid} --yes" for uid in (A, B, C)]


def test_a_rerun_downloads_nothing(disk, undisturbed, capsys):
    disk.stream()
    disk.modes()
    assert disk.stream() == 0
    assert disk.calls == []
    assert capsys.readouterr().out.count("was done before") == 3
    assert tree(disk.processed) == undisturbed


def test_one_split_is_done_when_one_is_asked_for(disk):
    assert disk.stream("--split", "val") == 0
    assert len(disk.calls) == 1
    assert_complete(disk.processed, C)


@pytest.mark.parametrize("mode", ["fail", "warn"])
def test_a_failed_download_is_listed_and_tried_again_in_the_next_run(disk, undisturbed, mode, capsys):
    disk.modes(uid_a=[mode, "copy"])
    assert disk.stream() == 1
    assert "uid-a): download failed with status" in capsys.readouterr().out
    assert [row["take_uid"] for row in failures(disk.processed)] == [A]
    assert "WARN: failed" in failures(disk.processed)[0]["reason"]
    for uid in (B, C):
        assert_complete(disk.processed, uid)
    assert disk.stream() == 0
    assert tree(disk.processed) == undisturbed
    assert disk.videos == []


def test_half_a_file_is_downloaded_once_more(disk, undisturbed):
    disk.modes(uid_b=["half", "copy"])
    assert disk.stream() == 0
    assert tree(disk.processed) == undisturbed
    assert disk.videos == []
    assert sum(B in call for call in disk.calls) == 2


def test_videos_of_a_take_with_a_broken_one_are_kept_until_it_is_whole(disk, undisturbed, capsys):
    disk.modes(uid_b=["half"])
    assert disk.stream() == 1
    assert "its videos are kept: " in capsys.readouterr().out
    assert {Path(path).parts[0] for path in disk.videos} == {NAMES[B]}
    assert len(disk.videos) == 3
    assert_complete(disk.processed, B, without=(EXO_1,))
    assert [(row["take_uid"], row["camera"]) for row in failures(disk.processed)] == [(B, EXO_1)]
    disk.modes(uid_b=["copy"])
    assert disk.stream() == 0
    assert tree(disk.processed) == undisturbed
    assert disk.videos == []


def test_a_withdrawn_take_is_listed_and_no_failure(disk):
    disk.modes(uid_a=["nothing"])
    assert disk.stream() == 0
    assert {row["kind"] for row in failures(disk.processed)} == {"missing"}
    assert not (disk.processed / A / "annotation.json").exists()
    assert list((disk.root / "takes").iterdir()) == []


def test_a_withdrawn_camera_costs_the_others_nothing(disk, undisturbed):
    disk.modes(uid_a=["no exo"])
    assert disk.stream() == 0
    assert disk.videos == []
    assert_complete(disk.processed, A, without=(EXO_1,))
    disk.modes()
    assert disk.stream() == 0
    assert disk.calls == []
    assert disk.stream("--retry") == 0
    assert len(disk.calls) == 1
    assert tree(disk.processed) == undisturbed
    assert disk.videos == []


def test_videos_that_were_there_before_are_used_and_kept(disk, original, undisturbed, capsys):
    shutil.copytree(original / "takes" / NAMES[A], disk.root / "takes" / NAMES[A])
    assert disk.stream() == 0
    assert "done; its videos, which were there before, are kept" in capsys.readouterr().out
    assert tree(disk.processed) == undisturbed
    assert {Path(path).parts[0] for path in disk.videos} == {NAMES[A]}
    assert tree(disk.root / "takes" / NAMES[A]) == tree(original / "takes" / NAMES[A])


def test_videos_stay_as_long_as_a_frame_made_of_them_cannot_be_decoded(disk):
    frame = disk.processed / A / EGO / "30.jpg"
    frame.parent.mkdir(parents=True)
    frame.write_bytes(b"what a failing disk might leave")
    disk.stream()
    assert {Path(path).parts[0] for path in disk.videos} == {NAMES[A]}
    frame.unlink()
    (disk.processed / A / "annotation.json").unlink()
    assert disk.stream() == 0
    assert disk.videos == []


def test_other_files_of_a_take_are_kept(disk):
    notes = disk.root / "takes" / NAMES[A] / "trajectory" / "notes.csv"
    notes.parent.mkdir(parents=True)
    notes.write_text("x")
    assert disk.stream() == 0
    assert disk.videos == []
    assert [path for path in (disk.root / "takes").rglob("*") if path.is_file()] == [notes]


def test_downscaled_videos_are_asked_for_and_used(disk, original, tmp_path):
    small = tmp_path / "small"
    for name in NAMES.values():
        for path in (original / "takes" / name / "frame_aligned_videos").iterdir():
            target = small / "takes" / name / "frame_aligned_videos" / "downscaled" / "448" / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    (disk.source / "takes").unlink()
    (disk.source / "takes").symlink_to(small / "takes")
    assert disk.stream("--downscaled", "--", "--s3_profile", "work") == 0
    expected = f"-o {disk.root} --parts downscaled_takes/448 --uids {A} --yes --s3_profile work"
    assert disk.calls[0] == expected
    for uid in NAMES:
        assert_complete(disk.processed, uid)
    assert disk.videos == []


def test_it_gives_up_when_no_take_can_be_downloaded(disk, monkeypatch, capsys):
    monkeypatch.setattr("data.streaming.GIVE_UP", 2)
    disk.modes(uid_a=["fail"], uid_b=["fail"], uid_c=["fail"])
    assert disk.stream() == 1
    assert "error: 2 takes in a row could not be downloaded; see " in capsys.readouterr().err


def test_a_missing_egoexo_is_one_line(disk, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "/nowhere")
    assert disk.stream() == 1
    assert capsys.readouterr().err.startswith("error: no egoexo command; pip install ego4d")


@pytest.mark.parametrize("killing", [signal.SIGKILL, signal.SIGINT])
def test_it_can_be_stopped_at_any_time(disk, undisturbed, killing):
    disk.modes(uid_a=["slow"], uid_b=["slow"], uid_c=["slow"])
    before = set()
    for delay in (0.6, 1.3):
        run = disk.start()
        time.sleep(delay)
        run.send_signal(killing)
        run.communicate()
        done = {name for uid, name in NAMES.items() if (disk.processed / uid / "annotation.json").exists()}
        lost = before - set(disk.videos)
        assert {Path(path).parts[0] for path in lost} <= done, "a video was deleted before its take was done"
        before = set(disk.videos)
    assert disk.stream() == 0
    assert without_lists(tree(disk.processed)) == without_lists(undisturbed)
    assert disk.videos == []


def test_a_run_waits_for_the_download_of_a_killed_one(disk, undisturbed):
    disk.modes(uid_a=["slower", "copy"])
    run = disk.start()
    wait_for(lambda: disk.calls)
    run.kill()
    run.communicate()
    out, _ = disk.start().communicate(timeout=30)
    assert out.startswith("waiting for another process that works on this data set, perhaps a killed run's download")
    assert tree(disk.processed) == undisturbed


def test_ctrl_c_ends_the_download_too(disk):
    disk.modes(uid_a=["slow"])
    run = disk.start()
    wait_for(lambda: disk.calls)
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=5)
    assert run.returncode == 130
    before = disk.videos
    time.sleep(0.3)
    assert disk.videos == before
    assert not video(disk.root, NAMES[C], EGO).exists()
