"""Classes in files of the user's own, given as FILE.py:CLASS."""

import contextlib
import hashlib
import sys
import types
from collections.abc import Callable, Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, NamedTuple

from common.errors import OWN, UserError, exit_message, own_lines


class OwnClass(NamedTuple):
    kind: Any  # the class
    path: Path  # its file
    digest: str  # SHA-256 of the file

    @property
    def name(self) -> str:
        """How records name it: the file without its folder, and the class."""
        return f"{self.path.name}:{self.kind.__name__}"


def load_class(flag: str, name: str, is_usable: Callable[[Any], bool], need: str) -> OwnClass:
    """Run the file of `name` (FILE.py:CLASS, the value of `flag`) as a module, and take its class.

    Raises UserError if there is no such file, or if the class is not usable, which means "a class with {need}".
    """
    file, colon, class_name = name.rpartition(":")
    if not colon:
        raise UserError(f"{flag} {name} lacks its class; give {name}:NAME")
    path = Path(file)
    if not path.is_file():
        raise UserError(f"{flag} {name} names no file; give FILE.py:CLASS")
    sys.path.append(str(path.resolve().parent))  # the file may import its neighbors
    module_name = path.stem if is_free(path) else f"own_{path.stem}"
    module = sys.modules[module_name] = types.ModuleType(module_name)
    code, module.__file__, vars(module)[OWN] = path.read_bytes(), file, True
    # A loader would read the file again, or run older code from __pycache__.
    with own_errors(f"{flag} {name}"):
        exec(compile(code, file, "exec"), vars(module))
    usable = [x for x, value in vars(module).items() if is_usable(value)]
    if class_name not in usable:
        others = f"give one of {', '.join(usable)}" if usable else "write one (docs/extending.md)"
        raise UserError(f"{flag} {name}: the file has no class {class_name} with {need}; {others}")
    return OwnClass(getattr(module, class_name), path, hashlib.sha256(code).hexdigest())


@contextlib.contextmanager
def own_errors(where: str) -> Iterator[None]:
    """Say which of the user's code has failed. A missing file or module, wrong syntax and SystemExit are one line with
    the number of the code's line; other errors keep their traceback, after a line that names `where`.
    """
    try:
        yield
    except (UserError, BrokenPipeError):
        raise
    except SystemExit as error:
        raise UserError(f"{where}: {exit_message(error)}") from None
    except (OSError, ImportError, SyntaxError) as error:
        lines = own_lines(error)
        at = f", line {lines[-1][1]}" if lines else ""
        raise UserError(f"{where}{at}: {type(error).__name__}: {error}") from None
    except Exception:
        print(f"error in {where}:", file=sys.stderr)  # before the traceback
        raise


def call_own(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call what may be the user's code in a loader process. PyTorch does not pass on a SystemExit: UserError is raised
    in its place.
    """
    try:
        return function(*arguments)
    except SystemExit as error:
        raise UserError(exit_message(error)) from None


def is_free(path: Path) -> bool:
    """True if no other module has the name of this file, whose folder is on the path. Where processes are not forked,
    their Python then finds the file's classes by this name.
    """
    known = sys.modules.get(path.stem)
    found = getattr(known or PathFinder.find_spec(path.stem), "__file__" if known else "origin", None)
    return found is not None and Path(found).resolve() == path.resolve()
