"""Digests of tensors and models: equal numbers under equal names give equal digests, however a file stores them.

A tensor's digest is a tree of height two, so that several threads can hash parts of one tensor in any order.
The bytes that are hashed are written down in docs/FORMAT.md, "Digests".
"""

from __future__ import annotations

import hashlib
import struct
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from shoal.errors import ArgumentError
from shoal.limits import DIGEST_CHUNK_BYTES

if TYPE_CHECKING:
    from shoal.model.file import ModelFile
    from shoal.model.tensor import TensorRef

DIGEST_BYTES = 32

# Each kind of hash starts with words of its own: no chunk can pass for a tensor, no tensor for a model.
_LEAF = hashlib.sha256(b"shoal digest leaf 1\n")
_TENSOR = hashlib.sha256(b"shoal digest tensor 1\n")
_MODEL = hashlib.sha256(b"shoal digest model 1\n")


def encode_key(key: str) -> bytes:
    """Return a key as it is hashed: UTF-8; bytes of a file that are none go back to what they were."""
    return key.encode("utf-8", "surrogateescape")


class TensorDigest:
    """The digest of one tensor, whose bytes come in any order and from any thread.

    nbytes  size of the tensor as little-endian bytes in C order
    """

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self._leaves = bytearray(DIGEST_BYTES * -(-nbytes // DIGEST_CHUNK_BYTES))
        self._missing = set(range(len(self._leaves) // DIGEST_BYTES))

    def add(self, first_byte: int, data: bytes | bytearray | memoryview) -> None:
        """Hash ``data``, the tensor's bytes from ``first_byte``: whole chunks, or up to the end of the tensor.

        Thread-safe as long as no two calls bring the same chunk; the GIL is free while hashing.

        raises  ArgumentError  if the range does not start and end at chunks, or a chunk comes twice
        """
        stop = first_byte + len(data)
        if (
            first_byte < 0
            or first_byte % DIGEST_CHUNK_BYTES
            or stop > self.nbytes
            or (stop % DIGEST_CHUNK_BYTES and stop != self.nbytes)
        ):
            raise ArgumentError(
                "digest.range",
                f"bytes {first_byte}-{stop} of {self.nbytes} are not whole chunks of {DIGEST_CHUNK_BYTES}",
            )
        view = memoryview(data)
        for start in range(0, len(data), DIGEST_CHUNK_BYTES):
            chunk = (first_byte + start) // DIGEST_CHUNK_BYTES
            leaf = _LEAF.copy()
            leaf.update(view[start : start + DIGEST_CHUNK_BYTES])
            self._put(chunk, leaf.digest())

    def _put(self, chunk: int, leaf: bytes) -> None:
        try:
            self._missing.remove(chunk)
        except KeyError:
            raise ArgumentError("digest.twice", f"chunk {chunk} of a tensor was hashed twice") from None
        self._leaves[chunk * DIGEST_BYTES : (chunk + 1) * DIGEST_BYTES] = leaf

    def digest(self) -> bytes:
        """Return the 32 bytes.

        raises  ArgumentError  if some chunk has not come
        """
        if self._missing:
            raise ArgumentError("digest.incomplete", f"{len(self._missing)} chunks of a tensor were not hashed")
        whole = _TENSOR.copy()
        whole.update(struct.pack("<Q", self.nbytes))
        whole.update(self._leaves)
        return whole.digest()


@dataclass(slots=True)
class _Leaf:
    """A leaf that is hashed piece by piece: how far it came, and pieces that came too early."""

    hash: Any
    at: int = 0
    busy: bool = False
    early: dict[int, bytes] = field(default_factory=dict)


class PieceDigest(TensorDigest):
    """As TensorDigest, but its pieces may begin and end anywhere.

    A piece that comes before the one in front of it is copied and waits; so memory is what threads that take pieces in
    order have in hand.
    """

    def __init__(self, nbytes: int) -> None:
        super().__init__(nbytes)
        self._open: dict[int, _Leaf] = {}
        self._lock = threading.Lock()

    def add(self, first_byte: int, data: bytes | bytearray | memoryview) -> None:
        """Hash ``data``, the tensor's bytes from ``first_byte`` on.  Thread-safe; the GIL is free while hashing.

        raises  ArgumentError  if the range is not in the tensor, or came before
        """
        view, stop = memoryview(data), first_byte + len(data)
        if first_byte < 0 or stop > self.nbytes:
            raise ArgumentError("digest.range", f"bytes {first_byte}-{stop} of {self.nbytes}")
        while first_byte < stop:
            chunk, offset = divmod(first_byte, DIGEST_CHUNK_BYTES)
            size = min(DIGEST_CHUNK_BYTES, self.nbytes - chunk * DIGEST_CHUNK_BYTES)
            count = min(size - offset, stop - first_byte)
            if count == size:
                super().add(first_byte, view[:count])
            else:
                self._add_piece(chunk, size, offset, view[:count])
            first_byte, view = first_byte + count, view[count:]

    def _add_piece(self, chunk: int, size: int, offset: int, piece: memoryview | bytes) -> None:
        with self._lock:
            leaf = self._open.setdefault(chunk, _Leaf(_LEAF.copy()))
            if offset < leaf.at or offset in leaf.early or chunk not in self._missing:
                raise ArgumentError("digest.twice", f"byte {offset} of chunk {chunk} of a tensor was hashed twice")
            if leaf.busy or offset > leaf.at:
                leaf.early[offset] = bytes(piece)
                return
            leaf.busy = True
        next_piece: memoryview | bytes | None = piece
        while next_piece is not None:
            leaf.hash.update(next_piece)
            with self._lock:
                leaf.at += len(next_piece)
                next_piece = leaf.early.pop(leaf.at, None)
                leaf.busy = next_piece is not None
                if leaf.at == size:
                    self._put(chunk, leaf.hash.digest())
                    del self._open[chunk]


def tensor_digest(array: npt.NDArray[np.generic]) -> bytes:
    """Return the digest of an array's values: 32 bytes."""
    parts = TensorDigest(array.nbytes)
    for first_byte, data in little_endian_parts(array):
        parts.add(first_byte, data)
    return parts.digest()


def little_endian_parts(array: npt.NDArray[np.generic]) -> Iterator[tuple[int, memoryview]]:
    """Yield (first byte, bytes) of an array in C order and little-endian, one chunk of the digest at a time.

    An array that already lies so is not copied; any other is converted in pieces of DIGEST_CHUNK_BYTES.
    """
    swapped = array.dtype.byteorder == ">" or (array.dtype.byteorder == "=" and not np.little_endian)
    if array.flags.c_contiguous and not swapped:
        data = array.reshape(-1).view(np.uint8).data
        for start in range(0, len(data), DIGEST_CHUNK_BYTES):
            yield start, data[start : start + DIGEST_CHUNK_BYTES]
        return
    little = array.dtype.newbyteorder("<") if swapped else array.dtype
    first, filled, buffer = 0, 0, np.empty(DIGEST_CHUNK_BYTES, np.uint8)
    for block in _blocks(array):
        rest = np.asarray(block, little, order="C").reshape(-1).view(np.uint8)
        while rest.size:
            part = rest[: buffer.size - filled]
            buffer[filled : filled + part.size] = part
            filled, rest = filled + part.size, rest[part.size :]
            if filled == buffer.size:
                yield first, buffer.data
                first, filled, buffer = first + filled, 0, np.empty_like(buffer)
    if filled:
        yield first, buffer[:filled].data


def _blocks(array: npt.NDArray[np.generic]) -> Iterator[npt.NDArray[np.generic]]:
    """Cut an array into pieces of at most DIGEST_CHUNK_BYTES that follow each other in C order."""
    if array.nbytes <= DIGEST_CHUNK_BYTES:
        yield array
        return
    rows = DIGEST_CHUNK_BYTES // array[0].nbytes
    for first in range(0, len(array), max(rows, 1)):
        if rows:
            yield array[first : first + rows]
        else:
            yield from _blocks(array[first])


class ModelDigest:
    """The digest of a model: what stands for its tensors, in any order."""

    def __init__(self) -> None:
        self._rows: dict[bytes, bytes] = {}

    def add(self, key: str, dtype: int, dims: Iterable[int], digest: bytes) -> None:
        """Add a tensor.

        key     its key in the model (docs/FORMAT.md, "Keys of tensors")
        dtype   code of its data type in ONNX (TensorProto.DataType)
        dims    its shape
        digest  its tensor digest
        raises  ArgumentError  if the key was added before
        """
        name, shape = encode_key(key), tuple(dims)
        if name in self._rows:
            raise ArgumentError("digest.twice", "a tensor was added to a model's digest twice")
        head = struct.pack(f"<Q{len(name)}sII{len(shape)}Q", len(name), name, dtype, len(shape), *shape)
        self._rows[name] = head + digest

    def digest(self) -> bytes:
        """Return the 32 bytes."""
        whole = _MODEL.copy()
        whole.update(struct.pack("<Q", len(self._rows)))
        for name in sorted(self._rows):
            whole.update(self._rows[name])
        return whole.digest()


def model_digest(file: ModelFile, instead: Mapping[str, npt.NDArray[Any]] | None = None, threads: int = 1) -> bytes:
    """Return the digest of a model file: 32 bytes.

    instead  key -> array whose values stand for those of the file; same dtype and shape
    threads  how many hash at once; each holds one chunk in memory
    raises   InputError    if the file is not as it was when it was opened
             MachineError  if it cannot be read
    """
    instead = {} if instead is None else instead
    plain = [ref for key, ref in file.tensors.items() if ref.dtype.bits and key not in instead]
    parts = {ref.key: TensorDigest(ref.nbytes) for ref in plain}
    _hash_chunks(file, parts, threads)
    model = ModelDigest()
    for key, ref in file.tensors.items():
        if key in parts:
            digest = parts[key].digest()
        else:
            digest = tensor_digest(instead[key]) if key in instead else strings_digest(file.array(ref))
        model.add(key, ref.dtype.code, ref.dims, digest)
    return model.digest()


def strings_digest(strings: npt.NDArray[np.object_]) -> bytes:
    """Return the digest of a tensor of strings, given as bytes objects."""
    data = b"".join(struct.pack("<Q", len(string)) + string for string in strings.reshape(-1))
    parts = TensorDigest(len(data))
    if data:
        parts.add(0, data)
    return parts.digest()


def stored_digest(file: ModelFile, ref: TensorRef) -> bytes:
    """Return the digest of one tensor as it lies in a file, of any type, read in chunks: 32 bytes."""
    if ref.dtype.numpy is None:
        return tensor_digest(file.array(ref)) if ref.dtype.bits else strings_digest(file.array(ref))
    parts = TensorDigest(ref.nbytes)
    step = DIGEST_CHUNK_BYTES // ref.dtype.numpy.itemsize
    buffer = np.empty(min(ref.elements, step), ref.dtype.numpy)
    for first in range(0, ref.elements, step):
        part = buffer[: ref.elements - first]
        file.read_into(ref, first, part)
        parts.add(first * part.itemsize, part.view(np.uint8).data)
    return parts.digest()


def _hash_chunks(file: ModelFile, parts: Mapping[str, TensorDigest], threads: int) -> None:
    """Hash the files' bytes of these tensors; each thread takes the next chunk when it is done with one."""
    chunks = ((key, first) for key, part in parts.items() for first in range(0, part.nbytes, DIGEST_CHUNK_BYTES))
    lock = threading.Lock()
    failures: list[BaseException] = []

    def work() -> None:
        buffer = np.empty(DIGEST_CHUNK_BYTES, np.uint8)
        try:
            while not failures:
                with lock:
                    key, first = next(chunks, ("", -1))
                if first < 0:
                    return
                chunk = buffer[: parts[key].nbytes - first]
                file._read_bytes(file.tensors[key], first, chunk)
                parts[key].add(first, chunk.data)
        except BaseException as error:
            failures.append(error)

    others = [threading.Thread(target=work, daemon=True) for _ in range(threads - 1)]
    for thread in others:
        thread.start()
    work()
    for thread in others:
        thread.join()
    if failures:
        raise failures[0]
