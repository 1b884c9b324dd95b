"""What the core does beyond the paper's figure 2: pre-vote, check-quorum, handing over, reads, flow, order of work."""

from __future__ import annotations

import msgspec
import pytest
from raft_cluster import Net, chain, cluster, core, members_of, of, turn

from shoal.errors import ArgumentError
from shoal.ledger.entry import GENESIS_PREV, Entry, entry_hash
from shoal.ledger.message import Append, Appended, AskVote, GiveVote, Heartbeat, HeartbeatReply, TimeoutNow
from shoal.ledger.progress import INSTALL, PROBE, REPLICATE, Progress
from shoal.ledger.raft import Hooks, Options, Role
from shoal.ledger.ready import ReadState
from shoal.limits import LEDGER_ENTRY_BYTES_MAX, READS_PENDING_MAX

OPTIONS = Options(announce=False)
LIFE = 1 << 32

# --- pre-vote and check-quorum ----------------------------------------------------------------------------------------


def test_pre_vote_changes_nothing() -> None:
    raft = core(terms=[1], options=OPTIONS)
    turn(raft)
    raft.campaign()
    asked = of(AskVote, turn(raft))
    assert (raft.role, raft.term) == (Role.PRECANDIDATE, 1)
    assert [(m.to, m.term, m.pre) for m in asked] == [(b"b", 2, True), (b"c", 2, True)]
    voter = core("b", terms=[1], options=OPTIONS)
    turn(voter)
    voter.step(asked[0])
    ready = voter.ready()
    assert ready.hard_state is None or (ready.hard_state.term, ready.hard_state.vote) == (1, b"")
    assert of(GiveVote, ready.messages)[0].granted


def test_an_isolated_node_does_not_raise_its_term() -> None:
    net = cluster(options=OPTIONS)
    net.isolate("c")
    net.tick(100)
    assert net["c"].term == 1 and net["a"].role == Role.LEADER
    net.heal()
    net.tick(3)
    assert (net["a"].role, net["a"].term, net["c"].leader) == (Role.LEADER, 1, b"a")


def test_without_pre_vote_an_isolated_node_comes_back_with_a_higher_term_and_the_lease_holds_it_off() -> None:
    options = Options(announce=False, pre_vote=False)
    net = cluster(options=options)
    net.isolate("c")
    net.tick(100)
    assert net["c"].term > 1
    net.heal()
    net.tick(1)
    net["c"].campaign()
    net.run()
    assert net["b"].counters["leader-is-heard"] == 1, "its request is ignored"
    net.tick(40)  # its answer to the leader's heartbeat tells the higher term, once, and so it is let in again
    assert sum(c.role == Role.LEADER for c in net.cores.values()) == 1
    assert len({c.term for c in net.cores.values()}) == 1


def test_votes_are_refused_while_a_leader_is_heard() -> None:
    net = cluster(options=OPTIONS)
    ask = AskVote(b"b", b"c", 5, LIFE, 99, 4, False, False)
    net["b"].step(ask)
    assert net["b"].term == 1 and net["b"].counters["leader-is-heard"] == 1
    assert not turn(net["b"])
    for _ in range(OPTIONS.election_ticks):
        net["b"].state.elapsed += 1
    net["b"].step(ask)
    assert net["b"].term == 5


def test_a_leader_without_a_quorum_steps_down() -> None:
    net = cluster("abcde", options=OPTIONS)
    for name in "bc":
        net.isolate(name)
    net.tick(25)
    assert net["a"].role == Role.LEADER, "two of four others answer"
    net.isolate("d")
    net.tick(2 * OPTIONS.election_ticks)
    assert net["a"].role != Role.LEADER


def test_without_check_quorum_it_stays() -> None:
    net = cluster(options=Options(announce=False, check_quorum=False))
    net.isolate("a")
    for _ in range(100):
        net["a"].tick()
        turn(net["a"])
    assert net["a"].role == Role.LEADER


def test_a_stale_leader_is_told_the_term() -> None:
    net = cluster(options=OPTIONS)
    net.isolate("a")
    net["b"].state.elapsed = net["c"].state.elapsed = 99
    net["b"].campaign()
    net.run()
    assert net["b"].role == Role.LEADER and net["a"].role == Role.LEADER
    net.heal()
    net.tick(1, "a")
    assert (net["a"].role, net["a"].term) == (Role.FOLLOWER, 2)


# --- handing over -----------------------------------------------------------------------------------------------------


def test_transfer() -> None:
    net = cluster(options=OPTIONS)
    assert net["a"].transfer(b"c") == ""
    net.run()
    assert (net["c"].role, net["a"].role, net["c"].term) == (Role.LEADER, Role.FOLLOWER, 2)
    assert net["a"].leader == b"c"


def test_transfer_waits_until_the_heir_has_all() -> None:
    net = cluster(options=OPTIONS)
    net.isolate("c")
    net["a"].propose(b"x")
    net.run()
    assert net["a"].transfer(b"c") == ""
    assert net["a"].propose(b"y").refused == "handing-over"
    assert not of(TimeoutNow, turn(net["a"]))
    net.heal()
    net.tick(2)
    assert net["c"].role == Role.LEADER and net.applied["c"][1] == b"x"


def test_transfer_is_given_up_after_a_timeout() -> None:
    net = cluster(options=OPTIONS)
    net.isolate("c")
    net["a"].propose(b"x")
    net["a"].transfer(b"c")
    net.tick(OPTIONS.election_ticks)
    assert not net["a"].propose(b"y").refused
    net.heal()
    net.tick(30)
    assert net["a"].role == Role.LEADER


@pytest.mark.parametrize(("to", "why"), [(b"a", "not-another-voter"), (b"z", "not-another-voter")])
def test_transfer_faults(to: bytes, why: str) -> None:
    net = cluster(options=OPTIONS)
    assert net["a"].transfer(to) == why
    assert net["b"].transfer(b"c") == "not-leader"


def test_timeout_now_only_from_the_leader() -> None:
    net = cluster(options=OPTIONS)
    net["b"].step(TimeoutNow(b"b", b"c", 1, LIFE))
    assert net["b"].role == Role.FOLLOWER and net["b"].counters["not-the-leader"] == 1


# --- reads ------------------------------------------------------------------------------------------------------------


def reads(net: Net, name: str) -> list[ReadState]:
    found: list[ReadState] = []
    turn(net[name], lambda r: found.extend(r.reads))
    return found


def test_a_read_waits_for_a_majority() -> None:
    net = cluster(options=OPTIONS)
    net["a"].propose(b"x")
    net.run()
    assert net["a"].read(b"r") == ""
    beats = of(Heartbeat, turn(net["a"]))
    net["b"].step(beats[0])
    for m in turn(net["b"]):
        net["a"].step(m)
    assert reads(net, "a") == [ReadState(b"r", 2)]


def test_a_leader_that_was_replaced_answers_no_read() -> None:
    net = cluster(options=OPTIONS)
    net.isolate("a")
    net["b"].state.elapsed = net["c"].state.elapsed = 99
    net["b"].campaign()
    net.run()
    net["b"].propose(b"newer")
    net.run()
    assert net["a"].read(b"r") == ""
    assert reads(net, "a") == []
    net.heal()
    net.tick(1)
    assert reads(net, "a") == [] and not net["a"].state.reads


def test_an_old_heartbeats_answer_confirms_no_later_read() -> None:
    net = cluster(options=OPTIONS)
    net["a"].tick()
    for m in of(Heartbeat, turn(net["a"])):
        net[m.to.decode()].step(m)
    old = turn(net["b"]) + turn(net["c"])
    net["a"].read(b"r")
    turn(net["a"])
    for m in old:
        net["a"].step(m)
    assert reads(net, "a") == []


def test_reads_are_refused_by_name() -> None:
    net = cluster(options=OPTIONS)
    assert net["b"].read(b"r") == "not-leader"
    fresh = core(options=OPTIONS, terms=[1])
    fresh.campaign()
    fresh.step(GiveVote(b"a", b"b", 2, LIFE, True, True))
    fresh.step(GiveVote(b"a", b"b", 2, LIFE, True, False))
    assert fresh.role == Role.LEADER and fresh.read(b"r") == "read-before-own-commit"
    for _ in range(READS_PENDING_MAX):
        net["a"].state.reads.append((10**9, b"", 0))
    assert net["a"].read(b"r") == "reads-full"


def test_a_single_node_reads_and_decides_alone() -> None:
    net = Net([core("a", "a", options=OPTIONS)])
    net["a"].campaign()
    net.run()
    assert net["a"].role == Role.LEADER and net["a"].log.committed == 1
    net["a"].read(b"r")
    assert reads(net, "a") == [ReadState(b"r", 1)]


# --- flow -------------------------------------------------------------------------------------------------------------


def test_messages_are_bounded_by_entries_and_bytes() -> None:
    options = Options(announce=False, append_entries=3, append_bytes=100)
    net = cluster(options=options)
    for size in (10, 10, 10, 10, 60, 60, 300, 10):
        net["a"].propose(b"x" * size)
    sent = [m for m in of(Append, turn(net["a"])) if m.to == b"b"]
    assert [[len(e.payload) for e in m.entries] for m in sent] == [[10, 10, 10], [10, 60], [60], [300], [10]]


def test_appends_in_flight_are_bounded() -> None:
    options = Options(announce=False, append_entries=1, in_flight=3)
    net = cluster(options=options)
    for n in range(10):
        net["a"].propose(b"%d" % n)
    first = [m for m in of(Append, turn(net["a"])) if m.to == b"b"]
    assert len(first) == 3
    net["b"].step(first[0])
    for m in turn(net["b"]):
        net["a"].step(m)
    assert len([m for m in of(Append, turn(net["a"])) if m.to == b"b"]) == 1


def test_a_lost_window_recovers_with_the_heartbeat() -> None:
    options = Options(announce=False, append_entries=1, in_flight=2)
    net = cluster(options=options)
    net.isolate("b")
    for n in range(6):
        net["a"].propose(b"%d" % n)
    net.run()
    net.heal()
    net.tick(4)
    assert net["b"].log.last_hash == net["a"].log.last_hash


def test_a_peer_that_answers_nothing_gets_one_probe_a_heartbeat() -> None:
    net = cluster(options=OPTIONS)
    net.isolate("c")
    net["a"].state.progress[b"c"].probe(1)
    for n in range(20):
        net["a"].propose(b"%d" % n)
        net.run()
    assert sum(type(m) is Append and m.to == b"c" for m in net.lost) == 1


def test_uncommitted_bytes_are_bounded() -> None:
    net = cluster(options=Options(announce=False, uncommitted_bytes=100))
    net.isolate("a")
    assert not net["a"].propose(b"x" * 90).refused
    assert net["a"].propose(b"y" * 20).refused == "uncommitted-full"
    assert not net["a"].propose(b"z" * 10).refused
    net.heal()
    net.tick(2)
    assert not net["a"].propose(b"y" * 20).refused, "all was decided meanwhile"
    single = cluster(options=Options(announce=False, uncommitted_bytes=100))
    assert not single["a"].propose(b"x" * 200).refused, "one larger entry alone is taken"


def test_the_log_in_memory_is_bounded() -> None:
    options = Options(announce=False, log_entries=5)
    net = cluster(options=options)
    for n in range(4):
        assert not net["a"].propose(b"%d" % n).refused
    assert net["a"].propose(b"more").refused == "log-full"
    net.run()
    net["a"].compact(3, b"state")
    assert not net["a"].propose(b"more").refused
    net.run()
    assert net["b"].log.last == 5 and net["b"].counters["log-full"] > 0, "its own window is still full"
    for name in "bc":
        net[name].compact(3, b"state")
    net.tick(3)
    assert net["b"].log.last == 6


def test_refused_proposals() -> None:
    net = cluster(options=OPTIONS)
    assert net["b"].propose(b"x").refused == "not-leader"
    assert net["a"].propose(bytes(LEDGER_ENTRY_BYTES_MAX + 1)).refused == "entry-too-large"
    assert net["b"].counters["not-leader"] == net["a"].counters["entry-too-large"] == 1


def test_progress_goes_from_probe_to_replicate_and_back() -> None:
    p = Progress(5, 2)
    assert p.state == PROBE and not p.rejected(3, 1), "an old answer"
    assert p.rejected(4, 3) and p.next == 3
    assert p.accepted(2) and (p.state, p.next) == (REPLICATE, 3)
    p.in_flight.extend((3, 4))
    assert p.paused
    assert not p.rejected(2, 1), "what was acknowledged is not taken back"
    assert p.rejected(4, 3) and (p.state, p.next) == (PROBE, 3) and not p.paused
    p.install()
    assert p.state == INSTALL and not p.rejected(2, 1)


# --- order of work ----------------------------------------------------------------------------------------------------


def test_a_leader_counts_itself_only_when_its_disk_has_answered() -> None:
    net = Net(core(m, "abc", options=OPTIONS) for m in "abc")
    net.elect("a")
    net["a"].propose(b"x")
    ready = net["a"].ready()
    assert not ready.messages and {m.to for m in of(Append, ready.early)} == {b"b", b"c"}
    net["a"].step(Appended(b"a", b"b", 1, LIFE, False, 2, 0, 0))
    assert net["a"].log.committed == 1
    net["a"].advance()
    assert net["a"].log.committed == 2


def test_an_entry_cut_while_the_disk_works_is_not_counted_as_stored() -> None:
    """The write of the first entry is acknowledged after another entry took its place."""
    raft = core(terms=[1], options=OPTIONS)
    turn(raft)
    first, second = chain([1, 2]), chain([1, 3, 3])
    raft.step(Append(b"a", b"b", 2, LIFE, 1, 1, entry_hash(first[0]), (first[1],), 1))
    raft.ready()
    raft.step(Append(b"a", b"c", 3, LIFE, 1, 1, entry_hash(first[0]), (second[1],), 1))
    raft.advance()
    assert raft.log.stable == 1
    ready = raft.ready()
    assert (ready.truncate_from, list(ready.entries)) == (2, [second[1]])
    raft.advance()
    assert raft.log.stable == 2


def test_while_the_disk_works_heartbeats_go_on_and_nothing_else_does() -> None:
    net = Net(core(m, "abc", options=OPTIONS) for m in "abc")
    net.elect("a")
    net["a"].propose(b"x")
    net["a"].ready()
    net["a"].propose(b"y")
    beats = net["a"].pulse((), lead=True)
    assert {m.to for m in of(Heartbeat, beats)} == {b"b", b"c"} and len(beats) == 2
    assert not net["a"].pulse((), lead=False)
    net["a"].advance()
    assert of(Append, net["a"].ready().early), "what had to wait is still there"

    follower = net["b"]
    assert follower.log.last == 1
    entry = Entry(2, 1, follower.log.hash(1), b"z")
    follower.step(Append(b"b", b"a", 1, LIFE, 1, 1, follower.log.hash(1), (entry,), 1))
    ready = follower.ready()
    assert ready.must_sync and len(of(Appended, ready.messages)) == 1
    mine = [m for m in beats if m.to == b"b"]
    (answer,) = follower.pulse(mine, lead=True)
    assert isinstance(answer, HeartbeatReply) and (answer.to, answer.beat) == (b"a", mine[0].beat)
    stranger = msgspec.structs.replace(mine[0], sender=b"c")
    other_term = msgspec.structs.replace(mine[0], term=mine[0].term + 1)
    assert not follower.pulse([stranger, other_term], lead=False) and follower.term == net["a"].term
    follower.advance()
    assert not follower.has_ready()


def test_nobody_is_answered_while_a_vote_is_written() -> None:
    raft = core("b", options=OPTIONS)
    beat = Heartbeat(b"b", b"a", 3, LIFE, 0, GENESIS_PREV, 1)
    raft.step(beat)  # a later term
    assert raft.term == 3 and raft.leader == b"a"
    assert not raft.pulse([beat], lead=False), "not handed to the disk yet"
    raft.ready()
    assert not raft.pulse([beat], lead=False), "the disk works on it"
    raft.advance()
    assert len(raft.pulse([beat], lead=False)) == 1


def test_ready_comes_once() -> None:
    raft = core(options=OPTIONS)
    with pytest.raises(ArgumentError, match="no Ready"):
        raft.advance()
    raft.campaign()
    raft.ready()
    with pytest.raises(ArgumentError, match="not advanced"):
        raft.ready()


def test_an_idle_core_asks_for_nothing() -> None:
    net = cluster(options=OPTIONS)
    net.run()
    assert not any(c.has_ready() for c in net.cores.values())


def test_a_commit_index_alone_need_not_be_synced() -> None:
    raft = core(terms=[1, 1], options=OPTIONS)
    turn(raft)
    raft.step(Heartbeat(b"a", b"b", 1, LIFE, 2, raft.log.hash(2), 1))
    assert raft.ready().must_sync, "a peer's life is new"
    raft.advance()
    raft = core(terms=[1, 1, 1], commit=1, options=OPTIONS)
    raft.step(Heartbeat(b"a", b"b", 1, LIFE, 2, raft.log.hash(2), 1))
    turn(raft)
    raft.step(Heartbeat(b"a", b"b", 1, LIFE, 3, raft.log.hash(3), 2))
    ready = raft.ready()
    assert ready.hard_state is not None and ready.hard_state.commit == 3 and not ready.must_sync


# --- seals and admission ----------------------------------------------------------------------------------------------


def test_the_last_entry_of_a_batch_is_sealed() -> None:
    hooks = Hooks(draw=lambda n: 0, members_of=members_of, seal=lambda digest: b"seal:" + digest[:4])
    net = Net(core(m, "abc", hooks=hooks, options=OPTIONS) for m in "abc")
    net.elect("a")
    for n in range(3):
        net["a"].propose(b"%d" % n)
    net.run()
    for c in net.cores.values():
        assert [bool(e.seal) for e in c.log.entries] == [True, False, False, True]
        assert c.log.entries[3].seal == b"seal:" + c.log.hash(4)[:4]


def test_what_is_not_admitted_is_not_stored() -> None:
    def admit(entry: Entry, digest: bytes) -> bool:
        return entry.payload != b"bad" and digest == entry_hash(entry)

    hooks = Hooks(draw=lambda n: 0, admit=admit)
    net = Net([core("a", "abc", options=OPTIONS), *(core(m, "abc", hooks=hooks, options=OPTIONS) for m in "bc")])
    net.elect("a")
    net["a"].propose(b"bad")
    net.run(20)
    assert net["b"].log.last == 1 and net["b"].counters["not-admitted"] >= 1
    assert net["a"].log.committed == 1


# --- starting ---------------------------------------------------------------------------------------------------------


def test_a_core_starts_from_any_hard_state_and_log() -> None:
    raft = core(terms=[1, 1, 4], term=6, vote="b", commit=2, options=OPTIONS)
    assert (raft.term, raft.state.vote, raft.log.committed, raft.log.last) == (6, b"b", 2, 3)
    ready = raft.ready()
    assert [e.index for e in ready.committed] == [1, 2] and not ready.entries


def test_a_log_ahead_of_the_hard_state_counts() -> None:
    """The entries reached the disk and the hard state did not: their term is known, and no vote was given in it."""
    raft = core(terms=[1, 5], term=3, vote="b", options=OPTIONS)
    assert (raft.term, raft.state.vote) == (5, b"")


@pytest.mark.parametrize("break_it", [lambda e: e[1:], lambda e: [e[0], e[2]], lambda e: [e[1], e[0]]])
def test_a_broken_chain_is_no_start(break_it) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ArgumentError, match="follow"):
        core(entries=break_it(chain([1, 1, 2])))


def test_terms_do_not_fall_along_a_log() -> None:
    with pytest.raises(ArgumentError, match="cannot follow"):
        core(entries=chain([2, 1]))
