"""The device and the precision with which a network runs, and its tensors as arrays."""

import contextlib
import os
import re
from collections.abc import Iterator
from typing import Any

import torch

from common.constants import PRECISION_NAMES
from common.errors import UserError

PRECISIONS = dict(zip(PRECISION_NAMES, (torch.float32, torch.float32, torch.bfloat16, torch.float16), strict=True))


def resolve_device(name: str = "auto") -> torch.device:
    """The device `name`: one of torch's names, or `auto` for CUDA if there is a GPU, else MPS (Apple), else the CPU.

    A plain `cuda` is the GPU of this process: the first GPU, or under torchrun the GPU with the number of the local
    rank. Raises UserError if this machine or this PyTorch does not have the device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "cuda":
        name = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # its first sentence says why
        reason = re.split(r"\. |\n", str(error))[0]
        raise UserError(f"device {name!r} cannot be used: {reason}; use auto, cpu, cuda, cuda:1 or mps") from None


def use_device(name: str) -> torch.device:
    """The device of this process, as `resolve_device`; PyTorch then uses no memory of the first GPU beside it."""
    device = resolve_device(name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def resolve_precision(name: str | None, device: torch.device) -> str:
    """`name`, a key of PRECISIONS; if it is None, "bf16" on a CUDA GPU that computes in it, else "fp32"."""
    if name:
        return name
    return "bf16" if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """A context in which a transformer's forward pass computes products in `precision`, a key of PRECISIONS."""
    dtype = PRECISIONS[precision]
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32, cache_enabled=torch.is_grad_enabled())


@contextlib.contextmanager
def memory_errors(remedy: str) -> Iterator[None]:
    """If the memory of the GPU or of this machine is full in the block, raise a UserError that ends with `remedy`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # for a CPU's memory, PyTorch and its oneDNN raise a RuntimeError
        full_gpu = isinstance(error, torch.cuda.OutOfMemoryError)
        full_cpu = isinstance(error, MemoryError) or re.search("DefaultCPUAllocator|create a primitive$", str(error))
        if not (full_gpu or full_cpu):
            raise
        raise UserError(f"the memory of {'the GPU' if full_gpu else 'this machine'} is full; {remedy}") from None


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Set whether CUDA may round the factors of products to TensorFloat-32 within the block."""
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    products.allow_tf32 = convolutions.allow_tf32 = allowed
    try:
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before


def tensor_to_array(value: Any) -> Any:
    """Turn a tensor of any device and type into an array; any other value is returned as it is."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()  # numpy has no bfloat16
    return value
