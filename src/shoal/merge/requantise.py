"""Merged numbers become whole numbers, scales and codes of 0 again, on their way to a sink.

They are gathered tensor by tensor, because a new scale follows from all numbers that it is for.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from shoal.errors import InputError, MachineError, shown
from shoal.merge.grid import Grid, fit
from shoal.merge.quantised import Weight
from shoal.merge.source import Sink, Tensor
from shoal.merge.tile import Array, Float64s


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a weight is quantised anew.

    tensor     its codes, as stored
    like       the grid to keep where there is nothing but zeros, and that a bias starts from
    symmetric  the code of 0 is 0; False for codes without a sign: theirs is 0 wherever no number is below 0
    codes      lowest and highest code to use
    """

    tensor: Tensor
    like: Grid
    symmetric: bool
    codes: tuple[int, int]


class Requantiser:
    """A sink that gathers merged numbers, quantises them, and hands codes, scales and codes of 0 to another sink.

    extra  bytes of numbers that were taken beyond those that were handed on
    """

    def __init__(
        self,
        inner: Sink,
        weights: Mapping[str, Weight],
        schemes: Mapping[str, Scheme],
        tensors: Mapping[str, Tensor],
    ) -> None:
        self._inner, self._weights, self._schemes, self._tensors = inner, weights, schemes, tensors
        self._gathered: dict[str, Float64s] = {}
        self._missing = {codes: scheme.tensor.elements for codes, scheme in schemes.items()}
        self._scales: dict[str, Float64s] = {}
        self._lock = threading.Lock()
        self.extra = 0

    def place(self, tensor: Tensor, first: int, count: int, /) -> Array | None:
        return None if tensor.key in self._weights else self._inner.place(tensor, first, count)

    def keep(self, tensor: Tensor) -> None:
        self._inner.keep(tensor)

    def put(self, tensor: Tensor, first: int, values: Array) -> None:
        if tensor.key not in self._weights:
            self._inner.put(tensor, first, values)
            return
        with self._lock:
            if tensor.key not in self._gathered:
                self._gathered[tensor.key] = _room(tensor)
            whole = self._gathered[tensor.key]
        whole[first : first + len(values)] = values
        with self._lock:
            self._missing[tensor.key] -= len(values)
            done = not self._missing[tensor.key]
        # A bias waits for the scale of its weight, which may not be there yet.
        if done and self._weights[tensor.key].follows not in self._weights:
            self._quantise(tensor.key)

    def finish(self) -> None:
        """Quantise what waited for other tensors.  Call when everything was put."""
        for codes in list(self._gathered):
            self._quantise(codes)

    def _quantise(self, codes: str) -> None:
        weight, scheme = self._weights[codes], self._schemes[codes]
        with self._lock:
            values = self._gathered.pop(codes)
        if not np.isfinite(values).all():
            raise _unfit(weight, "the result has a NaN or Inf, which whole numbers cannot stand for")
        scale_dtype = self._tensors[weight.scale].dtype
        if weight.follows is None:
            grid = fit(values, scheme.like, scheme.codes, scale_dtype, scheme.symmetric)
        else:
            grid = self._moved(weight, scheme, scale_dtype)
        if not np.isfinite(grid.scale).all():
            raise _unfit(weight, f"its new scale is too large for {scale_dtype}")
        if grid.zero.any() and len(weight.beside) < 2:
            raise _unfit(
                weight, "the result has numbers below 0; its codes have no sign, and no zero point of their own"
            )
        if weight.follows is not None:
            self._require_room(weight, grid, values)
        found = grid.codes(values, scheme.tensor.dtype)
        with self._lock:
            self._scales[codes] = grid.scale
            self.extra += values.nbytes - found.nbytes
        self._inner.put(scheme.tensor, 0, found)
        self._inner.put(self._tensors[weight.scale], 0, grid.scale.astype(scale_dtype))
        for key in weight.beside[1:]:
            self._inner.put(self._tensors[key], 0, grid.zero.astype(self._tensors[key].dtype))

    def _moved(self, weight: Weight, scheme: Scheme, scale_dtype: np.dtype[Any]) -> Grid:
        """The grid of a bias: its scale changes by the same factor as that of its weight."""
        like, scale = scheme.like, scheme.like.scale
        if weight.follows in self._scales:
            before = self._schemes[weight.follows].like.scale
            if not (before > 0.0).all():
                raise _unfit(weight, f"a scale of {shown(weight.follows)}, which its own must follow, is not above 0")
            with np.errstate(over="ignore"):
                scale = (scale * (self._scales[weight.follows] / before)).astype(scale_dtype).astype(np.float64)
        return Grid(like.slices, scale, np.zeros_like(like.zero))

    def _require_room(self, weight: Weight, grid: Grid, values: Float64s) -> None:
        """raises  InputError  if a bias is too large for its codes: its scale is not free to grow"""
        least, largest = grid.slices.extremes(values)
        most = np.maximum(np.abs(least), np.abs(largest))
        if not (grid.scale > 0.0).all() or (most / grid.scale > np.iinfo(np.int32).max).any():
            raise _unfit(weight, f"the result is too large for the scale that {shown(weight.follows or '')} gives it")


def _room(tensor: Tensor) -> Float64s:
    try:
        return np.empty(tensor.elements, np.float64)
    except MemoryError:
        raise MachineError(
            "machine.memory", f"{shown(tensor.key)}: {tensor.nbytes} bytes of numbers do not fit into memory"
        ) from None


def _unfit(weight: Weight, what: str) -> InputError:
    return InputError("tensor.quantised", f"quantised weight {shown(weight.codes)} cannot be quantised anew: {what}")
