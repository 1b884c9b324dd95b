"""What a member says, signed: the payload of an entry.

    statement = [version, genesis, type, author, seen_index, seen, time_ms, body, signature]      MessagePack array
    signature = Ed25519 by the author over
                H("statement", LE64(version), genesis, LE64(type), author, LE64(seen_index), seen, LE64(time_ms), body)

``seen`` is the entry hash at ``seen_index``: the last committed entry that the author knew.  So each statement vouches
for the whole history before it, and a history that was rewritten later lacks its authors' signatures.  ``body`` is the
encoding of a struct of body.py, as bytes.  There is one encoding for one statement; other bytes are refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from shoal.errors import InputError
from shoal.ledger.body import TAGS, TYPES, Body, Digest, Signature
from shoal.ledger.digest import ZERO_DIGEST, digest, le64
from shoal.ledger.identity import Identity
from shoal.limits import LEDGER_ENTRY_BYTES_MAX

VERSION: Final = 1

_U63 = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Statement(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """See the module.

    version     int    1
    genesis     bytes  entry hash of the swarm's genesis; all zero inside the genesis itself
    type        int    a key of body.TYPES
    author      bytes  id of the member that signs
    seen_index  int    last committed entry that the author knew; 0 in the genesis
    seen        bytes  its entry hash
    time_ms     int    the author's clock, milliseconds since 1970; for people only, nothing follows from it
    body        bytes
    signature   bytes
    """

    version: _U63
    genesis: Digest
    type: _U63
    author: Digest
    seen_index: _U63
    seen: Digest
    time_ms: _U63
    body: bytes
    signature: Signature

    def signed(self) -> bytes:
        """The 32 bytes under the signature."""
        return digest(
            "statement",
            le64(self.version),
            self.genesis,
            le64(self.type),
            self.author,
            le64(self.seen_index),
            self.seen,
            le64(self.time_ms),
            self.body,
        )


class Seen(msgspec.Struct, frozen=True):
    """The last committed entry that an author knows."""

    index: int = 0
    hash: bytes = ZERO_DIGEST


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Statement)
_body_decoders: Final[dict[int, Any]] = {tag: msgspec.msgpack.Decoder(body) for tag, (body, _) in TYPES.items()}


def make_statement(body: Body, author: Identity, genesis: bytes, seen: Seen, time_ms: int = 0) -> bytes:
    """The payload that says ``body`` in the name of ``author``.  Checks no rule but sizes (state.Ledger does).

    raises  InputError  ``ledger.limit``
    """
    inner = _encoder.encode(body)
    draft = Statement(VERSION, genesis, TAGS[type(body)], author.id, seen.index, seen.hash, time_ms, inner, bytes(64))
    payload = _encoder.encode(msgspec.structs.replace(draft, signature=author.sign(draft.signed())))
    if len(payload) > LEDGER_ENTRY_BYTES_MAX:
        raise InputError("ledger.limit", f"statement has {len(payload)} bytes, limit {LEDGER_ENTRY_BYTES_MAX}")
    read_statement(payload)
    return payload


def read_statement(payload: bytes) -> tuple[Statement, Body]:
    """Statement and body in a payload: sizes, ranges and encoding are checked; signature and rules are not.

    raises  InputError  ``ledger.version``: made by a later version; ``ledger.type``: unknown type;
                        ``ledger.statement``: anything else
    """
    if len(payload) > LEDGER_ENTRY_BYTES_MAX:
        raise InputError("ledger.statement", f"statement has {len(payload)} bytes, limit {LEDGER_ENTRY_BYTES_MAX}")
    try:
        statement = _decoder.decode(payload)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        _refuse_version(payload)
        raise InputError("ledger.statement", f"no statement: {error}") from None
    if statement.version != VERSION:
        _refuse_version(payload)
    decoder = _body_decoders.get(statement.type)
    if decoder is None:
        found = f"unknown type {statement.type}; this version of Shoal knows {', '.join(map(str, TYPES))}"
        raise InputError("ledger.type", found)
    name = TYPES[statement.type][1]
    try:
        body: Body = decoder.decode(statement.body)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise InputError("ledger.statement", f"{name}: {error}") from None
    if _encoder.encode(body) != statement.body or _encoder.encode(statement) != payload:
        raise InputError("ledger.statement", f"{name}: its bytes are not the one encoding of its fields")
    return statement, body


def type_name(payload: bytes) -> str:
    """The name of a payload's type as far as it can be told, for messages."""
    try:
        statement = _decoder.decode(payload)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return "unreadable"
    return TYPES[statement.type][1] if statement.type in TYPES else f"type {statement.type}"


def _refuse_version(payload: bytes) -> None:
    """raises  InputError  ``ledger.version``, if these bytes look like a statement of another version"""
    try:
        version = msgspec.msgpack.decode(payload)[0]
    except (msgspec.DecodeError, ValueError, RecursionError, TypeError, LookupError):
        return
    if isinstance(version, int) and version != VERSION:
        raise InputError("ledger.version", f"statement of version {version}; this version of Shoal reads {VERSION}")
