"""Arrays of our own in a device's memory, for callers that have no torch or CuPy at hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from shoal.errors import ArgumentError, MachineError, shown
from shoal.kernels.cuda_array import View, stream_of

Array = npt.NDArray[Any]


def empty(native: Any, length: int, dtype: npt.DTypeLike, *, device: int = 0, stream: object = None) -> View:
    """``length`` elements of memory that holds anything.  It is given back, in the order of ``stream``, when the last
    View of it goes; the stream must live as long.

    raises  MachineError("device.memory")
    """
    of = np.dtype(dtype)
    try:
        memory = native.Memory(length * of.itemsize, device, stream_of(stream))
    except MemoryError as error:
        raise MachineError("device.memory", f"the device is out of memory: {shown(str(error), 200)}") from error
    except RuntimeError as error:
        raise MachineError("device.cuda", f"CUDA failed: {shown(str(error), 200)}") from error
    return View(memory.pointer, length, of, -1 if native.KIND == "host" else device, False, memory)


def upload(native: Any, x: Array, *, device: int = 0, stream: object = None) -> View:
    """A copy of a contiguous 1-D array on the device; may keep the host until it is made."""
    if x.ndim != 1 or not x.flags.c_contiguous:
        raise ArgumentError("array.layout", f"an array of shape {x.shape}; expected one dimension, contiguous")
    view = empty(native, len(x), x.dtype, device=device, stream=stream)
    if len(x):
        view.owner.put(x.view(np.uint8), device, stream_of(stream))  # type: ignore[attr-defined]
    return view


def download(native: Any, view: View, *, stream: object = None) -> Array:
    """A copy of a device's array in memory of the host; waits for the stream."""
    out = np.empty(view.length, view.dtype)
    if view.length:
        native.get(view.pointer, out.view(np.uint8), view.device, stream_of(stream))
    return out
