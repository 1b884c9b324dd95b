"""Where tensors come from and where they go: arrays in memory here, files in `files`; the engine sees no difference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np

from shoal.errors import ArgumentError, ShoalError
from shoal.kernels.reference import DTYPES
from shoal.merge.tile import Array

#: float: merged; integer: as the option ``integers`` says; fixed: must be equal in all models
Kind = Literal["float", "integer", "fixed"]


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor as the engine sees it.

    key       identity in its model
    kind      what may be done with it
    dtype     of `elements`, native byte order (types that numpy cannot add are seen as uint8, their bytes)
    elements  their number
    dims      shape
    opaque    numpy has no dtype for it (strings, elements that share bytes): only `Source.same` looks at it
    """

    key: str
    kind: Kind
    dtype: np.dtype[Any]
    elements: int
    dims: tuple[int, ...]
    opaque: bool = False

    @property
    def nbytes(self) -> int:
        return self.elements * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Stretch:
    """Elements [first, first + count) of a tensor."""

    tensor: Tensor
    first: int
    count: int


#: stretches of one dtype that one thread does in one go: several whole small tensors, or one stretch
Item = tuple[Stretch, ...]


class Source(Protocol):
    """The tensors of one model.

    label      for messages: "model 2", "model 2 (b.onnx)"
    tensors    by key
    in_memory  `read` returns a view of what is there, and leaves the buffer alone
    """

    @property
    def label(self) -> str: ...
    @property
    def tensors(self) -> Mapping[str, Tensor]: ...
    @property
    def in_memory(self) -> bool: ...

    def read(self, item: Item, out: Array | None, /) -> Array:
        """The item's stretches, one behind the other, in ``out``, which is returned; thread-safe.

        A source in memory takes one stretch and None, and returns a view.
        """
        ...

    def place(self, stretch: Stretch, /) -> tuple[int, int] | None:
        """(descriptor, offset) where `read` would find the bytes as they are wanted, or None."""
        ...

    def same(self, tensor: Tensor, other: Source) -> bool:
        """True if the other model's tensor of that key has the same bits."""
        ...

    def fault(self, code: str, message: str) -> ShoalError:
        """The error to raise when this model's numbers are at fault."""
        ...


class Sink(Protocol):
    """Where the merged tensors go."""

    def place(self, tensor: Tensor, first: int, count: int, /) -> Array | None:
        """Memory that the result may be written to directly, or None."""
        ...

    def put(self, tensor: Tensor, first: int, values: Array) -> None:
        """Take a finished stretch: whole chunks of DIGEST_CHUNK_BYTES, or up to the tensor's end; thread-safe."""
        ...

    def keep(self, tensor: Tensor) -> None:
        """The tensor keeps the value that the first model gives it."""
        ...


class MemorySource:
    """Arrays of the caller: 1-D views, C-contiguous, native byte order."""

    in_memory = True

    def __init__(self, label: str, arrays: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.label = label
        self.arrays = arrays
        self._shapes = shapes

    @cached_property
    def tensors(self) -> Mapping[str, Tensor]:
        return {
            key: Tensor(key, kind_of(array.dtype), array.dtype, len(array), self._shapes[key])
            for key, array in self.arrays.items()
        }

    def read(self, item: Item, _out: Array | None, /) -> Array:
        (stretch,) = item
        array = self.arrays[stretch.tensor.key]
        if stretch.count == len(array):
            return array
        return array[stretch.first : stretch.first + stretch.count]

    def place(self, _stretch: Stretch, /) -> tuple[int, int] | None:
        return None

    def same(self, tensor: Tensor, other: Source) -> bool:
        assert isinstance(other, MemorySource)
        return self.arrays[tensor.key].tobytes() == other.arrays[tensor.key].tobytes()

    def fault(self, code: str, message: str) -> ShoalError:
        return ArgumentError(code, message)


class MemorySink:
    """Results in arrays: 1-D views of what the caller gets back."""

    def __init__(self, arrays: Mapping[str, Array], first: MemorySource) -> None:
        self._arrays = arrays
        self._first = first

    def place(self, tensor: Tensor, first: int, count: int, /) -> Array | None:
        return self._arrays[tensor.key][first : first + count]

    def put(self, tensor: Tensor, first: int, values: Array) -> None:
        target = self._arrays[tensor.key][first : first + len(values)]
        if target.ctypes.data != values.ctypes.data:
            target[...] = values

    def keep(self, tensor: Tensor) -> None:
        self.put(tensor, 0, self._first.arrays[tensor.key])


def kind_of(dtype: np.dtype[Any]) -> Kind:
    """What may be done with an array of this dtype."""
    if dtype in DTYPES:
        return "float"
    return "integer" if dtype.kind in "iu" and dtype.type.__module__ == "numpy" else "fixed"
