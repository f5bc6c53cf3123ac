"""The download scripts fetch what is missing, keep only whole files, and say in one line what went wrong."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.made import ROOT
from tests.made.raw_takes import tree

MOCO = "moco_v2_800ep_pretrain.pth.tar"


def uid(number):
    return f"{number:08x}-0000-4000-8000-000000000000"


def script(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def run(tmp_path):
    """Runs a script in a copy of its folder, `tmp_path/data`, with `tmp_path/bin` first on the PATH."""

    def call(name, *flags, **environment):
        (tmp_path / "data").mkdir(exist_ok=True)
        place = shutil.copy(ROOT / name, tmp_path / "data")
        env = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", **environment}
        done = subprocess.run(["bash", place, *map(str, flags)], capture_output=True, text=True, env=env)
        Path(place).unlink()
        return done

    return call


@pytest.fixture
def get_model(run, tmp_path):
    script(tmp_path / "bin" / "md5sum", 'tail -n 1 "$1" | grep -q whole && echo a04e12f8 || echo 00000000')
    (tmp_path / "moco").write_text("the weights,\nwhole\n")
    return lambda: run("model/pretrained/download_model.sh", MOCO_URL=(tmp_path / "moco").as_uri())


needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl reads the file:// addresses used here")


@needs_curl
def test_an_interrupted_download_of_the_weights_is_continued_and_not_repeated(get_model, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / f"{MOCO}.part").write_text("the weights,\n")
    first = get_model()
    assert first.returncode == 0, first.stderr
    assert tree(folder) == {MOCO: b"the weights,\nwhole\n"}
    (tmp_path / "moco").unlink()
    assert get_model().returncode == 0
    (folder / MOCO).rename(folder / "moco_v2_800ep_pretrain_torchvision.pth.tar")
    assert get_model().returncode == 0


@needs_curl
def test_weights_that_are_not_the_published_ones_are_refused_and_deleted(get_model, tmp_path):
    for text, message in (("another file", "the md5 of file:"), (None, "could not download file:")):
        (tmp_path / "moco").unlink() if text is None else (tmp_path / "moco").write_text(text)
        result = get_model()
        assert result.returncode == 1
        assert result.stderr.splitlines()[-1].startswith(f"error: {message}")
        assert tree(tmp_path / "data") == {}


@pytest.fixture
def get_split(run, tmp_path):
    """Takes the split from `tmp_path/mirror`."""
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    splits = {"train": 821, "val": 201, "test": 295}
    numbers = iter(range(2000))
    splits = {split: [uid(next(numbers)) for _ in range(count)] for split, count in splits.items()}
    (mirror / "split.json").write_text(json.dumps(splits))
    (mirror / "correspondence_takes.txt").write_text("\n".join(map(uid, range(1334))))
    return lambda: run("data/download_split.sh", SPLIT_URL=mirror.as_uri())


@needs_curl
def test_the_split_is_downloaded_once(get_split, tmp_path):
    first = get_split()
    assert first.returncode == 0, first.stderr
    assert tree(tmp_path / "data") == tree(tmp_path / "mirror")
    shutil.rmtree(tmp_path / "mirror")
    assert get_split().returncode == 0


@needs_curl
@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("split.json", "<html>not found</html>", "lists 0 takes, not the benchmark's 1317; nothing was kept"),
        ("correspondence_takes.txt", None, "); check the network, or name a mirror in SPLIT_URL"),
    ],
)
def test_another_split_is_not_kept_and_the_users_own_not_overwritten(get_split, tmp_path, name, text, message):
    path = tmp_path / "mirror" / name
    path.unlink() if text is None else path.write_text(text)
    result = get_split()
    assert result.returncode == 1
    [error] = result.stderr.splitlines()
    assert error.startswith("error: ") and error.endswith(message)
    assert sorted(tree(tmp_path / "data")) == ([] if name == "split.json" else ["split.json"])
    (tmp_path / "data" / "split.json").write_text('{"train": ["a"], "val": [], "test": []}')  # the user's own
    assert "split.json lists 0 takes, not the benchmark's 1317; move it away" in get_split().stderr
    assert (tmp_path / "data" / "split.json").stat().st_size < 50


EGOEXO = """
echo "$@" >>"$LOG"
while [ $# -gt 0 ]; do
    [ "$1" = -o ] && out=$2
    [ "$1" = --uids ] && uid=$2
    shift
done
mkdir -p "$out/takes" && touch "$out/takes/$uid"
case $uid in
    gone*) echo "WARN: failed to fetch 1 files [integrity=0, exceptions=1]" && exit 2 ;;
    flaky*) [ -e "$LOG.mended" ] || { echo "WARN: failed to fetch 1 files [integrity=0, exceptions=1]"; exit 2; } ;;
    slow*) [ -e "$LOG.mended" ] || { touch "$LOG.mended" && read line <"$LOG.gate"; } ;;
    unknown*) echo "Downloaded: (0 / 0 files)" ;;
    bad*) [ -e "$LOG.mended" ] || { echo "Please retry the download"; exit 2; } ;;
    short*) [ -e "$LOG.mended" ] || echo "WARN: failed to get stats for 1 files, will skip."
esac
"""


@pytest.fixture
def get_takes(run, tmp_path):
    script(tmp_path / "bin" / "egoexo", EGOEXO)
    log = tmp_path / "log"

    def call(uids, *flags):
        (tmp_path / "uids.txt").write_text(uids)
        flags = ["--out_dir", tmp_path / "data set", "--uids_path", tmp_path / "uids.txt", *flags]
        result = run("data/download_uids.sh", *flags, LOG=str(log), PYTHON="interpreter")
        result.calls = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return result

    call.out, call.mended = tmp_path / "data set", Path(f"{log}.mended")
    return call


def test_takes_are_downloaded_one_after_the_other_and_once(get_takes):
    result = get_takes("take-a\n\ntake-b\r\ntake-c")
    assert result.returncode == 0, result.stderr
    assert result.calls == [f"-o {get_takes.out} --parts takes --uids take-{name} --yes" for name in "abc"]
    assert len(get_takes("take-a\ntake-d\ntake-c\n").calls) == 1
    words = "--parts downscaled_takes/448 --uids take-a --views ego --yes"
    for calls in ([f"-o {get_takes.out} {words}"], []):  # other parts are downloads of their own
        assert get_takes("take-a\n", "--downscaled", "--", "--views", "ego").calls == calls


PROCESS = """
while [ $# -gt 0 ]; do
    case $1 in
        --takepath) takes=$2 ;;
        --outputpath) out=$2 ;;
        --uids) uid=$2 ;;
        --pack) touch "$LOG.packs" ;;
    esac
    shift
done
echo "processes $uid of" $(ls "$takes") >>"$LOG"
mkdir -p "$out/$uid" && touch "$out/$uid/failed.json"
case $uid in headless*) exit ;; esac
touch "$out/$uid/annotation.json"
case $uid in
    gone*) exit ;;
    flaky*) [ -e "$LOG.mended" ] || exit 0 ;;
    broken*) [ -e "$LOG.mended" ] || exit 1 ;;
esac
rm "$out/$uid/failed.json"
"""


def test_jobs_share_takes_and_keep_no_video_of_what_they_have_processed(get_takes, tmp_path):
    script(tmp_path / "bin" / "interpreter", PROCESS)
    scratch, uids = tmp_path / "scratch", "take-a\ngone-b\nbroken-c\ntake-d\nunknown-e\ntake-f\n"
    for job, done in (("1/2", ["broken-c", "take-a"]), ("2/2", ["broken-c", "gone-b", "take-a", "take-d", "take-f"])):
        assert not (tmp_path / "log.packs").exists()
        result = get_takes(uids, "--process_in", scratch, "--shard", job, *["--pack"] * (job == "2/2"))
        assert sorted(path.name for path in (get_takes.out / "processed").iterdir()) == done
        processed = [line.split() for line in result.calls if line.startswith("processes")]
        assert all([uid] == there for _, uid, _, *there in processed), processed
        assert not list(scratch.iterdir())
        failed = "error: 1 takes failed, run again to retry: broken-c\n" if job == "1/2" else ""
        assert result.returncode == bool(failed) and result.stderr.endswith(failed)
    assert "1 takes lack one file each, perhaps a withdrawn video; run again to retry; " in result.stderr  # gone-b
    where = f"shard 2/2 of {tmp_path / 'uids.txt'} are in {get_takes.out}"
    assert result.stdout.splitlines()[-1] == f"all but 1 takes of {where}"
    assert (tmp_path / "log.packs").exists()


def test_what_a_processed_take_lacks_is_fetched_until_the_data_set_is_known_to_lack_it(get_takes, tmp_path):
    script(tmp_path / "bin" / "interpreter", PROCESS)

    def check_fetched(*uids):
        result = get_takes("take-a\ngone-b\nflaky-c\nbroken-d\nheadless-e\n", "--process_in", tmp_path / "scratch")
        assert [line.split()[1] for line in result.calls if line.startswith("processes")] == [*uids]
        return result

    first = check_fetched("take-a", "gone-b", "flaky-c", "broken-d", "headless-e")
    assert first.returncode == 1 and first.stderr.endswith("error: 1 takes failed, run again to retry: broken-d\n")
    assert re.search("2 takes lack one file each, .*; run again to retry; .*: gone-b flaky-c\n", first.stderr)
    get_takes.mended.touch()
    for uids in (["gone-b", "flaky-c", "broken-d"], []):
        result = check_fetched(*uids)
        assert result.returncode == 0 and result.stdout.splitlines()[-1].startswith("all but 2 takes of ")
        assert re.fullmatch("warning: 2 takes lack what the data set .*: gone-b headless-e\n", result.stderr)
    shutil.rmtree(get_takes.out / "processed" / "gone-b")
    check_fetched("gone-b")


@pytest.mark.skipif(not shutil.which("flock"), reason="needs the lock of flock")
def test_a_job_leaves_the_videos_of_another_alone_and_goes_on_after_one_that_was_killed(get_takes, tmp_path):
    script(tmp_path / "bin" / "interpreter", PROCESS)
    os.mkfifo(tmp_path / "log.gate")
    uids, scratch, video = "slow-a\ntake-b\n", tmp_path / "scratch", tmp_path / "scratch/takes_1_of_1/takes/slow-a"
    (tmp_path / "uids.txt").write_text(uids)
    flags = "--out_dir", get_takes.out, "--uids_path", tmp_path / "uids.txt", "--process_in", scratch
    env = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "LOG": str(tmp_path / "log")}
    command, deadline = ["bash", ROOT / "data/download_uids.sh", *flags], time.monotonic() + 300
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, start_new_session=True) as first:
        while not video.exists():
            assert first.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        second = get_takes(uids, "--process_in", scratch)
        os.killpg(first.pid, signal.SIGKILL)
    refusal = f"another job works on shard 1/1 in {scratch}; give each job a --shard of its own"
    assert (second.returncode, second.stderr) == (1, f"error: {refusal}\n") and video.exists()
    third = get_takes(uids, "--process_in", scratch)
    assert (third.returncode, third.stderr) == (0, "") and not list(scratch.iterdir())
    assert third.stdout.endswith(f"all takes of {tmp_path / 'uids.txt'} are in {get_takes.out}\n")


@pytest.mark.parametrize("failing", ["bad", "short"])
def test_takes_that_fail_are_listed_and_retried_unless_one_after_the_other_does(get_takes, failing):
    uids = f"take-a\n{failing}-1\ntake-b\n{failing}-2\n"
    result = get_takes(uids)
    assert (result.returncode, len(result.calls)) == (1, 4)
    assert result.stderr == f"error: 2 takes failed, run again to retry: {failing}-1 {failing}-2\n"
    result = get_takes("".join(f"{failing}-{number}\n" for number in range(20)))
    assert (result.returncode, len(result.calls)) == (1, 5)
    assert "error: five takes in a row failed; stopped" in result.stderr
    get_takes.mended.touch()
    result = get_takes(uids)
    assert (result.returncode, len(result.calls)) == (0, 2)


def test_withdrawn_and_unknown_takes_are_named_and_keep_no_other_from_coming(get_takes):
    uids = [f"gone-{number}" for number in range(8)] + ["take-a", "unknown-1", "take-b"]
    for calls in (11, 9):
        result = get_takes("\n".join(uids))
        assert (result.returncode, len(result.calls)) == (0, calls)
        assert "no files of 1 takes: unknown-1\n" in result.stderr
        assert re.search("8 takes lack one file each.* gone-0 .* gone-7\n", result.stderr)


@pytest.mark.parametrize(
    ("uids", "flags", "message"),
    [
        ("take-a\n-o\n", (), r"{uids}: -o is no take uid"),
        ("\n", (), "{uids} names no take"),
        ("a\n", ("--uids_path", "/no"), "no file /no; get it with bash data/download_split.sh or give --uids_path"),
        ("a\n", ("--shard", "3/2"), "--shard 3/2 is not I/N with I from 1 to N"),
    ],
)
def test_wrong_flags_and_uids_are_one_line_and_never_reach_egoexo(get_takes, tmp_path, uids, flags, message):
    result = get_takes(uids, *flags)
    expected = message.format(uids=tmp_path / "uids.txt")
    assert (result.returncode, result.stderr, result.calls) == (1, f"error: {expected}\n", [])
