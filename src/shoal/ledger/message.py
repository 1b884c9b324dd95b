"""What the cores say to each other: frozen structs, one small integer as tag, MessagePack arrays on the wire.

Every message says to whom, by whom, in which term, and in which generation (`life.py`) its sender lives.
`fault` names what is wrong with a message taken alone; what only the receiver can judge (term, chain, membership) is
judged in `raft.py` and the modules under it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from shoal.errors import PeerError, shown
from shoal.ledger.entry import Entry
from shoal.limits import (
    APPEND_BYTES_MAX,
    APPEND_ENTRIES_MAX,
    LEDGER_ENTRY_BYTES_MAX,
    SNAPSHOT_BYTES_MAX,
    SNAPSHOT_CHUNK_BYTES,
    TERM_MAX,
)

HASH_BYTES: Final = 32


class Envelope(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """addressed: the life of the receiver that is meant, as far as the sender has heard of one, else 0.  What was meant
    for a former life (a vote, an acknowledgement, an order to campaign) must not count for the present one."""

    addressed: int = 0


class Message(Envelope, frozen=True, array_like=True):
    """to, sender: PeerId; term, generation: the sender's (the term of a pre-vote: the one it would campaign in)."""

    to: bytes
    sender: bytes
    term: int
    generation: int


class AskVote(Message, frozen=True, tag=1, array_like=True):
    """A candidate asks.  `pre`: only whether it would get the vote; `transfer`: the old leader asked it to campaign."""

    last_index: int
    last_term: int
    pre: bool
    transfer: bool


class GiveVote(Message, frozen=True, tag=2, array_like=True):
    granted: bool
    pre: bool


class Append(Message, frozen=True, tag=3, array_like=True):
    """Entries that follow the one named by prev_index, prev_term, prev_hash, and how far the leader has committed."""

    prev_index: int
    prev_term: int
    prev_hash: bytes
    entries: tuple[Entry, ...]
    commit: int


class Appended(Message, frozen=True, tag=4, array_like=True):
    """Accepted: `index` is the last one known to equal the leader's.  Rejected: `index` is the prev_index refused, and
    the hint names the follower's last entry that could still be equal: its index, and its term."""

    rejected: bool
    index: int
    hint_index: int
    hint_term: int


class Heartbeat(Message, frozen=True, tag=5, array_like=True):
    """`commit` never lies beyond what the receiver acknowledged; `commit_hash` is the leader's hash there.  `beat`
    counts the rounds of heartbeats in this term, so that an answer confirms the leader at a known moment."""

    commit: int
    commit_hash: bytes
    beat: int


class HeartbeatReply(Message, frozen=True, tag=6, array_like=True):
    beat: int
    last_index: int


class SnapshotHead(msgspec.Struct, frozen=True, array_like=True):
    """What a snapshot stands for: the chain up to `index`, whose last entry had this term and hash; `size` bytes of
    state with this SHA-256."""

    index: int
    term: int
    hash: bytes
    size: int
    digest: bytes


class SnapshotChunk(Message, frozen=True, tag=7, array_like=True):
    head: SnapshotHead
    offset: int
    data: bytes


class SnapshotReply(Message, frozen=True, tag=8, array_like=True):
    """The bytes up to `offset` of the snapshot of `index` are here: go on from there."""

    index: int
    offset: int


class TimeoutNow(Message, frozen=True, tag=9, array_like=True):
    """The leader hands over: campaign at once."""


class Hello(Message, frozen=True, tag=10, array_like=True):
    """A node has started and says what it holds, so that peers who saw it hold more can say so."""

    last_index: int
    last_term: int


class Outdated(Message, frozen=True, tag=11, array_like=True):
    """The life `accused` of the receiver lacks what an earlier one had: it is a restored copy, or one of two twins.
    The accuser holds entries up to `last` and knows them decided up to `committed`."""

    accused: int
    last: int
    committed: int


AnyMessage = (
    AskVote
    | GiveVote
    | Append
    | Appended
    | Heartbeat
    | HeartbeatReply
    | SnapshotChunk
    | SnapshotReply
    | TimeoutNow
    | Hello
    | Outdated
)
#: messages that only a leader sends
FROM_LEADER: Final = frozenset({Append, Heartbeat, SnapshotChunk})


def _counts(*values: int) -> str:
    """ "" if all are indexes, terms or offsets that can be meant."""
    return "" if min(values) >= 0 and max(values) <= TERM_MAX else "bad-number"


def _append_fault(m: Append) -> str:
    if not (0 <= m.prev_index <= TERM_MAX and 0 <= m.prev_term <= m.term and 0 <= m.commit <= TERM_MAX):
        return "bad-number"
    if len(m.prev_hash) != HASH_BYTES:
        return "bad-hash"
    if not m.entries:
        return ""
    if len(m.entries) > APPEND_ENTRIES_MAX:
        return "batch-too-large"
    index, term, total = m.prev_index, m.prev_term, 0
    for entry in m.entries:
        index += 1
        if entry.index != index:
            return "gap"
        if not term <= entry.term <= m.term:
            return "term-goes-back" if entry.term < term else "entry-from-the-future"
        term = entry.term
        size = len(entry.payload)
        total += size
        if size > LEDGER_ENTRY_BYTES_MAX:
            return "entry-too-large"
    return "batch-too-large" if total > APPEND_BYTES_MAX else ""


def _chunk_fault(m: SnapshotChunk) -> str:
    head = m.head
    if _counts(head.index, head.term, head.size, m.offset) or head.index == 0 or head.term > m.term:
        return "bad-number"
    if len(head.hash) != HASH_BYTES or len(head.digest) != HASH_BYTES:
        return "bad-hash"
    if head.size > SNAPSHOT_BYTES_MAX or len(m.data) > SNAPSHOT_CHUNK_BYTES:
        return "snapshot-too-large"
    if m.offset + len(m.data) > head.size or (not m.data and m.offset < head.size):
        return "bad-chunk"
    return ""


_FAULTS: Final[dict[type, Callable[[Any], str]]] = {
    AskVote: lambda m: _counts(m.last_index, m.last_term),
    GiveVote: lambda _: "",
    Append: _append_fault,
    Appended: lambda m: _counts(m.index, m.hint_index, m.hint_term),
    Heartbeat: lambda m: _counts(m.commit, m.beat) or ("" if len(m.commit_hash) == HASH_BYTES else "bad-hash"),
    HeartbeatReply: lambda m: _counts(m.beat, m.last_index),
    SnapshotChunk: _chunk_fault,
    SnapshotReply: lambda m: _counts(m.index, m.offset),
    TimeoutNow: lambda _: "",
    Hello: lambda m: _counts(m.last_index, m.last_term),
    Outdated: lambda m: _counts(m.last, m.committed),
}


def fault(message: AnyMessage) -> str:
    """What is wrong with a message whoever receives it; "" if nothing.  Never raises for a value of these types."""
    judge = _FAULTS.get(type(message))
    if judge is None:
        return "unknown-kind"
    if not (0 <= message.term <= TERM_MAX and 0 < message.generation < 2**63 and 0 <= message.addressed < 2**63):
        return "bad-number"
    return judge(message)


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final[msgspec.msgpack.Decoder[AnyMessage]] = msgspec.msgpack.Decoder(AnyMessage)


def encode(message: AnyMessage) -> bytes:
    """Deterministic MessagePack bytes: [tag, to, sender, term, generation, ...fields in order, addressed]."""
    return _ENCODER.encode(message)


def decode(data: bytes) -> AnyMessage:
    """The message in these bytes.  Raises PeerError "message.malformed" for anything else; memory stays in proportion
    to the bytes given."""
    try:
        return _DECODER.decode(data)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise PeerError(
            "message.malformed", f"{len(data)} bytes are not a ledger message: {shown(str(error))}"
        ) from None
