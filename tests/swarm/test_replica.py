"""Core, rules and store as one: elections, forwarded statements, crashes at every point, snapshots, liars."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import msgspec
import pytest
from replica_loop import Crash, Loop, Site, card, genesis_of, identity

from shoal.errors import ArgumentError, InputError, MachineError, PeerError
from shoal.ledger.body import KeysRotated, LearnerAdded, Masked, MemberAdded, MemberRemoved, Noop, Note
from shoal.ledger.digest import digest
from shoal.ledger.entry import Entry, entry_hash
from shoal.ledger.evidence import evidence_fault
from shoal.ledger.log_store import LogStore
from shoal.ledger.memory_store import MemoryStore
from shoal.ledger.message import Append, Heartbeat, SnapshotChunk
from shoal.ledger.ready import pack_state
from shoal.ledger.sqlite_store import SqliteStore
from shoal.ledger.statement import make_statement
from shoal.ledger.store import Snapshot
from shoal.ledger.validator import make_seal
from shoal.ledger.verify import verify
from shoal.limits import LEDGER_ENTRY_BYTES_MAX
from shoal.swarm.replica import REFUSALS, Bounds, Decided, Jumped, Replica, found

replace = msgspec.structs.replace
SMALL = Bounds(entries=30)


@pytest.fixture(params=["memory", "sqlite"])
def loop(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Loop]:
    """Makes loops over either store."""
    made = [0]

    def build(**more: object) -> Loop:
        if request.param == "memory":
            return Loop(**more)
        made[0] += 1
        folder = tmp_path / str(made[0])
        folder.mkdir()

        def reopen(store: LogStore) -> LogStore:
            store.close()
            return SqliteStore(store.path)

        return Loop(make=lambda n: SqliteStore(folder / f"{n}.db"), reopen=reopen, **more)

    return build


def test_a_swarm_elects_and_decides_what_every_member_says(loop: Callable[..., Loop]) -> None:
    swarm = loop()
    leader = swarm.leader()
    for site in swarm.sites:
        swarm.say(site, Note(f"from {site.number}"))
    swarm.tick(3)
    for site in swarm.sites:
        assert site.replica.leader == leader.replica.me
        assert sorted(site.notes()) == ["from 0", "from 1", "from 2"]
        told = [d for d in site.told if isinstance(d, Decided)]
        assert [d.index for d in told] == list(range(2, site.replica.decided + 1))
        assert all(d.payload == e.payload for d, e in zip(told, site.store.history(2, len(told) + 1), strict=True))
    log = list(leader.store.history(1, leader.replica.decided))
    assert verify(log, leader.replica.ledger.state.genesis).fault is None


def test_propose_appends_where_this_node_leads_and_else_gives_what_to_forward() -> None:
    swarm = Loop()
    leader = swarm.leader()
    follower = next(s for s in swarm.sites if s is not leader)
    told = leader.replica.propose(Note("mine"))
    assert (told.index, told.refused) == (leader.replica.last, "")
    kept = follower.replica.propose(Note("theirs"))
    assert (kept.index, kept.refused) == (0, REFUSALS["not-leader"])
    assert follower.replica.standing(kept.payload) == "open"
    assert leader.replica.offer(kept.payload) == (leader.replica.last, "")
    assert leader.replica.offer(kept.payload)[0] == 0, "not decided yet, and already no second time"
    swarm.tick(2)
    assert follower.notes() == ["mine", "theirs"]
    assert follower.replica.standing(kept.payload) == "decided"
    assert "stands in the log already" in leader.replica.offer(kept.payload)[1]


def test_a_payload_that_a_leader_took_along_is_decided_once_under_the_next(loop: Callable[..., Loop]) -> None:
    swarm = loop()
    old = swarm.leader()
    author = next(s for s in swarm.sites if s is not old)
    payload = author.replica.statement(Note("once"))
    swarm.cut = {old.number}
    assert old.replica.offer(payload)[0] == old.replica.last
    swarm.push(author, payload)
    assert swarm.leader() is not old
    swarm.cut = set()
    swarm.tick(30)
    assert [s.notes() for s in swarm.sites] == [["once"]] * 3
    swarm.same()


def test_a_statement_whose_author_saw_too_little_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal.ledger.validator.LEDGER_SEEN_WINDOW", 16)
    swarm = Loop()
    leader = swarm.leader()
    payload = leader.replica.statement(Note("late"))
    for n in range(20):
        swarm.say(leader, Note(str(n)))
    assert leader.replica.standing(payload) == "expired"
    index, why = leader.replica.offer(payload)
    assert index == 0 and "too long ago" in why


def test_bad_payloads_are_refused_in_words_and_disturb_nothing() -> None:
    swarm = Loop()
    leader = swarm.leader()
    replica = leader.replica
    genesis, seen = replica.ledger.state.genesis, replica._guard.seen
    good = identity(1)
    waiting = replica.propose(Note("undecided"))
    stranger = make_statement(Note("x"), identity(77), genesis, seen)
    bad = {
        b"": "no statement",
        b"\xc1": "no statement",
        bytes(LEDGER_ENTRY_BYTES_MAX + 1): "too large",
        stranger: "no member",
        make_statement(Note("x"), good, bytes(32), seen): "another swarm",
        make_statement(Note("x"), good, genesis, replace(seen, index=99)): "too long ago, or not yet",
        make_statement(Note("x"), good, genesis, replace(seen, hash=bytes(32))): "two histories",
        make_statement(Noop(replica.term), good, genesis, seen): "second no-op",
        make_statement(Masked(0, bytes(32)), good, genesis, seen): "no slot is open",
        make_statement(MemberAdded(bytes(32)), good, genesis, seen): "no learner",
        waiting.payload[:-1] + bytes([waiting.payload[-1] ^ 1]): "does not hold",
    }
    last = replica.last
    for payload, word in bad.items():
        index, why = replica.offer(payload)
        assert index == 0 and word in why, why
    assert replica.last == last
    assert replica.offer(make_statement(Note("fine"), good, genesis, seen)) == (last + 1, "")
    swarm.tick(2)
    assert leader.notes() == ["undecided", "fine"]
    swarm.same()


def test_only_the_leader_takes_proposals_and_says_so() -> None:
    swarm = Loop()
    leader = swarm.leader()
    follower = next(s for s in swarm.sites if s is not leader)
    assert follower.replica.offer(leader.replica.statement(Note("x"))) == (0, REFUSALS["not-leader"])


def test_a_message_in_anothers_name_is_dropped() -> None:
    swarm = Loop()
    leader = swarm.leader()
    one, two = (s.replica for s in swarm.sites if s is not leader)
    forged = Heartbeat(one.me, leader.replica.me, one.term + 5, 1 << 32, 0, bytes(32), 1)
    before = one.term
    one.step(two.me, forged)
    assert one.counters["wrong-sender"] == 1 and one.term == before


# --- crashes ----------------------------------------------------------------------------------------------------------


def crashing_run(loop: Callable[..., Loop], victim: int, fuse: int | None) -> tuple[Loop, int]:
    """One history: an election and three statements; the victim dies after ``fuse`` events and comes back later."""
    swarm = loop()
    swarm.sites[victim].fuse = fuse
    swarm.leader()
    events = swarm.sites[victim].events
    for n, site in enumerate(swarm.sites):
        author = site if site.up else next(iter(swarm.up))
        payload = author.replica.statement(Note(f"{n}"))
        swarm.push(author, payload)
        if not swarm.sites[victim].up:
            swarm.sites[victim].restart()
    return swarm, max(events, swarm.sites[victim].events)


@pytest.mark.parametrize("victim", range(3))
def test_restart_at_every_point_between_persist_send_and_settle(loop: Callable[..., Loop], victim: int) -> None:
    _, events = crashing_run(loop, victim, None)
    assert events > 15
    died = 0
    for fuse in range(events):
        swarm, _ = crashing_run(loop, victim, fuse)
        died += swarm.sites[victim].events > fuse
        swarm.tick(60)
        swarm.leader()
        assert [s.notes() for s in swarm.sites] == [["0", "1", "2"]] * 3, f"died after {fuse} events"
        swarm.same()
        for site in swarm.sites:
            indices = [d.index for d in site.told]
            first = indices[0] if indices else 0
            assert indices == list(range(first, first + len(indices))), "in one life each is told once, in order"
            site.replica.close()
    assert died > events // 2


def test_all_restart_at_once_and_go_on(loop: Callable[..., Loop]) -> None:
    swarm = loop()
    swarm.say(swarm.leader(), Note("before"))
    for site in swarm.sites:
        site.replica.close()
        site.restart()
    for site in swarm.sites:
        assert "before" in site.notes(), "close writes the commit index that came alone"
    swarm.say(swarm.leader(), Note("after"))
    swarm.tick(3)
    assert [s.notes() for s in swarm.sites] == [["before", "after"]] * 3


def test_a_commit_index_that_came_alone_is_written_after_a_while(loop: Callable[..., Loop]) -> None:
    swarm = loop()
    swarm.say(swarm.leader(), Note("x"))
    swarm.tick(30)
    for site in swarm.sites:
        assert site.store.load()[0].commit == site.replica.decided


# --- snapshots --------------------------------------------------------------------------------------------------------


def test_memory_is_bounded_and_who_was_away_catches_up_by_a_snapshot(loop: Callable[..., Loop]) -> None:
    swarm = loop(bounds=SMALL)
    leader = swarm.leader()
    away = next(s for s in swarm.sites if s is not leader)
    swarm.cut = {away.number}
    for n in range(100):
        assert leader.replica.propose(Note(str(n))).index
        swarm.run()
        assert leader.replica.held <= SMALL.entries + 2
    swarm.cut = set()
    swarm.tick(10)
    assert away.replica.decided == leader.replica.decided
    assert any(isinstance(told, Jumped) for told in away.told)
    assert away.replica.ledger.encode() == leader.replica.ledger.encode()
    swarm.say(away, Note("back"))
    swarm.tick(3)
    swarm.same()
    for site in swarm.sites:
        ledger = site.replica.ledger.encode()
        site.replica.close()
        site.restart()
        assert site.replica.ledger.encode() == ledger
        assert site.replica.held <= SMALL.entries + 2
    swarm.leader()
    swarm.tick(3)
    swarm.same()


def test_large_entries_bound_the_log_by_their_bytes() -> None:
    bounds = Bounds(bytes=20_000)
    swarm = Loop(bounds=bounds)
    leader = swarm.leader()
    for _ in range(100):
        leader.replica.propose(Note("x" * 900))
        swarm.run()
    assert leader.replica._raft.log.size <= bounds.bytes + 2_000
    assert leader.replica.decided > 100


@pytest.mark.parametrize("step", ["save_snapshot", "compact"])
@pytest.mark.parametrize("after", [False, True])
def test_a_crash_while_compacting_loses_nothing(step: str, after: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    swarm = Loop(bounds=SMALL)
    leader = swarm.leader()
    real = getattr(MemoryStore, step)

    def dying(store: MemoryStore, *what: object) -> None:
        if store is leader.store:
            if after:
                real(store, *what)
            raise Crash
        real(store, *what)

    monkeypatch.setattr(MemoryStore, step, dying)
    said = 0
    while leader.up:
        leader.replica.propose(Note(str(said)))
        said += 1
        swarm.run()
    assert said < 60
    monkeypatch.undo()
    leader.restart()
    swarm.leader()
    swarm.say(leader, Note("on"))
    swarm.tick(3)
    assert leader.notes()[-1] == "on" and len(leader.notes()) == said + 1
    swarm.same()


def snapshot_messages(swarm: Loop, to: Replica, snapshot: Snapshot, term: int) -> SnapshotChunk:
    from shoal.ledger.ready import head_of

    sender = next(s.replica for s in swarm.sites if s.replica is not to)
    return SnapshotChunk(to.me, sender.me, term, 9 << 32, head_of(snapshot), 0, snapshot.state)


@pytest.mark.parametrize(
    "lie", ["garbage", "other swarm", "other policy", "other place", "other members", "other history"]
)
def test_a_false_snapshot_is_refused_and_the_log_stays(lie: str) -> None:
    swarm = Loop()
    leader = swarm.leader()
    swarm.say(leader, Note("kept"))
    swarm.tick(2)
    victim = next(s for s in swarm.sites if s is not leader)
    replica = victim.replica
    state = replica.ledger.copy().state
    data, place, configuration = b"", 90, replica.configuration
    state.index, state.head, state.term = place, bytes(31) + b"h", replica.term
    state.recent[place] = (state.head, bytes(16))
    if lie == "other swarm":
        state.genesis = bytes(32)
    if lie == "other policy":
        state.policy = replace(state.policy, admission=2)
    if lie == "other place":
        state.index = place - 1
    if lie == "other members":
        configuration = replace(configuration, voters=configuration.voters[:2])
    if lie == "other history":
        state.recent[replica.decided] = (bytes(32), bytes(16))
    if lie != "garbage":
        data = msgspec.msgpack.encode(state)
    term = replica.term + 1
    snapshot = Snapshot(place, replica.term, bytes(31) + b"h", pack_state(configuration, data))
    before = replica.ledger.encode()
    m = snapshot_messages(swarm, replica, snapshot, term)
    replica.step(m.sender, m)
    victim.work()
    assert replica.counters["snapshot-not-admitted"] == 1, replica.counters
    assert replica.halted is None and replica.ledger.encode() == before
    assert victim.notes() == ["kept"]


# --- liars and failing disks ------------------------------------------------------------------------------------------


def fork(swarm: Loop, seal: bool) -> tuple[Loop, Replica, Append]:
    """The leader's other version of its last entry, for a follower that has the first."""
    leader = swarm.leader()
    swarm.say(leader, Note("one"))
    swarm.tick(2)
    victim = next(s for s in swarm.sites if s is not leader).replica
    mine = next(iter(victim.history(victim.decided, victim.decided)))
    state = victim.ledger.state
    key = next(identity(n) for n in range(3) if identity(n).id == leader.replica.me)
    payload = make_statement(Note("other"), key, state.genesis, victim._guard.seen)
    other = replace(mine, payload=payload, seal=b"")
    if seal:
        other = replace(other, seal=make_seal(entry_hash(other), key))
    log = victim._raft.log
    before = other.index - 1
    generation = leader.replica._raft.state.generation
    m = Append(
        victim.me, leader.replica.me, victim.term, generation, before, log.term(before), log.hash(before), (other,), 0
    )
    return swarm, victim, m


def test_proof_of_two_histories_halts_the_node_by_name() -> None:
    _, victim, m = fork(Loop(), seal=True)
    victim.step(m.sender, m)
    assert victim.evidence is not None and evidence_fault(victim.evidence) == ""
    assert victim.evidence.leader == m.sender
    for _ in range(2):
        with pytest.raises(PeerError, match="signed two entries") as caught:
            victim.work(lambda _m: None)
        assert caught.value.code == "replica.fork"
    assert victim.offer(b"")[1].startswith("this node has halted")


def test_a_contradiction_without_proof_is_refused_and_counted() -> None:
    swarm, victim, m = fork(Loop(), seal=False)
    victim.step(m.sender, m)
    assert victim.halted is None and victim.evidence is None
    assert victim.counters["forked-chain"] == 1
    swarm.say(swarm.leader(), Note("on"))
    swarm.tick(2)
    swarm.same()


@pytest.fixture
def misled() -> tuple[Loop, Site, bytes]:
    """A follower that holds an entry which it does not know to be decided, and that was then sent a liar's batch whose
    first entry was good in its place and whose second was not; and the payload of the entry that it holds."""
    swarm = Loop()
    leader = swarm.leader()
    victim = next(s for s in swarm.sites if s is not leader)
    liar = next(s for s in swarm.sites if s not in (leader, victim))
    held = leader.replica.propose(Note("held")).payload
    leader.work()
    for m in [m for m in swarm.flight if m.to == victim.replica.me]:
        victim.replica.step(m.sender, m)
    victim.work()
    swarm.flight.clear()
    replica = victim.replica
    assert replica.last == replica.decided + 1
    log, key = replica._raft.log, identity(liar.number)
    genesis, seen = replica.ledger.state.genesis, replica._guard.seen
    term, before = replica.term + 1, replica.decided
    good = Entry(replica.last, term, log.hash(before), make_statement(Noop(term), key, genesis, seen))
    bad = Entry(replica.last + 1, term, entry_hash(good), b"nonsense")
    life = liar.replica._raft.state.generation
    m = Append(replica.me, key.id, term, life, before, log.term(before), log.hash(before), (good, bad), 0)
    replica.step(key.id, m)
    assert replica.counters["not-admitted"] == 1 and "no statement" in replica.refusal
    assert replica.last == before + 1 and log.entries[-1].payload == held
    return swarm, victim, held


def test_after_a_batch_of_which_a_part_was_good_a_follower_goes_on(misled: tuple[Loop, Site, bytes]) -> None:
    swarm, _, _ = misled
    swarm.say(swarm.leader(), Note("on"))
    swarm.tick(5)
    assert all(s.notes() == ["held", "on"] for s in swarm.sites), [s.notes() for s in swarm.sites]
    swarm.same()


def test_after_a_batch_of_which_a_part_was_good_a_follower_leads(misled: tuple[Loop, Site, bytes]) -> None:
    swarm, victim, held = misled
    for site in swarm.sites:
        site.replica._raft.state.elapsed = swarm.options.election_ticks
    victim.replica.campaign()
    for _ in range(4):  # the votes, and no answer to what it appends
        for site in swarm.sites:
            site.work()
        flight, swarm.flight = swarm.flight, []
        for m in flight:
            if not isinstance(m, Append):
                next(s for s in swarm.sites if s.replica.me == m.to).replica.step(m.sender, m)
    assert victim.replica.leading and victim.replica.decided < victim.replica.last
    assert "stands in the log already" in victim.replica.offer(held)[1]
    swarm.tick(5)
    assert all(s.notes() == ["held"] for s in swarm.sites)


def test_a_failed_disk_halts_the_node_and_sends_nothing_more() -> None:
    swarm = Loop()
    leader = swarm.leader()
    sent: list[object] = []

    def broken(_ready: object) -> None:
        raise MachineError("store.broken", "no space left")

    leader.store.persist = broken  # type: ignore[method-assign]
    leader.replica.propose(Note("x"))
    with pytest.raises(MachineError, match="no space left"):
        leader.replica.work(sent.append)
    before = len(sent)
    leader.replica.tick()
    with pytest.raises(MachineError):
        leader.replica.work(sent.append)
    assert len(sent) == before
    leader.up = False
    assert swarm.leader() is not leader


def test_a_decided_entry_that_breaks_a_rule_halts_the_node() -> None:
    swarm = Loop()
    leader = swarm.leader()
    victim = next(s for s in swarm.sites if s is not leader).replica
    bad = Entry(victim.last + 1, victim.term, victim._raft.log.last_hash, b"nonsense")
    victim._raft.log.append(bad, entry_hash(bad))
    victim._raft.log.commit_to(bad.index)
    with pytest.raises(InputError, match="no statement"):
        victim.work(lambda _m: None)
    assert victim.halted is not None


# --- members ----------------------------------------------------------------------------------------------------------


def test_a_new_site_learns_the_log_is_promoted_and_an_old_one_leaves() -> None:
    swarm = Loop()
    leader = swarm.leader()
    swarm.say(leader, Note("early"))
    new = swarm.add(9)
    assert new.replica.me not in new.replica.members
    for site in swarm.sites:
        site.replica.introduce(s.replica.me for s in swarm.sites if s is not site)
    swarm.say(leader, LearnerAdded(card(9)))
    swarm.tick(5)
    assert not new.replica.members[new.replica.me].voter
    swarm.say(leader, MemberAdded(new.replica.me))
    swarm.tick(3)
    assert new.replica.me in new.replica.configuration.voters
    assert new.notes() == ["early"]
    # The leader's own removal: it hands over, and the next one takes the same payload.
    payload = leader.replica.statement(MemberRemoved(leader.replica.me))
    index, why = leader.replica.offer(payload)
    assert index == 0 and "hands over" in why
    swarm.push(new, payload)
    assert leader.replica.me not in new.replica.members
    leader.up = False
    assert swarm.leader() is not leader
    swarm.say(new, Note("without"))


def test_refusals_of_changes_are_told_in_words() -> None:
    swarm = Loop()
    leader = swarm.leader().replica
    assert leader.propose(LearnerAdded(card(1))).refused == REFUSALS["already-member"]
    assert leader.propose(LearnerAdded(card(8))).index
    assert leader.propose(LearnerAdded(card(9))).refused == REFUSALS["change-pending"]
    swarm.tick(2)
    assert leader.propose(MemberAdded(identity(8).id)).refused == REFUSALS["learner-behind"]


@pytest.mark.parametrize("leads", [False, True])
def test_a_member_rotates_its_key_whether_it_leads_or_not(leads: bool) -> None:
    swarm = Loop()
    leader = swarm.leader()
    site = leader if leads else next(s for s in swarm.sites if s is not leader)
    new, curve = identity(50), card(50).curve
    replica = site.replica
    proof = new.sign(digest("rotation", replica.ledger.state.genesis, replica.me, new.public, curve))
    site.replica.rotate_to(new)
    swarm.say(site, KeysRotated(new.public, curve, proof))
    swarm.say(site, Note("under the new key"))
    swarm.tick(2)
    assert replica.members[replica.me].signing == new.public
    log = list(site.store.history(1, replica.decided))
    assert verify(log, replica.ledger.state.genesis).fault is None
    # With the new key's file alone the site is the same member.
    site.key = new
    site.restart()
    assert site.replica.me == replica.me
    swarm.leader()
    swarm.say(site, Note("after a restart"))
    swarm.same()


def test_a_store_without_a_ledger_is_refused_and_a_genesis_begins_it_once() -> None:
    store = MemoryStore()
    with pytest.raises(ArgumentError, match="genesis") as caught:
        Replica(identity(0), store, Random(0).randrange)
    assert caught.value.code == "replica.empty"
    genesis = genesis_of(3)
    with pytest.raises(InputError):
        found(store, replace(genesis, payload=b"x"))
    found(store, genesis)
    with pytest.raises(ArgumentError):
        found(store, genesis)
    assert Replica(identity(0), store, Random(0).randrange).decided == 1


def test_a_ledger_file_that_breaks_a_rule_is_refused_at_the_start() -> None:
    store = MemoryStore()
    genesis = genesis_of(3)
    found(store, genesis)
    store.append([Entry(2, 1, entry_hash(genesis), b"nonsense")])
    with pytest.raises(InputError, match="entry 2") as caught:
        Replica(identity(0), store, Random(0).randrange)
    assert caught.value.code == "replica.ledger"
