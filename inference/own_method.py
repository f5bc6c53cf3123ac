"""Predict with a user's method in place of the network: eval_segswap.py --predictor my_method.py:Method

The class needs only a method `predict`, which gets a `TakeFrame` (recipes/frame.py), and returns a pair (mask,
existence) for each of `frame.pairs`, in the order of the pairs:

- The mask has the size of the target's image and holds booleans or probabilities, best the part of each pixel that the
  object covers. The mask is interpolated at the pixels that the benchmark compares; values above 0.5 are the object.
- The existence is the probability that the object is visible in the target.

With an attribute `side`, images and masks are letterboxed to squares of this side. Each process makes one object of the
class, with the keyword arguments of `--predictor my_method.py:Method key=value ...`. A value that is a Python literal,
such as a number, is passed as such, unless its parameter is annotated as `str`; any other value is passed as text.

A process predicts one take after the other, and the frames of a take in ascending order. Processes share the takes, and
a stopped run begins a take anew. An answer may therefore depend on earlier frames of the same take, but not on other
takes: forget what you have stored when `take_uid` changes. Under torchrun, "cuda" is the GPU of the process.
docs/extending.md has examples.
"""

import ast
import contextlib
import hashlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.errors import UserError
from common.files import file_digest
from formats.geometry import Size
from recipes.base import Answer, Recipe


class OwnMethod(Recipe):
    """A recipe that predicts with a user's class, whose answers it checks."""

    def __init__(self, name: str, *arguments: str, device: torch.device):
        """name: `my_method.py:Method`; arguments: `key=value`. `self.arguments` has the values by key; a value that
        names a file, such as weights, is replaced by the file's SHA-256. `self.digest` is the code's. Raises UserError
        if the method cannot be made.
        """
        file, _, self.class_name = name.rpartition(":")
        self.name, self.path, self.device, flag = name, Path(file), device, f"--predictor {name}"
        if not file:
            raise UserError(f"{flag} names no class; give my_method.py:Method")
        spec = importlib.util.spec_from_file_location("own_method", file)
        if spec is None or not self.path.is_file():
            raise UserError(f"{flag} names no file; give my_method.py:Method")
        if odd := [text for text in arguments if "=" not in text]:
            raise UserError(f"{flag} {odd[0]}: not of the form key=value")
        texts = dict(text.split("=", 1) for text in arguments)
        is_file = os.path.isfile  # False for a text that is too long for a name
        self.arguments = {key: file_digest(Path(text)) if is_file(text) else text for key, text in texts.items()}
        sys.path.append(str(self.path.resolve().parent))  # the file may import its neighbors
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        code = self.path.read_bytes()
        self.digest = hashlib.sha256(code).hexdigest()
        with own_code(flag):  # the loader would read the file again, or run older code from __pycache__
            exec(compile(code, file, "exec"), vars(module))
        method_class: Any = getattr(module, self.class_name, None)
        if not callable(getattr(method_class, "predict", None)):
            raise UserError(f"{flag}: the file has no class {self.class_name} with a method predict(frame)")
        values = read_arguments(method_class, texts, flag)
        with own_code(flag):
            self.method = method_class(**values)
        self.options = {"predictor": self.class_name, "predictor_args": self.arguments}
        self.side = getattr(self.method, "side", None)
        if self.side is not None and (type(self.side) is not int or self.side < 1):
            raise UserError(f"{flag}: side is {self.side!r:.40}; it must be a number of pixels or None")

    def predict(self, frame: Any) -> list[Answer]:  # a TakeFrame
        where = f"{self.name}, take {frame.take_uid}, frame {frame.number}"
        with own_code(where):
            answers = self.method.predict(frame)
        if not isinstance(answers, list | tuple) or len(answers) != len(frame.pairs):
            what = f"{len(answers)} answers" if isinstance(answers, list | tuple) else type(answers).__name__
            raise UserError(f"{where}: predict returned {what}, not a list of {len(frame.pairs)}")
        checked = []
        for pair, answer in zip(frame.pairs, answers, strict=True):
            size = frame.images[pair.target_camera].shape[:2]
            try:
                checked.append(_checked_answer(answer, size))
            except ValueError as error:
                raise UserError(f"{where}, {' '.join(pair)}: {error}") from None
        return checked


@contextlib.contextmanager
def own_code(where: str) -> Iterator[None]:
    """The context in which a user's code runs. Before an error's traceback, a line says where the error happened."""
    try:
        yield
    except SystemExit as error:
        raise UserError(f"{where}: the method called sys.exit({error.code!r})") from None
    except Exception:
        print(f"error in {where}:", file=sys.stderr)
        raise


def read_arguments(method_class: type, texts: Mapping[str, str], where: str) -> dict[str, Any]:
    """Texts by name -> the values with which a class is made. Raises UserError, with all arguments of the class, if a
    name is unknown or missing.
    """
    signature = inspect.signature(method_class)
    try:
        signature.bind(**texts)
    except TypeError as error:
        taken = ", ".join(map(str, signature.parameters.values())) or "no arguments"
        raise UserError(f"{where}: {error}; it takes {taken}") from None
    values: dict[str, Any] = dict(texts)
    for key, text in texts.items():
        parameter = signature.parameters.get(key)  # None if the class takes `**options`
        if parameter is None or parameter.annotation not in (str, "str"):
            with contextlib.suppress(ValueError, SyntaxError):
                values[key] = ast.literal_eval(text)
    return values


def _checked_answer(answer: Any, size: Size) -> Answer:
    """Check a method's answer. Raises ValueError unless this is a mask of `size` and an existence, both from 0 to 1."""
    if isinstance(answer, Answer):
        answer = answer[:2]
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        raise ValueError(f"the answer is {type(answer).__name__}; give a pair (mask, existence)")
    mask, existence = (x.detach().cpu().float().numpy() if isinstance(x, Tensor) else np.asarray(x) for x in answer)
    for what, values, shape in (("mask", mask, size), ("existence", existence.squeeze(), ())):
        if values.dtype.kind not in "biuf" or values.shape != shape:
            raise ValueError(f"the {what} is {values.dtype} of shape {values.shape}; give numbers of shape {shape}")
        if not ((values >= 0) & (values <= 1)).all():  # NaN fails, too
            raise ValueError(f"the {what} holds {values.min()} to {values.max()}; give numbers from 0 to 1")
    return Answer(mask.astype(np.float32), float(existence.squeeze()))
