"""Arrays of any framework as numpy views: by numpy itself, DLPack or the buffer protocol; copied only where said."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal.errors import ArgumentError, shown
from shoal.kernels.reference import BFLOAT16

Array = npt.NDArray[Any]

#: DLPack's numbers of devices whose memory this process can read: CPU and pinned host memory.
HOST_DEVICES = (1, 3)


def as_array(value: object, label: str, key: str) -> Array:
    """A numpy array over the same memory: native byte order, C-contiguous, any shape.

    value   numpy array or scalar, number, torch tensor (bfloat16 and those that require gradients, too), JAX array,
            anything with DLPack or the buffer protocol
    label, key   of the model and the tensor, for messages
    raises  ArgumentError  for memory of another device, and for what is no array

    One copy is made of arrays that are not contiguous or not of native byte order, and of numbers; of nothing else.
    """
    found = _view(value, label, key)
    if not found.dtype.isnative:
        found = found.astype(found.dtype.newbyteorder("="))
    if found.dtype.hasobject or (found.dtype.kind in "SUVMm" and found.dtype != BFLOAT16 and not _small(found.dtype)):
        raise ArgumentError("array.type", f"{_where(label, key)}: numbers expected, found {shown(str(found.dtype))}")
    return found if found.flags.c_contiguous else np.ascontiguousarray(found)


def as_target(value: object, key: str) -> Array:
    """A numpy array over the same memory, to be written to.

    raises  ArgumentError  also if it is read-only, not contiguous, or not of native byte order
    """
    where = _where("out", key)
    found = _view(value, "out", key)
    if not (found.flags.writeable and found.flags.c_contiguous and found.dtype.isnative):
        raise ArgumentError(
            "array.out", f"{where}: out must be writeable, contiguous and of native byte order; nothing was written"
        )
    if isinstance(value, np.generic | int | float | list | tuple):
        raise ArgumentError("array.out", f"{where}: a {type(value).__name__} cannot be written in place")
    return found


def _where(label: str, key: str) -> str:
    return f"{label}, tensor {shown(key)}"


def _view(value: object, label: str, key: str) -> Array:
    if isinstance(value, np.ndarray):
        return value if type(value) is np.ndarray else value.view(np.ndarray)
    where = _where(label, key)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return _torch_view(torch, value, where)
    if isinstance(value, int | float | np.generic):
        return np.asarray(value)
    device = getattr(value, "__dlpack_device__", None)
    if callable(device):
        kind = int(device()[0])
        if kind not in HOST_DEVICES:
            raise _other_device(where, f"DLPack device {kind}")
        return _from_dlpack(value, where)
    if isinstance(value, bytes | str):
        raise ArgumentError("array.type", f"{where}: expected an array, found {type(value).__name__}")
    try:
        return np.asarray(memoryview(value))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        pass
    if hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
        return np.asarray(value)
    raise ArgumentError("array.type", f"{where}: expected an array, found {shown(type(value).__name__)}")


def _from_dlpack(value: Any, where: str) -> Array:
    try:
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        if hasattr(value, "__array__"):  # JAX's bfloat16: numpy's DLPack does not know the type, JAX's own view does
            return np.asarray(value)
        raise ArgumentError("array.type", f"{where}: {shown(str(error))}") from error


def _torch_view(torch: Any, value: Any, where: str) -> Array:
    if value.device.type != "cpu":
        raise _other_device(where, str(value.device))
    if value.layout != torch.strided or value.is_quantized:
        raise ArgumentError("array.type", f"{where}: expected a dense tensor, found {value.layout}")
    plain = value.detach().resolve_conj().resolve_neg()
    if plain.dtype == torch.bfloat16:
        return np.asarray(plain.view(torch.int16).numpy()).view(BFLOAT16)
    try:
        return np.asarray(plain.numpy())
    except TypeError as error:
        raise ArgumentError("array.type", f"{where}: {shown(str(error))}") from error


def _small(dtype: np.dtype[Any]) -> bool:
    """True for the extension types of ml_dtypes (float8, int4 ...), which numpy calls void."""
    return str(dtype.type.__module__).startswith("ml_dtypes")


def _other_device(where: str, device: str) -> ArgumentError:
    return ArgumentError(
        "array.device", f"{where}: lies on {shown(device)}; expected memory of the CPU (move it there first)"
    )


def overlapping(targets: Mapping[str, Array], inputs: Iterable[tuple[str, Array]], ground: Iterable[Array]) -> set[str]:
    """Keys of targets that must not be written before everything is read.

    targets   where results go
    inputs    (key, array) of all models: a target may be the very same memory as an input of its own key, not more
    ground    arrays of the base: no target may touch them

    Tied weights (one memory under two names) are why this is needed.
    """
    spans = sorted((*_span(array), key) for key, array in targets.items() if array.size)
    late: set[str] = set()
    reach, holder = 0, ""
    for start, stop, key in spans:
        if start < reach:
            late |= {key, holder}
        if stop > reach:
            reach, holder = stop, key
    starts = np.array([span[0] for span in spans], np.uint64)
    longest = max((span[1] - span[0] for span in spans), default=0)
    for owner, array in [*inputs, *((None, array) for array in ground)]:
        start, stop = _span(array)
        low = int(np.searchsorted(starts, np.uint64(max(start - longest, 0))))
        for other_start, other_stop, key in spans[low:]:
            if other_start >= stop:
                break
            if other_stop > start and not (key == owner and other_start == start and other_stop == stop):
                late.add(key)
    return late


def _span(array: Array) -> tuple[int, int]:
    start = int(array.ctypes.data)
    return start, start + array.nbytes
