"""Inputs that a lying member could make (hostile.py): mutators that know the ledger's structure.

They repair what a check would stop too early: digests, the chain, and the signatures that the liar can make.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from functools import lru_cache
from random import Random
from typing import Any

import msgspec
from hostile import ENTRY, EXPORT, LIFE, MESSAGES, OPTIONS, SNAPSHOT, STATEMENT, Letters, world

from shoal.ledger.body import Note
from shoal.ledger.core import Hooks
from shoal.ledger.entry import Entry, encode_entry, entry_hash
from shoal.ledger.export import MAGIC, Header
from shoal.ledger.message import (
    AnyMessage,
    Append,
    Appended,
    AskVote,
    GiveVote,
    Heartbeat,
    HeartbeatReply,
    Hello,
    Outdated,
    SnapshotChunk,
    SnapshotReply,
    TimeoutNow,
    encode,
)
from shoal.ledger.raft import Raft
from shoal.ledger.ready import head_of, pack_state
from shoal.ledger.registry import change_of
from shoal.ledger.statement import Seen, Statement, make_statement
from shoal.ledger.store import Snapshot
from shoal.ledger.validator import make_seal
from shoal.limits import TERM_MAX

replace = msgspec.structs.replace

NUMBERS = (0, 1, 2, 3, 4, 5, -1, 255, 2**31, 2**32, TERM_MAX, TERM_MAX + 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63))


def mutated_bytes(draw: Random, data: bytes) -> bytes:
    """Changed in a few places, without regard to what they mean."""
    found = bytearray(data)
    for _ in range(draw.randrange(1, 4)):
        at = draw.randrange(len(found) + 1)
        end = min(len(found), at + draw.randrange(1, 9))
        found[at:end] = draw.choice(
            (b"", draw.randbytes(end - at), bytes(found[at:end]) * 2, b"\xff" * 5, bytes((draw.randrange(256),)))
        )
    return bytes(found)


def mutated_value(draw: Random, value: Any, depth: int = 0) -> Any:
    """One leaf or one branch of decoded MessagePack is another."""
    if isinstance(value, list) and value:
        found = list(value)
        at = draw.randrange(len(found))
        if draw.random() < 0.85 and depth < 40:
            found[at] = mutated_value(draw, found[at], depth + 1)
        else:
            other = found[draw.randrange(len(found))]
            found[at : at + 1] = draw.choice(([], [other], [found[at]] * 2, [found[at], None], [[]]))
        return found
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return draw.choice((value + draw.randrange(-2, 3), draw.choice(NUMBERS), value))
    if isinstance(value, bytes):
        w = world()
        ids = (w.me.id, w.other.id, w.liar.id)
        made = (mutated_bytes(draw, value), value[:-1], value * 2, draw.choice(ids), bytes(len(value)), b"")
        return draw.choice(made)
    return draw.choice((None, 0, "", b"", [], {}, 1.5, value))


def mutated(draw: Random, data: bytes) -> bytes:
    """By structure mostly, by bytes else."""
    if draw.random() < 0.3:
        return mutated_bytes(draw, data)
    try:
        value = msgspec.msgpack.decode(data)
        for _ in range(draw.randrange(1, 4)):
            value = mutated_value(draw, value)
        return msgspec.msgpack.encode(value)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError, TypeError):
        return mutated_bytes(draw, data)


def forged_statement(draw: Random, payload: bytes) -> bytes:
    """Changed or new, in anybody's name, signed with the liar's key."""
    w = world()
    kind = draw.randrange(3)
    if kind == 0:
        payload = mutated(draw, payload)
    elif kind == 1:
        payload = make_statement(Note(f"{draw.random()}"), w.liar, w.genesis, Seen(2, entry_hash(w.entries[1])))
    try:
        statement = msgspec.msgpack.decode(payload, type=Statement)
    except msgspec.MsgspecError:
        return payload
    author = draw.choice((statement.author, w.liar.id, w.other.id, w.me.id))
    statement = replace(statement, author=author, time_ms=statement.time_ms ^ draw.randrange(2))
    if draw.random() < 0.2:
        statement = replace(statement, body=mutated(draw, statement.body))
    try:
        return msgspec.msgpack.encode(replace(statement, signature=w.liar.sign(statement.signed())))
    except (OverflowError, struct.error):
        return payload


def forged_run(draw: Random, entries: list[Entry], prev: bytes) -> list[Entry]:
    """Entries with some statements forged, chained and sealed anew."""
    w = world()
    found = list(entries)
    for _ in range(draw.randrange(1, 3)):
        at = draw.randrange(len(found))
        kind = draw.randrange(5)
        if kind == 0:
            found[at] = replace(found[at], payload=forged_statement(draw, found[at].payload))
        elif kind == 1:
            found[at] = replace(found[at], payload=draw.choice(w.entries).payload)
        elif kind == 2:
            found[at] = replace(found[at], term=max(0, found[at].term + draw.randrange(-1, 3)))
        elif kind == 3 and len(found) > 1:
            del found[at]
        else:
            found.insert(at, found[at])
    for n, entry in enumerate(found):
        chained = replace(entry, index=entries[0].index + n, prev=prev)
        prev = entry_hash(chained)
        seal = make_seal(prev, w.liar) if chained.seal else b""
        if seal and draw.random() < 0.1:
            seal = draw.choice((w.other.id, w.liar.id, w.me.id)) + draw.choice((seal[32:], bytes(64)))
        found[n] = replace(chained, seal=seal)
    return found


def some_message(draw: Random) -> AnyMessage:
    """One that the liar could send if it were honest, or nearly."""
    w = world()
    term = draw.choice((1, 1, 2, 2, 3, 5))
    name = (w.me.id, draw.choice((w.liar.id, w.liar.id, w.liar.id, w.other.id)), term, LIFE | 1)
    number = lambda: draw.randrange(7)  # noqa: E731
    start = draw.randrange(6)
    prev = w.entries[start - 1] if start else None
    before = (start, prev.term if prev else 0, entry_hash(prev) if prev else bytes(32))
    kind = draw.randrange(12)
    if kind < 4:
        run = w.entries[start : start + draw.randrange(1, 5)]
        if draw.random() < 0.7:
            run = forged_run(draw, run, before[2])
        return Append(*name, *before, tuple(run), draw.choice((0, start, len(run) + start, 99)))
    if kind == 4:
        at = draw.randrange(1, 5)
        return Heartbeat(*name, at, draw.choice((entry_hash(w.entries[at - 1]), bytes(32))), number())
    if kind == 5:
        return _some_chunk(draw, name)
    rest: tuple[AnyMessage, ...] = (
        AskVote(*name, number(), term, draw.random() < 0.5, draw.random() < 0.3),
        GiveVote(*name, draw.random() < 0.7, draw.random() < 0.5),
        Appended(*name, draw.random() < 0.3, number(), number(), number()),
        HeartbeatReply(*name, number(), number()),
        SnapshotReply(*name, number(), number()),
        TimeoutNow(*name),
        Hello(*name, number(), number()),
        Outdated(*name, draw.choice((LIFE | 1, 2 * LIFE)), number(), number()),
    )
    return draw.choice(rest)


def _some_chunk(draw: Random, name: tuple[bytes, bytes, int, int]) -> SnapshotChunk:
    """A whole snapshot in one chunk, perhaps forged, with the digest that fits it."""
    w = world()
    state = snapshot_bytes()
    if draw.random() < 0.7:
        state = mutated(draw, state)
    last = w.entries[-1]
    snapshot = Snapshot(draw.choice((last.index, 1, 2, 3)), draw.choice((last.term, 0)), entry_hash(last), state)
    return SnapshotChunk(*name, head_of(snapshot), 0, state)


def _snapshot_and_more(draw: Random) -> list[AnyMessage]:
    """A snapshot, and entries that follow it."""
    w = world()
    name = (w.me.id, w.liar.id, 2, LIFE | 1)
    last, later = w.entries[-1], w.later
    state = mutated(draw, snapshot_bytes()) if draw.random() < 0.7 else snapshot_bytes()
    run = tuple(forged_run(draw, later, entry_hash(last)) if draw.random() < 0.5 else later)
    chunk = SnapshotChunk(*name, head_of(Snapshot(last.index, last.term, entry_hash(last), state)), 0, state)
    return [chunk, Append(*name, last.index, last.term, entry_hash(last), run, run[-1].index)]


@lru_cache(maxsize=1)
def snapshot_bytes() -> bytes:
    w = world()
    return pack_state(Raft(w.me.id, Hooks(lambda _: 0, change_of), OPTIONS, entries=w.entries).configuration, w.state)


def some_letters(draw: Random) -> bytes:
    letters = []
    messages = [some_message(draw) for _ in range(draw.randrange(1, 6))]
    if draw.random() < 0.1:
        messages = _snapshot_and_more(draw)
    for data in map(encode, messages):
        letters.append(mutated(draw, data) if draw.random() < 0.5 else data)
    return msgspec.msgpack.encode(Letters(draw.randrange(4), draw.randrange(4), tuple(letters)))


def some_export(draw: Random) -> bytes:
    """The file, changed as bytes, or made anew of forged entries with all that its format demands."""
    w = world()
    if draw.random() < 0.3:
        data = mutated_bytes(draw, w.export)
        return data[:-32] + hashlib.sha256(data[:-37]).digest() if draw.random() < 0.5 else data
    start = draw.randrange(1, len(w.entries))
    entries = w.entries[:start] + forged_run(draw, w.entries[start:], entry_hash(w.entries[start - 1]))
    if draw.random() < 0.3:
        entries = entries[: draw.randrange(1, len(entries) + 1)]
    if draw.random() < 0.1:  # its end hangs on nothing
        end = replace(w.entries[start], prev=draw.choice((bytes(32), entry_hash(w.entries[0]))))
        entries = [*w.entries[:start], replace(end, seal=make_seal(entry_hash(end), w.liar))]
    header = Header(w.genesis, 1, len(entries), entry_hash(entries[-1]))
    records = [msgspec.msgpack.encode(header), *map(encode_entry, entries)]
    body = MAGIC + b"".join(b"\xc6" + len(r).to_bytes(4, "big") + r for r in records)
    return body + b"\xc6\x00\x00\x00\x20" + hashlib.sha256(body).digest()


def some_entry(draw: Random) -> bytes:
    """One that would come next after the whole history, or any."""
    w = world()
    entry = draw.choice(w.entries)
    if draw.random() < 0.7:
        after = w.entries[-1]
        entry = forged_run(draw, [replace(entry, index=after.index + 1, term=after.term)], entry_hash(after))[0]
    data = encode_entry(entry)
    return mutated(draw, data) if draw.random() < 0.5 else data


def mutate(draw: Random, target: int | None = None) -> bytes:
    """An input for ``walk``, for this target or for any."""
    w = world()
    if target is None:
        target = draw.choice((MESSAGES, MESSAGES, MESSAGES, ENTRY, STATEMENT, EXPORT, SNAPSHOT))
    made: dict[int, Callable[[], bytes]] = {
        MESSAGES: lambda: some_letters(draw),
        ENTRY: lambda: some_entry(draw),
        STATEMENT: lambda: forged_statement(draw, draw.choice(w.entries).payload),
        EXPORT: lambda: some_export(draw),
        SNAPSHOT: lambda: mutated(draw, snapshot_bytes()),
    }
    return bytes((target,)) + made[target]()
