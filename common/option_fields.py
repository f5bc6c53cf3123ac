"""Options of networks and recipes: fields of dataclasses, of which `common.arguments` makes flags."""

from collections.abc import Sequence
from dataclasses import MISSING, field, fields
from typing import Any


def option(
    default: Any, help: str, *flags: str, group: str | None = None, limits: Sequence[float] = (), **arguments: Any
) -> Any:
    """A field of a dataclass that `common.arguments.add_fields` also makes an option of a command line.

    `flags` are the option's spellings (default: the field's name), `limits` the least value of a number, and the most.
    `group` begins a group of options with this title in --help. `arguments` go to `add_argument`, such as `choices`.
    The rest follows from the field's type: bool, int, float, str, Path, a list of these, or one of these | None. A bool
    that is True by default is switched off by --no-NAME. An option whose default follows from others has `...` for it:
    its value is worked out before there is an object of the dataclass.
    """
    metadata = {"help": help, "flags": flags, "group": group, "limits": limits, "arguments": arguments}
    return field(default=MISSING if default is ... else default, metadata=metadata)


def option_values(options: Any) -> dict[str, Any]:
    """The `option`s of a dataclass by name: if it is the class, the defaults (None for `...`), if an object, values."""
    return {entry.name: getattr(options, entry.name, None) for entry in fields(options) if entry.metadata}
