"""The download scripts get what is missing, keep only what is whole, and say in one line what went wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.made.raw_takes import tree

DATA = Path(__file__).parents[1] / "data"
COUNTS = {"train": 821, "val": 201, "test": 295}


def uid(number):
    return f"{number:08x}-0000-4000-8000-000000000000"


def script(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def run(name, *flags, path, **environment):
    """Run a script with `path` first on the PATH."""
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


@pytest.fixture
def get_split(tmp_path, mirror):
    def call():
        script(tmp_path / "bin" / "curl", CURL)
        log = str(tmp_path / "log")
        return run("download_split.sh", path=tmp_path / "bin", SPLIT_URL=str(mirror), SPLIT_DIR=str(call.out), LOG=log)

    call.out, call.log = tmp_path / "out", tmp_path / "log"
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
    ("name", "text", "message"),
    [
        ("split.json", "<html>not found</html>", "holds 0 takes"),
        ("split.json", None, "could not get"),
        ("correspondence_takes.txt", uid(0), "holds 1 take, not 1334 takes"),
    ],
)
def test_a_split_that_is_not_the_benchmarks_is_not_kept(get_split, mirror, name, text, message):
    (mirror / name).unlink() if text is None else (mirror / name).write_text(text)
    result = get_split()
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("error: ") and message in result.stderr
    assert sorted(tree(get_split.out)) == ([] if name == "split.json" else ["split.json"])


def test_a_split_of_the_users_own_is_not_overwritten(get_split):
    get_split.out.mkdir()
    (get_split.out / "split.json").write_text('{"train": ["a"], "val": [], "test": []}')
    result = get_split()
    assert result.returncode == 1
    assert "holds 1 train, 0 val, 0 test takes, not the benchmark's" in result.stderr
    assert sorted(tree(get_split.out)) == ["split.json"]


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
    words = "--parts downscaled_takes/448 take_audio --views ego exo --uids take-a --yes --s3_profile work"
    assert get_takes("take-a\n", *flags).calls == [f"-o {get_takes.out} {words}"]
    assert get_takes("take-a\n", *flags).calls == []
    words = "--parts downscaled_takes/448 --uids take-a --yes"
    assert get_takes("take-a\n", "--downscaled").calls == [f"-o {get_takes.out} {words}"]


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


def test_what_is_no_uid_never_reaches_egoexo(get_takes):
    result = get_takes("take-a\n-o\n../x\na b\n$(touch x)\ntake-b\n")
    assert result.returncode == 1
    assert [call.split("--uids ")[1] for call in result.calls] == ["take-a --yes", "take-b --yes"]
    assert all(f"line {number} of" in result.stderr for number in range(2, 6)) and "4 failed" in result.stdout


def test_it_stops_when_one_take_after_the_other_fails(get_takes):
    result = get_takes("".join(f"bad-{number}\n" for number in range(20)))
    assert result.returncode == 1
    assert len(result.calls) == 5
    assert "error: five takes in a row failed; stopped" in result.stderr


def test_wrong_flags_are_one_line(get_takes):
    missing = "no file /nowhere/uids.txt; get it with bash data/download_split.sh or give --uids_path"
    value = "--out_dir needs a value; see --help"
    for flags, message in ((["--uids_path", "/nowhere/uids.txt"], missing), (["--out_dir"], value)):
        result = get_takes("take-a\n", *flags)
        assert (result.returncode, result.stderr) == (1, f"error: {message}\n")
