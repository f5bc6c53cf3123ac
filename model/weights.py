"""Named tensors: in files, and from there into networks, with everything checked that a file may have wrong."""

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import UserError
from common.files import atomic_write

MAX_WEIGHT = 1e6  # of trained networks, by far; products of larger ones become infinite, and answers NaN


def write_torch(path: Path, content: Any) -> None:
    """`torch.save`, whole or not at all. Through memory: on a full disk torch's own writer raises a RuntimeError."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with atomic_write(path, "wb") as file:
        file.write(buffer.getbuffer())


def read_torch(path: Path, remedy: str = "is it truncated?") -> Any:
    """`torch.load` of tensors and plain values onto the CPU; no code in the file is run.

    UserError if there is no such file, or if it cannot be read; it ends with `remedy`.
    """
    if not Path(path).is_file():
        raise UserError(f"no file {path}; {remedy}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises anything on a damaged file, an OSError too
        raise UserError(f"{path} cannot be read ({in_a_line(error)}); {remedy}") from None


def in_a_line(error: Exception) -> str:
    """The message of an error, short enough to be part of a line."""
    text = " ".join(str(error).split())
    return text[:150] + "..." * (len(text) > 150) if text else type(error).__name__


def named_tensors(state: Any, what: str) -> dict[str, Tensor]:
    """A state dict from a file, without wrappers' prefixes. UserError if it is none of ordinary tensors."""
    if not isinstance(state, Mapping):
        raise UserError(f"{what}: holds {type(state).__name__}, no tensors by name")
    for name, tensor in state.items():
        plain = isinstance(tensor, Tensor) and tensor.layout == torch.strided and tensor.device.type == "cpu"
        if not isinstance(name, str) or not plain or tensor.is_quantized or tensor.is_nested:
            raise UserError(f"{what}: {name!r:.80} is no ordinary tensor with a name")
    for prefix in ("module.", "_orig_mod.") * 2:  # of data-parallel training and torch.compile
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def load_state(module: nn.Module, state: Any, what: str) -> None:
    """Strict `load_state_dict` of whatever a file holds; the UserError is one line that names the first few tensors at
    fault.
    """
    state = named_tensors(state, what)
    missing, unexpected, unfit = differences(module, state)
    kinds = {"missing": missing, "unexpected": unexpected, "that do not fit": unfit}
    faults = [f"{len(names)} {kind} ({_first(names)})" for kind, names in kinds.items() if names]
    if faults:
        raise UserError(f"{what}: does not fit this model, tensors {'; '.join(faults)}")
    broken = [name for name, x in state.items() if x.is_floating_point() and not (x.abs() < MAX_WEIGHT).all()]
    if broken:
        raise UserError(
            f"{what}: {len(broken)} tensors hold NaN or numbers above {MAX_WEIGHT:g} ({_first(broken)}); "
            "take an earlier file"
        )
    module.load_state_dict(state)


def differences(module: nn.Module, state: Mapping[str, Tensor]) -> tuple[list[str], list[str], dict[str, str]]:
    """Names (missing in `state`, unexpected in it, of another shape or type, with a description)."""
    own = module.state_dict()
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    unfit = {}
    for name in own.keys() & state.keys():
        theirs, ours = state[name], own[name]
        if theirs.shape != ours.shape:
            unfit[name] = f"{tuple(theirs.shape)} instead of {tuple(ours.shape)}"
        elif theirs.is_floating_point() != ours.is_floating_point():  # float16 for float32 is as good
            unfit[name] = f"{theirs.dtype} instead of {ours.dtype}"
    return missing, unexpected, {name: unfit[name] for name in own if name in unfit}


def _first(names: list[str] | dict[str, str], count: int = 3) -> str:
    texts = [f"{name} {what}" for name, what in names.items()] if isinstance(names, dict) else names
    return ", ".join(text[:120] for text in texts[:count]) + (", ..." if len(texts) > count else "")


def digest_of(module: nn.Module) -> str:
    """SHA-256 of all weights and buffers in their order; names are left out, since timm's may change."""
    sha = hashlib.sha256()
    for tensor in module.state_dict().values():
        sha.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        sha.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return sha.hexdigest()
