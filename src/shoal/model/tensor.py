"""Where a tensor of a model lies: what the index yields for each."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from shoal.model.dtype import Dtype


class Role(enum.Enum):
    """What a tensor is in its graph.

    INITIALIZER             ``graph.initializer``
    SPARSE_VALUES           ``values`` of one of ``graph.sparse_initializer``; its name is the sparse tensor's name
    SPARSE_INDICES          ``indices`` of the same (int64: must be equal in all models)
    CONSTANT                attribute ``value`` of a Constant node; its name is the node's output
    CONSTANT_SPARSE_VALUES  ``values`` of ``sparse_value`` of a Constant node
    CONSTANT_SPARSE_INDICES ``indices`` of the same
    CONSTANT_FLOAT          ``value_float``: one float32, no dims
    CONSTANT_FLOATS         ``value_floats``: float32[n]
    """

    INITIALIZER = 0
    SPARSE_VALUES = 1
    SPARSE_INDICES = 2
    CONSTANT = 3
    CONSTANT_SPARSE_VALUES = 4
    CONSTANT_SPARSE_INDICES = 5
    CONSTANT_FLOAT = 6
    CONSTANT_FLOATS = 7


class Storage(enum.Enum):
    """How the values are stored.

    RAW       ``raw_data``
    PACKED    the same bytes in one packed field (``float_data``, ``double_data``, ``floats``) or one ``f``
    TYPED     anything else (unpacked fields, varints, strings, no field at all): must be decoded
    EXTERNAL  in another file
    """

    RAW = 0
    PACKED = 1
    TYPED = 2
    EXTERNAL = 3


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a message, or a run of adjacent fields with the same number, as byte range of the .onnx file.

    number   int  field number
    start    int  offset of the (first) tag
    payload  int  offset of the (first) value, behind tag and length
    stop     int  offset behind the (last) value
    """

    number: int
    start: int
    payload: int
    stop: int


@dataclass(frozen=True, slots=True)
class TensorRef:
    """One tensor that a merge may touch.  Everything in it was checked against the file's size.

    scope      str    "" for the main graph; else a path such as "If:cond_out/then_branch" or
                      "function:domain:name:overload"; unique for each graph, equal in models that agree
    name       str    name of the tensor; of a Constant node, its output
    role       Role
    dtype      Dtype
    dims       tuple  non-negative; () for one number
    storage    Storage
    path       str    file that holds the values: the model, or an external data file
    offset     int    of the little-endian values in that file; -1 for TYPED
    length     int    bytes of them; -1 for TYPED
    message    (start, stop) of the content of the TensorProto, or AttributeProto for CONSTANT_FLOAT(S)
    enclosing  tuple  offsets in the .onnx file of the length varint of each enclosing field, outermost first;
                      the last is the message's own
    fields     tuple  those fields of the message that hold data: raw_data, *_data, external_data, data_location;
                      of attributes: f, floats
    """

    scope: str
    name: str
    role: Role
    dtype: Dtype
    dims: tuple[int, ...]
    storage: Storage
    path: str
    offset: int
    length: int
    message: tuple[int, int]
    enclosing: tuple[int, ...]
    fields: tuple[Field, ...]

    @property
    def key(self) -> str:
        """Identity of the tensor in its model: its name in the main graph, "scope::name" elsewhere."""
        key = f"{self.scope}::{self.name}" if self.scope else self.name
        return f"{key}::indices" if self.role in _INDICES else key

    @property
    def elements(self) -> int:
        count = 1
        for dim in self.dims:
            count *= dim
        return count

    @property
    def nbytes(self) -> int:
        """Bytes of the values as raw data; 0 for strings, whose size only their bytes tell."""
        return (self.elements * self.dtype.bits + 7) // 8

    def __str__(self) -> str:
        return f"{self.dtype.name}[{','.join(map(str, self.dims))}]"


_INDICES = frozenset({Role.SPARSE_INDICES, Role.CONSTANT_SPARSE_INDICES})
