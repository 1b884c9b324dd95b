"""Indices of sparse tensors: where the values belong in the dense tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from shoal.errors import InputError, shown
from shoal.limits import ELEMENTS_MAX
from shoal.model.tensor import TensorRef

if TYPE_CHECKING:
    from shoal.model.file import ModelFile

#: indices that are looked at together
_PIECE: Final = 2**16


def require_places(file: ModelFile, indices: TensorRef, shape: tuple[int, ...]) -> None:
    """Check that every value has a place of its own inside the dense tensor.

    indices  int64[n]: places in C order; or int64[n, rank]: one index for each dimension
    shape    of the dense tensor
    raises   InputError  tensor.sparse: one lies outside, or they do not ascend
    source   onnx.proto, SparseTensorProto: "The indices must appear in ascending order", and no two are equal
    """
    where = f"{shown(str(file.path))}: sparse tensor {shown(repr(indices.key.removesuffix('::indices')))}"
    elements = 1
    for size in shape:
        elements *= size
    if elements > ELEMENTS_MAX:
        raise InputError("tensor.sparse", f"{where}: dims {list(shape)} are more than {ELEMENTS_MAX} elements")
    rank = indices.dims[1] if len(indices.dims) == 2 else 1
    limits = np.array(shape if len(indices.dims) == 2 else [elements], np.int64)
    steps = np.array([int(np.prod(limits[i + 1 :], dtype=np.int64)) for i in range(rank)], np.int64)
    last, count = -1, indices.dims[0]
    for first in range(0, count if rank else 0, _PIECE):
        part = np.empty(min(_PIECE, count - first) * rank, np.int64)
        file.read_into(indices, first * rank, part)
        rows = part.reshape(-1, rank)
        if bool(((rows < 0) | (rows >= limits)).any()):
            row = int(np.argmax(((rows < 0) | (rows >= limits)).any(axis=1)))
            raise InputError(
                "tensor.sparse",
                f"{where}: index {first + row} is {rows[row].tolist()}; expected a place inside dims {list(shape)}",
            )
        places = np.concatenate([[last], (rows * steps).sum(axis=1)])
        if bool((np.diff(places) <= 0).any()):
            row = int(np.argmax(np.diff(places) <= 0))
            raise InputError("tensor.sparse", f"{where}: index {first + row} does not come after the one before it")
        last = int(places[-1])
