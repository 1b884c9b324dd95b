"""The flat layout: which floating tensors a diff is about, one behind the other in one long vector.

The tensors are those that a merge touches: float64, float32, float16 and bfloat16, but for scales of quantised numbers.
They are sorted by the UTF-8 bytes of their keys, so the layout does not depend on the order in a file.  Its digest is
written down in docs/FORMAT.md, "Layouts".
"""

from __future__ import annotations

import hashlib
import math
import struct
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal.errors import ArgumentError, shown
from shoal.limits import ELEMENTS_MAX
from shoal.model.digest import encode_key
from shoal.model.dtype import Dtype
from shoal.model.file import ModelFile
from shoal.model.weights import numpy_dtype

_LAYOUT = b"shoal layout 1\n"


def selects(key: str, include: Iterable[str], exclude: Iterable[str]) -> bool:
    """True if a tensor of that key is meant: no glob of ``exclude`` matches, and one of ``include``, if there is any.

    Globs are fnmatch's, case-sensitive.
    """
    if any(fnmatchcase(key, glob) for glob in exclude):
        return False
    wanted = list(include)
    return not wanted or any(fnmatchcase(key, glob) for glob in wanted)


@dataclass(frozen=True, slots=True)
class Placed:
    """One tensor of a layout.

    key    its key in the model
    dtype  Dtype with ``merged``
    dims   shape
    """

    key: str
    dtype: Dtype
    dims: tuple[int, ...]

    @property
    def elements(self) -> int:
        return math.prod(self.dims)

    @property
    def numpy(self) -> np.dtype[Any]:
        """dtype of one element, little-endian."""
        assert self.dtype.numpy is not None
        return self.dtype.numpy


@dataclass(frozen=True, slots=True)
class Part:
    """Elements [first, first + count) of a tensor that lie at [at, at + count) of a range of the flat vector."""

    tensor: Placed
    first: int
    count: int
    at: int


@dataclass(frozen=True)
class Layout:
    """Tensors as one flat vector, in the order of ``tensors``.

    tensors  sorted by the UTF-8 bytes of their keys, no key twice
    raises   ArgumentError  ``layout.order``, ``layout.dtype``, ``layout.elements``
    """

    tensors: tuple[Placed, ...]

    def __post_init__(self) -> None:
        keys = [encode_key(tensor.key) for tensor in self.tensors]
        if any(a >= b for a, b in pairwise(keys)):
            raise ArgumentError("layout.order", "tensors of a layout are not sorted by key, or one comes twice")
        for tensor in self.tensors:
            if not tensor.dtype.merged:
                raise ArgumentError(
                    "layout.dtype", f"tensor {shown(tensor.key)} is {tensor.dtype.name}; expected a floating type"
                )
        if self.elements > ELEMENTS_MAX:
            raise ArgumentError("layout.elements", f"{self.elements} elements; at most {ELEMENTS_MAX}")

    @classmethod
    def of_file(cls, file: ModelFile, selected: Callable[[str], bool] = lambda _: True) -> Layout:
        """The layout of a model's tensors whose key ``selected`` takes."""
        return cls._sorted(
            Placed(key, ref.dtype, ref.dims)
            for key, ref in file.tensors.items()
            if ref.dtype.merged and key not in file.structure.scales and selected(key)
        )

    @classmethod
    def of_arrays(
        cls, arrays: Mapping[str, npt.NDArray[Any]], selected: Callable[[str], bool] = lambda _: True
    ) -> Layout:
        """The layout of the floating arrays among named ones; the same as of a weights file with them.

        raises  ArgumentError  for a value that is no array, or of a dtype that ONNX does not have
        """
        found = ((name, numpy_dtype(name, array), np.shape(array)) for name, array in arrays.items())
        return cls._sorted(Placed(name, dtype, dims) for name, dtype, dims in found if dtype.merged and selected(name))

    @classmethod
    def _sorted(cls, tensors: Iterable[Placed]) -> Layout:
        return cls(tuple(sorted(tensors, key=lambda tensor: encode_key(tensor.key))))

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Where each tensor begins in the flat vector, and as last number where it ends."""
        return tuple(accumulate((tensor.elements for tensor in self.tensors), initial=0))

    @property
    def elements(self) -> int:
        """Length of the flat vector: d in the protocol."""
        return self.starts[-1]

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 over keys, types and shapes, 32 bytes: equal for models whose diffs can be added."""
        whole = hashlib.sha256(_LAYOUT + struct.pack("<Q", len(self.tensors)))
        for tensor in self.tensors:
            key, dims = encode_key(tensor.key), tensor.dims
            whole.update(
                struct.pack(f"<Q{len(key)}sII{len(dims)}Q", len(key), key, tensor.dtype.code, len(dims), *dims)
            )
        return whole.digest()

    def parts(self, first: int, count: int) -> Iterator[Part]:
        """The pieces of tensors that make elements [first, first + count) of the flat vector, in order.

        Tensors without elements are in no range.
        """
        stop = first + count
        number = max(bisect_right(self.starts, first) - 1, 0)
        while first < stop:
            start, end = self.starts[number], self.starts[number + 1]
            taken = min(end, stop) - first
            if taken:
                yield Part(self.tensors[number], first - start, taken, first - (stop - count))
            first += taken
            number += 1

    def locate(self, element: int) -> tuple[Placed, int]:
        """The tensor that element ``element`` of the flat vector belongs to, and its place in it."""
        part = next(self.parts(element, 1))
        return part.tensor, part.first
