"""Command lines: options that several scripts share have one meaning, one help text and one check, all here."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import field, fields
from pathlib import Path
from typing import Any

from common.parallel import default_workers

SETTINGS = {"ego-exo": ("ego", "exo"), "exo-ego": ("exo", "ego")}  # kinds of the query and of the target camera
DATA_FOLDER = Path(__file__).resolve().parents[1] / "data"
DEFAULT_ROOT = DATA_FOLDER / "egoexo"  # the data set, or a link to it
DEFAULT_DATA_DIR = DEFAULT_ROOT / "processed"
SYNONYMS = (  # names that our scripts or the original's give to the same thing; each script understands all of them
    ("data_path", "data_dir", "outputpath", "train_dir"),  # processed takes
    ("splits_path", "split_path"),
    ("annotation_path", "annotationpath", "annotations_path"),
    ("out_path", "out_dir", "out", "output", "output_path"),
    ("ego_exo", "ego_exo_preds"),
    ("exo_ego", "exo_ego_preds"),
)


class Parser(argparse.ArgumentParser):
    """`Parser(__doc__)`: help keeps the docstring's lines and names every default other than None and False.

    A flag may be written with hyphens or underscores, and as any of its SYNONYMS.
    """

    def __init__(self, doc: str) -> None:
        super().__init__(description=doc, formatter_class=_HelpFormatter)

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None):
        options = self._option_string_actions
        own = {flag[2:].replace("-", "_"): action for flag, action in options.items() if flag.startswith("--")}
        synonyms = {
            name: own[known] for names in SYNONYMS for known in reversed(names) if known in own for name in names
        }
        for name, action in (synonyms | own).items():
            for spelling in (name, name.replace("_", "-")):
                options.setdefault(f"--{spelling}", action)
        return super().parse_known_args(args, namespace)


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if action.default in (None, argparse.SUPPRESS) or action.default is False:
            return text
        told = "default" in text or not action.option_strings
        return text if told else f"{text} (default: %(default)s)"


def at_least(least: float, kind: Callable[[str], float] = int) -> Callable[[str], float]:
    """The `type` of an option whose value is a number from `least` on."""

    def parse(text: str) -> float:
        value = kind(text)
        if not value >= least:  # nan too
            raise argparse.ArgumentTypeError(f"{text} must be at least {least}")
        return value

    parse.__name__ = kind.__name__  # "invalid int value: 'x'"
    return parse


def named(kind: Callable[[str], Any]) -> Callable[[str], tuple[str, Any]]:
    """The `type` of an option `NAME=VALUE` -> (name, value)."""

    def parse(text: str) -> tuple[str, Any]:
        name, equals, value = text.partition("=")
        if not name or not value:
            raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
        return name, kind(value)

    parse.__name__ = f"NAME={kind.__name__}"  # "invalid NAME=int value: 'left=x'"
    return parse


def option(default: Any, *flags: str, **about: Any) -> Any:
    """A field of a dataclass that is an option of command lines, too: its default, the flag's spellings, and what
    `add_argument` takes, such as `help` and `choices`. A bool is False unless its flag is given.
    """
    return field(default=default, metadata={"flags": flags, "about": about})


def add_fields(add: Callable[..., Any], kind: type) -> None:
    """A flag for each `option` of the dataclass `kind`; `add` is a parser's or a group's `add_argument`."""
    for each in fields(kind):
        if each.metadata:
            how = {"action": "store_true"} if each.type is bool else {}
            if each.type in (int, float):
                how["type"] = each.type
            add(*each.metadata["flags"], dest=each.name, default=each.default, **how, **each.metadata["about"])


def values_of(args: argparse.Namespace, kind: type) -> dict[str, Any]:
    """The values of the flags of `add_fields`, by field."""
    return {each.name: getattr(args, each.name) for each in fields(kind) if each.metadata}


class Words(argparse.Action):
    """`nargs="+"` whose value is one text."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        setattr(namespace, self.dest, " ".join(values))


def add_setting(parser: argparse.ArgumentParser, required: bool = True) -> None:
    parser.add_argument("--setting", choices=SETTINGS, required=required, help="query view - target view")


def add_data_path(parser: argparse.ArgumentParser, flag: str = "--data_path") -> None:
    parser.add_argument(flag, type=Path, default=DEFAULT_DATA_DIR, help="processed takes")


def add_splits_path(parser: argparse.ArgumentParser, flag: str = "--splits_path") -> None:
    order = "split.json in the folder of processed takes, else beside it, else data/split.json"
    parser.add_argument(flag, type=Path, help=f"take uids by split (default: {order})")


def add_num_workers(parser: argparse.ArgumentParser, what: str = "processes") -> None:
    text = f"{what}; 0 or 1: none but this one (default: the CPUs, here %(default)s)"
    parser.add_argument("--num_workers", type=at_least(0), default=default_workers(), help=text)
