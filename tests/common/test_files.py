"""Files appear whole or not at all, even if their writer is interrupted; large JSON is read member by member."""

import errno
import fcntl
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest

from common.errors import UserError
from common.files import (
    atomic_write,
    check_output,
    check_outputs,
    claimed,
    is_file_name,
    iter_json,
    output_folder,
    read_json,
    temporary_folder,
    write_json,
)
from tests.made import ROOT
from tests.made.processes import claimed_elsewhere, killed_at
from tests.made.raw_takes import tree


def test_a_file_is_replaced_only_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "file"
    with atomic_write(path, "wb") as file:
        file.write(b"first")
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as file:
        file.write("second")
        file.flush()
        raise KeyboardInterrupt
    assert path.read_bytes() == b"first"
    assert list(path.parent.iterdir()) == [path]


def test_the_data_is_on_the_disk_before_the_file_gets_its_name(tmp_path, monkeypatch):
    path, synced = tmp_path / "file", []
    monkeypatch.setattr("os.fsync", lambda number: synced.append((os.fstat(number).st_size, path.exists())))
    write_json(path, [1, 2])
    assert synced == [(path.stat().st_size, False)]


def write_anew(folder):
    """As commands do: a file, a page with its pictures, and a folder."""
    write_json(folder / "a.json", ["new"])
    with output_folder(folder) as page:
        (page / "pictures").mkdir()
        for name in ("index.html", "pictures/0.jpg"):
            (page / name).write_text("new")
    with temporary_folder(folder, "take", "writes a take") as take:
        (take / "0.jpg").write_text("new")
        if not (folder / "take").exists():
            take.rename(folder / "take")


def test_killed_at_any_file_event_the_same_command_ends_with_the_same_files_and_others_stay(tmp_path):
    new = {"a.json": b'["new"]', **dict.fromkeys(("index.html", "pictures/0.jpg", "take/0.jpg"), b"new")}
    event, killed = 0, True
    while killed:
        event += 1
        folder = tmp_path / str(event) / "out"
        (folder / "pictures").mkdir(parents=True)
        for name in ("a.json", "index.html", "pictures/mine.jpg"):
            (folder / name).write_text("mine")
        killed = killed_at(event, folder.parent, partial(write_anew, folder))
        assert list(folder.parent.iterdir()) == [folder]  # nothing can be made beside a mount point
        assert all(content in (b"mine", new.get(name)) for name, content in tree(folder).items() if name[0] != ".")
        write_anew(folder)
        assert tree(folder) == new | {"pictures/mine.jpg": b"mine"}
    assert event > 20


def test_what_a_killed_writer_left_goes_and_a_living_one_goes_on(tmp_path, monkeypatch):
    path, flock = tmp_path / "file", fcntl.flock
    other = tmp_path / ".file.b.0badcafe.tmp"  # of the file `file.b`
    for left in other, tmp_path / ".file.0badcafe.tmp":
        left.touch()
    with atomic_write(path) as first:
        first.write("first")
        with atomic_write(path, "wb") as second:
            second.write(b"second")
        assert path.read_bytes() == b"second"
    assert path.read_bytes() == b"first" and {*tmp_path.iterdir()} == {path, other}

    def deleted_before_it_is_locked(file, how):
        monkeypatch.setattr("fcntl.flock", flock)
        Path(file.name).unlink()

    monkeypatch.setattr("fcntl.flock", deleted_before_it_is_locked)
    with atomic_write(path) as third:
        third.write("third")
    assert path.read_bytes() == b"third" and {*tmp_path.iterdir()} == {path, other}


def start(code: str, *words: str | Path) -> subprocess.Popen:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code, *words], cwd=ROOT, **pipes)


WRITE_FILE = """
import sys
from pathlib import Path
from common.files import claimed, write_json
folder, name = Path(sys.argv[1]), sys.argv[2]
with claimed(folder, sys.argv[-1], "writes numbers"):
    write_json(folder / name, [2])
"""


@pytest.mark.parametrize("killed", [False, True])
def test_a_second_writer_says_that_it_waits_for_the_first_and_then_writes(tmp_path, killed):
    lock, leftover = tmp_path / ".a.json.lock", tmp_path / ".a.json.0badcafe.tmp"
    with claimed_elsewhere(tmp_path, "a.json") as first:
        leftover.touch()
        second = start(WRITE_FILE, tmp_path, "a.json")
        assert second.stderr.readline() == f"waiting for another process, which writes numbers ({lock})\n"
        assert leftover.exists() and not (tmp_path / "a.json").exists()
        if killed:
            first.kill()
    assert second.communicate(timeout=300) == ("", "") and second.returncode == 0
    assert json.loads((tmp_path / "a.json").read_text()) == [2]
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_on_a_disk_without_locks_nobody_waits_and_a_line_names_the_remedy(tmp_path, monkeypatch, capsys, number):
    monkeypatch.setattr("fcntl.flock", Mock(side_effect=OSError(number, "")))
    for _ in range(2):
        with claimed(tmp_path, "a.json", "writes numbers"), claimed(tmp_path, "a.json", "writes numbers"):
            pass
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {tmp_path} is on a disk without file locks; ")
    assert not list(tmp_path.iterdir())


CLAIM = """
import sys
from common.errors import run_script
from common.files import *
run_script(lambda: claimed(Path(sys.argv[1]), "results.json", "writes results").__enter__())
"""


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which nobody, not even root, may write")
@pytest.mark.parametrize("folder", ["/proc", "/proc/new", "{tmp}/file/new"])
def test_where_nothing_can_be_written_is_said_before_the_work_and_nobody_waits(tmp_path, folder):
    (tmp_path / "file").touch()
    folder, place = Path(folder.format(tmp=tmp_path)), tmp_path / "file" if "tmp" in folder else "/proc"
    with pytest.raises(UserError, match=rf"^cannot write into {place} \(.*\); permit it, or [^\n]*$"):
        check_output(folder / "results.json", True)
    run = subprocess.run([sys.executable, "-c", CLAIM, folder], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert run.stderr.startswith(f"error: cannot write into {place} (") and run.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_a_command_reads_is_not_written_by_whatever_name(tmp_path):
    (tmp_path / "folder").mkdir()
    for name in "read.json", "folder/picture.jpg", "old.json":
        (tmp_path / name).touch()
    (tmp_path / "link.json").symlink_to("read.json")
    (tmp_path / "same.json").hardlink_to(tmp_path / "read.json")
    (tmp_path / "other").symlink_to("folder")
    new = [tmp_path / name for name in ("new.json", "folder/new.jpg", "old.json")]
    for read, names in {
        "read.json": ["read.json", "link.json", "same.json", "folder/../read.json"],
        "folder": ["folder", "other", "other/picture.jpg"],
        "other/picture.jpg": ["folder/picture.jpg", "folder"],
    }.items():
        for name in names:
            with pytest.raises(UserError, match=f"^cannot write [^\n]*{name}: this command reads [^\n]*{read}; name "):
                check_outputs([*new, tmp_path / name], [tmp_path / read, tmp_path / "gone.json", Path("a\0b/c"), None])
    with pytest.raises(UserError, match="other/new.jpg would be written twice; give each file"):
        check_outputs([*new, tmp_path / "other" / "new.jpg"], [])


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(KeyboardInterrupt), temporary_folder(tmp_path, "a", "writes a") as made:
        (made / "a").touch()
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
    with temporary_folder(tmp_path, "a", "writes a") as made:
        (made / "b").touch()
        (made / "b").rename(tmp_path / "b")
        made.rename(tmp_path / "a")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_the_longest_name_that_is_allowed_can_be_written_with_all_that_is_added(tmp_path):
    name = next("é" * count for count in range(300, 0, -1) if is_file_name("é" * count))
    with claimed(tmp_path, name, ""), atomic_write(tmp_path / f"{name}_place2_mask.png") as file:
        file.write("whole")
    assert len(name) > 90


def test_a_full_disk_is_said_to_be_that_of_the_file(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"), atomic_write(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as write() does, without a name


def test_iterators_of_pairs_are_written_as_objects_one_pair_at_a_time(tmp_path):
    sizes, value = [], {"text": "x" * 100_000, "nothing": {}, "numbers": [1, 2.5]}

    def pairs():
        for number in range(3):
            sizes.append(next(tmp_path.glob(".*.tmp")).stat().st_size)
            yield f"key {number}", value

    path = tmp_path / "file.json"
    write_json(path, {"about": 'a "name"', "members": pairs(), "none": iter(()), "plain": {1: {"a": None}}})
    members = {f"key {number}": value for number in range(3)}
    read = {"about": 'a "name"', "members": members, "none": {}, "plain": {"1": {"a": None}}}
    assert json.loads(path.read_text()) == read
    assert sizes[0] < sizes[1] < sizes[2]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("json") / "file.json"


def test_members_come_one_at_a_time(path):
    path.write_text(json.dumps({"a": {"first": "x" * 200_000, "second": 2}})[:-1] + "broken")
    members = iter_json(path, ("a",), "get it again")
    assert next(members) == ("first", "x" * 200_000)
    with pytest.raises(UserError, match="is not valid JSON .*broken.*; get it again") as error:
        list(members)
    assert "\n" not in str(error.value)


BROKEN = ("", "{", '{"a":', '{"a": {}', '{"a": {}} x', "{'a': 1}", '{"a": {"b": {"c": 1,}}}', '{"a": {"b": {1: 2}}}')
OTHER = ('{"a": 1}', '{"a": [1]}', "[]", '{"c": {"a": {"b": {}}}, "d": 1}')


@pytest.mark.parametrize("text", [*BROKEN, *OTHER])
def test_a_file_that_is_broken_anywhere_or_lacks_the_wanted_object_is_a_user_error_that_says_so(path, text):
    path.write_text(text)
    line = "has nothing at a/b; get it again" if text in OTHER else "not valid JSON"
    with pytest.raises(UserError, match=line):
        list(iter_json(path, ("a", "b"), "get it again"))


def test_a_missing_file_a_folder_and_other_bytes_are_user_errors(tmp_path):
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "unreadable.json").symlink_to("/proc/self/mem")  # which not even root can read
    for name, message in {
        "no.json": "no file .*no.json; get it again",
        "": r"cannot be read \(Is a directory\); fix this and run the same command again",
        "bytes.json": r"not valid JSON \([^b].*; get it again",
        "unreadable.json": r"cannot be read \(.*\); fix this and run the same command again",
    }.items():
        for read in (read_json, lambda path, remedy: list(iter_json(path, (), remedy))):
            with pytest.raises(UserError, match=f"^[^\n]*{message}$"):
                read(tmp_path / name, "get it again")
