"""Configurations and changes of membership, as values and as the leader sees them."""

from __future__ import annotations

import pytest
from raft_cluster import Net, chain, cluster, core, members_of, turn

from shoal.ledger.members import Change, Configuration, Roster
from shoal.ledger.raft import Options, Role
from shoal.limits import LEDGER_MEMBERS_MAX

ABC = Configuration((b"a", b"b", b"c"), (b"d",))
OPTIONS = Options(announce=False)


@pytest.mark.parametrize(
    ("kind", "peers", "fault"),
    [
        ("found", (b"x",), "already-founded"),
        ("add", (b"e",), ""),
        ("add", (b"a",), "already-member"),
        ("add", (b"d",), "already-member"),
        ("add", (b"e", b"f"), "not-one-peer"),
        ("add", (), "not-one-peer"),
        ("add", (b"",), "not-one-peer"),
        ("promote", (b"d",), ""),
        ("promote", (b"a",), "not-a-learner"),
        ("promote", (b"z",), "not-a-learner"),
        ("remove", (b"a",), ""),
        ("remove", (b"d",), ""),
        ("remove", (b"z",), "not-a-member"),
    ],
)
def test_faults_of_changes(kind: str, peers: tuple[bytes, ...], fault: str) -> None:
    change = Change(kind, peers)  # type: ignore[arg-type]
    assert ABC.fault(change) == fault
    assert (ABC.after(change) == ABC) is bool(fault)


def test_last_voter_stays_and_members_are_bounded() -> None:
    one = Configuration((b"a",), (b"b",))
    assert one.fault(Change("remove", (b"a",))) == "last-voter"
    full = Configuration(tuple(sorted(b"%03d" % n for n in range(LEDGER_MEMBERS_MAX))))
    assert full.fault(Change("add", (b"x",))) == "members-full"
    assert Configuration().fault(Change("found", ())) == "bad-founders"
    assert Configuration().fault(Change("found", (b"a", b"a"))) == "bad-founders"


def test_any_two_following_majorities_meet() -> None:
    now = Configuration().after(Change("found", (b"b", b"a")))
    assert now == Configuration((b"a", b"b"))
    now = now.after(Change("add", (b"c",)))
    assert now == Configuration((b"a", b"b"), (b"c",))
    now = now.after(Change("promote", (b"c",)))
    assert now == Configuration((b"a", b"b", b"c"))
    assert now.after(Change("remove", (b"a",))) == Configuration((b"b", b"c"))


def test_roster_follows_the_log_back_and_forth() -> None:
    roster = Roster(Configuration((b"a",)), 0)
    roster.push(3, Change("add", (b"b",)))
    roster.push(7, Change("promote", (b"b",)))
    assert [roster.at(i).voters for i in (0, 2, 3, 6, 7, 9)] == [(b"a",)] * 4 + [(b"a", b"b")] * 2
    roster.cut(7)
    assert roster.current == Configuration((b"a",), (b"b",)) and roster.last_change == 3
    roster.raise_floor(5)
    assert roster.at(5) == roster.current and roster.last_change == 5
    roster.cut(1)
    assert roster.current == Configuration((b"a",), (b"b",)), "the floor cannot be cut"


def grown() -> Net:
    """a, b, c with d as a learner that has caught up."""
    net = Net([core(m, "abc", options=OPTIONS) for m in "abc"] + [core("d", "abc", options=OPTIONS)])
    net.elect("a")
    net["d"].introduce([b"a", b"b", b"c"])
    assert not net["a"].propose(b"+d").refused
    net.run()
    return net


def test_a_learner_receives_and_does_not_count() -> None:
    net = grown()
    assert net.applied["d"] == net.applied["a"]
    net.isolate("b")
    net.isolate("c")
    net["a"].propose(b"x")
    net.run()
    assert net["d"].log.last == net["a"].log.last, "the learner has it"
    assert net["a"].log.committed == net["a"].log.last - 1, "two of four copies decide nothing: only voters count"


def test_a_learner_does_not_campaign_but_votes_when_asked() -> None:
    net = grown()
    for _ in range(50):
        net["d"].tick()
    assert net["d"].role == Role.FOLLOWER
    net.cut = {("a", "d")}  # d does not learn that it is a voter now
    net["a"].propose(b"^d")
    net.run()
    assert b"d" in net["d"].configuration.learners and b"d" in net["c"].configuration.voters
    net.isolate("a")
    net["b"].state.elapsed = net["d"].state.elapsed = 99
    net["c"].campaign()
    net.run()
    assert net["c"].role == Role.LEADER, "three of four, and the third does not know that it votes"


def test_a_change_waits_for_the_one_before() -> None:
    net = grown()
    net.isolate("a")
    assert not net["a"].propose(b"^d").refused
    assert net["a"].propose(b"-b").refused == "change-pending"
    assert net["a"].counters["change-pending"] == 1


def test_no_change_before_an_own_term_commit() -> None:
    net = cluster(options=OPTIONS)
    net.isolate("b")
    net["c"].state.elapsed = net["a"].state.elapsed = 99
    net["c"].campaign()
    while net["c"].role != Role.LEADER:
        for m in [*turn(net["c"]), *turn(net["a"])]:
            if m.to != b"b":
                net[m.to.decode()].step(m)
    assert net["c"].propose(b"+d").refused == "change-before-own-commit"
    net.run()
    assert not net["c"].propose(b"+d").refused


def test_a_learner_is_promoted_when_it_has_caught_up() -> None:
    options = Options(announce=False, behind_max=2)
    net = Net([core(m, "abc", options=options) for m in "abc"] + [core("d", "abc", options=options)])
    net.elect("a")
    net.isolate("d")
    net["a"].propose(b"+d")
    net.run()
    assert net["a"].propose(b"^d").refused == "learner-behind"
    for n in range(5):
        net["a"].propose(b"%d" % n)
    net.heal()
    net["d"].introduce([b"a"])
    net.tick(3)
    assert not net["a"].propose(b"^d").refused
    net.run()
    assert {c.configuration.voters for c in net.cores.values()} == {(b"a", b"b", b"c", b"d")}


def test_a_leader_that_is_removed_decides_that_and_stops() -> None:
    net = cluster(options=OPTIONS)
    net["a"].propose(b"-a")
    net.run()
    assert net["a"].role == Role.FOLLOWER
    assert net["b"].configuration.voters == net["c"].configuration.voters == (b"b", b"c")
    assert net["b"].log.committed == net["b"].log.last, "the others know that it is decided"
    net.tick(20, "bc")
    assert (net["b"].role, net["c"].role) == (Role.LEADER, Role.FOLLOWER)
    term = net["b"].term
    net.tick(60)
    assert net["b"].role == Role.LEADER and net["b"].term == term


@pytest.mark.parametrize("pre_vote", [True, False])
def test_a_removed_peer_that_does_not_know_disturbs_nobody(pre_vote: bool) -> None:
    options = Options(announce=False, pre_vote=pre_vote)
    net = cluster(options=options)
    net.isolate("c")
    net["a"].propose(b"-c")
    net.run()
    net.heal()
    for _ in range(20):
        net["c"].campaign()
        net.tick()
    assert net["c"].configuration.voters == (b"a", b"b", b"c")
    assert (net["a"].role, net["a"].term) == (Role.LEADER, 1)
    assert net["a"].counters["unknown-member"] >= 20 and net["b"].counters["unknown-member"] >= 20


def test_a_removal_that_is_not_decided_can_be_undone() -> None:
    """The configuration in force is that of the newest entry, and goes when that entry is cut off."""
    net = cluster(options=OPTIONS)
    net.isolate("a")
    net["a"].propose(b"-b")
    net.run()
    assert net["a"].configuration.voters == (b"a", b"c")
    net["b"].state.elapsed = net["c"].state.elapsed = 99
    net["b"].campaign()
    net.run()
    assert net["b"].role == Role.LEADER
    net.heal()
    net.tick(2)
    assert net["a"].configuration.voters == (b"a", b"b", b"c")


def test_a_founding_entry_makes_the_first_configuration() -> None:
    raft = core("a", "", entries=chain([0], [b"*abc"]))
    assert raft.configuration.voters == (b"a", b"b", b"c")
    assert members_of(b"*abc") == Change("found", (b"a", b"b", b"c"))


def test_an_unknown_leader_is_followed_only_when_introduced() -> None:
    net = cluster(options=OPTIONS)
    joiner = core("d", "", options=OPTIONS)
    net.cores["d"], net.applied["d"] = joiner, []
    net["a"].propose(b"+d")
    net.run()
    assert joiner.log.last == 0 and joiner.counters["unknown-member"] > 0
    joiner.introduce([b"a"])
    net.tick(3)
    assert joiner.log.last_hash == net["a"].log.last_hash
