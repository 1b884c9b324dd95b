"""Reads update files that somebody else wrote (`update_format`).

A reader believes nothing: sizes follow from the layout, not from what the file says, and what the file says is compared
with them before memory is taken.
"""

from __future__ import annotations

import hashlib
import os
from types import TracebackType

import msgspec
import numpy as np
import zstandard

from shoal.diff.codec import CODECS, Bytes, Float32s
from shoal.diff.grid import Grid
from shoal.diff.update_format import (
    AS_CODED,
    HEAD,
    KEY_BYTES,
    LENGTH,
    MAGIC,
    NAME,
    SIGNATURE_BYTES,
    SIGNED,
    ZSTANDARD,
    Chunks,
    Header,
    SignatureCheck,
    end_digest,
)
from shoal.domain import DIGEST_BYTES
from shoal.errors import InputError, ShoalError, shown
from shoal.limits import UPDATE_HEADER_BYTES_MAX
from shoal.model.dtype import dtype_of
from shoal.model.layout import Layout, Placed
from shoal.model.regular import open_regular, read_at


class UpdateFile:
    """An update file that is open for reading; all of it but the chunks' bytes was checked when it was opened.

    Use as a context manager, or call ``close``.  `read` may be called from several threads.

    path, name  as given, and as messages show it
    size        bytes of the file
    header      Header
    layout      Layout
    chunks      Chunks
    digest      SHA-256 that ends the file: equal for equal files
    signature   64 bytes, or none
    """

    def __init__(self, path: str, descriptor: int) -> None:
        """Internal; use ``UpdateFile.open``.  Owns ``descriptor`` from here on, also if it raises."""
        self.path, self.name = path, shown(path)
        self._descriptor = descriptor
        try:
            self.size = os.fstat(descriptor).st_size
            front = self._read_front()
            self.layout = self._checked_layout()
            self.chunks = Chunks(Grid.of(self.layout.elements), CODECS[self.header.codec], self.header.seed)
            self._read_heads(len(front))
            self._read_end(front)
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> UpdateFile:
        """Open and check an update file.

        raises  InputError    file.missing, file.not_regular; update.format: no such file; update.version: a later one;
                              update.cut: it ends early; update.header, update.chunk, update.sum: damaged or forged
                MachineError  file.read
        """
        return cls(os.fspath(path), open_regular(os.fspath(path), "an update file"))

    def __enter__(self) -> UpdateFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def read(self, number: int, out: Float32s) -> None:
        """Decode a chunk: float32[count] of `Chunks.elements`, finite but where the codec's own sums overflow.

        raises  InputError  update.sum, update.chunk, update.codes: the chunk is damaged or forged
        """
        stored = self._stored(number)
        size = self.chunks.size(number)
        form = self._forms[number]
        try:
            coded = stored if form == AS_CODED else _inflated(stored, size)
            self.chunks.codec.decode(coded, self.chunks.tile(number), out)
        except InputError as error:
            raise InputError(error.code, f"{self._where(number)}: {error}") from None

    def verify(self) -> None:
        """Compare every chunk with its checksum, decoding nothing; InputError ``update.sum``."""
        for number in range(self.chunks.count):
            self._stored(number)

    def signature_holds(self, check: SignatureCheck) -> bool | None:
        """Whether the author's signature holds; None if nobody signed."""
        if not self.header.author:
            return None
        return check(self.header.author, self.signature, SIGNED + self.digest)

    def require_signature(self, check: SignatureCheck) -> None:
        """InputError ``update.signature`` if the file is signed and the signature does not hold."""
        if self.signature_holds(check) is False:
            raise InputError(
                "update.signature", f"{self.name}: the signature by {self.header.author.hex()[:16]} does not hold"
            )

    # --- opening ---

    def _read_front(self) -> bytes:
        """Magic and header, checked."""
        magic = self._take(0, min(len(MAGIC), self.size), "the first line")
        if magic != MAGIC:
            if magic and MAGIC.startswith(magic):
                raise self._cut("the first line")
            if magic.startswith(NAME):
                version = shown(magic[len(NAME) :].split(b"\n")[0].decode("ascii", "replace"))
                raise InputError(
                    "update.version", f"{self.name}: update file of version '{version}'; this Shoal reads 1"
                )
            raise InputError("update.format", f"{self.name}: not an update file of Shoal")
        prefix = self._take(len(magic), LENGTH.size, "the header")
        (length,) = LENGTH.unpack(prefix)
        if length > UPDATE_HEADER_BYTES_MAX:
            raise self._bad("header", f"the header has {length} bytes; at most {UPDATE_HEADER_BYTES_MAX}")
        raw = self._take(len(magic) + len(prefix), length, "the header")
        try:
            self.header = msgspec.msgpack.decode(raw, type=Header)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise self._bad("header", f"header: {shown(str(error))}") from None
        if msgspec.msgpack.encode(self.header) != raw:
            raise self._bad("header", "the header is not in its one encoding")
        return magic + prefix + raw

    def _checked_layout(self) -> Layout:
        header = self.header
        codec = CODECS.get(header.codec)
        if codec is None:
            raise self._bad("header", f"codec '{shown(header.codec)}' is unknown; expected one of {', '.join(CODECS)}")
        if len(header.seed) != (DIGEST_BYTES if codec.rotates else 0):
            raise self._bad("header", f"the seed has {len(header.seed)} bytes, which {codec.name} does not take")
        if len(header.author) not in (0, KEY_BYTES):
            raise self._bad("header", f"the author's key has {len(header.author)} bytes; expected {KEY_BYTES}")
        if list(header.local) != sorted(set(header.local)):
            raise self._bad("header", "keys of local tensors are not sorted, or one comes twice")
        where = f"{self.name}: header"
        try:
            layout = Layout(
                tuple(
                    Placed(row.key.decode("utf-8", "surrogateescape"), dtype_of(row.dtype, where), row.dims)
                    for row in header.tensors
                )
            )
        except ShoalError as error:
            raise self._bad("header", f"header: {error}".removeprefix(f"header: {where}: ")) from None
        if layout.digest != header.layout:
            raise self._bad("header", "the digest of the layout is not that of the tensors listed")
        return layout

    def _read_heads(self, at: int) -> None:
        """Find the chunks; nothing is kept that the file's size does not pay for."""
        count, tail = self.chunks.count, DIGEST_BYTES + (SIGNATURE_BYTES if self.header.author else 0)
        if self.size < at + count * (HEAD.size + 1) + tail:
            raise self._cut(f"its {count} chunks")
        self._places = np.empty(count, np.int64)
        self._lengths = np.empty(count, np.int64)
        self._forms = np.empty(count, np.uint8)
        self._heads = np.empty((count, HEAD.size), np.uint8)
        for number in range(count):
            head = self._take(at, HEAD.size, f"chunk {number + 1}")
            length, form, _ = HEAD.unpack(head)
            size = self.chunks.size(number)
            if form not in (AS_CODED, ZSTANDARD) or (length != size if form == AS_CODED else not 0 < length < size):
                raise self._bad(
                    "chunk", f"{length} bytes in form {form}; expected {size} in form {AS_CODED}, or fewer in form "
                    f"{ZSTANDARD}", number
                )  # fmt: skip
            self._heads[number] = np.frombuffer(head, np.uint8)
            self._places[number], self._lengths[number], self._forms[number] = at + HEAD.size, length, form
            at += HEAD.size + length
        if at + tail != self.size:
            if at + tail > self.size:
                raise self._cut("its end")
            raise self._bad("format", f"{self.size - at - tail} bytes follow the end")

    def _read_end(self, front: bytes) -> None:
        tail = DIGEST_BYTES + (SIGNATURE_BYTES if self.header.author else 0)
        end = self._take(self.size - tail, tail, "its end")
        self.digest, self.signature = end[:DIGEST_BYTES], end[DIGEST_BYTES:]
        if end_digest(front, [self._heads.tobytes()]) != self.digest:
            raise self._bad("sum", "the file does not have its checksum; it was damaged or edited")
        self._sums = self._heads[:, -DIGEST_BYTES:].copy()
        del self._heads

    # --- bytes ---

    def _stored(self, number: int) -> Bytes:
        stored = np.empty(int(self._lengths[number]), np.uint8)
        read_at(self._descriptor, int(self._places[number]), stored, self.path)
        if hashlib.sha256(stored.data).digest() != self._sums[number].tobytes():
            raise self._bad("sum", "its bytes do not have their checksum; the file was damaged or edited", number)
        return stored

    def _take(self, at: int, count: int, what: str) -> bytes:
        if at + count > self.size:
            raise self._cut(what)
        raw = np.empty(count, np.uint8)
        read_at(self._descriptor, at, raw, self.path)
        return raw.tobytes()

    def _where(self, number: int) -> str:
        return f"{self.name}: chunk {number + 1} of {self.chunks.count}"

    def _bad(self, code: str, message: str, number: int = -1) -> InputError:
        return InputError(f"update.{code}", f"{self.name if number < 0 else self._where(number)}: {message}")

    def _cut(self, what: str) -> InputError:
        return InputError("update.cut", f"{self.name}: ends within {what}; the file was cut")


def _inflated(stored: Bytes, size: int) -> Bytes:
    """The ``size`` bytes that a chunk was before it was compressed; never more are made.

    raises  InputError  update.chunk
    """
    data = stored.tobytes()
    try:
        declared = zstandard.frame_content_size(data)
        if declared == size:
            coded = zstandard.ZstdDecompressor().decompress(data, max_output_size=size, allow_extra_data=False)
            if len(coded) == size:
                return np.frombuffer(coded, np.uint8)
        raise InputError("update.chunk", f"would be {declared} bytes; expected {size}")
    except zstandard.ZstdError as error:
        raise InputError("update.chunk", f"cannot be decompressed: {shown(str(error))}") from None
