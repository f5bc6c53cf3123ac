"""Options of networks and recipes: fields of dataclasses, of which `common.arguments` makes flags."""

from collections.abc import Sequence
from dataclasses import field, fields
from typing import Any


def option(
    default: Any, help: str, *flags: str, group: str | None = None, limits: Sequence[float] = (), **arguments: Any
) -> Any:
    """A field of a dataclass that `common.arguments.add_fields` also makes an option of a command line.

    `flags` are the option's spellings (default: the field's name), `limits` the least value of a number, and the most.
    `group` begins a group of options with this title in --help. `arguments` go to `add_argument`, such as `choices`.
    The rest follows from the field's type: bool, int, float, str, Path, a list of these, or one of these | None.
    """
    metadata = {"help": help, "flags": flags, "group": group, "limits": limits, "arguments": arguments}
    return field(default=default, metadata=metadata)


def option_values(options: Any) -> dict[str, Any]:
    """The `option`s of a dataclass by name: defaults if it is the class, values if it is an object."""
    return {entry.name: getattr(options, entry.name) for entry in fields(options) if entry.metadata}
