"""The CUDA kernels as the tests call them: on numpy arrays, by the host twin or by a device.

The fixture `target` (conftest.py) says which; with a device, arrays go there and back around every call.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from shoal.kernels import _cuda_host
from shoal.kernels.cuda import Kernels, kernels
from shoal.kernels.cuda_array import View
from shoal.kernels.cuda_coding import Coding
from shoal.kernels.cuda_memory import download, empty

#: bytes that addresses are kept modulo: vector loads depend on 16 of them
ALIGNMENT = 64


class Remote:
    """A device's functions for numpy arrays; those that can be written to come back after the call."""

    def __init__(self, target: Any, native: Any) -> None:
        self.target, self.native = target, native

    def __getattr__(self, name: str) -> Any:
        function = getattr(self.target, name)

        def call(*arguments: Any, **named: Any) -> Any:
            sent: dict[tuple[int, int], tuple[np.ndarray, View]] = {}
            there = [self._there(x, sent) for x in arguments], {k: self._there(x, sent) for k, x in named.items()}
            answer = function(*there[0], **there[1])
            for x, view in sent.values():
                if x.flags.writeable:
                    x[...] = download(self.native, view)
            return answer

        return call

    def _there(self, x: Any, sent: dict[tuple[int, int], tuple[np.ndarray, View]]) -> Any:
        """The same array twice is the same memory twice; its place within ALIGNMENT bytes stays."""
        if isinstance(x, list) and x and isinstance(x[0], np.ndarray):
            return [self._there(y, sent) for y in x]
        if not isinstance(x, np.ndarray) or x.ndim != 1:
            return x
        key = x.ctypes.data, x.nbytes
        if key not in sent:
            offset = x.ctypes.data % ALIGNMENT
            room = empty(self.native, x.nbytes + offset, np.uint8)
            bytes_ = np.zeros(x.nbytes + offset, np.uint8)
            bytes_[offset:] = np.ascontiguousarray(x).view(np.uint8)
            if x.nbytes:
                room.owner.put(bytes_, 0, 1)  # type: ignore[attr-defined]
            sent[key] = x, View(room.pointer + offset, len(x), x.dtype, room.device, not x.flags.writeable, room)
        return sent[key][1]


class Chosen:
    """Passes calls on to the target in use."""

    def __init__(self) -> None:
        self.target: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.target, name)


KERNELS, CODING = Chosen(), Chosen()


def use_host() -> None:
    KERNELS.target, CODING.target = Kernels(_cuda_host), Coding(_cuda_host, -1)


def use_device() -> None:
    native = kernels().native
    KERNELS.target, CODING.target = Remote(kernels(), native), Remote(Coding(native, 0), native)
