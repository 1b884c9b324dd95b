"""One place in the log: an index, a term, the hash of the place before, and bytes.

    entry hash = SHA-256("shoal-ledger/v1/entry" || 0x00 || LE64(index) || LE64(term) || prev || SHA-256(payload))
    seal       = leader id (32 bytes) || Ed25519 signature (64 bytes) over H("seal", entry hash), or nothing

The seal is not under the hash: it may be missing, and the same entry with another seal is the same entry.  As each
hash covers the one before, one seal covers the whole history up to its entry; so a leader seals the last entry of each
batch that it appends, and the no-op that opens its term.  The payload is a statement (statement.py); this module does
not look into it.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Final

import msgspec

from shoal.errors import InputError
from shoal.ledger.digest import DIGEST_BYTES, DOMAIN, ZERO_DIGEST
from shoal.limits import LEDGER_ENTRY_BYTES_MAX

#: ``prev`` of the first entry
GENESIS_PREV: Final = ZERO_DIGEST
#: the genesis stands at index 1, in the term before any election
GENESIS_INDEX: Final = 1
GENESIS_TERM: Final = 0
#: bytes of a seal: who (an id) and the signature
SEAL_BYTES: Final = DIGEST_BYTES + 64

_LABEL = DOMAIN + b"entry\x00"
_PLACE = struct.Struct("<QQ")


class Entry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """One entry of the log.

    index    int    1, 2, 3, ... without a gap
    term     int    never falls along the log; 0 only for the genesis
    prev     bytes  entry hash of index - 1 (32 bytes); GENESIS_PREV for the first
    payload  bytes  opaque here, at most LEDGER_ENTRY_BYTES_MAX
    seal     bytes  SEAL_BYTES, or b"" where no seal was asked for
    """

    index: int
    term: int
    prev: bytes
    payload: bytes
    seal: bytes = b""


def entry_hash(entry: Entry) -> bytes:
    """The 32 bytes that the next entry names as ``prev`` and that a seal signs (after H("seal", .))."""
    return hashlib.sha256(
        b"".join(
            (_LABEL, _PLACE.pack(entry.index, entry.term), entry.prev, hashlib.sha256(entry.payload).digest()),
        )
    ).digest()


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Entry)


def encode_entry(entry: Entry) -> bytes:
    """MessagePack array [index, term, prev, payload, seal]: one encoding for one entry."""
    return _encoder.encode(entry)


def decode_entry(data: bytes) -> Entry:
    """The entry in ``data``.

    raises  InputError  ``ledger.entry`` if the bytes are no entry, break a limit, or are not the one encoding of it
    """
    try:
        entry = _decoder.decode(data)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise InputError("ledger.entry", f"no ledger entry: {error}") from None
    check_shape(entry)
    if _encoder.encode(entry) != data:
        raise InputError("ledger.entry", f"entry {entry.index}: its bytes are not the one encoding of its fields")
    return entry


def check_shape(entry: Entry) -> None:
    """Refuse sizes and numbers that no entry can have; says nothing about chain or signatures.

    raises  InputError  ``ledger.entry``
    """
    found = ""
    if not 1 <= entry.index < 2**63 or not 0 <= entry.term < 2**63:
        found = f"index {entry.index}, term {entry.term}, expected 1.. and 0.. below 2**63"
    elif len(entry.prev) != DIGEST_BYTES:
        found = f"hash of the entry before has {len(entry.prev)} bytes, expected {DIGEST_BYTES}"
    elif len(entry.payload) > LEDGER_ENTRY_BYTES_MAX:
        found = f"payload has {len(entry.payload)} bytes, limit {LEDGER_ENTRY_BYTES_MAX}"
    elif len(entry.seal) not in (0, SEAL_BYTES):
        found = f"seal has {len(entry.seal)} bytes, expected 0 or {SEAL_BYTES}"
    if found:
        raise InputError("ledger.entry", f"entry {entry.index}: {found}")
