"""One file that holds a ledger for others to check: written once, read in bounded memory.

    magic    "shoal-ledger 1\\n"
    header   MessagePack bin 32: [genesis, first, last, head]
    entries  MessagePack bin 32 each: the entry (entry.py), first .. last
    footer   MessagePack bin 32: SHA-256 of every byte before it

The footer finds accidents.  Against forgers only the chain and the signatures help (verify.py).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from typing import Annotated, BinaryIO, Final

import msgspec
from msgspec import Meta

from shoal.errors import InputError
from shoal.ledger.digest import DIGEST_BYTES
from shoal.ledger.entry import GENESIS_INDEX, Entry, decode_entry, encode_entry, entry_hash
from shoal.limits import LEDGER_ENTRIES_MAX, LEDGER_ENTRY_BYTES_MAX

MAGIC: Final = b"shoal-ledger 1\n"
_NAME: Final = MAGIC[:13]
_BIN32: Final = struct.Struct(">BI")
#: bytes of an entry beside its payload
_RECORD_BYTES_MAX: Final = LEDGER_ENTRY_BYTES_MAX + 256
_READ_BYTES: Final = 2**16

_Digest = Annotated[bytes, Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]


class Header(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the file says about itself.

    genesis      entry hash of the genesis            head  entry hash of the last entry
    first, last  indices; ``last`` >= ``first`` >= 1
    """

    genesis: _Digest
    first: Annotated[int, Meta(ge=GENESIS_INDEX)]
    last: Annotated[int, Meta(ge=GENESIS_INDEX)]
    head: _Digest


def write_export(stream: BinaryIO, header: Header, entries: Iterable[Entry]) -> None:
    """Write entries first..last.

    raises  InputError  ``export.range``: the entries are not those that the header tells
    """
    hashed = hashlib.sha256()

    def put(data: bytes) -> None:
        hashed.update(data)
        stream.write(data)

    put(MAGIC)
    put(_framed(msgspec.msgpack.encode(header)))
    index, head = header.first - 1, b""
    for entry in entries:
        index += 1
        if entry.index != index:
            raise InputError("export.range", f"entry {entry.index} in the place of {index}")
        head = entry_hash(entry)
        put(_framed(encode_entry(entry)))
    if (index, head) != (header.last, header.head):
        raise InputError("export.range", f"entries end at {index}, expected {header.last}")
    stream.write(_framed(hashed.digest()))


def _framed(data: bytes) -> bytes:
    return _BIN32.pack(0xC6, len(data)) + data


class ExportReader:
    """Reads what ``write_export`` wrote; checks sizes, encoding, order and footer.  Chain and signatures: verify.py.

    header  Header
    name    how messages call the file

    raises  InputError  ``export.format``: not such a file; ``export.version``: a later one
    """

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self.name = name
        magic = self._take(len(MAGIC), "the first line")
        if magic != MAGIC:
            if magic.startswith(_NAME):
                version = magic[len(_NAME) :].split(b"\n")[0].decode("ascii", "replace")
                raise InputError("export.version", f"{name}: ledger export of version {version!r}; this Shoal reads 1")
            raise InputError("export.format", f"{name}: not an exported ledger of Shoal")
        try:
            self.header = msgspec.msgpack.decode(self._record("the header"), type=Header)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise InputError("export.format", f"{name}: header: {error}") from None
        count = self.header.last - self.header.first + 1
        if not 1 <= count <= LEDGER_ENTRIES_MAX:
            raise InputError("export.format", f"{name}: {count} entries, limit {LEDGER_ENTRIES_MAX}")

    def __iter__(self) -> Iterator[Entry]:
        """The entries in order; after the last one the footer is checked.

        raises  InputError  ``export.cut``, ``export.format``, ``export.sum``
        """
        for index in range(self.header.first, self.header.last + 1):
            data = self._record(f"entry {index}")
            try:
                entry = decode_entry(data)
            except InputError as error:
                raise InputError("export.format", f"{self.name}: entry {index}: {error}") from None
            if entry.index != index:
                raise InputError("export.format", f"{self.name}: entry {entry.index} in the place of {index}")
            told = {self.header.last: self.header.head, GENESIS_INDEX: self.header.genesis}.get(index)
            if told is not None and told != entry_hash(entry):
                raise InputError("export.format", f"{self.name}: entry {index} is not the one that the header tells")
            yield entry
        expected = self._hash.digest()
        if self._record("the footer") != expected:
            raise InputError(
                "export.sum", f"{self.name}: the file does not have its checksum; it was damaged or edited"
            )
        if self._stream.read(1):
            raise InputError("export.format", f"{self.name}: bytes follow the footer")

    def _record(self, what: str) -> bytes:
        tag, size = _BIN32.unpack(self._take(_BIN32.size, what))
        if tag != 0xC6 or size > _RECORD_BYTES_MAX:
            raise InputError("export.format", f"{self.name}: {what}: not a record, or above {_RECORD_BYTES_MAX} bytes")
        return self._take(size, what)

    def _take(self, size: int, what: str) -> bytes:
        pieces: list[bytes] = []
        while size:
            piece = self._stream.read(min(size, _READ_BYTES))
            if not piece:
                raise InputError("export.cut", f"{self.name}: ends within {what}; the file was cut")
            self._hash.update(piece)
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)
