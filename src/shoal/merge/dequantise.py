"""A model whose quantised weights are read as the numbers that they stand for."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from functools import cached_property

import numpy as np

from shoal.errors import ShoalError, shown
from shoal.merge.grid import Grid, Slices
from shoal.merge.quantised import Weight
from shoal.merge.source import Item, Source, Stretch, Tensor
from shoal.merge.tile import Array

_NUMBERS = np.dtype(np.float64)


class DequantisedSource:
    """A model whose quantised weights are read as numbers.

    extra  bytes of numbers that were handed out beyond those that were read
    """

    in_memory = False

    def __init__(self, source: Source, weights: Iterable[Weight]) -> None:
        self.label, self.stored = source.label, source
        self._weights = {weight.codes: weight for weight in weights}
        self._grids: dict[str, Grid] = {}
        self._lock = threading.Lock()
        self.extra = 0

    @cached_property
    def tensors(self) -> Mapping[str, Tensor]:
        hidden = {key for weight in self._weights.values() for key in weight.beside}
        return {
            key: Tensor(key, "float", _NUMBERS, tensor.elements, tensor.dims) if key in self._weights else tensor
            for key, tensor in self.stored.tensors.items()
            if key not in hidden
        }

    def place(self, stretch: Stretch, /) -> tuple[int, int] | None:
        return None if stretch.tensor.key in self._weights else self.stored.place(stretch)

    def read(self, item: Item, out: Array | None, /) -> Array:
        if not any(stretch.tensor.key in self._weights for stretch in item):
            return self.stored.read(item, out)
        assert out is not None
        offset = 0
        for stretch in item:
            part = out[offset : offset + stretch.count]
            offset += stretch.count
            if stretch.tensor.key not in self._weights:
                self.stored.read((stretch,), part)
                continue
            tensor = self.stored.tensors[stretch.tensor.key]
            codes = np.empty(stretch.count, tensor.dtype)
            self.stored.read((Stretch(tensor, stretch.first, stretch.count),), codes)
            self.grid(stretch.tensor.key).numbers(codes, stretch.first, part)
            with self._lock:
                self.extra += part.nbytes - codes.nbytes
        return out

    def grid(self, codes: str) -> Grid:
        """The scale and the code of 0 of a weight.

        raises  the source's fault  if a scale is not finite
        """
        with self._lock:
            if codes not in self._grids:
                self._grids[codes] = read_grid(self.stored, self._weights[codes])
            return self._grids[codes]

    def same(self, tensor: Tensor, other: Source) -> bool:
        assert isinstance(other, DequantisedSource)
        return self.stored.same(tensor, other.stored)

    def fault(self, code: str, message: str) -> ShoalError:
        return self.stored.fault(code, message)


def read_whole(source: Source, key: str) -> Array:
    """A tensor's elements in memory."""
    tensor = source.tensors[key]
    if not tensor.elements:
        return np.empty(0, tensor.dtype)
    return source.read((Stretch(tensor, 0, tensor.elements),), np.empty(tensor.elements, tensor.dtype))


def read_grid(source: Source, weight: Weight) -> Grid:
    """raises  the source's fault  if a scale is not finite"""
    slices = Slices.of(source.tensors[weight.codes].dims, weight.axis)
    scale = read_whole(source, weight.scale).astype(np.float64)
    if not np.isfinite(scale).all():
        raise source.fault(
            "tensor.nonfinite",
            f"{source.label}: quantisation scale {shown(weight.scale)} has a NaN or Inf; expected finite numbers",
        )
    if weight.zero is None:
        return Grid(slices, scale, np.zeros(len(scale), np.int64))
    return Grid(slices, scale, read_whole(source, weight.zero).astype(np.int64))
