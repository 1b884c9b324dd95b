"""Statements: one encoding, versions and types by name, every field under the signature."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from swarm_builder import SwarmBuilder, identity, seed

from shoal.errors import InputError, PeerError
from shoal.ledger.body import TAGS, TYPES, Genesis, Gram, MemberCard, Note, bitmap, positions
from shoal.ledger.statement import Seen, Statement, make_statement, read_statement, type_name
from shoal.ledger.validator import Ledger
from shoal.limits import LEDGER_TEXT_CHARS_MAX

encode = msgspec.msgpack.encode


@dataclass
class Said:
    payload: bytes
    statement: Statement


@pytest.fixture(scope="module")
def built() -> SwarmBuilder:
    """A ledger with every type of statement in it."""
    built = SwarmBuilder(members=5, secure=True, seal_every=4)
    built.publish_keys(4)
    who = built.add_learner(50)
    built.promote(who)
    built.rotate(who, "x")
    built.say(Note("a note"))
    built.run_round(drop=(1,))
    built.run_round(stop="receipt")
    from shoal.ledger.body import Complaint

    built.say(built.plan())
    built.say(Complaint(built.ledger.state.attempt.plan.slot, "I do not agree"))
    built.remove(who)
    return built


def test_the_builder_makes_every_type(built: SwarmBuilder) -> None:
    """But for what only swarms in the clear say (test_ledger_rules.py)."""
    made = {read_statement(e.payload)[0].type for e in built.entries}
    assert made == set(TYPES) - {TAGS[Gram]}


def test_every_statement_reads_back(built: SwarmBuilder) -> None:
    for entry in built.entries:
        statement, body = read_statement(entry.payload)
        assert encode(statement) == entry.payload and encode(body) == statement.body
        assert type(body) is TYPES[statement.type][0]
        assert type_name(entry.payload) == TYPES[statement.type][1]


def test_a_later_version_is_refused_by_name(built: SwarmBuilder) -> None:
    statement, _ = read_statement(built.entries[5].payload)
    later = msgspec.structs.replace(statement, version=2)
    with pytest.raises(InputError, match="statement of version 2; this version of Shoal reads 1") as caught:
        read_statement(encode(later))
    assert caught.value.code == "ledger.version"
    with pytest.raises(InputError, match="version 3") as caught:
        read_statement(encode([3, "another layout", {}]))
    assert caught.value.code == "ledger.version"


def test_an_unknown_type_is_refused_by_name(built: SwarmBuilder) -> None:
    statement, _ = read_statement(built.entries[5].payload)
    with pytest.raises(InputError, match="unknown type 99") as caught:
        read_statement(encode(msgspec.structs.replace(statement, type=99)))
    assert caught.value.code == "ledger.type"


@pytest.mark.parametrize("field", [f for f in Statement.__struct_fields__ if f != "signature"])
def test_every_field_is_under_the_signature(field: str) -> None:
    built = SwarmBuilder(members=3, check=True)
    entry = built.entry(Note("hello"), identity(1))
    statement, _ = read_statement(entry.payload)
    value = getattr(statement, field)
    if field == "body":
        value = encode(Note("hullo"))
    elif field == "author":
        value = identity(2).id
    elif isinstance(value, bytes):
        value = bytes([value[0] ^ 1]) + value[1:]
    else:
        value += 1
    changed = msgspec.structs.replace(statement, **{field: value})
    assert changed.signed() != statement.signed()
    forged = msgspec.structs.replace(entry, payload=encode(changed), seal=b"")
    before = built.ledger.encode()
    with pytest.raises((PeerError, InputError)):
        built.ledger.apply(forged)
    assert built.ledger.encode() == before
    built.push(entry)


def test_a_changed_signature_is_refused() -> None:
    built = SwarmBuilder(members=3, check=True)
    entry = built.entry(Note("hello"), identity(1))
    statement, _ = read_statement(entry.payload)
    for at in range(0, 64, 7):
        broken = bytearray(statement.signature)
        broken[at] ^= 0x10
        payload = encode(msgspec.structs.replace(statement, signature=bytes(broken)))
        with pytest.raises(PeerError, match="signature does not hold"):
            built.ledger.apply(msgspec.structs.replace(entry, payload=payload, seal=b""))


def _bodies(built: SwarmBuilder) -> list[tuple[int, str]]:
    seen: dict[int, int] = {}
    for entry in built.entries:
        seen.setdefault(read_statement(entry.payload)[0].type, entry.index)
    return [(index, f) for tag, index in seen.items() for f in TYPES[tag][0].__struct_fields__]


def test_every_field_of_every_body_is_under_the_signature(built: SwarmBuilder) -> None:
    """The body is signed as bytes, so it is enough that no change of a field leaves the bytes as they were."""
    for index, field in _bodies(built):
        statement, body = read_statement(built.entries[index - 1].payload)
        value = getattr(body, field)
        other: object = ("!",) if isinstance(value, tuple) else b"!" if isinstance(value, bytes) else "!"
        if isinstance(value, bool):
            other = not value
        elif isinstance(value, int):
            other = value + 1
        changed = msgspec.structs.replace(body, **{field: other})
        assert encode(changed) != statement.body, (index, field)


@given(st.binary(max_size=200))
def test_any_bytes_give_a_statement_or_one_error(data: bytes) -> None:
    try:
        statement, _ = read_statement(data)
    except InputError:
        return
    assert encode(statement) == data


def test_bodies_keep_their_limits() -> None:
    with pytest.raises(InputError):
        make_statement(Note("x" * (LEDGER_TEXT_CHARS_MAX + 1)), identity(0), seed("g"), Seen(1, seed("h")))
    card = MemberCard(identity(0).public, bytes(31), "short")
    built = SwarmBuilder(members=3)
    _, genesis = read_statement(built.entries[0].payload)
    assert isinstance(genesis, Genesis)
    with pytest.raises(InputError):
        make_statement(msgspec.structs.replace(genesis, members=(card,)), identity(0), bytes(32), Seen())


@given(st.integers(1, 255), st.data())
def test_bitmaps(n: int, data: st.DataObject) -> None:
    chosen = data.draw(st.sets(st.integers(0, n - 1)))
    assert positions(bitmap(chosen, n), n) == chosen
    assert positions(bitmap(chosen, n) + b"\x00", n) is None
    if n % 8:
        beyond = bytearray(bitmap(chosen, n))
        beyond[-1] |= 1 << (n % 8)
        assert positions(bytes(beyond), n) is None


def test_two_ledgers_of_the_same_entries_have_the_same_state(built: SwarmBuilder) -> None:
    """Also where one of them went through a snapshot at every entry."""
    straight, snapped = Ledger(check=_trust), Ledger(check=_trust)
    for entry in built.entries:
        straight.apply(entry)
        snapped.apply(entry)
        snapped = Ledger(Ledger.decode(snapped.encode()).state, _trust)
        assert snapped.encode() == straight.encode(), entry.index


def _trust(*_: object) -> None:
    """These tests are about other things than signatures."""
