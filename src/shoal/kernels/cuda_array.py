"""Arrays of a device by DLPack or ``__cuda_array_interface__`` (torch, CuPy, JAX, Numba), without copying them.

A `View` is what a kernel needs to know of one array; it keeps the array alive.  Arrays of the host twin (`_cuda_host`,
for tests) are numpy's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from shoal.errors import ArgumentError, shown
from shoal.kernels.reference import BFLOAT16

#: DLPack's numbers of devices whose memory a kernel can use: CUDA, CUDA managed
CUDA_DEVICES: Final = (2, 13)
#: DLPack's (type code, bits) -> dtype
_DLPACK: Final = {
    (0, 8): np.dtype(np.int8),
    (0, 32): np.dtype(np.int32),
    (0, 64): np.dtype(np.int64),
    (1, 8): np.dtype(np.uint8),
    (1, 32): np.dtype(np.uint32),
    (1, 64): np.dtype(np.uint64),
    (2, 16): np.dtype(np.float16),
    (2, 32): np.dtype(np.float32),
    (2, 64): np.dtype(np.float64),
    (4, 16): BFLOAT16,
}
#: the legacy default stream, as DLPack and the CUDA array interface write it
DEFAULT_STREAM: Final = 1


class Native(Protocol):
    """What this module needs of `_cuda` or `_cuda_host`."""

    KIND: str

    def dlpack(self, capsule: object) -> tuple[int, int, int, int, tuple[int, ...], tuple[int, ...] | None, object]: ...

    def device_of(self, pointer: int) -> int: ...

    def follow(self, device: int, stream: int, other: int) -> None: ...


@dataclass(frozen=True, eq=False)
class View:
    """One contiguous, one-dimensional array.

    pointer   address of the first element, a multiple of its size
    length    elements
    device    number of the CUDA device; -1 for memory of the host twin
    owner     what keeps the memory alive
    """

    pointer: int
    length: int
    dtype: np.dtype[Any]
    device: int
    readonly: bool
    owner: object

    @property
    def bytes(self) -> int:
        return self.length * self.dtype.itemsize


def stream_of(stream: object) -> int:
    """A caller's stream as a number: None for the default one, an int, or an object of torch or CuPy.

    raises  ArgumentError("stream.type")
    """
    if stream is None:
        return DEFAULT_STREAM
    found = next((getattr(stream, n) for n in ("cuda_stream", "ptr") if hasattr(stream, n)), stream)
    if isinstance(found, bool) or not isinstance(found, int) or found < 0:
        raise ArgumentError(
            "stream.type", f"stream is a {type(stream).__name__}; expected a CUDA stream or its address"
        )
    return found or DEFAULT_STREAM


def view_of(x: object, what: str, native: Native, stream: int) -> View:
    """The array as it lies on its device.  Work that its producer put on another stream is waited for by `stream`, on
    the device: the host waits for nothing.

    raises  ArgumentError  ``array.type``, ``array.device``, ``array.dtype``, ``array.shape``, ``array.layout``,
                           ``array.alignment``
    """
    if isinstance(x, View):
        return x
    if isinstance(x, np.ndarray):
        return _of_numpy(x, what, native)
    if native.KIND == "cuda":
        if callable(getattr(x, "__dlpack_device__", None)) and callable(getattr(x, "__dlpack__", None)):
            return _of_dlpack(x, what, native, stream)
        if isinstance(getattr(x, "__cuda_array_interface__", None), dict):
            return _of_interface(x, what, native, stream)
    raise ArgumentError(
        "array.type",
        f"{what} is a {type(x).__name__}; expected an array of a CUDA device (DLPack or __cuda_array_interface__)",
    )


def _of_numpy(x: np.ndarray[Any, Any], what: str, native: Native) -> View:
    if native.KIND == "cuda":
        raise ArgumentError("array.device", f"{what} lies in memory of the CPU; expected memory of a CUDA device")
    strides = tuple(s // x.itemsize for s in x.strides)
    return _view(x.ctypes.data, x.shape, strides, x.dtype, -1, not x.flags.writeable, x, what)


def _of_dlpack(x: Any, what: str, native: Native, stream: int) -> View:
    kind, device = (int(n) for n in x.__dlpack_device__())
    if kind not in CUDA_DEVICES:
        raise ArgumentError("array.device", f"{what} lies on DLPack device {kind}; expected a CUDA device")
    try:
        capsule = x.__dlpack__(stream=stream)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise ArgumentError("array.type", f"{what} cannot be exported by DLPack: {shown(str(error), 200)}") from error
    pointer, code, bits, lanes, shape, strides, owner = native.dlpack(capsule)
    dtype = _DLPACK.get((code, bits)) if lanes == 1 else None
    if dtype is None:
        raise ArgumentError("array.dtype", f"{what} has DLPack's type {code} of {bits} bits; expected a known one")
    return _view(pointer, shape, strides, dtype, device, False, (x, owner), what)


def _of_interface(x: Any, what: str, native: Native, stream: int) -> View:
    facts = x.__cuda_array_interface__
    try:
        dtype = np.dtype(facts["typestr"])
        shape = tuple(int(n) for n in facts["shape"])
        pointer, readonly = int(facts["data"][0] or 0), bool(facts["data"][1])
        given = facts.get("strides")
        steps = None if given is None else tuple(int(s) // dtype.itemsize for s in given)
        uneven = given is not None and any(int(s) % dtype.itemsize for s in given)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ArgumentError("array.type", f"{what} has an unusable __cuda_array_interface__: {error}") from error
    if facts.get("mask") is not None or uneven:
        raise ArgumentError("array.layout", f"{what} has a mask or strides within an element; expected plain elements")
    size = math.prod(shape)
    device = native.device_of(pointer) if size else 0
    if device < 0:
        raise ArgumentError("array.device", f"{what} does not lie on a CUDA device")
    producer = facts.get("stream")
    if size and producer is not None and int(producer) != stream:
        native.follow(device, stream, int(producer))
    return _view(pointer, shape, steps, dtype, device, readonly, x, what)


def _view(
    pointer: int,
    shape: Sequence[int],
    strides: Sequence[int] | None,
    dtype: np.dtype[Any],
    device: int,
    readonly: bool,
    owner: object,
    what: str,
) -> View:
    """strides count elements; None: contiguous."""
    if not dtype.isnative:
        raise ArgumentError("array.dtype", f"{what} is {dtype} in foreign byte order; expected a native dtype")
    if len(shape) != 1:
        raise ArgumentError("array.shape", f"{what} has shape {list(shape)}; expected one dimension")
    if strides is not None and shape[0] > 1 and strides[0] != 1:
        raise ArgumentError("array.layout", f"{what} has stride {strides[0]}; expected contiguous elements")
    if shape[0] and pointer % dtype.itemsize:
        raise ArgumentError(
            "array.alignment", f"{what} lies at address {pointer:#x}; expected a multiple of {dtype.itemsize}"
        )
    return View(pointer, int(shape[0]), dtype, device, readonly, owner)
