"""Reading a large JSON file member by member, as the files of results and annotations are read."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from common.files import iter_json, read_json
from tests.made.processed import make_unreadable

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)  # ijson takes 64 bits
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("json") / "file.json"


@settings(max_examples=25)
@given(
    inner=st.dictionaries(st.text(), values, max_size=4),
    others=st.dictionaries(st.text(), values),
    indent=st.integers(0, 2),
)
def test_members_are_those_that_json_reads(path, inner, others, indent):
    whole = {**{f"_{key}": value for key, value in others.items()}, "a": {"x": 1, "b": inner, "y": [2]}, "z": {}}
    path.write_text(json.dumps(whole, indent=indent or None), encoding="utf-8")
    assert dict(iter_json(path, ("a", "b"), "")) == inner
    assert dict(iter_json(path, (), "")) == whole


def test_members_come_one_at_a_time(path):
    path.write_text(json.dumps({"a": {"first": "x" * 200_000, "second": 2}})[:-1] + "broken")
    members = iter_json(path, ("a",), "get it again")
    assert next(members) == ("first", "x" * 200_000)
    with pytest.raises(UserError, match="is not valid JSON .*broken.*; get it again") as error:
        list(members)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", '{"a":', '{"a": {}', '{"a": {}} x', "{'a': 1}"])
def test_broken_json_is_a_user_error_wherever_it_breaks(path, text):
    path.write_text(text)
    with pytest.raises(UserError, match="not valid JSON"):
        list(iter_json(path, ("a",), "get it again"))


@pytest.mark.parametrize(
    ("text", "content"),
    [('{"a": 1}', "a"), ('{"a": [1]}', "a"), ("[]", "no object"), ('{"c": {"a": {"b": {}}}, "d": 1}', "c, d")],
)
def test_a_file_without_the_wanted_object_is_a_user_error_that_says_what_it_holds(path, text, content):
    path.write_text(text)
    with pytest.raises(UserError, match=f"holds {content}, not a/b; get it again"):
        list(iter_json(path, ("a", "b"), "get it again"))


def test_a_missing_file_a_folder_and_other_bytes_are_user_errors(tmp_path):
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "unreadable.json").touch()
    make_unreadable(tmp_path / "unreadable.json")
    for name, message in {
        "no.json": "no file .*no.json; get it again",
        "": r"cannot be read \(Is a directory\); mend this and run the same command again",
        "bytes.json": "not valid JSON.*; get it again",
        "unreadable.json": r"cannot be read \(.*\); mend this and run the same command again",
    }.items():
        for read in (read_json, lambda path, remedy: list(iter_json(path, (), remedy))):
            with pytest.raises(UserError, match=f"^[^\n]*{message}$"):
                read(tmp_path / name, "get it again")
