"""One test for each rule of figure 2 of the Raft paper (Ongaro and Ousterhout, ATC 2014), quoted as the test's docstring."""

from __future__ import annotations

import pytest
from raft_cluster import Net, chain, cluster, core, of, turn

from shoal.ledger.entry import entry_hash
from shoal.ledger.message import Append, Appended, AskVote, GiveVote, Heartbeat
from shoal.ledger.raft import Options, Raft, Role

PLAIN = Options(pre_vote=False, check_quorum=False, announce=False)
LIFE = 1 << 32


def ask(to: str, sender: str, term: int, last: int = 0, last_term: int = 0) -> AskVote:
    return AskVote(to.encode(), sender.encode(), term, LIFE, last, last_term, False, False)


def append(to: str, sender: str, term: int, log: list, after: int, count: int = 0, commit: int = 0) -> Append:  # type: ignore[type-arg]
    """An append of `count` entries of `log` that follow entry `after`."""
    before = log[after - 1] if after else None
    entries = tuple(log[after : after + count])
    prev = entry_hash(before) if before else bytes(32)
    return Append(to.encode(), sender.encode(), term, LIFE, after, before.term if before else 0, prev, entries, commit)


def answer(raft: Raft) -> Appended:
    return of(Appended, turn(raft))[-1]


# --- persistent state -------------------------------------------------------------------------------------------------


def test_persistent_state_comes_before_answers() -> None:
    """Updated on stable storage before responding to RPCs."""
    raft = core(options=PLAIN)
    turn(raft)
    raft.step(ask("a", "b", 3))
    ready = raft.ready()
    assert ready.must_sync and not ready.early
    assert (ready.hard_state.term, ready.hard_state.vote) == (3, b"b")  # type: ignore[union-attr]
    assert of(GiveVote, ready.messages)[0].granted


# --- AppendEntries, receiver ------------------------------------------------------------------------------------------


def test_append_1_old_term() -> None:
    """Reply false if term < currentTerm."""
    raft = core(terms=[1], term=3, options=PLAIN)
    raft.step(append("a", "b", 2, chain([1, 2]), 1, 1))
    reply = answer(raft)
    assert reply.rejected and reply.term == 3
    assert raft.log.last == 1


@pytest.mark.parametrize("terms", [[1], [1, 1, 2]])
def test_append_2_no_matching_entry(terms: list[int]) -> None:
    """Reply false if log doesn't contain an entry at prevLogIndex whose term matches prevLogTerm."""
    raft = core(terms=terms, options=PLAIN)
    raft.step(append("a", "b", 4, chain([1, 1, 3, 4]), 3, 1))
    reply = answer(raft)
    assert reply.rejected and reply.index == 3
    assert raft.log.last == len(terms)


def test_append_3_conflict() -> None:
    """If an existing entry conflicts with a new one (same index but different terms), delete the existing entry and
    all that follow it."""
    raft = core(terms=[1, 2, 2, 2], options=PLAIN)
    log = chain([1, 3])
    raft.step(append("a", "b", 3, log, 1, 1))
    ready = raft.ready()
    assert ready.truncate_from == 2
    assert list(ready.entries) == log[1:]
    assert raft.log.last == 2


def test_append_4_new_entries_only() -> None:
    """Append any new entries not already in the log: an old append cuts nothing."""
    log = chain([1, 1, 1, 1])
    raft = core(terms=[1, 1, 1], options=PLAIN)
    raft.step(append("a", "b", 1, log, 0, 2))
    assert answer(raft).index == 2
    assert raft.log.last == 3
    raft.step(append("a", "b", 1, log, 1, 3))
    assert answer(raft).index == 4
    assert raft.log.last == 4


def test_append_5_commit() -> None:
    """If leaderCommit > commitIndex, set commitIndex = min(leaderCommit, index of last new entry)."""
    log = chain([1, 1, 1])
    raft = core(terms=[1, 1, 1], options=PLAIN)
    raft.step(append("a", "b", 1, log, 0, 2, commit=3))
    assert raft.log.committed == 2
    raft.step(append("a", "b", 1, log, 2, 1, commit=3))
    assert raft.log.committed == 3


# --- RequestVote, receiver --------------------------------------------------------------------------------------------


def test_vote_1_old_term() -> None:
    """Reply false if term < currentTerm."""
    raft = core(term=5, options=PLAIN)
    raft.step(ask("a", "b", 4, 9, 4))
    reply = of(GiveVote, turn(raft))[0]
    assert not reply.granted and reply.term == 5


@pytest.mark.parametrize(
    ("last_term", "last", "granted"), [(2, 3, True), (2, 4, True), (3, 1, True), (2, 2, False), (1, 9, False)]
)
def test_vote_2_up_to_date(last_term: int, last: int, granted: bool) -> None:
    """If votedFor is null or candidateId, and candidate's log is at least as up-to-date as receiver's log, grant vote."""
    raft = core(terms=[1, 2, 2], options=PLAIN)
    raft.step(ask("a", "b", 4, last, last_term))
    assert of(GiveVote, turn(raft))[0].granted is granted


def test_vote_2_once_in_a_term() -> None:
    """Each server will vote for at most one candidate in a given term (5.2); the same one may ask again."""
    raft = core(options=PLAIN)
    for candidate, granted in (("b", True), ("c", False), ("b", True)):
        raft.step(ask("a", candidate, 1))
        assert of(GiveVote, turn(raft))[-1].granted is granted
    again = core(term=1, vote="b", options=PLAIN)
    again.step(ask("a", "c", 1))
    assert not of(GiveVote, turn(again))[-1].granted


# --- all servers ------------------------------------------------------------------------------------------------------


def test_all_apply() -> None:
    """If commitIndex > lastApplied: increment lastApplied, apply log[lastApplied]."""
    log = chain([1, 1])
    raft = core(terms=[1, 1], options=PLAIN)
    raft.step(append("a", "b", 1, log, 2, 0, commit=2))
    ready = raft.ready()
    assert [e.index for e in ready.committed] == [1, 2]
    raft.advance()
    assert raft.log.applied == 2


@pytest.mark.parametrize("role", [Role.FOLLOWER, Role.CANDIDATE, Role.LEADER])
def test_all_newer_term(role: Role) -> None:
    """If RPC request or response contains term T > currentTerm: set currentTerm = T, convert to follower."""
    net = Net(core(m, options=PLAIN) for m in "abc")
    raft = net["a"]
    if role == Role.CANDIDATE:
        raft.campaign()
    elif role == Role.LEADER:
        net.elect("a")
    assert raft.role == role
    raft.step(GiveVote(b"a", b"b", 7, LIFE, False, False))
    assert (raft.role, raft.term) == (Role.FOLLOWER, 7)


# --- followers --------------------------------------------------------------------------------------------------------


def test_followers_start_an_election() -> None:
    """If election timeout elapses without receiving AppendEntries from current leader or granting vote to candidate:
    convert to candidate."""
    raft = core(options=PLAIN)
    for _ in range(PLAIN.election_ticks - 1):
        raft.tick()
    raft.step(ask("a", "b", 1))
    for _ in range(PLAIN.election_ticks - 1):
        raft.tick()
    assert raft.role == Role.FOLLOWER
    raft.step(Heartbeat(b"a", b"b", 1, LIFE, 0, bytes(32), 1))
    for _ in range(PLAIN.election_ticks - 1):
        raft.tick()
    assert raft.role == Role.FOLLOWER
    raft.tick()
    assert raft.role == Role.CANDIDATE


def test_timeouts_are_drawn_anew() -> None:
    """Raft uses randomized election timeouts (5.2): each is drawn from [T, 2T)."""
    from shoal.ledger.raft import Hooks

    drawn = iter([3, 0, 5, 9, 1])
    raft = core(hooks=Hooks(draw=lambda n: next(drawn) if n == 10 else 0), options=PLAIN)
    found = []
    for _ in range(4):
        found.append(raft.state.timeout)
        raft.campaign()
    assert found == [13, 10, 15, 19]


# --- candidates -------------------------------------------------------------------------------------------------------


def test_candidates_campaign() -> None:
    """On conversion to candidate: increment currentTerm, vote for self, reset election timer, send RequestVote RPCs to
    all other servers."""
    raft = core(terms=[1, 2], options=PLAIN)
    raft.state.elapsed = 9
    raft.campaign()
    assert (raft.term, raft.state.vote, raft.state.elapsed) == (3, b"a", 0)
    asked = of(AskVote, turn(raft))
    assert [(m.to, m.term, m.last_index, m.last_term) for m in asked] == [(b"b", 3, 2, 2), (b"c", 3, 2, 2)]


@pytest.mark.parametrize(("members", "need"), [("a", 0), ("ab", 1), ("abc", 1), ("abcd", 2), ("abcde", 2)])
def test_candidates_win_with_a_majority(members: str, need: int) -> None:
    """If votes received from majority of servers: become leader."""
    raft = core(members=members, options=PLAIN)
    raft.campaign()
    for n in range(need):
        assert raft.role == Role.CANDIDATE
        raft.step(GiveVote(b"a", members[n + 1].encode(), 1, LIFE, True, False))
    assert raft.role == Role.LEADER


def test_a_voter_counts_once() -> None:
    """A majority of servers, not of answers."""
    raft = core(members="abcde", options=PLAIN)
    raft.campaign()
    for _ in range(5):
        raft.step(GiveVote(b"a", b"b", 1, LIFE, True, False))
    assert raft.role == Role.CANDIDATE


def test_candidates_give_way() -> None:
    """If AppendEntries RPC received from new leader: convert to follower."""
    raft = core(options=PLAIN)
    raft.campaign()
    raft.step(append("a", "b", 1, [], 0))
    assert (raft.role, raft.leader) == (Role.FOLLOWER, b"b")


def test_candidates_try_again() -> None:
    """If election timeout elapses: start new election."""
    raft = core(options=PLAIN)
    raft.campaign()
    for _ in range(PLAIN.election_ticks):
        raft.tick()
    assert (raft.role, raft.term) == (Role.CANDIDATE, 2)


# --- leaders ----------------------------------------------------------------------------------------------------------


def test_leaders_send_heartbeats() -> None:
    """Upon election: send initial empty AppendEntries RPCs to each server; repeat during idle periods.  (Ours carry the
    entry that opens the term, so that they are at once useful.)"""
    net = Net(core(m, options=PLAIN) for m in "abc")
    raft = net["a"]
    raft.campaign()
    for m in of(AskVote, turn(raft)):
        raft.step(GiveVote(b"a", m.to, 1, LIFE, True, False))
    first = of(Append, turn(raft))
    assert [(m.to, [e.payload for e in m.entries]) for m in first] == [(b"b", [b""]), (b"c", [b""])]
    raft.tick()
    assert [m.to for m in of(Heartbeat, turn(raft))] == [b"b", b"c"]


def test_leaders_answer_after_deciding() -> None:
    """If command received from client: append entry to local log, respond after entry applied to state machine."""
    net = cluster(options=PLAIN)
    done = net["a"].propose(b"x")
    assert not done.refused and net["a"].log.last == done.index
    assert b"x" not in net.applied["a"]
    net.run()
    assert net.applied == {name: [b"", b"x"] for name in "abc"}


def test_leaders_send_what_is_missing() -> None:
    """If last log index >= nextIndex for a follower: send AppendEntries RPC with log entries starting at nextIndex.  If
    successful: update nextIndex and matchIndex for follower."""
    net = cluster(options=PLAIN)
    net["a"].propose(b"x")
    sent = of(Append, turn(net["a"]))
    assert {m.to: [e.index for e in m.entries] for m in sent} == {b"b": [2], b"c": [2]}
    for m in sent:
        net[m.to.decode()].step(m)
    net.run()
    assert {p: (q.match, q.next) for p, q in net["a"].state.progress.items()} == {b"b": (2, 3), b"c": (2, 3)}


def test_leaders_back_up() -> None:
    """If AppendEntries fails because of log inconsistency: decrement nextIndex and retry.  (By a whole term at once.)"""
    logs = {"a": [1] * 5 + [4], "b": [1, 1] + [2] * 30, "c": [1] * 5 + [4]}
    net = Net(core(name, terms=terms, options=PLAIN) for name, terms in logs.items())
    net.elect("a")
    assert [e.term for e in net["b"].log.entries] == [1] * 5 + [4, 5]


def test_back_up_takes_one_step_for_each_term() -> None:
    """One RPC will be required for each term with conflicting entries, rather than one RPC per entry (5.3)."""
    leader = core("a", "ab", terms=[1] * 10 + [6] * 50, options=PLAIN)
    follower = core("b", "ab", terms=[1] * 10 + [2] * 20 + [3] * 20 + [4] * 20, options=PLAIN)
    leader.campaign()
    leader.step(GiveVote(b"a", b"b", 7, LIFE, True, False))
    rejections = 0
    for _ in range(20):
        for m in turn(leader):
            follower.step(m)
        for m in turn(follower):
            rejections += type(m) is Appended and m.rejected
            leader.step(m)
    assert follower.log.last_hash == leader.log.last_hash
    assert rejections <= 3


def test_leaders_decide_own_term_only() -> None:
    """If there exists an N such that N > commitIndex, a majority of matchIndex[i] >= N, and log[N].term == currentTerm:
    set commitIndex = N (5.3, 5.4)."""
    raft = core("a", terms=[1, 2], options=PLAIN)
    raft.campaign()
    turn(raft)
    raft.step(GiveVote(b"a", b"b", 3, LIFE, True, False))
    turn(raft)
    raft.step(Appended(b"a", b"b", 3, LIFE, False, 2, 0, 0))
    assert raft.log.committed == 0
    raft.step(Appended(b"a", b"b", 3, LIFE, False, 3, 0, 0))
    assert raft.log.committed == 3
