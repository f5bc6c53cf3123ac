"""Every script understands the others' spelling of its options and says what it does by default."""

from pathlib import Path

import pytest

from common.arguments import Parser, add_data_path, add_num_workers, add_setting, add_splits_path, at_least

ROOT = Path(__file__).parents[1]


@pytest.fixture
def parser():
    parser = Parser("First line.\n\n    a command\n")
    add_setting(parser)
    add_data_path(parser)
    add_splits_path(parser)
    add_num_workers(parser)
    parser.add_argument("--out", type=Path, help="a file")
    parser.add_argument("--out_path", type=Path, default=Path("results"), help="a folder")
    parser.add_argument("--size", type=at_least(0, float), default=0, help="in pixels")
    parser.add_argument("--fast", action="store_true", help="or slow")
    return parser


@pytest.mark.parametrize("flag", ["--data_path", "--data-path", "--data_dir", "--outputpath", "--train-dir"])
@pytest.mark.parametrize("form", ["two words", "one word"])
def test_the_other_scripts_spelling_of_a_flag_means_the_same(parser, flag, form):
    words = [flag, "folder"] if form == "two words" else [f"{flag}=folder"]
    assert parser.parse_args(["--setting", "ego-exo", *words]).data_path == Path("folder")


def test_a_scripts_own_spelling_comes_before_a_synonym(parser):
    args = parser.parse_args(["--setting=ego-exo", "--out", "a", "--out-path", "b"])
    assert (args.out, args.out_path) == (Path("a"), Path("b"))
    args = parser.parse_args(["--setting=ego-exo", "--out-dir", "c"])
    assert (args.out, args.out_path) == (None, Path("c"))


def test_help_keeps_the_docstrings_lines_and_names_defaults_where_there_are_any(parser):
    text = parser.format_help()
    assert "First line.\n\n    a command\n" in text
    assert "in pixels (default: 0)" in text
    assert "None" not in text and "False" not in text
    assert "train_dir" not in text


@pytest.mark.parametrize("flags", [["--size", "-1"], ["--size", "nan"], ["--size", "big"], ["--num_workers", "-2"]])
def test_a_number_out_of_range_is_refused_in_one_line(parser, flags, capsys):
    with pytest.raises(SystemExit):
        parser.parse_args(["--setting", "ego-exo", *flags])
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"argument {flags[0]}: " in last and flags[1] in last
