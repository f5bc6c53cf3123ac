"""Read files of named tensors, and load them into networks."""

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import UserError
from common.files import refuse_pointer
from model.device import memory_errors

MAX_WEIGHT = 1e4  # trained weights are below 100; weights above this limit make products infinite and results NaN


def as_read(content: Any) -> Any:
    """Write and read a file in memory: the copy is on the CPU, and torch.save always writes it as the same bytes."""
    torch.save(content, buffer := io.BytesIO())
    buffer.seek(0)
    return torch.load(buffer, map_location="cpu", weights_only=True)


def read_torch(path: Path, remedy: str) -> tuple[Any, str]:
    """`torch.load` tensors and plain values onto the CPU; no code in the file is run. Returns the content and the
    SHA-256 of what was read. The file is read once, because another may replace it.

    Raises UserError, which ends with `remedy`, if the file is missing or cannot be read.
    """
    if not Path(path).is_file():
        raise UserError((f"{path} is a folder" if Path(path).is_dir() else f"no file {path}") + f"; {remedy}")
    try:
        with memory_errors(f"{path} needs more to be loaded"):
            data = Path(path).read_bytes()
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            return content, hashlib.sha256(data).hexdigest()
    except UserError:
        raise
    except Exception as error:  # PyTorch raises many kinds of errors
        refuse_pointer(Path(path))
        reason = getattr(error, "strerror", None) or why_unreadable(error)
        raise UserError(f"{path} cannot be read: {reason}; {remedy}") from None


def why_unreadable(error: Exception) -> str:
    """What `torch.load` found, without its advice, which is not for our users."""
    if "unsupported global" in str(error).lower():
        return "it holds other Python objects than tensors, which may run code"
    return "it is damaged, or no file of a network"


def one_line(error: Exception) -> str:
    """The message of an error in one line, shortened to 200 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:197]}..."


def named_tensors(state: Any, what: str) -> dict[str, Tensor]:
    """A state dict from a file, without the prefixes of wrappers. Raises UserError if `state` is no state dict."""
    named = isinstance(state, Mapping) and all(isinstance(name, str) for name in state)
    if not named or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise UserError(f"{what}: it is no dictionary of names and tensors")
    tensors = dict(state)
    for prefix in ("module.", "_orig_mod.") * 2:  # added by data-parallel training and torch.compile
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def load_state(module: nn.Module, state: Any, what: str) -> None:
    """Strict `load_state_dict` of a value from a file. Raises UserError if the value does not fit or is damaged."""
    state, own = named_tensors(state, what), module.state_dict()
    for name in own.keys() & state.keys():
        if own[name].is_floating_point() != state[name].is_floating_point():  # PyTorch would convert it
            raise UserError(f"{what}: {name} is {state[name].dtype}, not {own[name].dtype}; take an earlier file")
    try:
        module.load_state_dict(state)
    except (KeyError, RuntimeError) as error:
        remedy = "if a version before 2.7 wrote it, predict with that version"
        raise UserError(f"{what}: does not fit this model ({one_line(error)}); {remedy}") from None
    check_weights(module, what)


def check_weights(module: nn.Module, what: str) -> None:
    """Raises UserError if weights of the network are damaged; its text begins with `what`, such as the file's path."""
    limits = dict.fromkeys(dict(module.named_buffers()), MAX_WEIGHT**2)  # variances of batch norms may be large
    lowest = {"running_var": 0.0, "deviation": 1e-6}  # what numbers are divided by
    broken = []
    for name, x in module.state_dict().items():
        limit = limits.get(name, MAX_WEIGHT)
        least = lowest.get(name.rpartition(".")[2], -limit)
        if x.is_floating_point() and not ((least <= x) & (x < limit)).all():  # NaN fails as well
            broken.append(name)
    if broken:
        fault = f"{len(broken)} tensors hold NaN, too large numbers or negative variances, the first is {broken[0]}"
        raise UserError(f"{what}: {fault}; take an earlier file")
