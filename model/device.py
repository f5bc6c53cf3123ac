"""Where the network runs."""

import os

import torch

from formats.errors import UserError


def resolve_device(name: str = "auto") -> torch.device:
    """`auto` = CUDA if there is a GPU, else MPS (Apple), else the CPU; anything else is torch's own name, checked.

    A plain `cuda` is the GPU of this process: the first, or under torchrun the one with the number of its local rank.
    UserError names a device that this machine or this PyTorch does not have.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device {name!r} is unknown; use auto, cpu, cuda, cuda:1 or mps") from None
    if device.type == "cuda":
        if device.index is None:
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if device.index >= count:
            raise UserError(
                f"device '{device}' asked for, but PyTorch {torch.__version__} sees {count} CUDA GPUs; use cpu"
            )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"device {name!r} asked for, but this machine has no MPS; use cpu")
    return device
