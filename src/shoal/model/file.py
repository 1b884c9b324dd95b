"""An ONNX file that is open for reading: its tensors by name, and their values by range."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal.errors import ArgumentError, InputError, MachineError, shown
from shoal.limits import DECODED_BYTES_MAX, PROTO_BYTES_MAX
from shoal.model import _onnx_index
from shoal.model.external import DataFiles, Identity, read_place
from shoal.model.foreign import kind_of
from shoal.model.regular import open_regular, read_at
from shoal.model.sparse import require_places
from shoal.model.structure import Structure, used_keys
from shoal.model.tensor import Role, Storage, TensorRef

_CHUNK = 2**20
_ATTRIBUTES = frozenset({Role.CONSTANT_FLOAT, Role.CONSTANT_FLOATS})
#: storages whose bytes lie in the .onnx file itself, little-endian
_INSIDE = frozenset({Storage.RAW, Storage.PACKED})


def read_rows(places: Sequence[tuple[int, int]], buffers: Sequence[npt.NDArray[np.uint8]]) -> int:
    """Fill each buffer from (descriptor, offset); the number of the first that came short or failed, or -1.

    One call for many models, without the GIL.
    """
    return _onnx_index.read_rows([d for d, _ in places], [at for _, at in places], list(buffers))


class ModelFile:
    """One ONNX model, checked as a whole when it is opened; values are read when asked for, the model is not copied.

    Use as a context manager, or call ``close``.  Reading may be done from several threads.

    path        str                     as given
    size        int                     bytes of the .onnx file
    tensors     {key: TensorRef}        all tensors that a merge may touch, in the order of the file
    structure   Structure               what the model computes
    ir_version  int;  opsets {domain: version};  producer {producer_name, producer_version, domain, model_version}
    """

    tensors: dict[str, TensorRef]
    structure: Structure

    def __init__(self, path: str, descriptor: int) -> None:
        """Internal; use ``ModelFile.open``.  Owns ``descriptor`` from here on, also if it raises."""
        self.path = path
        self._descriptor = descriptor
        self._decoded: OrderedDict[str, npt.NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()
        try:
            self._identity = Identity.of(descriptor)
            self.size = self._identity.size
            self._files = DataFiles(os.path.dirname(path), self._identity)
            self._locations: dict[str, tuple[str, ...]] = {}
            self._read_index()
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> ModelFile:
        """Open and check a model.

        raises  InputError    file.*, model.*, graph.*, node.*, attribute.*, tensor.*, name.*, external.*: the bytes are
                              at fault; the message says where
                MachineError  file.read: the machine does not let us read
        """
        return cls(os.fspath(path), open_regular(os.fspath(path), "an ONNX model"))

    def __enter__(self) -> ModelFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all files; a second call does nothing."""
        with self._lock:
            descriptor, self._descriptor = self._descriptor, -1
            self._decoded.clear()
        if descriptor >= 0:
            os.close(descriptor)
        if hasattr(self, "_files"):
            self._files.close()

    def fileno(self) -> int:
        """Descriptor of the .onnx file, for copies of byte ranges; its position is not used."""
        if self._descriptor < 0:
            raise ArgumentError("file.closed", f"{shown(self.path)}: is closed")
        return self._descriptor

    def raw_proto_range(self, start: int, stop: int) -> bytes:
        """Bytes [start, stop) of the .onnx file."""
        if not 0 <= start <= stop <= self.size:
            raise ArgumentError("file.range", f"bytes {start} to {stop} lie outside {shown(self.path)}")
        raw = np.empty(stop - start, np.uint8)
        read_at(self.fileno(), start, raw, self.path)
        return raw.tobytes()

    def read_into(self, ref: TensorRef, first_element: int, buffer: npt.NDArray[Any]) -> None:
        """Fill ``buffer`` with elements [first_element, first_element + buffer.size) of a tensor.

        buffer  contiguous array of ref.dtype.numpy, any shape
        raises  InputError     file.changed   if the file became shorter;  tensor.too_large  if it must be decoded and
                                              exceeds DECODED_BYTES_MAX
                ArgumentError  if buffer does not fit, or elements of this type share bytes (use ``array``)
        """
        if ref.dtype.numpy is None or buffer.dtype != ref.dtype.numpy:
            raise ArgumentError(
                "tensor.buffer", f"{shown(ref.key)} of {ref.dtype.name} cannot be read into {buffer.dtype}"
            )
        if not (buffer.flags.c_contiguous and buffer.flags.writeable):
            raise ArgumentError("tensor.buffer", f"{shown(ref.key)}: expected a contiguous, writable array")
        if not 0 <= first_element <= ref.elements - buffer.size:
            raise ArgumentError(
                "tensor.range",
                f"{shown(ref.key)}: {buffer.size} elements from {first_element} on; it has {ref.elements}",
            )
        self._read_bytes(ref, first_element * ref.dtype.numpy.itemsize, buffer.reshape(-1).view(np.uint8))

    def place(self, ref: TensorRef) -> tuple[int, int] | None:
        """(descriptor, offset) of a tensor whose bytes lie in the .onnx file as `read_into` gives them, else None.

        The descriptor is open as long as this object is.
        """
        return (self.fileno(), ref.offset) if ref.storage in _INSIDE else None

    def array(self, ref: TensorRef) -> npt.NDArray[Any]:
        """The whole tensor, in memory: ref.dtype.numpy[dims].

        Where elements share bytes (int4 ...) it is uint8[ref.nbytes], packed as in raw data; strings are bytes objects.
        """
        if ref.dtype.bits == 0:
            strings = np.empty(ref.elements, object)
            strings[:] = self._decode(ref) if ref.elements else []
            return strings.reshape(ref.dims)
        try:
            raw = np.empty(ref.nbytes, np.uint8)
        except MemoryError:
            raise MachineError(
                "machine.memory", f"{shown(self.path)}: {shown(ref.key)} of {ref.nbytes} bytes does not fit into memory"
            ) from None
        self._read_bytes(ref, 0, raw)
        return raw if ref.dtype.numpy is None else raw.view(ref.dtype.numpy).reshape(ref.dims)

    def same_values(self, ref: TensorRef, other: ModelFile, other_ref: TensorRef) -> bool:
        """Whether two tensors of equal type and dims hold the same bits; read in small pieces, any type."""
        if (ref.dtype, ref.dims) != (other_ref.dtype, other_ref.dims):
            return False
        if ref.dtype.bits == 0:
            return bool(np.array_equal(self.array(ref), other.array(other_ref)))
        for at in range(0, ref.nbytes, _CHUNK):
            mine = np.empty(min(_CHUNK, ref.nbytes - at), np.uint8)
            theirs = np.empty_like(mine)
            self._read_bytes(ref, at, mine)
            other._read_bytes(other_ref, at, theirs)
            if not np.array_equal(mine, theirs):
                return False
        return True

    def check_unchanged(self) -> None:
        """InputError ``file.changed`` unless all files have the size and time of change that they had when opened."""
        if Identity.of(self.fileno()) != self._identity:
            raise InputError(
                "file.changed", f"{shown(self.path)}: changed while it was in use; expected the file as it was opened"
            )
        self._files.check_unchanged()

    def data_files(self) -> frozenset[str]:
        """Paths of the files beside this one that hold values of its tensors."""
        return frozenset(self._locations)

    def share(self, first: ModelFile) -> None:
        """Keep only what is needed to read values; all else is the first model's, which this one agrees with.

        For merges of many models: what a tensor takes in memory falls to a third.  No ModelWriter can use this as its
        template afterwards.
        """
        kept = {}
        for key, mine in first.tensors.items():
            ref = self.tensors[key]
            message = ref.message if ref.storage is Storage.TYPED else mine.message
            kept[key] = TensorRef(
                mine.scope, mine.name, mine.role, mine.dtype, mine.dims, ref.storage, ref.path,
                ref.offset, ref.length, message, mine.enclosing, mine.fields,
            )  # fmt: skip
        self.tensors, self.structure = kept, first.structure

    # --- opening -----------------------------------------------------------------------------------------------------

    def _read_index(self) -> None:
        name = shown(self.path)
        if self.size == 0:
            raise InputError("file.empty", f"{name}: has no bytes; expected an ONNX model")
        if self.size > PROTO_BYTES_MAX:
            raise InputError(
                "file.too_large",
                f"{name}: has {self.size} bytes; protobuf ends at {PROTO_BYTES_MAX}; expected external data for more",
            )
        index = _onnx_index.Index(self.path, self._descriptor, self.size)
        try:
            index.model()
        except InputError as error:
            kind = kind_of(self.raw_proto_range(0, min(self.size, 512)))
            if kind and error.code != "file.changed":
                raise InputError("file.not_onnx", f"{name}: is {kind}; expected an ONNX model") from None
            raise
        self.ir_version, self.opsets, self.producer = index.ir_version, index.opsets, index.producer
        self.tensors = index.tensors
        self.structure = Structure(
            index.opsets,
            index.graphs,
            used_keys(index.scale_uses, index.graphs, index.tensors),
            used_keys(index.mean_uses, index.graphs, index.tensors),
            used_keys(index.variance_uses, index.graphs, index.tensors),
        )
        for key, entries in index.outside.items():
            self.tensors[key] = self._resolve(self.tensors[key], entries)
        self._refuse_overlaps()
        for key, shape in index.sparse_shapes.items():
            require_places(self, self.tensors[key], shape)
        if Identity.of(self._descriptor) != self._identity:
            raise InputError("file.changed", f"{name}: changed while it was read")

    def _resolve(self, ref: TensorRef, entries: list[tuple[str, str]]) -> TensorRef:
        """Find the file of an external tensor, and check that its bytes are there."""
        where = f"{shown(self.path)}: tensor {shown(repr(ref.key))}"
        place = read_place(entries, where)
        size = self._files.find(place.location, where).size
        length = size - place.offset if place.length is None else place.length
        if place.offset > size or length > size - place.offset:
            raise InputError(
                "external.range",
                f"{where}: external data from {place.offset} on, {length} bytes; the file has {size}",
            )
        if length != ref.nbytes:
            raise InputError(
                "external.size", f"{where}: external data of {length} bytes; expected {ref.nbytes} from dims and type"
            )
        if place.checksum:
            self._files.verify(place.location, place.checksum, where)
        path = self._files.path(place.location)
        self._locations[path] = place.location
        return replace(ref, path=path, offset=place.offset, length=length)

    def _refuse_overlaps(self) -> None:
        """Two tensors in the same external bytes: a merge could not write both."""
        places = sorted(
            (self._files.find(self._locations[ref.path], ""), ref.offset, ref.offset + ref.length, key)
            for key, ref in self.tensors.items()
            if ref.storage is Storage.EXTERNAL and ref.length
        )
        for (file, _, stop, key), (other_file, start, _, other_key) in pairwise(places):
            if file == other_file and start < stop:
                raise InputError(
                    "external.overlap",
                    f"{shown(self.path)}: tensors {shown(repr(key))} and {shown(repr(other_key))} share bytes of "
                    f"{shown(self.tensors[key].path)}; expected them apart",
                )

    # --- reading -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _descriptor_of(self, ref: TensorRef) -> Iterator[int]:
        if ref.storage is Storage.EXTERNAL:
            with self._files.descriptor(self._locations[ref.path]) as descriptor:
                yield descriptor
        else:
            yield self.fileno()

    def _read_bytes(self, ref: TensorRef, at: int, raw: npt.NDArray[np.uint8]) -> None:
        """Fill ``raw`` with the tensor's bytes from ``at`` on, as raw data holds them."""
        if raw.size == 0:
            return
        if ref.storage is Storage.TYPED:
            raw[:] = self._typed(ref)[at : at + raw.size]
            return
        with self._descriptor_of(ref) as descriptor:
            read_at(descriptor, ref.offset + at, raw, ref.path)

    def _typed(self, ref: TensorRef) -> npt.NDArray[np.uint8]:
        """Bytes of a tensor in typed fields; those decoded last are kept, up to DECODED_BYTES_MAX together."""
        with self._lock:
            found = self._decoded.get(ref.key)
            if found is not None:
                self._decoded.move_to_end(ref.key)
                return found
        content = self._decode(ref)
        assert isinstance(content, bytes)
        if len(content) != ref.nbytes:
            raise InputError("file.changed", f"{shown(self.path)}: {shown(ref.key)} changed while it was read")
        raw = np.frombuffer(content, np.uint8)
        with self._lock:
            self._decoded[ref.key] = raw
            while len(self._decoded) > 1 and sum(kept.size for kept in self._decoded.values()) > DECODED_BYTES_MAX:
                self._decoded.popitem(last=False)
        return raw

    def _decode(self, ref: TensorRef) -> bytes | list[bytes]:
        start, stop = ref.message
        return _onnx_index.decode(self.path, self.fileno(), self.size, start, stop, ref.role in _ATTRIBUTES)
