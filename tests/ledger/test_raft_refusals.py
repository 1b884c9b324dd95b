"""Messages that cannot be used: counted by name, never an exception, and nothing changes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raft_cluster import Net, chain, cluster, core, of, turn

from shoal.errors import PeerError
from shoal.ledger.entry import Entry, entry_hash
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
    SnapshotHead,
    SnapshotReply,
    TimeoutNow,
    decode,
    encode,
    fault,
)
from shoal.ledger.raft import Options, Raft, Role
from shoal.limits import APPEND_ENTRIES_MAX, LEDGER_ENTRY_BYTES_MAX, TERM_JUMP_MAX, TERM_MAX

OPTIONS = Options(announce=False)
LIFE = 1 << 32
LOG = chain([1, 1, 1, 2])


def replaced(m: Any, **fields: Any) -> Any:
    return msgspec.structs.replace(m, **fields)


def good_append() -> Append:
    return Append(b"a", b"b", 2, LIFE, 2, 1, entry_hash(LOG[1]), (LOG[2], LOG[3]), 3)


def edited(n: int, **fields: Any) -> tuple[Entry, ...]:
    entries = list(good_append().entries)
    entries[n] = replaced(entries[n], **fields)
    return tuple(entries)


BAD_APPENDS: dict[str, tuple[str, dict[str, Any]]] = {
    "stranger": ("unknown-member", {"sender": b"z"}),
    "myself": ("not-for-me", {"sender": b"a"}),
    "another's": ("not-for-me", {"to": b"b"}),
    "negative term": ("bad-number", {"term": -1}),
    "absurd term": ("bad-number", {"term": TERM_MAX + 1}),
    "far term": ("term-too-far", {"term": TERM_JUMP_MAX + 2}),
    "negative generation": ("bad-number", {"generation": -5}),
    "huge generation": ("bad-number", {"generation": 2**70}),
    "negative index": ("bad-number", {"prev_index": -1}),
    "negative prev term": ("bad-number", {"prev_term": -1}),
    "prev term above term": ("bad-number", {"prev_term": 3}),
    "negative commit": ("bad-number", {"commit": -1}),
    "short hash": ("bad-hash", {"prev_hash": b"x"}),
    "wrong prev hash": ("forked-chain", {"prev_hash": bytes(32)}),
    "gap": ("gap", {"prev_index": 1, "prev_term": 1, "prev_hash": entry_hash(LOG[0])}),
    "swapped": ("gap", {"entries": (LOG[3], LOG[2])}),
    "duplicated": ("gap", {"entries": (LOG[2], LOG[2])}),
    "too many": ("batch-too-large", {"entries": (LOG[2],) * (APPEND_ENTRIES_MAX + 1)}),
    "too large": ("entry-too-large", {"entries": edited(0, payload=bytes(LEDGER_ENTRY_BYTES_MAX + 1))}),
    "term goes back": ("term-goes-back", {"entries": edited(0, term=0)}),
    "from the future": ("entry-from-the-future", {"entries": edited(1, term=9)}),
    "edited payload": ("wrong-prev", {"entries": edited(0, payload=b"other")}),
    "edited prev": ("wrong-prev", {"entries": edited(1, prev=bytes(32))}),
    "contradicts decided": ("contradicts-committed", {"prev_index": 0, "prev_term": 0, "prev_hash": bytes(32), "entries": tuple(chain([2, 2]))}),
    "forked decided": ("forked-chain", {"prev_index": 0, "prev_term": 0, "prev_hash": bytes(32), "entries": tuple(chain([1, 1], [b"x", b"y"]))}),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_APPENDS)
def test_bad_appends(name: str) -> None:
    reason, fields = BAD_APPENDS[name]
    raft = core(terms=[1, 1], commit=2, options=OPTIONS)
    turn(raft)
    raft.step(replaced(good_append(), **fields))
    assert raft.counters[reason] == 1, dict(raft.counters)
    assert raft.log.last == 2 and raft.log.committed == 2
    assert not any(not m.rejected for m in of(Appended, turn(raft)))


def test_the_good_append_is_taken() -> None:
    raft = core(terms=[1, 1], commit=2, options=OPTIONS)
    raft.step(good_append())
    assert raft.log.last == 4 and raft.log.committed == 3 and not raft.counters


def test_a_fork_leaves_evidence() -> None:
    """Two entries of one index and term: somebody made both.  The honest node keeps both and follows neither further."""
    raft = core(terms=[1, 1, 1], commit=1, options=OPTIONS)
    other = chain([1, 1, 1], [b"1.1", b"2.1", b"forged"])
    raft.step(Append(b"a", b"b", 1, LIFE, 2, 1, entry_hash(other[1]), (other[2],), 3))
    assert raft.counters["forked-chain"] == 1 and raft.log.committed == 1
    mine, theirs = raft.state.evidence[0]
    assert (mine.index, mine.term, mine.payload) == (3, 1, b"3.1") and theirs == (other[2],)
    for _ in range(50):
        raft.step(Append(b"a", b"b", 1, LIFE, 2, 1, entry_hash(other[1]), (other[2],), 3))
    assert len(raft.state.evidence) <= 16


def test_a_forked_commit_in_a_heartbeat_halts() -> None:
    raft = core(terms=[1, 1], options=OPTIONS)
    turn(raft)
    raft.step(Heartbeat(b"a", b"b", 1, LIFE, 2, bytes(32), 1))
    assert raft.counters["forked-chain"] == 1 and raft.log.committed == 0
    assert not of(HeartbeatReply, turn(raft)), "such a leader gets no confirmation"


def test_a_commit_index_beyond_the_log() -> None:
    raft = core(terms=[1, 1], options=OPTIONS)
    raft.step(Heartbeat(b"a", b"b", 1, LIFE, 9, bytes(32), 1))
    assert raft.counters["commit-beyond-log"] == 1 and raft.log.committed == 0


def test_two_leaders_in_one_term() -> None:
    net = cluster(options=OPTIONS)
    net["a"].step(Append(b"a", b"b", 1, LIFE, 1, 1, net["a"].log.last_hash, (), 1))
    assert net["a"].role == Role.LEADER and net["a"].counters["second-leader"] == 1
    net["b"].step(Append(b"b", b"c", 1, LIFE, 1, 1, net["b"].log.last_hash, (), 1))
    assert net["b"].leader == b"a" and net["b"].counters["second-leader"] == 1


def test_a_leader_believes_no_acknowledgement_beyond_its_log() -> None:
    net = cluster(options=OPTIONS)
    net["a"].step(Appended(b"a", b"b", 1, LIFE, False, 50, 0, 0))
    net["a"].step(HeartbeatReply(b"a", b"b", 1, LIFE, 10**6, 1))
    assert net["a"].counters["acknowledges-beyond-log"] == net["a"].counters["answers-no-heartbeat"] == 1
    assert net["a"].log.committed == 1


def test_what_does_not_concern_the_role() -> None:
    net = cluster(options=OPTIONS)
    net["b"].step(Appended(b"b", b"c", 1, LIFE, False, 1, 0, 0))
    net["a"].step(TimeoutNow(b"a", b"b", 1, LIFE))
    assert net["b"].counters["unexpected"] == 1 and net["a"].counters["unexpected"] >= 1
    net["a"].step(SnapshotReply(b"a", b"b", 1, LIFE, 1, 0))
    assert net["a"].counters["answers-no-snapshot"] == 1


def test_old_terms_are_dropped_or_told() -> None:
    raft = core(terms=[1], term=7, options=OPTIONS)
    raft.step(GiveVote(b"a", b"b", 3, LIFE, True, False))
    assert raft.counters["old-term"] == 1 and not of(GiveVote, turn(raft))
    raft.step(Heartbeat(b"a", b"b", 3, LIFE, 0, bytes(32), 1))
    assert of(Appended, turn(raft))[0].term == 7


def test_something_that_is_no_message() -> None:
    assert fault(LOG[0]) == "unknown-kind"  # type: ignore[arg-type]


# --- bytes ------------------------------------------------------------------------------------------------------------

SAMPLES: list[AnyMessage] = [
    AskVote(b"a", b"b", 2, LIFE, 3, 1, True, False),
    GiveVote(b"a", b"b", 2, LIFE, True, False),
    good_append(),
    Appended(b"a", b"b", 2, LIFE, True, 3, 2, 1),
    Heartbeat(b"a", b"b", 2, LIFE, 3, bytes(32), 9),
    HeartbeatReply(b"a", b"b", 2, LIFE, 9, 3),
    SnapshotChunk(b"a", b"b", 2, LIFE, SnapshotHead(3, 1, bytes(32), 4, bytes(32)), 0, b"data"),
    SnapshotReply(b"a", b"b", 2, LIFE, 3, 4),
    TimeoutNow(b"a", b"b", 2, LIFE),
    Hello(b"a", b"b", 2, LIFE, 3, 1),
    Outdated(b"a", b"b", 2, LIFE, LIFE, 3, 2),
]


@pytest.mark.parametrize("m", SAMPLES, ids=lambda m: type(m).__name__)
def test_bytes_go_there_and_back(m: AnyMessage) -> None:
    data = encode(m)
    assert decode(data) == m and encode(decode(data)) == data and not fault(m)


@pytest.mark.parametrize("m", SAMPLES, ids=lambda m: type(m).__name__)
def test_cut_bytes_are_refused(m: AnyMessage) -> None:
    data = encode(m)
    for n in range(len(data)):
        with pytest.raises(PeerError, match="are not a ledger message"):
            decode(data[:n])
    with pytest.raises(PeerError):
        decode(data + b"\0")


def test_tags_are_part_of_the_format() -> None:
    assert [encode(m)[1] for m in SAMPLES] == list(range(1, 12))
    assert encode(GiveVote(b"a", b"b", 2, LIFE, True, False)).hex() == "9802c40161c4016202cf0000000100000000c3c200"


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_random_bytes_are_a_message_or_refused(data: bytes) -> None:
    try:
        m = decode(data)
    except PeerError as error:
        assert error.code == "message.malformed"
    else:
        core(options=OPTIONS).step(m)


# --- any message at all, to any role ----------------------------------------------------------------------------------

NUMBER = st.one_of(st.integers(-2, 8), st.sampled_from([TERM_MAX, TERM_MAX + 1, 2**63, -(2**63)]))
HASH = st.sampled_from([bytes(32), b"", entry_hash(LOG[0]), entry_hash(LOG[2])])
PEER = st.sampled_from([b"a", b"b", b"c", b"z", b""])
GENERATION = st.sampled_from([LIFE, LIFE, LIFE, 0, -1, 2 * LIFE, LIFE | 5, 2**64])
ENTRY = st.one_of(st.sampled_from(LOG), st.builds(Entry, NUMBER, NUMBER, HASH, st.binary(max_size=3), st.just(b"")))
HEAD = st.builds(SnapshotHead, NUMBER, NUMBER, HASH, NUMBER, HASH)
FLAG = st.booleans()


def some(kind: Any, *fields: Any) -> st.SearchStrategy[Any]:
    return st.builds(kind, st.just(b"a"), PEER, st.integers(0, 6) | NUMBER, GENERATION, *fields)


MESSAGE = st.one_of(
    some(AskVote, NUMBER, NUMBER, FLAG, FLAG),
    some(GiveVote, FLAG, FLAG),
    some(Append, NUMBER, NUMBER, HASH, st.lists(ENTRY, max_size=4).map(tuple), NUMBER),
    some(Appended, FLAG, NUMBER, NUMBER, NUMBER),
    some(Heartbeat, NUMBER, HASH, NUMBER),
    some(HeartbeatReply, NUMBER, NUMBER),
    some(SnapshotChunk, HEAD, NUMBER, st.binary(max_size=8)),
    some(SnapshotReply, NUMBER, NUMBER),
    some(TimeoutNow),
    some(Hello, NUMBER, NUMBER),
    some(Outdated, GENERATION, NUMBER, NUMBER),
)


def in_role(role: Role) -> Raft:
    net = Net(
        [core("a", entries=LOG, commit=2, options=OPTIONS), core("b", options=OPTIONS), core("c", options=OPTIONS)]
    )
    if role == Role.LEADER:
        net.elect("a")
    elif role == Role.CANDIDATE:
        net["a"].campaign()
        turn(net["a"])
        net["a"].step(GiveVote(b"a", b"b", 3, LIFE, True, True))
    elif role == Role.PRECANDIDATE:
        net["a"].campaign()
    assert net["a"].role == role
    return net["a"]


@pytest.mark.parametrize("role", list(Role))
@given(messages=st.lists(MESSAGE, max_size=12))
@settings(max_examples=150, deadline=None)
def test_no_message_raises_or_undoes_a_decision(role: Role, messages: list[AnyMessage]) -> None:
    raft = in_role(role)
    committed = raft.log.committed
    decided = [raft.log.hash(i) for i in range(1, committed + 1)]
    term = raft.term
    for m in messages:
        raft.step(m)
        assert raft.term >= term and raft.log.committed >= committed
        if raft.log.floor == 0:
            assert [raft.log.hash(i) for i in range(1, len(decided) + 1)] == decided
        term, committed = raft.term, raft.log.committed
        turn(raft)
    for _ in range(25):
        raft.tick()
        turn(raft)
