"""Every script says in one line what is wrong with its options, and in its help what it does by default."""

from pathlib import Path

import pytest

from common.arguments import Parser, add_data_path, add_num_workers, add_setting, add_splits_path, at_least


@pytest.fixture
def parser():
    parser = Parser("First line.\n\n    a command\n")
    add_setting(parser)
    add_data_path(parser)
    add_splits_path(parser)
    add_num_workers(parser)
    parser.add_argument("--out_path", type=Path, default=Path("results"), help="a folder")
    parser.add_argument("--ckpt_path", type=Path, help="a file")
    parser.add_argument("--batch-pos", type=int, nargs="+", default=[8, 16], help="in pairs")
    parser.add_argument("--accept", action="append", default=[], help="in words")
    parser.add_argument("--size", type=at_least(0, float), default=0, help="in pixels")
    parser.add_argument("--fast", action="store_true", help="or slow")
    return parser


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--seting", "--setting"),
        ("--batch_pos", "--batch-pos"),
        ("--batch-size=3", "--batch-pos"),
        ("--Data-Path", "--data_path"),
        ("--train-dir", "--data_path"),
        ("--checkpoint", "--ckpt_path"),
        ("--quite_another", ""),
    ],
)
def test_an_unknown_flag_is_one_line_with_the_one_that_was_meant(parser, typed, meant, capsys):
    with pytest.raises(SystemExit) as end:
        parser.parse_args([typed, "a"])  # --setting, which is required, is missing too
    question = f"; did you mean {meant}?" if meant else ""
    assert capsys.readouterr().err == f"error: there is no {typed.partition('=')[0]}{question}; see --help\n"
    assert end.value.code == 2


def test_help_keeps_the_docstrings_lines_and_names_defaults_as_a_user_would_type_them(parser, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    text = parser.format_help()
    assert "First line.\n\n    a command\n" in text
    for line in ("in pixels (default: 0)", "a folder (default: results)", "in pairs (default: 8 16)", "in words\n"):
        assert line in text
    assert "None" not in text and "False" not in text


@pytest.mark.parametrize("flags", [["--size", "-1"], ["--size", "nan"], ["--size", "big"], ["--num_workers", "-2"]])
def test_a_number_out_of_range_is_refused_in_one_line(parser, flags, capsys):
    with pytest.raises(SystemExit):
        parser.parse_args(["--setting", "ego-exo", *flags])
    (line,) = capsys.readouterr().err.splitlines()
    assert f"argument {flags[0]}: " in line and flags[1] in line
