"""Restored backups, cloned disks, and peers that forget: found by what others remember of them (ledger/life.py)."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace as replaced
from raft_cluster import Net, core, members_of, of, turn

from shoal.ledger.entry import Entry
from shoal.ledger.message import Appended, AskVote, GiveVote, Heartbeat, Hello, Outdated
from shoal.ledger.raft import Hooks, Options, Raft, Role
from shoal.ledger.store import HardState

OPTIONS = Options()
QUIET = OPTIONS.election_ticks


class Machine:
    """A disk and the lives on it."""

    def __init__(self, name: str, mark: int = 7) -> None:
        self.name, self.mark = name, mark
        self.hard = HardState()
        self.entries: list[Entry] = []

    def start(self, mark: int | None = None) -> Raft:
        hooks = Hooks(
            draw=lambda n: (self.mark if mark is None else mark) % n if n == 2**32 else 0, members_of=members_of
        )
        self.raft = core(self.name, entries=list(self.entries), term=self.hard.term, vote=self.hard.vote.decode(),
                         commit=self.hard.commit, generation=(self.hard.generation & 0xFFFF) + 1, options=OPTIONS, hooks=hooks)  # fmt: skip
        self.raft.state.barred = self.hard.barred
        self.raft.state.seen, self.raft.state.seen_pairs = dict(self.hard.seen), self.hard.seen
        return self.raft

    def save(self) -> None:
        """What a store would hold now."""
        self.hard, self.entries = self.raft.state.hard_state(), list(self.raft.log.entries)

    def copy(self) -> tuple[HardState, list[Entry]]:
        self.save()
        return self.hard, list(self.entries)

    def restore(self, backup: tuple[HardState, Sequence[Entry]]) -> None:
        self.hard, self.entries = backup[0], list(backup[1])


def swarm() -> tuple[Net, dict[str, Machine]]:
    """Three machines in their first life, a leads."""
    machines = {m: Machine(m) for m in "abc"}
    net = Net(m.start() for m in machines.values())
    net.elect("a")
    net.tick(1)
    return net, machines


def restart(net: Net, machine: Machine, mark: int | None = None) -> Raft:
    raft = machine.start(mark)
    net.cores[machine.name] = raft
    return raft


def test_generations_rise_and_travel() -> None:
    machine = Machine("a")
    first = machine.start()
    hello = of(Hello, turn(first))
    assert [m.to for m in hello] == [b"b", b"c"] and {m.generation for m in hello} == {1 << 32 | 7}
    machine.save()
    assert machine.hard.generation == 1
    second = machine.start()
    assert {m.generation >> 32 for m in turn(second)} == {2}


def test_peers_remember_the_newest_life_durably() -> None:
    net, machines = swarm()
    assert dict(net["b"].state.hard_state().seen)[b"a"] == 1 << 32 | 7
    machines["a"].save()
    restart(net, machines["a"])
    net.tick(1)
    assert dict(net["b"].state.hard_state().seen)[b"a"] == 2 << 32 | 7


def test_a_restored_backup_is_told_and_stops_voting() -> None:
    net, machines = swarm()
    c = machines["c"]
    backup = c.copy()
    for n in range(3):  # two later lives that acknowledge more
        net["a"].propose(b"%d" % n)
        net.tick(1)
        c.save()
        restart(net, c)
        net.tick(2)
    c.restore(backup)
    raft = restart(net, c)
    net.tick(2)
    assert raft.state.barred > 0 and raft.counters["barred"] >= 1
    assert net["a"].counters["old-generation"] >= 1
    ask = AskVote(b"c", b"b", 99, net["b"].state.generation, 50, 98, False, False)
    raft.state.elapsed, raft.state.quiet = 99, 0
    raft.step(ask)
    assert not of(GiveVote, turn(raft)) and raft.counters["asked-while-barred"] == 1
    raft.campaign()
    assert raft.role == Role.FOLLOWER and not turn(raft)


def test_being_barred_survives_restarts_until_readmitted() -> None:
    net, machines = swarm()
    c = machines["c"]
    c.restore((HardState(), []))  # the machine came back with an empty disk and the old key
    restart(net, c, mark=8)
    net.tick(1)
    c.save()
    assert c.hard.barred > 0
    for _ in range(3):  # more lives than it ever had: the counter alone would no longer show it
        restart(net, c)
        net.tick(1)
        c.save()
    assert c.raft.state.barred > 0
    for payload in (b"-c", b"+c", b"^c"):
        assert not net["a"].propose(payload).refused
        net.tick(3)
    assert c.raft.state.barred == 0, "promoted anew"
    c.save()
    assert c.hard.barred == 0
    assert net["a"].configuration.voters == (b"a", b"b", b"c")


def test_a_promotion_from_before_the_accusation_does_not_readmit() -> None:
    net, machines = swarm()
    c = machines["c"]
    for payload in (b"-c", b"+c", b"^c"):
        net["a"].propose(payload)
        net.tick(3)
    c.restore((HardState(), []))
    restart(net, c, mark=8)
    net.tick(3)
    assert c.raft.state.barred > 0 and c.raft.log.last == 0, "another life with the same counter: nobody listens"
    c.save()
    restart(net, c, mark=8)
    net.tick(3)
    assert c.raft.log.last == net["a"].log.last, "a newer one follows, and has the old promotion in its log"
    assert c.raft.state.barred > 0


def test_a_removal_makes_peers_forget_former_lives() -> None:
    net, machines = swarm()
    c = machines["c"]
    c.restore((HardState(), []))
    restart(net, c, mark=8)
    net.tick(3)
    assert c.raft.log.last == 0
    for payload in (b"-c", b"+c"):
        assert not net["a"].propose(payload).refused
        net.tick(3)
    c.raft.introduce([b"a"])
    net.tick(3)
    assert not net["a"].propose(b"^c").refused
    net.tick(3)
    assert c.raft.log.last_hash == net["a"].log.last_hash and c.raft.state.barred == 0


def test_two_machines_with_one_identity() -> None:
    """A clone has the same counter; the marks of the lives differ."""
    net, _ = swarm()
    twin = Machine("c", mark=9)
    raft = twin.start()
    for m in turn(raft):
        net[m.to.decode()].step(m)
    told = [m for name in "ab" for m in turn(net[name]) if type(m) is Outdated]
    assert told and net["a"].counters["old-generation"] == 1
    raft.step(told[0])
    assert raft.state.barred > 0
    net["c"].step(told[0])
    assert net["c"].state.barred == 0 and net["c"].counters["accuses-another-life"] == 1


def test_a_delayed_message_of_a_former_life_bars_nobody() -> None:
    net, machines = swarm()
    net["c"].tick()
    late = Appended(b"a", b"c", 1, net["c"].state.generation, False, 1, 0, 0)
    machines["c"].save()
    restart(net, machines["c"])
    net.tick(1)
    net["a"].step(late)
    assert net["a"].counters["old-generation"] == 1
    net.run()
    assert net["c"].state.barred == 0 and net["c"].counters["accuses-another-life"] == 1


def test_a_life_that_lost_acknowledged_entries() -> None:
    """The generation is right and the log is not: part of the disk was restored."""
    net, machines = swarm()
    c = machines["c"]
    net["a"].propose(b"x")
    net.tick(1)
    c.save()
    c.restore((c.hard, c.entries[:1]))
    restart(net, c)
    net.tick(1)
    assert net["a"].counters["forgot-entries"] == 1 and c.raft.state.barred > 0
    net.tick(2)
    assert c.raft.log.last_hash == net["a"].log.last_hash, "it is repaired all the same"


def test_a_life_that_lost_its_vote() -> None:
    net, machines = swarm()
    voter = machines["b" if net["a"].state.votes.get(b"b") else "c"]
    voter.save()
    voter.restore((HardState(0, b"", 0, voter.hard.generation), []))
    restart(net, voter)
    net.tick(1)
    assert net["a"].counters["forgot-vote"] >= 1 and voter.raft.state.barred > 0


def test_no_vote_in_the_first_timeout_of_a_later_life() -> None:
    machine = Machine("c")
    machine.start()
    machine.save()
    raft = machine.start()
    turn(raft)
    ask = AskVote(b"c", b"b", 5, 1 << 32, 9, 4, False, False)
    raft.step(ask)
    assert not of(GiveVote, turn(raft)) and raft.counters["asked-while-quiet"] == 1
    for _ in range(QUIET):
        raft.state.elapsed = 0
        raft.tick()
    raft.step(ask)
    assert of(GiveVote, turn(raft))[0].granted


def test_the_first_life_votes_at_once() -> None:
    raft = Machine("c").start()
    raft.step(AskVote(b"c", b"b", 5, 1 << 32, 9, 4, False, False))
    assert of(GiveVote, turn(raft))[0].granted


def test_a_vote_for_a_former_life_does_not_count() -> None:
    """It was given for the log that life had."""
    net, machines = swarm()
    net["a"].state.elapsed = net["b"].state.elapsed = 99
    net["c"].campaign()
    for m in turn(net["c"]):
        net[m.to.decode()].step(m)
    for m in turn(net["a"]):
        net["c"].step(m)
    asked = of(AskVote, turn(net["c"]))
    for m in asked:
        net["a"].step(replaced(m, to=b"a"))
    votes = of(GiveVote, turn(net["a"]))
    assert votes[0].granted
    c = machines["c"]
    c.restore((HardState(1, b"", 1, 1, 0, c.raft.state.seen_pairs), net["a"].log.entries[:0]))
    raft = restart(net, c)
    turn(raft)
    raft.state.role, raft.state.term = Role.CANDIDATE, 2
    raft.step(votes[0])
    assert raft.counters["for-another-life"] == 1 and raft.role == Role.CANDIDATE


def test_a_later_life_does_not_campaign_in_the_same_term() -> None:
    """With its disk it would know that it did."""
    raft = core("b", options=OPTIONS)
    ask = AskVote(b"b", b"a", 5, 1 << 32, 9, 4, False, False)
    raft.step(ask)
    assert of(GiveVote, turn(raft))[0].granted
    raft.step(ask)
    assert of(GiveVote, turn(raft))[0].granted, "the same life may ask twice"
    raft.step(replaced(ask, generation=2 << 32))
    assert raft.counters["forgot-campaign"] == 1
    assert of(Outdated, turn(raft))[0].accused == 2 << 32


def test_two_restored_machines_do_not_accuse_for_ever() -> None:
    net, machines = swarm()
    backups = {name: machines[name].copy() for name in "bc"}
    for name in "bc":
        restart(net, machines[name])
    net.tick(3)
    for name in "bc":
        machines[name].restore(backups[name])
        machines[name].hard = HardState(seen=((b"b", 9 << 32), (b"c", 9 << 32)))
        restart(net, machines[name])
    net.run(50)  # and not more: each is told once, and says nothing back
    assert machines["b"].raft.state.barred and machines["c"].raft.state.barred


def test_a_lost_hello_is_said_again() -> None:
    """The next message that means the former life is answered with one."""
    net, machines = swarm()
    net["a"].propose(b"x")
    net.tick(1)
    c = machines["c"]
    c.save()
    c.restore((c.hard, c.entries[:1]))
    raft = restart(net, c)
    turn(raft)  # its Hello is lost
    net["a"].tick()
    beat = next(m for m in of(Heartbeat, turn(net["a"])) if m.to == b"c")
    raft.step(beat)
    assert raft.counters["for-another-life"] == 1 and raft.log.last == 1
    net.run()
    net.tick(1)
    assert net["a"].counters["forgot-entries"] >= 1 and raft.state.barred > 0
    assert raft.log.last_hash == net["a"].log.last_hash
