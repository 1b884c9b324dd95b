"""A cluster in one thread: the real cores, a simulated network, disks and clocks, and one seed for every die.

A step is one event: a message arrives, a clock ticks, a client asks, something breaks or heals.  After every step the
invariants are checked.  `Swarm` draws which faults a seed has, so that each history is rich in few of them.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from disk import Disk
from faults import Swarm
from invariants import FOREVER, Invariants, Violation
from network import Network
from shown import shown, shown_disk

from shoal.errors import ArgumentError
from shoal.ledger.entry import GENESIS_PREV, GENESIS_TERM, Entry
from shoal.ledger.members import NOBODY, Change
from shoal.ledger.message import Heartbeat
from shoal.ledger.raft import Hooks, Options, Raft, Role
from shoal.ledger.ready import Ready, unpack_state
from shoal.ledger.store import HardState

KINDS = {b"*": "found", b"+": "add", b"^": "promote", b"-": "remove"}
NAMES = "abcdefgh"
TURNS_MAX = 100  # of work that one event can cause at one node; real ones need two or three
DELIVERIES_MAX = 5000  # between two ticks of a healed cluster; real ones need some hundred


def members_of(payload: bytes) -> Change | None:
    """The simulated payloads: *abc founds, +d adds, ^d promotes, -d removes, anything else is a client's."""
    kind = KINDS.get(payload[:1])
    if kind is None:
        return None
    return Change(kind, tuple(bytes([c]) for c in payload[1:]))  # type: ignore[arg-type]


class Node:
    """One machine: its disk, which lasts, its core, which does not, and what the invariants remember of it."""

    def __init__(self, peer: bytes, disk: Disk) -> None:
        self.id = peer
        self.name = peer.decode()
        self.disk = disk
        self.up = False
        self.raft: Raft
        self.outstanding: Ready | None = None
        self.answered: set[bytes] = set()
        self.grants: set[bytes] = set()

    def start(self, hooks: Hooks, options: Options, everybody: list[bytes]) -> None:
        hard, entries, snapshot = self.disk.open()
        self.raft = Raft(self.id, hooks, options, hard, entries, snapshot)
        self.raft.introduce(everybody)
        self.up = True
        self.outstanding = None
        self.applied = self.raft.log.floor
        self.committed = 0
        self.role, self.term = Role.FOLLOWER, self.raft.term
        self.since_leader = FOREVER
        self.since_quorum = 0
        self.answered.clear()
        self.grants.clear()
        self.told = False


class Cluster:
    """One history.  `trace` (if given) is called with a line for each event."""

    #: a mutation of the shell: messages leave before the disk has answered
    syncs_before_sending = True

    def __init__(self, seed: int, trace: Callable[[str], None] | None = None, restores: bool = False) -> None:
        self.rng = rng = Random(seed)
        self.random = rng.random
        self.trace = trace
        self.swarm = swarm = Swarm.draw_restores(rng) if restores else Swarm.draw(rng)
        self.backup: Disk | None = None
        self.network = Network(Random(rng.random()), swarm.drop, swarm.twice, swarm.window)
        first = NAMES[: swarm.nodes]
        genesis = Entry(1, GENESIS_TERM, GENESIS_PREV, b"*" + first.encode(), b"")
        options = swarm.options
        self.laws = Invariants(genesis, options.check_quorum, options.pre_vote, options.election_ticks)
        self.laws.disks_last = not restores
        self.everybody = [c.encode() for c in NAMES[: swarm.nodes + swarm.spare]]
        self.nodes: dict[bytes, Node] = {}
        self.hooks = Hooks(draw=lambda n: int(rng.random() * n), members_of=members_of)
        self.serial = 0
        for peer in self.everybody[: swarm.nodes]:
            self.add(peer, [genesis])
        self.actions = self._actions()
        if trace:
            trace(f"swarm {swarm}")

    def add(self, peer: bytes, entries: list[Entry]) -> None:
        node = Node(peer, Disk(HardState(commit=len(entries)), entries))
        self.nodes[peer] = node
        self.start(node)
        rates = self.swarm.rates
        self.tickers = [n for k, n in enumerate(self.nodes.values()) for _ in range(rates[k])]

    def _actions(self) -> list[tuple[float, Callable[[], None]]]:
        s = self.swarm
        table: list[tuple[float, Callable[[], None]]] = [
            (s.crashes, self.crash_one),
            (s.crashes * 3, self.restart_one),
            (s.strikes, self.strike),
            (s.strikes, self.restart_one),
            (s.bounces, self.bounce),
            (s.backups, self.keep_backup),
            (s.restores, self.restore_backup),
            (s.partitions, self.partition),
            (s.partitions, self.heal),
            (s.changes, self.change),
            (s.transfers, self.transfer),
            (s.compactions, self.compact),
            (s.reads, self.read),
            (s.proposals, self.propose),
            (s.ticks, self.tick_one),
        ]
        total, found = 0.0, []
        for weight, action in table:
            if weight:
                total += weight
                found.append((total, action))
        return found

    # --- events -------------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """One event."""
        dice = self.random()
        for limit, action in self.actions:
            if dice < limit:
                action()
                return
        if self.network.flight:
            self.deliver()
        else:
            self.tick_one()

    def deliver(self) -> None:
        m = self.network.next()
        if m is None:
            return
        node = self.nodes.get(m.to)
        if node is None or not node.up:
            return
        if self.trace:
            self.trace(f"  {node.name} <- {shown(m)}")
        laws = self.laws
        term = laws.before_step(node, m)
        if node.outstanding is not None and type(m) is Heartbeat and self.random() < 0.5:
            # As a node does while its disk works (swarm/pulse.py).
            self.network.send(node.raft.pulse((m,), lead=True))
            laws.observe(node, self.nodes)
            return
        node.raft.step(m)
        laws.after_step(node, m, term)
        laws.observe(node, self.nodes)
        self.drain(node)

    def tick_one(self) -> None:
        node = self.tickers[int(self.random() * len(self.tickers))]
        if not node.up:
            return
        node.raft.tick()
        self.laws.observe(node, self.nodes)
        self.laws.ticked(node)
        self.drain(node)

    def leaders(self) -> list[Node]:
        return [n for n in self.nodes.values() if n.up and n.role == Role.LEADER]

    def some_leader(self) -> Node | None:
        leaders = self.leaders()
        return leaders[int(self.random() * len(leaders))] if leaders else None

    def propose(self) -> None:
        node = self.some_leader()
        if node is not None:
            self.serial += 1
            self.ask(node, b"c%d" % self.serial)

    def ask(self, node: Node, payload: bytes) -> None:
        done = node.raft.propose(payload)
        if self.trace:
            self.trace(f"  {node.name} propose {payload.decode()} {done.refused or done.index}")
        self.laws.observe(node, self.nodes)
        self.drain(node)

    def change(self) -> None:
        """Try any change at all; the core says which it takes."""
        node = self.some_leader()
        if node is None:
            return
        now = node.raft.configuration
        if now.learners and self.random() < 0.6:
            payload = b"^" + self.rng.choice(now.learners)
        else:
            payload = self.rng.choice((b"+", b"+", b"^", b"-", b"-", b"-")) + self.rng.choice(self.everybody)
        if payload[:1] == b"+" and payload[1:] not in self.nodes:
            self.add(payload[1:], [])
        self.ask(node, payload)

    def transfer(self) -> None:
        node = self.some_leader()
        if node is not None:
            to = self.rng.choice(self.everybody)
            if self.trace:
                self.trace(f"  {node.name} transfers to {to.decode()}")
            node.raft.transfer(to)
            node.since_quorum = 0
            self.drain(node)

    def read(self) -> None:
        node = self.some_leader()
        if node is not None:
            self.serial += 1
            context = b"r%d" % self.serial
            self.laws.read_asked(context)
            node.raft.read(context)
            self.drain(node)

    def compact(self) -> None:
        """Ask for any index of the log; only what is applied may go."""
        node = self.tickers[int(self.random() * len(self.tickers))]
        if not node.up:
            return
        log = node.raft.log
        index = self.rng.randint(log.floor, log.last)
        try:
            snapshot = node.raft.compact(index, log.hash(index) + b"." * self.rng.randrange(100))
        except ArgumentError:
            return
        if self.trace:
            self.trace(f"  {node.name} compacts to {index}")
        node.disk.compact(snapshot)

    def partition(self) -> None:
        kind = self.network.partition(self.everybody)
        if self.trace:
            links = " ".join(sorted((a + b">" + b).decode() for a, b in self.network.blocked))
            self.trace(f"  partition {kind}: {links}")

    def heal(self) -> None:
        self.network.heal()
        if self.trace:
            self.trace("  heal")

    def crash_one(self) -> None:
        node = self.tickers[int(self.random() * len(self.tickers))]
        if node.up:
            self.crash(node)

    def crash(self, node: Node) -> None:
        node.disk.crash(self.rng, self.swarm.torn)
        node.up = False
        node.role = Role.FOLLOWER
        if self.trace:
            self.trace(f"  {node.name} crashes; disk {shown_disk(node.disk)}")

    def strike(self) -> None:
        """The leader crashes, or is cut off, and whoever was cut off before is back."""
        node = self.some_leader()
        if node is None:
            return
        if self.swarm.crashes and self.random() < 0.5:
            self.crash(node)
            return
        self.network.blocked = {(a, b) for a in self.everybody for b in self.everybody if node.id in (a, b)}
        if self.trace:
            self.trace(f"  {node.name} is cut off")

    def bounce(self) -> None:
        """One crashes and is back at once, as under a supervisor; often one that has just given its vote."""
        node = self.tickers[int(self.random() * len(self.tickers))]
        voted = [n for n in self.nodes.values() if n.up and n.raft.state.vote not in (NOBODY, n.id)]
        if voted and self.random() < 0.5:
            node = voted[int(self.random() * len(voted))]
        if node.up:
            self.crash(node)
            self.start(node)

    def keep_backup(self) -> None:
        self.backup = self.nodes[b"a"].disk.copy()
        if self.trace:
            self.trace(f"  backup of a: {shown_disk(self.backup)}")

    def restore_backup(self) -> None:
        """The first machine dies and comes back with an old copy of its disk."""
        if self.backup is None:
            return
        node = self.nodes[b"a"]
        if node.up:
            self.crash(node)
        node.disk = self.backup.copy()
        self.start(node)

    def restart_one(self) -> None:
        node = self.tickers[int(self.random() * len(self.tickers))]
        if not node.up:
            self.start(node)

    def start(self, node: Node) -> None:
        node.start(self.hooks, self.swarm.options, self.everybody)
        if self.trace:
            self.trace(f"  {node.name} starts with {shown_disk(node.disk)}")
        self.laws.observe(node, self.nodes)
        self.drain(node)

    # --- the shell around a core --------------------------------------------------------------------------------------

    def drain(self, node: Node) -> None:
        """Do what the core says, in its order, with a chance to crash between any two parts of it."""
        swarm, raft = self.swarm, node.raft
        turns = 0
        while node.up:
            turns += 1
            if turns > TURNS_MAX:
                raise Violation("liveness", f"{node.name} asks for work without end")
            ready = node.outstanding
            if ready is None:
                if not raft.has_ready():
                    return
                ready = raft.ready()
                if ready.truncate_from is not None:
                    self.laws.cut(node, ready.truncate_from)
                if ready.entries:
                    self.laws.stored(node, ready.entries)
                if ready.early:
                    self.network.send(ready.early)
                node.disk.write(ready)
                if not self.syncs_before_sending:
                    self.network.send(ready.messages)
                if swarm.slow_disk and self.random() < swarm.slow_disk:
                    node.outstanding = ready
                    return
            node.outstanding = None
            self.finish(node, ready)

    def finish(self, node: Node, ready: Ready) -> None:
        """Sync, send, apply, advance."""
        crashes = self.swarm.crash_inside
        if crashes and self.random() < crashes:
            self.crash(node)
            return
        if ready.must_sync:
            node.disk.sync()
            if crashes and self.random() < crashes:
                self.crash(node)
                return
        if self.syncs_before_sending:
            if crashes and self.random() < crashes:
                self.network.send(ready.messages[: self.rng.randrange(len(ready.messages) + 1)])
                self.crash(node)
                return
            self.network.send(ready.messages)
        laws = self.laws
        if ready.snapshot is not None:
            content = unpack_state(ready.snapshot.state)
            assert content is not None
            laws.installed(node, ready.snapshot.index, ready.snapshot.hash, content.data)
        if ready.committed:
            laws.applied(node, ready.committed)
        for read in ready.reads:
            laws.read_answered(node, read.context, read.index)
        node.raft.advance()
        laws.observe(node, self.nodes)

    # --- the end ------------------------------------------------------------------------------------------------------

    def check_liveness(self, rounds: int = 120) -> None:
        """With everything healed a leader emerges and commits, and every member learns of it."""
        network = self.network
        network.heal()
        network.drop = network.twice = 0.0
        network.window = 1
        self.swarm.slow_disk = self.swarm.crash_inside = 0.0
        if self.trace:
            self.trace("  everything heals")
        for node in list(self.nodes.values()):
            if not node.up:
                self.start(node)
            else:
                self.drain(node)
        asked = 0
        for turn in range(rounds):
            for node in self.nodes.values():
                for _ in range(1 + (turn % 3 == 0 and self.random() < 0.3)):
                    if node.up:
                        node.raft.tick()
                        self.laws.observe(node, self.nodes)
                        self.laws.ticked(node)
                        self.drain(node)
            delivered = 0
            while network.flight:
                self.deliver()
                delivered += 1
                if delivered > DELIVERIES_MAX:
                    raise Violation("liveness", "messages beget messages without end")
            self.stop_the_removed()
            leader = max(self.leaders(), key=lambda n: n.term, default=None)
            if leader is None:
                continue
            if not asked or leader.raft.log.term(asked) != leader.term:
                self.serial += 1
                asked = leader.raft.propose(b"c%d" % self.serial).index
                self.drain(leader)
            elif self.everybody_applied(leader, asked):
                return
        raise Violation("liveness", f"healed for {rounds} rounds, and not everybody has applied index {asked}")

    def stop_the_removed(self) -> None:
        """Without pre-vote and check-quorum a removed node may disturb for ever: its operator stops it."""
        options = self.swarm.options
        if options.pre_vote and options.check_quorum:
            return
        newest = max((n for n in self.nodes.values() if n.up), key=lambda n: n.raft.log.committed).raft
        decided = newest.state.roster.at(newest.log.committed)
        for node in list(self.nodes.values()):
            if node.id in decided or node.id in newest.configuration:
                if not node.up:
                    self.start(node)
            else:
                node.up = False

    def check_configurations(self) -> None:
        """What is in force at a node is what its log says."""
        for node in self.nodes.values():
            roster, log = node.raft.state.roster, node.raft.log
            now = roster.at(log.floor)
            for entry in log.entries:
                change = members_of(entry.payload)
                now = now if change is None else now.after(change)
            if now != roster.current:
                raise Violation("configuration", f"{node.name} goes by {roster.current}, its log says {now}")

    def everybody_applied(self, leader: Node, index: int) -> bool:
        now = leader.raft.configuration
        members = [self.nodes[p] for p in (*now.voters, *now.learners) if p in self.nodes]
        return all(n.applied >= index or n.raft.state.barred for n in members)


def history(seed: int, steps: int, trace: Callable[[str], None] | None = None, restores: bool = False) -> Cluster:
    """Run one seed.  Raises Violation."""
    cluster = Cluster(seed, trace, restores)
    if trace is None:
        for _ in range(steps):
            cluster.step()
    else:
        for n in range(steps):
            trace(f"step {n}")
            cluster.step()
    cluster.check_configurations()
    cluster.check_liveness()
    return cluster
