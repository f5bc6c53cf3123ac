"""Command lines: options that several scripts share have one meaning, one help text and one check, all here."""

import argparse
import difflib
import itertools
import math
import sys
from collections.abc import Callable
from dataclasses import Field, fields
from pathlib import Path
from types import NoneType
from typing import Any, NoReturn, get_args, get_origin

from common.constants import DATA_FOLDER, DEFAULT_DATA_DIR, OUTLINES, PRECISION_NAMES, SETTINGS, SHIPPED
from common.errors import Ended, UserError, is_first_to_fail
from common.option_fields import option_values
from common.parallel import default_workers

CKPT_HELP = f"checkpoint (default: {SHIPPED.name}, the network of this repository)"
PRECISION_HELP = (
    "fp32 is exact; tf32 rounds products to TensorFloat-32; bf16 and fp16 compute in half precision (default: bf16 "
    "on GPUs that compute in it, else fp32; docs/accuracy.md says what it costs)"
)
CALLED = {"--gpu": "--device"}  # what other commands call an option
BATCH_SIZE = 32  # pairs that a network computes at once; a frame of the data set has 20 to 40 pairs


class Parser(argparse.ArgumentParser):
    """`Parser(__doc__)`: --help keeps the lines of the docstring and names every default except None and False.

    An error is one line.
    """

    def __init__(self, doc: str, **options: Any) -> None:
        super().__init__(description=doc, formatter_class=_HelpFormatter, allow_abbrev=False, **options)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Name unknown flags before a missing one, which may be one of them, misspelled or shortened."""
        flags, unknown = self._option_string_actions, []
        for name in (word.partition("=")[0] for word in (sys.argv[1:] if args is None else args)):
            if name[:2] == "--" != name and name not in flags:
                near = [x for x in flags if x.startswith(name)] or difflib.get_close_matches(name, flags, 1, cutoff=0.8)
                near = near or [x for x in flags if x.startswith(name.partition("_")[0] + "_")]  # the same first word
                near = near or [x for x in flags if x == CALLED.get(name)]
                unknown.append(f"there is no {name}, but {' and '.join(near)}" if near else f"there is no {name}")
        if unknown:
            self.error("; ".join(unknown))
        return super().parse_args(args, namespace)

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        if message:
            self._print_message(message, sys.stderr)
        raise Ended(status)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see --help\n" if is_first_to_fail() else None)


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        is_unset = any(action.default is value for value in (None, False, argparse.SUPPRESS))  # `is`, since 0 == False
        if is_unset or "default" in text:
            return text
        values = action.default if isinstance(action.default, list | tuple) else [action.default]
        typed = " ".join(map(str, values)).replace(f"{DATA_FOLDER.parent}/", "").replace("%", "%%")  # as one types it
        return f"{text} (default: {typed})" if typed else text


def at_least(least: float, kind: Callable[[str], float] = int, most: float = math.inf) -> Callable[[str], float]:
    """The `type` of an option whose value is a number from `least` to `most`, both included."""

    def parse(text: str) -> float:
        value = kind(text)
        if not least <= value <= most:  # NaN fails as well
            limit = f" and at most {most}" if most < math.inf else ""
            raise argparse.ArgumentTypeError(f"{text} must be at least {least}{limit}")
        return value

    parse.__name__ = kind.__name__  # argparse says "invalid int value: 'x'"
    return parse


def data_folder(text: str) -> Path:
    """The `type` of an option that is a folder of processed takes."""
    path = Path(text)
    inner = path / DEFAULT_DATA_DIR.name
    if inner.is_dir() and not any(path.glob("*/annotation.json")):
        raise argparse.ArgumentTypeError(f"{path} holds no processed takes; did you mean {inner}?")
    return path


def name_value(kind: Callable[[str], Any]) -> Callable[[str], tuple[str, Any]]:
    """The `type` of an option that is given as `NAME=VALUE`; its value is (name, kind(value))."""

    def parse(text: str) -> tuple[str, Any]:
        name, equals, value = text.partition("=")
        if not name or not value:
            raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
        return name, kind(value)

    parse.__name__ = f"NAME={kind.__name__}"  # argparse says "invalid NAME=int value: 'left=x'"
    return parse


def add_fields(parser: argparse.ArgumentParser, kind: type, title: str) -> None:
    """Add a flag for each `option` of the dataclass `kind`. The first group of options has this title, unless they
    begin one of their own.
    """
    defaults = option_values(kind)
    for entry in fields(kind):
        title = entry.metadata.get("group") or title
        if entry.metadata:
            same = [group for group in parser._action_groups if group.title == title]
            group = same[0] if same else parser.add_argument_group(title)
            flags = entry.metadata["flags"] or (f"--{entry.name}",)
            group.add_argument(*flags, dest=entry.name, default=defaults[entry.name], **_arguments(entry))


def _arguments(entry: Field) -> dict[str, Any]:
    """The arguments of `add_argument` for an `option`."""
    arguments = {"help": entry.metadata["help"]}
    value: Any = next(kind for kind in get_args(entry.type) or (entry.type,) if kind is not NoneType)  # int | None: int
    if value is bool:  # --no-NAME switches off what is on by default
        arguments["action"] = argparse.BooleanOptionalAction if entry.default else "store_true"
    elif entry.metadata["limits"]:
        least, *most = entry.metadata["limits"]
        arguments["type"] = at_least(least, value, *most)
    elif value is not str:
        arguments["type"] = value
    if get_origin(entry.type) is list:
        arguments["nargs"] = "*"
    return arguments | entry.metadata["arguments"]


def add_setting(parser: argparse.ArgumentParser, *others: str, required: bool = True) -> None:
    text = "ego-exo: the query camera is head-worn, the target cameras are static; exo-ego: the reverse"
    parser.add_argument("--setting", choices=[*SETTINGS, *others], required=required, help=text)


def add_data_path(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data_path", "--data_dir", type=data_folder, default=DEFAULT_DATA_DIR, help="processed takes")
    add_splits_path(parser)


def add_splits_path(parser: argparse.ArgumentParser) -> None:
    order = "split.json in the folder of processed takes, else beside it, else data/split.json"
    parser.add_argument("--splits_path", "--split_path", type=Path, help=f"take uids by split (default: {order})")


def add_annotations(parser: argparse.ArgumentParser, text: str) -> None:
    spellings = ("--annotation_path", "--annotations_path", "--annotationpath")  # ours, and names in original scripts
    parser.add_argument(*spellings, type=Path, help=text)


# Of `Predictor.load`, besides the checkpoint and the device.
NETWORK_OPTIONS = (
    "recipe",
    "backbone",
    "backbone_weights",
    "input_size",
    "precision",
    "looks",
    "outline",
    "batch_size",
)


def network_options(args: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(args, name) for name in NETWORK_OPTIONS if hasattr(args, name)}


def network_files(args: argparse.Namespace) -> list[Path]:
    """The files and folders that a user has named in `add_network_options`, for `check_outputs`."""
    recipe = (args.recipe or "").rpartition(":")[0]
    outline = args.outline if args.outline not in OUTLINES else None  # a name, or a folder
    return [Path(x) for x in (args.ckpt_path, args.backbone_weights, recipe, outline) if x]


def add_network_options(parser: argparse.ArgumentParser, ckpt_help: str) -> None:
    """Add the NETWORK_OPTIONS that all scripts of prediction have, --ckpt_path and --device."""
    add = parser.add_argument
    add("--ckpt_path", type=Path, help=ckpt_help)
    text = "the recipe of your own by which --ckpt_path was trained (docs/extending.md)"
    add("--recipe", metavar="FILE.py:CLASS", help=text)
    text = "match features of this backbone, with nothing trained: efficientnet_lite0 to 2, moco, or a model of timm"
    add("--backbone", metavar="NAME", help=text)
    text = "weights of the backbone (default: of a checkpoint, the file used in training; else where timm gets them)"
    add("--backbone_weights", type=Path, help=text)
    text = "side of the crops that --backbone reads, pixels (default: 240; 448 for a plain vision transformer)"
    add("--input_size", type=at_least(64), help=text)
    add_device(parser)
    add("--precision", choices=PRECISION_NAMES, help=PRECISION_HELP)
    text = "number of places in a target at which the network looks for the object (default: 5)"
    add("--looks", type=at_least(1), help=text)
    text = (
        "what draws the outlines in the end: none, grabcut, or SAM 2, by its name or its folder, as transformers loads "
    )
    text += "it: facebook/sam2.1-hiera-large (default: none; with --backbone grabcut)"
    add("--outline", metavar="NAME", help=text)


def add_device(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")


def add_num_workers(parser: argparse.ArgumentParser, what: str = "processes") -> None:
    text = f"{what}; 0 or 1: only this process (default: the number of CPUs, here %(default)s)"
    parser.add_argument("--num_workers", type=at_least(0), default=default_workers(), help=text)


def add_footage_options(parser: argparse.ArgumentParser) -> None:
    add, several = parser.add_argument, {"nargs": "+", "action": "extend"}
    text = "name of each camera, with its video or its folder of numbered pictures"
    add("--videos", type=name_value(Path), required=True, metavar="CAMERA=PATH", help=text, **several)
    text = "masks: a folder {object}/{frame}.png, COCO's JSON, or a PNG of one object in one frame; black is background"
    add("--masks", type=name_value(Path), required=True, metavar="CAMERA=PATH", help=text, **several)
    add("--mask_frame", type=at_least(0), default=0, help="the frame of a mask that is a single PNG")
    text = (
        "a camera's frame at a moment common to all, counted from 0 also in a folder of pictures; -5 if it began 5 "
        "frames after the others (default: 0)"
    )
    add("--offset", type=name_value(int), default=[], metavar="CAMERA=FRAME", help=text, **several)
    add("--fps", type=at_least(0.001, float), default=30, help="frames per second of folders of pictures")


def videos_and_offsets(args: argparse.Namespace) -> tuple[dict[str, Path], dict[str, int]]:
    """Two options of `add_footage_options`, by camera. Raises UserError if these options do not fit each other."""
    videos, masks, offsets = dict(args.videos), dict(args.masks), dict(args.offset)
    if len(videos) < max(2, len(args.videos)):
        raise UserError("--videos takes two or more cameras, each once")
    for one, other in itertools.combinations(videos, 2):
        if videos[one].resolve() == videos[other].resolve():
            raise UserError(f"--videos {one} and {other} are both {videos[one]}; did you mean another one for {other}?")
    if len(masks) < len(args.masks):
        raise UserError("--masks takes one path of each camera; put several objects into a folder {object}/{frame}.png")
    egos = [args.ego] if args.ego else []
    for flag, names in (("--masks", masks), ("--offset", offsets), ("--ego", egos)):
        if unknown := {*names} - videos.keys():
            raise UserError(f"{flag} names camera {min(unknown)!r}; --videos has {', '.join(videos)}")
    for name, path in masks.items():
        if inner := next((camera for camera in (name, *videos) if any((path / camera).glob("*/*"))), None):
            raise UserError(f"{path} holds a folder of camera {inner!r}; give --masks {inner}={path / inner}")
        if path.is_file() and path.suffix.lower() == ".png":
            print(f"{path} counts as the mask of frame {args.mask_frame} of {name} (--mask_frame)")
    return videos, offsets
