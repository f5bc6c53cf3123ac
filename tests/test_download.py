"""The download scripts get what is missing, keep only what is whole, and say in one line what went wrong."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.made.raw_takes import EXO_1, NAMES, RAW_SPLITS, assert_complete, failures, original, tree, undisturbed

__all__ = ["original", "undisturbed"]  # fixtures

DATA = Path(__file__).parents[1] / "data"
COUNTS = {"train": 821, "val": 201, "test": 295}


def uid(number):
    return f"{number:08x}-0000-4000-8000-000000000000"


def script(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def run(name, *flags, path, **environment):
    """Run a script with `path` first on the PATH, or as all of it together with the shell's own tools."""
    env = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}", "PYTHON": sys.executable, **environment}
    return subprocess.run(["bash", str(DATA / name), *map(str, flags)], capture_output=True, text=True, env=env)


@pytest.fixture
def mirror(tmp_path):
    """A folder in the place of the repository that holds the split."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    numbers = iter(range(2000))
    splits = {split: [uid(next(numbers)) for _ in range(count)] for split, count in COUNTS.items()}
    (folder / "split.json").write_text(json.dumps(splits))
    (folder / "correspondence_takes.txt").write_text("\n".join(map(uid, range(1334))))
    return folder


CURL = """
while [ $# -gt 1 ]; do [ "$1" = --output ] && out=$2; shift; done
echo "$1" >>"$LOG"
cp "$1" "$out"
"""
WGET = CURL.replace("--output", "--output-document")


@pytest.fixture
def get_split(tmp_path, mirror):
    def call(tool="curl", text=CURL):
        script(tmp_path / "bin" / tool, text)
        log = str(tmp_path / "log")
        return run("download_split.sh", path=tmp_path / "bin", SPLIT_URL=str(mirror), SPLIT_DIR=str(out), LOG=log)

    out = tmp_path / "out"
    call.out, call.log = out, tmp_path / "log"
    return call


def test_the_split_is_downloaded_once(get_split, mirror):
    first = get_split()
    assert first.returncode == 0, first.stderr
    assert "split.json: 821 train, 201 val, 295 test takes" in first.stdout
    assert "correspondence_takes.txt: 1334 takes" in first.stdout
    assert sorted(tree(get_split.out)) == ["correspondence_takes.txt", "split.json"]
    assert (get_split.out / "split.json").read_bytes() == (mirror / "split.json").read_bytes()
    second = get_split()
    assert second.returncode == 0
    assert second.stdout.count("is there already") == 2
    assert len(get_split.log.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda mirror: (mirror / "split.json").write_text('{"train": [], "val": [], "test": []}'), "holds 0 train"),
        (lambda mirror: (mirror / "split.json").write_text('{"train": ["a"'), "holds nothing that can be read"),
        (lambda mirror: (mirror / "split.json").write_text("<html>not found</html>"), "holds 0 takes"),
        (lambda mirror: (mirror / "split.json").unlink(), "could not get"),
        (lambda mirror: (mirror / "correspondence_takes.txt").write_text(uid(0)), "holds 1 take, not 1334 takes"),
    ],
)
def test_a_split_that_is_not_the_benchmarks_is_not_kept(get_split, mirror, change, message):
    change(mirror)
    result = get_split()
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("error: ")
    assert message in result.stderr
    kept = sorted(tree(get_split.out))
    assert kept in ([], ["split.json"])
    assert ("split.json" in kept) == ("1334" in message)


def test_a_split_of_the_users_own_is_not_overwritten(get_split):
    get_split.out.mkdir()
    (get_split.out / "split.json").write_text('{"train": ["a"], "val": [], "test": []}')
    result = get_split()
    assert result.returncode == 1
    assert "holds 1 train, 0 val, 0 test takes, not the benchmark's" in result.stderr
    assert sorted(tree(get_split.out)) == ["split.json"]


def tools_without_curl(folder):
    """A PATH with the few tools that the script calls, to which a downloader can be added."""
    folder.mkdir()
    for tool in ("bash", "dirname", "rm", "mv", "cp", "mkdir", "sh"):
        (folder / tool).symlink_to(subprocess.check_output(["sh", "-c", f"command -v {tool}"], text=True).strip())
    return folder


def test_wget_does_where_there_is_no_curl(tmp_path, mirror):
    tools = tools_without_curl(tmp_path / "tools")
    env = {"SPLIT_URL": str(mirror), "SPLIT_DIR": str(tmp_path / "out"), "LOG": str(tmp_path / "log")}
    env |= {"PATH": str(tools), "PYTHON": sys.executable}
    command = ["bash", str(DATA / "download_split.sh")]
    result = subprocess.run(command, capture_output=True, text=True, env=env)
    assert result.returncode == 1
    assert "error: neither curl nor wget is installed" in result.stderr
    script(tools / "wget", WGET)
    result = subprocess.run(command, capture_output=True, text=True, env=env)
    assert result.returncode == 0, result.stderr
    assert sorted(tree(tmp_path / "out")) == ["correspondence_takes.txt", "split.json"]


EGOEXO = """
echo "$@" >>"$LOG"
while [ $# -gt 0 ]; do
    [ "$1" = -o ] && out=$2
    [ "$1" = --uids ] && uid=$2
    shift
done
case $uid in
    bad*) [ -e "$LOG.mended" ] || { echo "Please retry the download"; exit 2; } ;;
    short*) [ -e "$LOG.mended" ] || echo "WARN: failed to get stats for 1 files, will skip."
esac
mkdir -p "$out/takes/$uid" && echo video >"$out/takes/$uid/video"
"""


@pytest.fixture
def get_takes(tmp_path):
    script(tmp_path / "bin" / "egoexo", EGOEXO)
    log = tmp_path / "log"

    def call(uids, *flags):
        (tmp_path / "uids.txt").write_text(uids)
        flags = ["--out_dir", tmp_path / "data set", "--uids_path", tmp_path / "uids.txt", *flags]
        result = run("download_uids.sh", *flags, path=tmp_path / "bin", LOG=str(log))
        result.calls = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return result

    call.out, call.mended = tmp_path / "data set", Path(f"{log}.mended")
    return call


def test_takes_are_downloaded_one_after_the_other_and_once(get_takes):
    result = get_takes("take-a\n\ntake-b\r\ntake-c")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "3 takes: 3 downloaded, 0 were there already, 0 failed"
    assert result.calls == [f"-o {get_takes.out} --parts takes --uids take-{name} --yes" for name in "abc"]
    result = get_takes("take-a\ntake-d\ntake-c\n")
    assert result.stdout.splitlines()[-1] == "3 takes: 1 downloaded, 2 were there already, 0 failed"
    assert len(result.calls) == 1
    result = get_takes("take-a\n", "--again")
    assert len(result.calls) == 1
    assert result.stdout.splitlines()[-1] == "1 take: 1 downloaded, 0 were there already, 0 failed"


def test_flags_reach_egoexo_and_other_parts_are_downloads_of_their_own(get_takes):
    get_takes("take-a\n")
    flags = ["--parts", "downscaled_takes/448", "take_audio", "--views", "ego", "exo", "--", "--s3_profile", "work"]
    expected = (
        f"-o {get_takes.out} --parts downscaled_takes/448 take_audio --views ego exo --uids take-a --yes "
        "--s3_profile work"
    )
    assert get_takes("take-a\n", *flags).calls == [expected]
    assert get_takes("take-a\n", *flags).calls == []


def test_downscaled_videos_have_a_flag(get_takes):
    expected = f"-o {get_takes.out} --parts downscaled_takes/448 --uids take-a --yes"
    assert get_takes("take-a\n", "--downscaled").calls == [expected]


@pytest.mark.parametrize("failing", ["bad", "short"])
def test_takes_that_fail_are_listed_and_retried(get_takes, failing):
    result = get_takes(f"take-a\n{failing}-1\ntake-b\n{failing}-2\n")
    assert result.returncode == 1
    assert result.stdout.splitlines()[-4:] == [
        "4 takes: 2 downloaded, 0 were there already, 2 failed",
        "failed, run again to retry:",
        f"  {failing}-1",
        f"  {failing}-2",
    ]
    get_takes.mended.touch()
    result = get_takes(f"take-a\n{failing}-1\ntake-b\n{failing}-2\n")
    assert result.returncode == 0
    assert result.stdout.splitlines()[-1] == "4 takes: 2 downloaded, 2 were there already, 0 failed"


@pytest.mark.parametrize("uid", ["-o", "--s3_profile", "../x", "a b", "take\x1b[2J", "*", "$(touch x)"])
def test_what_is_no_uid_never_reaches_egoexo(get_takes, uid):
    result = get_takes(f"take-a\n{uid}\ntake-b\n")
    assert result.returncode == 1
    assert [call.split("--uids ")[1] for call in result.calls] == ["take-a --yes", "take-b --yes"]
    assert "line 2 of" in result.stderr and "1 failed" in result.stdout
    assert "\x1b" not in result.stderr + result.stdout


def test_it_stops_when_one_take_after_the_other_fails(get_takes):
    result = get_takes("".join(f"bad-{number}\n" for number in range(20)))
    assert result.returncode == 1
    assert len(result.calls) == 5
    assert "error: five takes in a row failed; stopped" in result.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--uids_path", "/nowhere/uids.txt"], "no file /nowhere/uids.txt; get it with bash data/download_split.sh"),
        (["--part", "takes"], "unknown argument --part"),
        (["--out_dir"], "--out_dir needs a value"),
    ],
)
def test_wrong_flags_are_one_line(get_takes, flags, message):
    result = get_takes("take-a\n", *flags)
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {message}")
    assert result.stderr.count("\n") == 1


def test_a_missing_egoexo_is_one_line(tmp_path):
    tools = tools_without_curl(tmp_path / "tools")
    command = ["bash", str(DATA / "download_uids.sh")]
    result = subprocess.run(command, capture_output=True, text=True, env={"PATH": str(tools)})
    assert result.returncode == 1
    assert result.stderr.startswith("error: no egoexo command; pip install ego4d")


def test_help_is_the_head_of_the_script(tmp_path):
    result = run("download_uids.sh", "--help", path=tmp_path)
    assert result.returncode == 0
    assert result.stdout.startswith("Download the benchmark's takes")
    assert "set -" not in result.stdout


# --process

A, B, C = RAW_SPLITS["train"] + RAW_SPLITS["val"]
ALL = f"{A}\n{B}\n{C}\n"

# In the place of the real one: copies a take from a folder, in the way that `modes` names, call by call.
COPYING_EGOEXO = """#!{python} -ES
import json, sys, time
from pathlib import Path

source, out, uid = Path("{source}"), Path(sys.argv[2]), sys.argv[sys.argv.index("--uids") + 1]
calls = source / "calls"
calls.open("a").write(" ".join(sys.argv[1:]) + "\\n")
modes = json.loads((source / "modes.json").read_text()).get(uid, ["copy"])
mode = modes[min(calls.read_text().count("--uids " + uid) - 1, len(modes) - 1)]
for path in sorted((source / "takes" / {names!r}[uid]).rglob("*.mp4")) if mode != "nothing" else []:
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
if mode == "fail":
    print("WARN: failed to fetch 3 files")
"""


class SmallDisk:
    """A data set's folder without videos, and an `egoexo` that delivers them."""

    def __init__(self, folder, original):
        self.root, self.source, self.bin = folder / "root", folder / "source", folder / "bin"
        shutil.copytree(original / "annotations", self.root / "annotations")
        shutil.copy(original / "split.json", self.root)
        self.source.mkdir()
        (self.source / "takes").symlink_to(original / "takes")
        self.modes()
        script(self.bin / "egoexo", "")
        names = {"python": sys.executable, "source": self.source, "names": NAMES}
        (self.bin / "egoexo").write_text(COPYING_EGOEXO.format(**names))
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
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*.mp4"))

    def start(self, *flags, uids=ALL):
        (self.source / "uids.txt").write_text(uids)
        words = ["--process", "--out_dir", self.root, "--uids_path", self.source / "uids.txt", *flags]
        words += [] if "--" in flags else ["--", "--", "--num_workers", "1"]
        environment = {**os.environ, "PATH": f"{self.bin}:{os.environ['PATH']}", "PYTHON": sys.executable}
        return subprocess.Popen(
            ["bash", str(DATA / "download_uids.sh"), *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )

    def fill(self, *flags, uids=ALL):
        """Run the script; returns its exit status, and what it prints in `out` and `err`."""
        run = self.start(*flags, uids=uids)
        self.out, self.err = run.communicate(timeout=60)
        return run.returncode


@pytest.fixture
def disk(original, tmp_path):
    return SmallDisk(tmp_path, original)


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_takes_are_processed_no_video_is_left_and_a_rerun_downloads_nothing(disk, undisturbed):
    assert disk.fill(uids=f"{ALL}elsewhere\n") == 0, disk.err
    assert tree(disk.processed) == undisturbed
    assert disk.videos == [] and not (disk.root / ".fetched").exists()
    assert disk.calls == [f"-o {disk.root}/.fetched/{uid} --parts takes --uids {uid} --yes" for uid in (A, B, C)]
    assert f"take elsewhere is in no split of {disk.root}/split.json and left out" in disk.out
    assert disk.out.splitlines()[-1] == "4 takes: 3 processed, 0 were there already, 0 failed"
    disk.modes()
    assert disk.fill() == 0
    assert disk.calls == []
    assert disk.out.splitlines()[-1] == "3 takes: 0 processed, 3 were there already, 0 failed"
    assert tree(disk.processed) == undisturbed


def test_videos_of_a_failed_download_or_with_a_broken_one_stay_until_a_rerun_completes_them(disk, undisturbed):
    disk.modes(uid_a=["fail", "copy"], uid_b=["half", "copy"])
    assert disk.fill() == 1
    assert disk.out.splitlines()[-4:] == [
        "3 takes: 1 processed, 0 were there already, 2 failed",
        "failed, run again to retry:",
        f"  {A}",
        f"  {B}",
    ]
    assert {path.split("/")[1] for path in disk.videos} == {A, B} and len(disk.videos) == 6
    assert not (disk.processed / A).exists()
    assert_complete(disk.processed, B, without=(EXO_1,))
    assert_complete(disk.processed, C)
    assert [(row["take_uid"], row["camera"]) for row in failures(disk.processed)] == [(B, EXO_1)]
    assert disk.fill() == 0
    assert tree(disk.processed) == undisturbed
    assert disk.videos == []


def test_what_was_withdrawn_is_listed_and_no_failure_and_can_be_asked_for_again(disk, undisturbed):
    disk.modes(uid_a=["nothing"], uid_b=["no exo"])
    assert disk.fill() == 0, disk.err
    assert disk.videos == []
    assert {(row["take_uid"], row["camera"], row["kind"]) for row in failures(disk.processed)} == {
        (A, None, "missing"),
        (B, EXO_1, "missing"),
    }
    assert_complete(disk.processed, B, without=(EXO_1,))
    disk.modes()
    assert disk.fill(uids=f"{B}\n") == 0 and disk.calls == []
    assert disk.fill("--again", uids=f"{A}\n{B}\n") == 0
    assert tree(disk.processed) == undisturbed
    assert disk.videos == []


def test_videos_that_were_there_before_stay_and_those_downloaded_by_this_script_are_used(disk, original, undisturbed):
    for uid in (A, B):
        shutil.copytree(original / "takes" / NAMES[uid], disk.root / "takes" / NAMES[uid])
    (disk.root / ".downloaded").write_text(f"{A} takes ego exo\n")
    assert disk.fill() == 0, disk.err
    assert [call.split()[-2] for call in disk.calls] == [B, C]
    assert tree(disk.processed) == undisturbed
    assert {path.split("/")[1] for path in disk.videos} == {NAMES[A], NAMES[B]}
    for uid in (A, B):
        assert tree(disk.root / "takes" / NAMES[uid]) == tree(original / "takes" / NAMES[uid])


def test_downscaled_videos_are_asked_for_and_used_and_flags_reach_both_programs(disk, original, tmp_path):
    for name in NAMES.values():
        for path in (original / "takes" / name / "frame_aligned_videos").iterdir():
            target = tmp_path / "small" / "takes" / name / "frame_aligned_videos" / "downscaled" / "448" / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    (disk.source / "takes").unlink()
    (disk.source / "takes").symlink_to(tmp_path / "small" / "takes")
    flags = ["--downscaled", "--", "--s3_profile", "work", "--", "--frames", "annotated", "--num_workers", "1"]
    assert disk.fill(*flags) == 0, disk.err
    parts = "--parts downscaled_takes/448"
    assert disk.calls[0] == f"-o {disk.root}/.fetched/{A} {parts} --uids {A} --yes --s3_profile work"
    assert {path.name for path in (disk.processed / A / EXO_1).iterdir()} == {"0.jpg", "60.jpg", "90.jpg", "30.jpg"}
    assert disk.videos == []


@pytest.mark.parametrize("killing", [signal.SIGKILL, signal.SIGINT])
def test_it_can_be_stopped_at_any_time(disk, undisturbed, killing):
    disk.modes(uid_a=["slow"], uid_b=["slow"], uid_c=["slow"])
    before = set()
    for delay in (0.3, 1.6):
        run = disk.start()
        time.sleep(delay)
        os.killpg(run.pid, killing)
        run.communicate()
        done = {uid for uid in NAMES if (disk.processed / uid / "annotation.json").exists()}
        lost = before - set(disk.videos)
        assert {path.split("/")[1] for path in lost} <= done, "a video was deleted before its take was done"
        before = set(disk.videos)
    assert disk.fill() == 0, disk.err
    assert tree(disk.processed) == undisturbed
    assert disk.videos == []


@pytest.mark.skipif(not shutil.which("flock"), reason="needs flock")
def test_a_run_waits_for_the_download_of_a_killed_one(disk, undisturbed):
    disk.modes(uid_a=["slower", "copy"])
    run = disk.start()
    wait_for(lambda: disk.calls)
    run.kill()  # the shell alone
    assert disk.fill() == 0
    assert disk.err.startswith(f"waiting for another run with --process in {disk.root}, or for its download")
    assert tree(disk.processed) == undisturbed


@pytest.mark.parametrize(
    ("lacking", "flags", "message"),
    [
        ("annotations", [], "no folder {root}/annotations; egoexo -o {root} --parts annotations"),
        ("nothing", ["--parts", "take_audio"], "--process needs videos: takes or downscaled_takes/448 among --parts"),
    ],
)
def test_what_processing_lacks_is_said_before_the_first_download(disk, lacking, flags, message):
    shutil.rmtree(disk.root / lacking, ignore_errors=True)
    assert disk.fill(*flags) == 1
    assert disk.err.startswith(f"error: {message.format(root=disk.root)}")
    assert disk.calls == []
