"""A pretended GPU, for tests on machines without a GPU: a new kind of device whose tensors hold their values on the
CPU. It uses interfaces of PyTorch that are private or experimental.

    why_not = register()        # once in a process, before its first backward pass
    with PretendedDevice() as gpu:
        network.to(gpu.device)  # and any other computation
    gpu.waits                   # the operations at which the CPU would have waited for a GPU

As on CUDA, an operation cannot mix tensors of two devices, and numpy cannot read tensors of the device. As on Apple's
GPUs, the device has no float64. The results are the same as on the CPU.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode

NAME = "pretended"
aten = torch.ops.aten
COPIES = {aten._to_copy.default, aten.copy_.default}
INDEXING = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._unsafe_index.Tensor}
ASKS = {aten._local_scalar_dense.default, aten.equal.default, aten.nonzero.default}  # these read the values


def register() -> str | None:
    """Register the device in this process, for good. If this version of PyTorch cannot do it, returns the reason."""
    constants = {"is_available": True, "is_initialized": True, "device_count": 1, "current_device": 0}
    constants |= {"_is_in_bad_fork": False, "get_amp_supported_dtype": [torch.bfloat16, torch.float16]}
    module = SimpleNamespace(**{name: lambda value=value: value for name, value in constants.items()})
    module.manual_seed_all = lambda seed: None
    try:
        backend_registration._setup_privateuseone_for_python_backend(NAME, module)
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=...) is then a copy, as on CUDA
        with PretendedDevice() as gpu:
            weight = torch.ones(2).to(gpu.device).requires_grad_()
            (3 * weight).sum().backward()
            assert weight.grad.cpu().tolist() == [3, 3]
    except Exception as error:  # another version may raise any exception
        return f"PyTorch {torch.__version__} registers no device from Python ({type(error).__name__}: {error})"
    return None


class OnDevice(Tensor):
    """A tensor of the device; `held` has its values."""

    @staticmethod
    def __new__(cls, held: Tensor) -> "OnDevice":
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        return Tensor._make_wrapper_subclass(cls, held.shape, device=torch.device(NAME, 0), **layout)

    def __init__(self, held: Tensor):
        if held.dtype == torch.float64:
            raise TypeError("this device has no float64")
        self.held = held

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f"{func} on a tensor of {NAME} outside of `with PretendedDevice()`")

    def numpy(self, **_: Any) -> None:
        raise TypeError(f"can't convert {self.device} tensor to numpy. Use Tensor.cpu() first.")

    def tolist(self) -> Any:  # a subclass of Tensor does not inherit it
        return self.cpu().tolist()


class PretendedDevice(TorchDispatchMode):
    """A context in which the device works. `waits` lists what the CPU would have waited for."""

    def __init__(self):
        super().__init__()
        self.device = torch.device(NAME, 0)
        self.waits: list[str] = []
        self.is_idle = False  # it has done nothing since the last wait, so a further copy waits for nothing

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if torch.is_inference_mode_enabled() and func._can_decompose():  # autograd would have done it
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        if func is aten._fused_sdp_choice.default:
            return 0  # attention in plain operations
        tensors: list[Tensor] = []
        _each(lambda x: tensors.append(x) if isinstance(x, Tensor) else None, (args, kwargs))
        here = [isinstance(x, OnDevice) for x in tensors]
        asked, to_device = kwargs.get("device"), any(here)
        if func is aten.copy_.default:
            to_device = here[0]
        elif asked is not None:
            to_device = torch.device(asked).type == NAME
        if func in COPIES:
            if to_device != here[-1] and not (kwargs.get("non_blocking") or True in args[2:]):
                self._wait("a copy")
        elif any(here):
            self.is_idle = False
            self._check_devices(func, args, tensors)
        return _run(func, args, kwargs, to_device)

    def _wait(self, what: str) -> None:
        self.waits += [] if self.is_idle else [what]
        self.is_idle = True

    def _check_devices(self, func, args, tensors: list[Tensor]) -> None:
        """Check CUDA's rules: a number may be on any device; an index may be on the CPU, from which it is copied."""
        others = [x for x in tensors if x.dim() and not isinstance(x, OnDevice)]
        indices = [x for x in args[1] if x is not None] if func in INDEXING else []
        if func in ASKS or indices and (others or any(x.dtype in (torch.bool, torch.uint8) for x in indices)):
            self._wait(str(func))
        if not all(any(x is index for index in indices) for x in others):
            raise RuntimeError(f"{func} of tensors on {self.device} and on the CPU")


def _run(func, args, kwargs, to_device: bool) -> Any:
    """Run an operation on the values that its tensors hold."""
    held = {}

    def take(x: Any) -> Any:
        if isinstance(x, OnDevice):
            held[id(x.held)] = x
            return x.held
        return torch.device("cpu") if isinstance(x, torch.device) else x

    def give(x: Any) -> Any:
        if not isinstance(x, Tensor) or not to_device:
            return x
        return held[id(x)] if id(x) in held else OnDevice(x)  # an operation in place returns its argument

    with torch.inference_mode(False), torch.no_grad():  # views of weights must not be inference tensors
        return _each(give, func(*_each(take, args), **_each(take, kwargs)))


def _each(function: Callable[[Any], Any], x: Any) -> Any:
    """Apply a function to all values in nested lists, tuples and dicts; returns the same containers."""
    if isinstance(x, (list, tuple)):
        return type(x)([_each(function, part) for part in x])
    if isinstance(x, dict):
        return {key: _each(function, part) for key, part in x.items()}
    return function(x)
