"""What a core wants done, as plain values: state to persist, messages to send, entries to apply.

The order is the contract:

    1  `early` may leave at once (a leader's appends may travel while its own disk works; dissertation 10.2.1)
    2  persist `snapshot`, `truncate_from`, `entries` and `hard_state` as one durable step (`store.persist`)
    3  only then send `messages`
    4  load `snapshot` into the application, then apply `committed`, then answer `reads`
    5  call `advance`

A crash between any two of these is harmless, and so is a crash inside any of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from shoal.ledger.entry import Entry
from shoal.ledger.members import Configuration
from shoal.ledger.message import AnyMessage, SnapshotHead
from shoal.ledger.store import HardState, Snapshot
from shoal.limits import LEDGER_MEMBERS_MAX


class ReadState(msgspec.Struct, frozen=True):
    """A read asked for with `context` may be answered from the state after entry `index`, or any later one."""

    context: bytes
    index: int


class Ready(msgspec.Struct, frozen=True):
    """One turn's work, in the order given at the top of this module.  Empty fields ask for nothing.

    must_sync  false where nothing but the commit index changed, which may be written lazily or not at all
    """

    early: Sequence[AnyMessage] = ()
    snapshot: Snapshot | None = None
    truncate_from: int | None = None
    entries: Sequence[Entry] = ()
    hard_state: HardState | None = None
    must_sync: bool = False
    messages: Sequence[AnyMessage] = ()
    committed: Sequence[Entry] = ()
    reads: Sequence[ReadState] = ()


class Proposed(msgspec.Struct, frozen=True):
    """Where a proposal stands in the log, or in `refused` the rule by which it does not ("" if it does)."""

    index: int = 0
    term: int = 0
    refused: str = ""


class SnapshotState(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the bytes of `Snapshot.state` hold: the configuration in force at its index, and the application's bytes."""

    configuration: Configuration
    data: bytes


_DECODER = msgspec.msgpack.Decoder(SnapshotState)


def pack_state(configuration: Configuration, data: bytes) -> bytes:
    """MessagePack [[voters, learners], data]."""
    return msgspec.msgpack.encode(SnapshotState(configuration, data))


def unpack_state(state: bytes) -> SnapshotState | None:
    """The inverse; None for bytes that are no such state, or whose configuration nobody can be in."""
    try:
        found = _DECODER.decode(state)
    except (msgspec.MsgspecError, RecursionError):
        return None
    voters, learners = found.configuration.voters, found.configuration.learners
    members = {*voters, *learners}
    if not voters or b"" in members or len(members) > LEDGER_MEMBERS_MAX or len(members) < len(voters) + len(learners):
        return None
    return found


def head_of(snapshot: Snapshot) -> SnapshotHead:
    """What stands on every chunk of this snapshot."""
    digest = hashlib.sha256(snapshot.state).digest()
    return SnapshotHead(snapshot.index, snapshot.term, snapshot.hash, len(snapshot.state), digest)
