"""Weights files: named arrays as an ONNX model that has initialisers and no nodes (docs/FORMAT.md, "Weights files").

The bytes follow from the names, their order and the values alone.  Arrays are streamed to the disk, never gathered.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal.errors import ArgumentError, shown
from shoal.limits import DIMS_MAX, EMBEDDED_BYTES_MAX, NAME_BYTES_MAX, TENSORS_MAX
from shoal.model.digest import ModelDigest, TensorDigest, little_endian_parts
from shoal.model.dtype import DTYPES, Dtype
from shoal.model.output import Output, Sibling
from shoal.model.placement import (
    DATA_LOCATION,
    RAW_DATA,
    Place,
    data_version,
    external_entries,
    length_delimited,
    length_delimited_head,
    line_up,
)
from shoal.model.splice import Slot, encode_varint
from shoal.model.write import data_stem, stale_data_files

IR_VERSION = 10
OPSET = 21
PRODUCER = b"shoal"
GRAPH = b"weights"

Array = npt.NDArray[Any]

_BY_NUMPY = {dtype.numpy: dtype for dtype in DTYPES.values() if dtype.numpy is not None}


@dataclass(frozen=True, slots=True)
class _Row:
    """One tensor of a weights file: everything of its TensorProto that stands before its bytes."""

    name: str
    dtype: Dtype
    array: Array
    head: bytes

    def value_info(self) -> bytes:
        """The ValueInfoProto that makes the tensor an output of the graph."""
        dims = b"".join(length_delimited(1, _integer(1, dim)) for dim in self.array.shape)
        tensor_type = _integer(1, self.dtype.code) + length_delimited(2, dims)
        return length_delimited(1, self.name.encode()) + length_delimited(2, length_delimited(1, tensor_type))


def save_weights(tensors: Mapping[str, Array], path: str | os.PathLike[str]) -> bytes:
    """Write a weights file; return the digest of the model that it is.

    tensors  name -> array, of any shape and memory order, of a whole-byte type that ONNX has; order is kept
    path     the output; it appears whole or not at all.  Above EMBEDDED_BYTES_MAX a data file stands beside it.
    raises   ArgumentError  for no tensors, an unusable name, or an array of another type
             MachineError   for a full disk, missing permission, a failing device
    """
    if not 0 < len(tensors) <= TENSORS_MAX:
        raise ArgumentError("weights.count", f"{len(tensors)} tensors; a weights file has 1 to {TENSORS_MAX}")
    rows = [_row(name, array) for name, array in tensors.items()]
    output = Output(path)
    try:
        if sum(row.array.nbytes + 2 * len(row.head) + 64 for row in rows) <= EMBEDDED_BYTES_MAX:
            return _save_embedded(rows, output)
        return _save_outside(rows, output)
    finally:
        output.abort()


def numpy_dtype(name: object, array: object) -> Dtype:
    """Return the type of ONNX that an array under this name has.

    raises  ArgumentError  if it is no numpy array, the name no text, or ONNX has no such type
    """
    if not isinstance(name, str) or not isinstance(array, np.ndarray | np.generic):
        raise ArgumentError(
            "weights.type", f"tensor {shown(str(name))}: got {type(array).__name__}, expected a name and a numpy array"
        )
    dtype = _BY_NUMPY.get(array.dtype.newbyteorder("<"))
    if dtype is None:
        raise ArgumentError("weights.dtype", f"tensor {shown(name)} of {array.dtype}: ONNX has no such type")
    return dtype


def _row(name: str, array: Array) -> _Row:
    dtype = numpy_dtype(name, array)
    array = np.asarray(array)
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        encoded = b""
    if not 0 < len(encoded) <= NAME_BYTES_MAX or b"\0" in encoded:
        raise ArgumentError(
            "weights.name", f"tensor name {shown(name)} is no text of 1 to {NAME_BYTES_MAX} bytes without NUL"
        )
    if array.ndim > DIMS_MAX:
        raise ArgumentError("weights.dims", f"tensor {shown(name)} has {array.ndim} dimensions; at most {DIMS_MAX}")
    head = b"".join(_integer(1, dim) for dim in array.shape) + _integer(2, dtype.code) + length_delimited(8, encoded)
    return _Row(name, dtype, array, head)


def _integer(number: int, value: int) -> bytes:
    """Return a whole varint field."""
    return encode_varint(number << 3) + encode_varint(value)


def _frame(rows: list[_Row], initializers_bytes: int) -> tuple[bytes, bytes]:
    """Return the model's bytes before and behind the initialisers."""
    outputs = b"".join(length_delimited(12, row.value_info()) for row in rows)
    name = length_delimited(2, GRAPH)
    before = _integer(1, IR_VERSION) + length_delimited(2, PRODUCER)
    before += length_delimited_head(7, len(name) + initializers_bytes + len(outputs)) + name
    return before, outputs + length_delimited(8, length_delimited(1, b"") + _integer(2, OPSET))


def _save_embedded(rows: list[_Row], output: Output) -> bytes:
    """Write one file with the arrays' bytes inside."""
    heads = []
    for row in rows:
        head = row.head + length_delimited_head(RAW_DATA, row.array.nbytes)
        heads.append(length_delimited_head(5, len(head) + row.array.nbytes) + head)
    size = sum(len(head) + row.array.nbytes for head, row in zip(heads, rows, strict=True))
    before, behind = _frame(rows, size)
    model = output.create(len(before) + size + len(behind))
    digest = ModelDigest()

    def pieces() -> Iterator[tuple[int, bytes | memoryview]]:
        yield 0, before
        at = len(before)
        for head, row in zip(heads, rows, strict=True):
            yield at, head
            yield from _hashed_parts(row, at + len(head), digest)
            at += len(head) + row.array.nbytes
        yield at, behind

    model.write_pieces(pieces())
    _commit(output, model, None, "")
    return digest.digest()


def _save_outside(rows: list[_Row], output: Output) -> bytes:
    """Write a small model file, and the arrays' bytes into one data file beside it."""
    places, size = line_up((row.name, row.array.nbytes) for row in rows)
    stem = data_stem(output.path)
    sized = sum(len(_outside_tensor(row, places[row.name], stem, "0" * 16)) for row in rows)
    before, behind = _frame(rows, sized)
    model, data = output.create(len(before) + sized + len(behind)), output.create(size)
    digest = ModelDigest()
    data.write_pieces(part for row in rows for part in _hashed_parts(row, places[row.name].offset, digest))
    version = data_version(places, digest.digest())

    def pieces() -> Iterator[tuple[int, bytes | memoryview]]:
        yield 0, before
        at = len(before)
        for row in rows:
            tensor = _outside_tensor(row, places[row.name], stem, version)
            yield at, tensor
            at += len(tensor)
        yield at, behind

    model.write_pieces(pieces())
    _commit(output, model, data, version)
    return digest.digest()


def _hashed_parts(row: _Row, at: int, digest: ModelDigest) -> Iterator[tuple[int, memoryview]]:
    """Yield an array's bytes with their places in a file that has it at ``at``, and add it to the model's digest."""
    parts = TensorDigest(row.array.nbytes)
    for first_byte, part in little_endian_parts(row.array):
        parts.add(first_byte, part)
        yield at + first_byte, part
    digest.add(row.name, row.dtype.code, row.array.shape, parts.digest())


def _outside_tensor(row: _Row, place: Place, stem: bytes, version: str) -> bytes:
    """Return the whole initializer field of a tensor whose bytes are in the data file."""
    entries = b"".join(
        version.encode() if isinstance(part, Slot) else part for part in external_entries(row.name, place, stem)
    )
    return length_delimited(5, row.head + entries + _integer(DATA_LOCATION, 1))


def _commit(output: Output, model: Sibling, data: Sibling | None, version: str) -> None:
    """Give the files their names, and remove a data file that only the replaced file referred to."""
    name = output.path.name
    data_name = f"{name}.{version}.data" if data is not None else None
    stale = stale_data_files(output, data_name)
    output.commit([(model, name)] if data is None or data_name is None else [(data, data_name), (model, name)])
    for old in stale:
        output.remove(old)
