"""Offline verification: a long ledger passes; every change of a copy is found, and named where it is."""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import pairwise

import msgspec
import pytest
from swarm_builder import SwarmBuilder, identity, seed

from shoal.errors import InputError
from shoal.ledger.body import TYPES, Note
from shoal.ledger.entry import Entry, encode_entry, entry_hash
from shoal.ledger.evidence import (
    Evidence,
    decode_evidence,
    encode_evidence,
    evidence_fault,
    find_fork,
    make_evidence,
)
from shoal.ledger.export import MAGIC, ExportReader, Header, write_export
from shoal.ledger.identity import Identity, signature_holds
from shoal.ledger.statement import read_statement
from shoal.ledger.validator import make_seal
from shoal.ledger.verify import Report, verify

replace = msgspec.structs.replace


def exported(entries: list[Entry], header: Header | None = None) -> bytes:
    stream = io.BytesIO()
    first, last = entries[0], entries[-1]
    made = header or Header(entry_hash(first), first.index, last.index, entry_hash(last))
    write_export(stream, made, entries)
    return stream.getvalue()


def checked(data: bytes, genesis: bytes | None, **options: object) -> Report:
    return verify(ExportReader(io.BytesIO(data), "file"), genesis, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def small() -> SwarmBuilder:
    """Every kind of entry, and few of them."""
    built = SwarmBuilder(members=4, secure=True, seal_every=3)
    built.publish_keys(2)
    who = built.add_learner(50)
    built.promote(who)
    built.run_round(drop=(2,))
    built.elect(built.voters()[1])
    built.rotate(built.voters()[2], "x")
    built.run_round(stop="masked")
    built.remove(who)
    built.run_round()
    return built


@pytest.fixture(scope="module")
def long() -> SwarmBuilder:
    """A thousand certified rounds with new leaders, drop-outs, aborts, members that come, rotate keys and go."""
    return SwarmBuilder(members=4, secure=False, seal_every=8).history(1000)


def test_a_thousand_rounds_hold(long: SwarmBuilder) -> None:
    report = checked(exported(long.entries), long.genesis)
    assert report.fault is None and report.entries == len(long.entries)
    assert report.signatures > len(long.entries)
    assert report.state.round == 1000 and report.state.head == long.ledger.state.head
    outcomes = [r.outcome for r in report.rounds]
    assert outcomes.count("certified") == 1000 and outcomes.count("aborted") == 34
    assert [r.round for r in report.rounds if r.outcome == "certified"] == list(range(1, 1001))
    certified = [r for r in report.rounds if r.outcome == "certified"]
    assert all(b.base == a.model for a, b in pairwise(certified))
    made = {read_statement(e.payload)[0].type for e in long.entries}
    assert {TYPES[t][1] for t in made} >= {"member-added", "member-removed", "keys-rotated", "abort", "noop", "note"}


def test_who_took_part_with_how_many_samples(long: SwarmBuilder) -> None:
    report = checked(exported(long.entries), long.genesis, signatures=False)
    assert report.signatures == 0
    fell = next(r for r in report.rounds if r.outcome == "certified" and r.fallen)
    assert fell.round == 7 and len(fell.planned) == 4 and len(fell.took_part) == 3
    assert [f.reason for f in fell.fallen] == ["committed to no upload"]
    assert fell.samples == sum(100 + 7 * n for n in range(4)) - fell.fallen[0].peer.samples
    assert fell.scores[0].samples == 250 and dict(fell.scores[0].metrics)["auc"] > 0.6
    aborted = next(r for r in report.rounds if r.outcome == "aborted")
    assert aborted.reason.startswith("stopped after") and not aborted.took_part


def flips(data: bytes, count: int, seed_: int) -> Iterator[tuple[int, bytes]]:
    draw = random.Random(seed_)
    for _ in range(count):
        bit = draw.randrange(len(data) * 8)
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        yield bit, bytes(changed)


def is_found(data: bytes, genesis: bytes) -> bool:
    try:
        return checked(data, genesis).fault is not None
    except InputError:
        return True


def forged(data: bytes) -> bytes:
    """The footer made anew, by somebody who knows the format."""
    body = data[:-37]
    return body + data[-37:-32] + hashlib.sha256(body).digest()


def test_flipped_bits_are_found(small: SwarmBuilder) -> None:
    data = exported(small.entries)
    for bit, changed in flips(data, 150, 1):
        assert is_found(changed, small.genesis), bit
        assert bit // 8 >= len(data) - 37 or is_found(forged(changed), small.genesis), f"bit {bit}, with a new footer"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_thousand_flipped_bits_are_found(long: SwarmBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signatures that were checked for one copy are not checked again for the next: that is all that is spared."""
    monkeypatch.setattr("shoal.ledger.verify.signature_holds", lru_cache(maxsize=None)(signature_holds))
    data = exported(long.entries)
    for bit, changed in flips(data[:-37], 1000, 2):
        assert is_found(forged(changed + data[-37:]), long.genesis), bit


def test_the_first_wrong_entry_is_named(small: SwarmBuilder) -> None:
    """Each entry in turn: a bit of its payload, prev or seal."""
    for at, entry in enumerate(small.entries):
        for field in ("payload", "prev", "seal"):
            value = bytearray(getattr(entry, field))
            if not value:
                continue
            value[len(value) // 2] ^= 4
            entries = list(small.entries)
            entries[at] = replace(entry, **{field: bytes(value)})
            fault = verify(entries, small.genesis).fault
            assert fault is not None and fault.index == entry.index, (entry.index, field, fault)
            assert fault.reason


@pytest.mark.parametrize("field", ["index", "term"])
def test_numbers_of_entries(small: SwarmBuilder, field: str) -> None:
    for at, entry in enumerate(small.entries):
        for step in (-1, 1):
            entries = list(small.entries)
            entries[at] = replace(entry, **{field: getattr(entry, field) + step})
            fault = verify(entries, small.genesis).fault
            assert fault is not None and fault.index == at + 1


def expect(entries: list[Entry], genesis: bytes, index: int, code: str, **options: object) -> None:
    fault = verify(entries, genesis, **options).fault  # type: ignore[arg-type]
    assert fault is not None and (fault.index, fault.code) == (index, code), fault


def test_cut_swapped_doubled_missing(small: SwarmBuilder) -> None:
    entries, genesis = small.entries, small.genesis
    expect([], genesis, 0, "ledger.empty")
    expect(entries[1:], genesis, 1, "ledger.chain")
    expect(entries[:9] + entries[10:], genesis, 10, "ledger.chain")
    expect(entries[:10] + entries[9:], genesis, 11, "ledger.chain")
    expect([*entries[:9], entries[10], entries[9], *entries[11:]], genesis, 10, "ledger.chain")
    # a cut is seen where no seal covers the end, and where somebody noted a later head
    unsealed = next(e.index for e in entries if e.index > 20 and not e.seal)
    expect(entries[:unsealed], genesis, unsealed, "ledger.unsealed")
    head = (entries[-1].index, entry_hash(entries[-1]))
    sealed = next(e.index for e in entries if e.index > 20 and e.seal)
    assert verify(entries[:sealed], genesis).fault is None
    expect(entries[:sealed], genesis, sealed + 1, "ledger.cut", noted=head)
    expect(entries, genesis, head[0], "ledger.head", noted=(head[0], seed("x")))
    assert verify(entries, genesis, noted=head).fault is None


def test_another_genesis(small: SwarmBuilder) -> None:
    expect(small.entries, seed("x"), 1, "ledger.genesis")
    assert verify(small.entries, None).fault is None
    other = SwarmBuilder(members=3)
    expect(other.entries, small.genesis, 1, "ledger.genesis")


def rebuilt(built: SwarmBuilder, change: Callable[[int, Entry], Entry | None], leader: Identity) -> list[Entry]:
    """The history as a leader would forge it: entries changed or left out, chain and seals made anew."""
    made: list[Entry] = []
    for entry in built.entries:
        changed = change(entry.index, entry)
        if changed is None:
            continue
        if made:
            changed = replace(changed, index=len(made) + 1, prev=entry_hash(made[-1]), seal=b"")
            if changed.term == built.ledger.state.term:
                changed = replace(changed, seal=make_seal(entry_hash(changed), leader))
        made.append(changed)
    return made


def test_a_leader_cannot_rewrite_what_others_saw(small: SwarmBuilder) -> None:
    """It makes chain and seals anew; the statements of the others name what they saw, and no longer fit."""
    leader = small.leader
    assert verify(rebuilt(small, lambda _, e: e, leader), small.genesis).fault is None
    note = next(e.index for e in small.entries if e.index > 10 and read_statement(e.payload)[0].type == 22)
    fault = verify(rebuilt(small, lambda i, e: None if i == note else e, leader), small.genesis).fault
    assert fault is not None and fault.index == note and fault.code == "ledger.seen"


def test_a_forged_signature_is_named_though_the_fold_goes_on(small: SwarmBuilder) -> None:
    """Signatures are checked behind the fold; of several faults the first entry's is told."""
    leader = small.leader

    def forge(index: int, entry: Entry) -> Entry:
        if index not in (20, 24):
            return entry
        statement, _ = read_statement(entry.payload)
        broken = bytes([statement.signature[0] ^ 1]) + statement.signature[1:]
        return replace(entry, payload=msgspec.msgpack.encode(replace(statement, signature=broken)))

    entries = [forge(e.index, e) for e in small.entries[:24]]
    report = verify(entries, small.genesis)
    assert report.fault is not None and report.fault.index == 20 and report.entries == 19
    assert report.fault.code == "ledger.signature" and "author's signature" in report.fault.reason
    assert verify(rebuilt(small, forge, leader)[:40], small.genesis).fault is not None


# --- the exported file ------------------------------------------------------------------------------------------------


def test_export_bytes(small: SwarmBuilder) -> None:
    data = exported(small.entries[:2])
    header = msgspec.msgpack.encode([small.genesis, 1, 2, entry_hash(small.entries[1])])
    body = MAGIC
    for record in (header, *map(encode_entry, small.entries[:2])):
        body += b"\xc6" + len(record).to_bytes(4, "big") + record
    assert data == body + b"\xc6\x00\x00\x00\x20" + hashlib.sha256(body).digest()
    assert list(ExportReader(io.BytesIO(data), "file")) == small.entries[:2]


def test_export_at_every_length(small: SwarmBuilder) -> None:
    data = exported(small.entries[:3])
    for length in range(len(data)):
        with pytest.raises(InputError, match=r"cut|not an exported"):
            list(ExportReader(io.BytesIO(data[:length]), "file"))
    with pytest.raises(InputError, match="follow the footer"):
        list(ExportReader(io.BytesIO(data + b"\x00"), "file"))


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "export.cut"),
        (b"PK\x03\x04" + bytes(100), "export.format"),
        (b"shoal-ledger 2\n" + bytes(100), "export.version"),
        (MAGIC + b"\xc6\xff\xff\xff\xff" + bytes(100), "export.format"),
        (MAGIC + b"\xc6\x00\x00\x00\x01\xc0", "export.format"),
        (MAGIC + b"\xc4\x00\x00\x00\x01\xc0", "export.format"),
    ],
)
def test_other_files_are_refused(data: bytes, code: str) -> None:
    with pytest.raises(InputError) as caught:
        ExportReader(io.BytesIO(data), "file")
    assert caught.value.code == code


def test_headers_that_promise_too_much(small: SwarmBuilder) -> None:
    for header in (
        [small.genesis, 1, 2**62, bytes(32)],
        [small.genesis, 5, 4, bytes(32)],
        [small.genesis, 0, 4, bytes(32)],
    ):
        record = msgspec.msgpack.encode(header)
        data = MAGIC + b"\xc6" + len(record).to_bytes(4, "big") + record
        with pytest.raises(InputError):
            ExportReader(io.BytesIO(data), "file")


def test_an_export_is_what_its_header_says(small: SwarmBuilder) -> None:
    for header in (
        Header(small.genesis, 1, 4, entry_hash(small.entries[2])),
        Header(small.genesis, 1, 3, entry_hash(small.entries[1])),
        Header(small.genesis, 2, 4, entry_hash(small.entries[2])),
    ):
        with pytest.raises(InputError):
            exported(small.entries[:3], header)


# --- two histories ----------------------------------------------------------------------------------------------------


def branches(seal_every: int = 1, same_term: bool = True) -> tuple[SwarmBuilder, list[Entry], list[Entry]]:
    """A swarm, and two ways in which its history goes on."""
    ways: list[list[Entry]] = []
    for text in ("left", "right"):
        built = SwarmBuilder(members=4, check=True, seal_every=seal_every)
        built.run_round()
        if not same_term:
            built.elect(built.voters()[0 if text == "left" else 1])
        for n in range(5):
            built.say(Note(f"{text} {n}"))
        built.say(Note("end"), sealed=True)
        ways.append(built.entries)
    return built, ways[0], ways[1]


@pytest.mark.parametrize("seal_every", [1, 4])
def test_a_leader_that_told_two_histories_is_convicted(seal_every: int) -> None:
    built, left, right = branches(seal_every)
    fork = find_fork(built.genesis, left, right)
    assert fork is not None and fork.evidence is not None
    assert fork.index == next(a.index for a, b in zip(left, right, strict=True) if a != b)
    assert fork.evidence.leader == built.leader.id and fork.evidence.key == built.leader.public
    assert decode_evidence(encode_evidence(fork.evidence)) == fork.evidence


def test_one_history_is_no_fork() -> None:
    built, left, _ = branches()
    assert find_fork(built.genesis, left, left) is None
    assert find_fork(built.genesis, left, left[:-3]) is None


def test_two_leaders_are_no_evidence() -> None:
    built, left, right = branches(same_term=False)
    fork = find_fork(built.genesis, left, right)
    assert fork is not None and fork.evidence is None


def test_evidence_that_proves_nothing() -> None:
    built, left, right = branches()
    fork = find_fork(built.genesis, left, right)
    assert fork is not None and fork.evidence is not None
    good, key = fork.evidence, built.leader.public
    assert evidence_fault(good) == ""
    other = identity(9)
    wrong: list[Evidence] = [
        replace(good, version=2),
        replace(good, leader=other.id),
        replace(good, key=other.public),
        replace(good, right=good.left),
        replace(good, right=tuple(replace(e, index=e.index + 1) for e in good.right)),
        replace(good, right=tuple(replace(e, prev=seed("x")) for e in good.right)),
        replace(good, right=tuple(replace(e, term=e.term + 1) for e in good.right)),
        replace(good, right=tuple(replace(e, payload=b"forged") for e in good.right)),
        replace(good, right=tuple(replace(e, seal=e.seal[:-1] + bytes([e.seal[-1] ^ 1])) for e in good.right)),
        replace(good, right=tuple(replace(e, seal=b"") for e in good.right)),
        replace(good, right=(*good.right, *good.right)),
    ]
    for evidence in wrong:
        assert evidence_fault(evidence)
        with pytest.raises(InputError):
            decode_evidence(encode_evidence(evidence))
    for data in (b"", b"\xc0", encode_evidence(good) + b"\x00", encode_evidence(good)[:-1]):
        with pytest.raises(InputError):
            decode_evidence(data)
    assert make_evidence(built.genesis, key, [replace(left[-1], seal=b"")], [right[-1]]) is None


def test_a_key_of_one_role_is_refused_in_another(small: SwarmBuilder) -> None:
    """Each thing that is signed has a label of its own: no signature passes for one over something else."""
    from shoal.ledger.certificate import admission_statement, model_statement, survivors_statement
    from shoal.ledger.digest import digest
    from shoal.ledger.validator import seal_statement

    x = seed("x")
    statement, _ = read_statement(small.entries[5].payload)
    messages = {
        statement.signed(),
        seal_statement(x),
        survivors_statement(x, x),
        model_statement(x, x, x),
        admission_statement(x, 3, 0, x),
        digest("rotation", x, x, x, x),
        digest("payload", x),
        digest("row", b"entries", x, x),
        digest("plan", x),
        digest("rid", x, x, x, x),
        digest("nonce", x, x, x),
        x,
    }
    assert len(messages) == 12
    signatures = {small.leader.sign(m) for m in messages}
    assert len(signatures) == 12
