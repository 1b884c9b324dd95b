"""Writes update files, chunk after chunk (`update_format`)."""

from __future__ import annotations

import hashlib
import os
import threading
from types import TracebackType
from typing import Final

import msgspec
import zstandard

from shoal.diff.codec import Bytes
from shoal.diff.update_format import (
    AS_CODED,
    HEAD,
    MAGIC,
    SIGNATURE_BYTES,
    SIGNED,
    ZSTANDARD,
    Header,
    Signer,
    end_digest,
    framed,
)
from shoal.domain import DIGEST_BYTES
from shoal.errors import ArgumentError
from shoal.limits import UPDATE_HEADER_BYTES_MAX
from shoal.model.output import Output

#: zstandard's fastest setting that finds runs: what compresses at all, compresses with it
_ZSTANDARD_LEVEL: Final = 1
#: a chunk is compressed if a sample of it (so many pieces of so many bytes) comes down to this part of its size
_PAYS: Final = 0.9
_SAMPLE_PIECES, _SAMPLE_BYTES = 16, 512
#: a compressor for each thread: to make one takes longer than to compress a sample
_own = threading.local()


def pack(coded: Bytes) -> tuple[bytes, bytes]:
    """(head, bytes) of a chunk: compressed where it pays.  Frees the GIL; may run in any thread."""
    form, stored = AS_CODED, coded.tobytes()
    if _pays(coded):
        smaller = _compressed(stored)
        if len(smaller) < len(stored):
            form, stored = ZSTANDARD, smaller
    return HEAD.pack(len(stored), form, hashlib.sha256(stored).digest()), stored


def _pays(coded: Bytes) -> bool:
    sample = coded
    if len(coded) > _SAMPLE_PIECES * _SAMPLE_BYTES:
        step = len(coded) // _SAMPLE_PIECES
        sample = coded[: step * _SAMPLE_PIECES].reshape(_SAMPLE_PIECES, step)[:, :_SAMPLE_BYTES]
    data = sample.tobytes()
    return len(_compressed(data)) < _PAYS * len(data)


def _compressed(data: bytes) -> bytes:
    if not hasattr(_own, "compressor"):
        _own.compressor = zstandard.ZstdCompressor(_ZSTANDARD_LEVEL)
    found: bytes = _own.compressor.compress(data)
    return found


class UpdateWriter:
    """An update file in the making; it appears whole at the end, or not at all.

    header  everything but the base's digest, which is known when the base has been read (zeros until then)

    Use as a context manager.
    raises  ArgumentError  for an unusable path, or more names than a header may hold
            MachineError   if the disk is full or fails
    """

    def __init__(self, path: str | os.PathLike[str], header: Header) -> None:
        self._header = header
        head = framed(header)
        if len(head) > UPDATE_HEADER_BYTES_MAX:
            raise ArgumentError(
                "update.header", f"the tensors' names make a header of {len(head)} bytes; at most "
                f"{UPDATE_HEADER_BYTES_MAX}"
            )  # fmt: skip
        self._output = Output(path)
        try:
            self._file = self._output.create(0)
        except BaseException:
            self._output.abort()
            raise
        self.size = len(MAGIC) + len(head)
        self._heads: list[bytes] = []

    def put(self, head: bytes, stored: bytes) -> None:
        """The next chunk, as `pack` made it."""
        self._file.write(self.size, head + stored)
        self._heads.append(head)
        self.size += len(head) + len(stored)

    def commit(self, base: bytes, signer: Signer | None) -> bytes:
        """Write header and end, and give the file its name; return the end's digest, 32 bytes.

        base  digest of the base
        """
        front = MAGIC + framed(msgspec.structs.replace(self._header, base=base))
        digest = end_digest(front, self._heads)
        self._file.write(0, front)
        self._file.write(self.size, digest + (b"" if signer is None else signer.sign(SIGNED + digest)))
        self.size += DIGEST_BYTES + (0 if signer is None else SIGNATURE_BYTES)
        self._output.commit([(self._file, self._output.path.name)])
        self._output.close()
        return digest

    def __enter__(self) -> UpdateWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._output.abort()
