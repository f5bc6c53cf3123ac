"""A pretended GPU, for tests on machines without one: a device of its own kind whose tensors hold values on the CPU.

    why_not = register()        # once in a process, before its first backward pass
    with PretendedDevice() as gpu:
        network.to(gpu.device)  # and whatever else
    gpu.waits                   # where the CPU would have waited for a GPU

As with CUDA, tensors of two devices do not mix, numpy reads none of them, and a copy to the CPU that nobody waits for
arrives late. Numbers are the CPU's; autocast casts what goes into products, and nothing back.
"""

import functools
import os
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode

from tests.made import ROOT

NAME = "pretended"
OURS = f"{ROOT}{os.sep}"
aten = torch.ops.aten
COPIES = {aten._to_copy.default, aten.copy_.default}
INDEXING = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._unsafe_index.Tensor}
JOINS = {aten.cat.default, aten.stack.default}
ASKS = {  # whose result, or its shape, is in the values: to the CPU with them
    aten._local_scalar_dense.default,
    aten.equal.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.unique_consecutive.default,
    aten.repeat_interleave.Tensor,
    aten.bincount.default,
}
PRODUCTS = ("linear", "matmul", "bmm", "einsum", "conv2d", "conv_transpose2d.input", "scaled_dot_product_attention")
AUTOCAST = "AutocastPrivateUse1"
_libraries = []  # what is registered goes with its library


class MixedDevices(RuntimeError):
    """An operation on tensors of two devices."""


class Wait(NamedTuple):
    """The CPU waits until the device has done all that it was given."""

    why: str
    file: str  # of ours, from the root of the repository
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}, {self.function}: {self.why}"


def register() -> str | None:
    """Make the device known to this process, for good. Returns the reason if this version of PyTorch cannot do it: the
    interface is experimental.
    """
    module = SimpleNamespace(
        is_available=lambda: True,
        is_initialized=lambda: True,
        device_count=lambda: 1,
        current_device=lambda: 0,
        manual_seed_all=lambda seed: None,
        _is_in_bad_fork=lambda: False,
        get_amp_supported_dtype=lambda: [torch.bfloat16, torch.float16],
    )
    try:
        backend_registration._setup_privateuseone_for_python_backend(NAME, module)
        _register_autocast()
        with PretendedDevice() as gpu:
            weight = torch.ones(2).to(gpu.device).requires_grad_()
            (3 * weight).sum().backward()
            works = weight.grad.tolist() == [3, 3] and len(gpu.waits) == 2
    except Exception as error:  # whatever another version may raise
        return f"PyTorch {torch.__version__} registers no device from Python ({type(error).__name__}: {error})"
    return None if works else f"PyTorch {torch.__version__} computes nothing on a device registered from Python"


def _register_autocast() -> None:
    others, products = torch.library.Library("_", "IMPL", AUTOCAST), torch.library.Library("aten", "IMPL", AUTOCAST)
    others.fallback(torch.library.fallthrough_kernel)
    for name in PRODUCTS:
        packet, _, overload = name.partition(".")
        products.impl(name, functools.partial(_product, getattr(getattr(aten, packet), overload or "default")))
    _libraries.extend((others, products))


def _product(func, *args: Any, **kwargs: Any) -> Tensor:
    """An operation of factors in autocast's precision."""
    dtype = torch.get_autocast_dtype(NAME)
    cast = lambda x: x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x  # noqa: E731
    with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, AUTOCAST))):
        return func(*_each(cast, args), **_each(cast, kwargs))


class OnDevice(Tensor):
    """A tensor of the device; `held` has its values."""

    @staticmethod
    def __new__(cls, held: Tensor) -> "OnDevice":
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        return Tensor._make_wrapper_subclass(cls, held.shape, device=torch.device(NAME, 0), **layout)

    def __init__(self, held: Tensor):
        self.held = held

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f"{func} on a tensor of {NAME} outside of `with PretendedDevice()`")

    def numpy(self, **_: Any) -> None:
        raise TypeError(f"can't convert {self.device} tensor to numpy. Use Tensor.cpu() first.")

    def __array__(self, *_: Any, **__: Any) -> None:
        self.numpy()

    # What a subclass of Tensor cannot do by itself.
    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __format__(self, form: str) -> str:
        return format(self.cpu().item(), form) if not self.dim() else repr(self)

    def __repr__(self, **_: Any) -> str:
        return f"{self.cpu()} on {self.device}"

    def __reduce_ex__(self, protocol: int) -> Any:
        return self.detach().cpu().__reduce_ex__(protocol)


class PretendedDevice(TorchDispatchMode):
    """For a `with`, in which the device is there. `waits` is the list of what the CPU has waited for."""

    def __init__(self):
        super().__init__()
        self.device = torch.device(NAME, 0)
        self.waits: list[Wait] = []
        self.under_way: list[Callable[[], Any]] = []  # copies to the CPU; calling one makes it arrive
        self._pinned: dict[int, Tensor] = {}  # by address; kept, so that no other gets it

    def __enter__(self) -> "PretendedDevice":
        self._before = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)  # then torch.tensor(..., device=...) is a copy, which it is for CUDA
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        torch._C._set_only_lift_cpu_tensors(self._before)
        super().__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if torch.is_inference_mode_enabled() and func._can_decompose():  # autograd, which is off, has done it elsewhere
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        if func in COPIES:
            return self._copy(func, args, kwargs)
        if func is aten._pin_memory.default:
            return self._pin(args[0])
        if func is aten.is_pinned.default:
            return self._is_pinned(args[0])
        if func is aten._fused_sdp_choice.default:
            return 0  # attention in plain operations
        tensors: list[Tensor] = []
        _each(lambda x: tensors.append(x) if isinstance(x, Tensor) else None, (args, kwargs))
        ours = any(isinstance(x, OnDevice) for x in tensors)
        if ours:
            self._check_devices(func, args, tensors)
            if func in ASKS:
                self.wait(func.overloadpacket.__name__)
        return _run(func, args, kwargs, to_device=_asked_for(kwargs, default=ours))

    def wait(self, why: str) -> None:
        """The CPU waits here: note it, and let everything arrive."""
        self.waits.append(Wait(why, *place()))
        self.arrive(self.under_way)

    def arrive(self, copies: list[Callable[[], Any]]) -> None:
        for copy in list(copies):
            copy()
        self.under_way = [copy for copy in self.under_way if copy not in copies]

    def _check_devices(self, func, args, tensors: list[Tensor]) -> None:
        """CUDA's rules: a number may be anywhere, and an index on the CPU, from where it is copied."""
        others = [x for x in tensors if not isinstance(x, OnDevice) and (x.dim() or func in JOINS)]
        if func in INDEXING:
            indices = [x for x in args[1] if x is not None]
            if any(x.dtype in (torch.bool, torch.uint8) for x in indices):
                self.wait("boolean index")
            if isinstance(args[0], OnDevice) and any(x is y for x in others for y in indices):
                self.wait("index from the CPU")
                others = [x for x in others if not any(x is y for y in indices)]
        if others:
            file, line, function = place()
            raise MixedDevices(f"{file}:{line}, {function}: {func} of tensors on {self.device} and on the CPU")

    def _copy(self, func, args, kwargs) -> Tensor:
        source, target = (args[1], args[0]) if func is aten.copy_.default else (args[0], None)
        here = isinstance(source, OnDevice)
        there = _asked_for(kwargs, default=here) if target is None else isinstance(target, OnDevice)
        non_blocking = kwargs.get("non_blocking") or (target is not None and len(args) > 2 and args[2])
        result = _run(func, args, kwargs, to_device=there)
        if there and not here and not non_blocking:
            self.wait("copy to the device")
        elif there and not here and not self._is_pinned(source):  # CUDA may wait, but nobody can rest on it
            self.waits.append(Wait("copy to the device from memory that is not pinned", *place()))
        if here and not there:
            if non_blocking:
                self._delay(result)
            else:
                self.wait("copy to the CPU")
        return result

    def _delay(self, result: Tensor) -> None:
        """Until the copy arrives, the result holds something else."""
        value = result.clone()
        result.copy_(torch.full_like(value, torch.nan) if value.is_floating_point() else ~value)
        self.under_way.append(lambda: result.copy_(value))

    def _pin(self, tensor: Tensor) -> Tensor:
        copy = tensor.clone()
        self._pinned[copy.untyped_storage().data_ptr()] = copy
        return copy

    def _is_pinned(self, tensor: Tensor) -> bool:
        return not isinstance(tensor, OnDevice) and tensor.untyped_storage().data_ptr() in self._pinned


def _asked_for(kwargs: dict[str, Any], default: bool) -> bool:
    """Whether an operation's result is to be on the device."""
    device = kwargs.get("device")
    return default if device is None else torch.device(device).type == NAME


def _run(func, args, kwargs, to_device: bool) -> Any:
    """An operation on the values that are held."""
    held = {}

    def take(x: Any) -> Any:
        if isinstance(x, OnDevice):
            held[id(x.held)] = x
            return x.held
        return torch.device("cpu") if isinstance(x, torch.device) else x

    def give(x: Any) -> Any:
        if not isinstance(x, Tensor) or not to_device:
            return x
        return held[id(x)] if id(x) in held else OnDevice(x)  # an operation in place returns what it was given

    with torch.inference_mode(False), torch.no_grad():  # views of weights must not be inference tensors
        return _each(give, func(*_each(take, args), **_each(take, kwargs)))


def _each(function: Callable[[Any], Any], x: Any) -> Any:
    """The same containers with the function's values."""
    if isinstance(x, (list, tuple)):
        return type(x)([_each(function, part) for part in x])
    if isinstance(x, dict):
        return {key: _each(function, part) for key, part in x.items()}
    return function(x)


def place() -> tuple[str, int, str]:
    """File, line and function of ours that is running; a backward pass runs none, there it is the operation."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(OURS) and file != __file__ and "site-packages" not in file:
            named = frame
            while named.f_code.co_name.startswith("<") and named.f_back and named.f_back.f_code.co_filename == file:
                named = named.f_back  # the function that a comprehension is in
            return file.removeprefix(OURS), frame.f_lineno, named.f_code.co_name
        frame = frame.f_back
    node = torch._C._current_autograd_node()
    return "backward pass", 0, node.name() if node else "unknown"
