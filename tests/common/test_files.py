"""Files appear whole or not at all, whoever is interrupted while writing them."""

import errno
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import UserError
from common.files import atomic_folder, atomic_write, remove_leftovers, temporary_folder, write_json
from tests.made import ROOT
from tests.made.claims import claimed_elsewhere


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


def wait_until_it_waits(process: subprocess.Popen, holder: subprocess.Popen) -> str:
    """The line in which a process says that it waits for another one."""
    line = process.stderr.readline()
    user = pwd.getpwuid(os.getuid()).pw_name
    assert line.startswith(f"waiting for process {holder.pid} of {user} on {socket.gethostname()}, which "), line
    return line


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


def test_a_second_writer_names_the_first_waits_for_it_and_then_writes(tmp_path):
    with claimed_elsewhere(tmp_path, "a.json") as first:
        being_written = tmp_path / ".a.json.0badcafe.tmp"
        being_written.touch()
        second = start(WRITE_FILE, tmp_path, "a.json")
        line = wait_until_it_waits(second, first)
        assert line.endswith(f", which writes numbers ({tmp_path / '.a.json.lock'})\n")
        assert being_written.exists() and not (tmp_path / "a.json").exists()
    assert second.communicate(timeout=300) == ("", "") and second.returncode == 0
    assert json.loads((tmp_path / "a.json").read_text()) == [2]
    assert not being_written.exists()


def test_a_killed_writer_leaves_no_lock_not_even_through_a_child_that_outlives_it(tmp_path):
    code = """
import os, sys, time
from pathlib import Path
from common.files import claimed
with claimed(Path(sys.argv[1]), "a", "writes a"):
    if child := os.fork():
        print(child, flush=True)
    time.sleep(600)
"""
    killed = start(code, tmp_path)
    child = int(killed.stdout.readline())
    killed.kill()
    with claimed_elsewhere(tmp_path, "a"):
        os.kill(child, signal.SIGKILL)  # it was still there
    killed.communicate()


ANOTHER_USER = """
import os, sys
from pathlib import Path
from common.files import claimed, write_json
os.chdir(sys.argv[1])
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
with claimed(Path(), "a.json", "writes numbers"):
    print("claimed", flush=True)
    sys.stdin.readline()
    write_json(Path(sys.argv[2]), [2])
"""


@pytest.mark.parametrize("folder_mode", [0o777, 0o1777])  # as /tmp
@pytest.mark.parametrize("lock_mode", [0o666, 0o444])  # as we leave it; of an older version, or of a copied folder
def test_whoever_may_write_a_folder_may_claim_what_another_user_claimed_in_it(tmp_path, folder_mode, lock_mode):
    tmp_path.chmod(folder_mode)
    with claimed_elsewhere(tmp_path, "a.json") as holder:
        assert (tmp_path / ".a.json.lock").stat().st_mode & 0o777 == 0o666
        (tmp_path / ".a.json.0badcafe.tmp").touch()  # in such a folder it has to stay
        (tmp_path / ".a.json.lock").chmod(lock_mode)
        first = start(ANOTHER_USER, tmp_path, "a.json")
        wait_until_it_waits(first, holder)
    assert first.stdout.readline() == "claimed\n"
    others = [start(ANOTHER_USER, tmp_path, "b.json"), start(WRITE_FILE, tmp_path, "c.json", "a.json")]
    for other in others:
        assert other.stderr.readline().startswith("waiting for ") and other.poll() is None
    assert first.communicate("\n", timeout=300) == ("", "")
    for other in others:
        assert other.communicate("\n", timeout=300)[1] == "" and other.returncode == 0
    assert all((tmp_path / name).exists() for name in ("a.json", "b.json", "c.json"))


def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path):
    (tmp_path / "victim").write_text("mine")
    (tmp_path / ".a.json.lock").symlink_to("victim")
    writer = start(WRITE_FILE, tmp_path, "a.json")
    assert f"{tmp_path / '.a.json.lock'}" in writer.communicate(timeout=300)[1] and writer.returncode == 1
    assert (tmp_path / "victim").read_text() == "mine" and not (tmp_path / "a.json").exists()


def test_a_second_writer_of_a_folder_waits_and_then_names_what_is_there(tmp_path):
    code = """
import sys
from pathlib import Path
from common.errors import run_script
from common.files import atomic_folder
run_script(lambda: atomic_folder(Path(sys.argv[1])).__enter__())
"""
    folder = tmp_path / "folder"
    with claimed_elsewhere(tmp_path, "folder") as first:
        second = start(code, folder)
        wait_until_it_waits(second, first)
        folder.mkdir()
    assert second.communicate(timeout=300)[1] == f"error: {folder} exists; give another name, or delete it first\n"
    assert second.returncode == 1 and not list(folder.iterdir())


def test_an_empty_folder_that_is_there_is_filled_from_within(tmp_path):
    """So it is with a mount point: nothing can be made beside it, nor renamed into it from there."""
    place = tmp_path / "volume"
    place.mkdir()
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), atomic_folder(place) as made:
            (made / "a").touch()
            raise KeyboardInterrupt
        assert [path.name for path in place.iterdir()] == [".volume.lock"]
    with atomic_folder(place) as made:
        assert made.parent == place
        (made / "a").mkdir()
    assert sorted(path.name for path in place.iterdir()) == [".volume.lock", "a"]
    with pytest.raises(UserError, match="exists; give another name"), atomic_folder(place):
        pass
    with temporary_folder(place, "b", "writes b") as made:
        (made / "new").touch()
        (made / "new").rename(place / "new")
    assert sorted(path.name for path in place.iterdir()) == [".b.lock", ".volume.lock", "a", "new"]


def test_a_full_disk_is_said_to_be_that_of_the_file(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"), atomic_write(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as write() does, without a name


@pytest.mark.parametrize("name", ["a[1].json", "**.json", "*", "?", "a.json", ".*"])
def test_leftovers_of_a_file_are_those_of_its_own_name_whatever_signs_are_in_it(tmp_path, name):
    own = tmp_path / f".{name}.0123abcd.tmp"
    others = [tmp_path / f".{other}.0123abcd.tmp" for other in ("a1.json", "ab.json", "b", "..b")]
    for path in (own, *others):
        path.touch()
    remove_leftovers(tmp_path, name)
    assert sorted(tmp_path.iterdir()) == sorted(others)
    remove_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())


def test_iterators_of_pairs_are_written_as_objects_one_pair_at_a_time(tmp_path):
    seen = []

    def members():
        for number in range(3):
            seen.append(next(tmp_path.glob(".*.tmp")).stat().st_size)
            yield f"key {number}", {"text": "x" * 100_000, "nothing": {}, "numbers": [1, 2.5]}

    path = tmp_path / "file.json"
    write_json(path, {"about": 'a "name"', "members": members(), "none": iter(()), "plain": {1: {"a": None}}})
    assert json.loads(path.read_text()) == {
        "about": 'a "name"',
        "members": {f"key {n}": {"text": "x" * 100_000, "nothing": {}, "numbers": [1, 2.5]} for n in range(3)},
        "none": {},
        "plain": {"1": {"a": None}},
    }
    assert seen[0] < seen[1] < seen[2]
