"""Files appear whole or not at all, whoever is interrupted while writing them."""

import errno
import fcntl
import json
import os
import threading

import pytest

from common.errors import AccessError, UserError
from common.files import (
    atomic_write,
    json_list,
    link_or_copy,
    only_one,
    read_file,
    read_json,
    remove_leftovers,
    write_json,
)


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


def test_a_second_writer_of_a_list_waits_and_takes_nothing_from_the_first(tmp_path, capsys):
    path, waited = tmp_path / "list.json", threading.Event()

    def write_second():
        waited.set()
        with json_list(path) as append:
            append("second")

    with json_list(path) as append:
        second = threading.Thread(target=write_second)
        second.start()
        waited.wait()
        while "waiting for another process that writes" not in capsys.readouterr().err:
            assert second.is_alive()
        append("first")
    second.join()
    assert json.loads(path.read_text()) == ["second"]
    assert {file.name for file in tmp_path.iterdir()} == {"list.json", ".list.json.lock"}


def test_a_full_disk_is_said_to_be_that_of_the_file(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"), atomic_write(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as write() does, without a name


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    path = tmp_path / "file"
    with atomic_write(path) as first, atomic_write(path) as second:
        first.write("first")
        second.write("second")
    assert path.read_text() == "first"  # it was closed last


def test_leftovers_of_one_file_are_removed_when_they_are_old(tmp_path):
    for name in (".a.json.12ab.tmp", ".b.json.12ab.tmp", "a.json"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path, "a.json", seconds=3600)
    assert len(list(tmp_path.iterdir())) == 3
    os.utime(tmp_path / ".a.json.12ab.tmp", (0, 0))
    remove_leftovers(tmp_path, "a.json", seconds=3600)
    assert {path.name for path in tmp_path.iterdir()} == {".b.json.12ab.tmp", "a.json"}


@pytest.mark.parametrize("name", ["a[1].json", "**.json", "*", "?", "a.json", ".*"])
def test_leftovers_of_a_file_are_those_of_its_own_name_whatever_signs_are_in_it(tmp_path, name):
    own = tmp_path / f".{name}.12ab.tmp"
    others = [tmp_path / f".{other}.12ab.tmp" for other in ("a1.json", "ab.json", "b", "..b")]
    for path in (own, *others):
        path.touch()
    remove_leftovers(tmp_path, name)
    assert sorted(tmp_path.iterdir()) == sorted(others)
    remove_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())


def test_waiting_for_a_lock_prints_no_escape_sequence(tmp_path, capsys, monkeypatch):
    def locked(_, how):
        if how & fcntl.LOCK_NB:
            raise BlockingIOError

    monkeypatch.setattr(fcntl, "flock", locked)
    with only_one(tmp_path / "\x1b[31m.lock", "writes \x9b2J"):
        pass
    assert capsys.readouterr().err == f"waiting for another process that writes \\x9b2J ({tmp_path}/\\x1b[31m.lock)\n"


@pytest.mark.parametrize("links", [True, False])
def test_a_second_name_has_the_content_of_the_first(tmp_path, monkeypatch, links):
    def refuse(*_):
        raise PermissionError

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("new")
    second.write_text("old")
    link_or_copy(first, second)
    link_or_copy(first, second)  # a second time leaves nothing behind either
    with atomic_write(first) as file:  # replacing one leaves the other alone
        file.write("newer")
    assert second.read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 2


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


def test_an_iterator_that_fails_leaves_no_file(tmp_path):
    def members():
        yield "a", 1
        raise UserError("no more")

    with pytest.raises(UserError, match="no more"):
        write_json(tmp_path / "file.json", {"members": members()})
    assert not list(tmp_path.iterdir())


def test_json_that_cannot_be_read_is_one_line_with_the_remedy(tmp_path):
    (tmp_path / "half.json").write_text('{"a": ')
    for path, what in ((tmp_path / "none.json", "no file"), (tmp_path / "half.json", "not valid"), (tmp_path, "not")):
        with pytest.raises(UserError, match=f"{what}.*; get it again") as error:
            read_json(path, "get it again")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["a.json", "a.json.gz"])
def test_a_pipe_or_a_device_is_refused_in_one_line(tmp_path, put_special, name):
    path = put_special(tmp_path / name)
    with pytest.raises(OSError, match=f"it is a pipe or a device: '{path}'"):
        read_file(path)
    with pytest.raises(AccessError, match=rf"{name} cannot be read \(it is a pipe or a device\); mend this"):
        read_json(path, "get it again")
