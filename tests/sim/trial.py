"""Histories in which one member lies.  Raft is not Byzantine; what docs/PROTOCOL.md claims all the same must hold:

*  no statement and no seal of an honest member is forged, and no honest member is convicted by its seals;
*  an honest member never gives up what it has decided;
*  two histories arise only from a leader that tells them, whose two seals convict it, or from lies about votes,
   acknowledgements and decisions, which convict nobody and which heads show; never otherwise;
*  whatever histories there are, no two models of a round get q votes;
*  without the liar the others go on, unless it has made two histories or had one barred: then they halt, and say why.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from random import Random

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "ledger"))

from honest import Honest, Said
from invariants import Violation
from liar import LIES, UNPROVEN, Liar
from network import Network
from swarm_builder import SwarmBuilder

from shoal.ledger import certificate
from shoal.ledger.body import Note
from shoal.ledger.core import Options, Role
from shoal.ledger.entry import Entry, entry_hash
from shoal.ledger.evidence import find_fork
from shoal.ledger.identity import Identity
from shoal.ledger.message import AnyMessage
from shoal.ledger.statement import make_statement
from shoal.ledger.validator import Ledger
from shoal.thresholds import PROFILES, thresholds

NAMES = "abcdefgh"
#: of ticks without the liar; a term that it drove ahead is caught up with in steps (limits.TERM_JUMP_MAX)
ROUNDS = 200


class Parcel(msgspec.Struct, frozen=True):
    """A message on the wire: the transport knows who put it there."""

    sender: bytes
    to: bytes
    message: AnyMessage


@lru_cache(maxsize=8)
def founded(members: int) -> tuple[tuple[Identity, ...], Entry, Ledger]:
    """Members with keys, the genesis, and the ledger after it."""
    built = SwarmBuilder(members=members, admission=1)
    ledger = Ledger()
    ledger.apply(built.entries[0])
    return tuple(built.people[i] for i in sorted(built.people)), built.entries[0], ledger


@contextmanager
def signatures_checked_once() -> Iterator[None]:
    """What one node found about a signature the others need not find again: half of the time."""
    right = certificate.signature_holds
    certificate.signature_holds = lru_cache(maxsize=4096)(right)  # type: ignore[assignment]
    try:
        yield
    finally:
        certificate.signature_holds = right


class Trial:
    """One history.  ``lies`` (if given) instead of those that the seed draws."""

    def __init__(
        self, seed: int, lies: frozenset[str] | None = None, trace: Callable[[str], None] | None = None
    ) -> None:
        self.rng = rng = Random(seed)
        self.trace = trace
        self.members = rng.choice((3, 3, 4, 5))
        self.lies = frozenset(rng.sample(sorted(LIES), rng.randrange(1, 4))) if lies is None else lies
        people, root, ledger = founded(self.members)
        guilty = rng.choice(people)
        names = {p.id: NAMES[n] for n, p in enumerate(people)}
        self.said = Said(names, guilty.id)
        self.said.payloads.add(root.payload)
        options = Options(
            election_ticks=rng.choice((3, 5)),
            pre_vote=rng.random() < 0.5,
            check_quorum=rng.random() < 0.5,
            announce=False,
            append_entries=rng.choice((1, 2, 8)),
        )
        draw = lambda n: int(rng.random() * n)  # noqa: E731
        self.nodes = {p.id: Honest(p, root, ledger.copy(), self.said, options, draw) for p in people}
        self.accused = self.nodes[guilty.id]
        self.honest = [n for n in self.nodes.values() if n is not self.accused]
        self.liar = Liar(self.accused, self.lies, [n.me.id for n in self.honest], rng)
        self.network = Network(Random(rng.random()), rng.choice((0.0, 0.1)), rng.choice((0.0, 0.1)), rng.choice((1, 4)))
        self.partitions = rng.choice((0.0, 0.02))
        self.round = 0
        self.split = False
        if trace:
            trace(f"{self.members} members, {self.accused.name} lies: {', '.join(sorted(self.lies))}")

    # --- events -------------------------------------------------------------------------------------------------------

    def step(self) -> None:
        dice = self.rng.random()
        if dice < 0.12:
            self.tick(self.rng.choice(list(self.nodes.values())))
        elif dice < 0.2:
            self.propose()
        elif dice < 0.28:
            self.lie()
        elif dice < 0.28 + self.partitions:
            self.network.partition(list(self.nodes))
        elif dice < 0.28 + 2 * self.partitions:
            self.network.heal()
        elif self.network.flight:
            self.deliver()

    def deliver(self) -> None:
        parcel = self.network.next()  # type: ignore[assignment]
        if parcel is None:
            return
        assert isinstance(parcel, Parcel)
        node, m = self.nodes[parcel.to], parcel.message
        if self.trace:
            sender = self.nodes[m.sender].name
            self.trace(f"{node.name} <- {sender} {type(m).__name__} term {m.term}")
        if node is self.accused:
            self.send(node, self.liar.hear(m))
        node.hear(parcel.sender, m)
        self.drain(node)

    def tick(self, node: Honest) -> None:
        node.raft.tick()
        self.drain(node)

    def propose(self) -> None:
        """An honest member has something to say, or a leader has a model for a round."""
        leaders = [n for n in self.nodes.values() if n.raft.role == Role.LEADER]
        if not leaders:
            return
        leader = self.rng.choice(leaders)
        self.round += 1
        if leader is self.accused and self.rng.random() < 0.7:
            payload = self.liar.words(self.round)
        else:
            author = self.rng.choice(self.honest)
            text = f"round {self.round} model {self.rng.randrange(10**6)}"
            payload = make_statement(Note(text), author.me, author.genesis, author.guard.seen)
            self.said.payloads.add(payload)
        leader.offer(payload)
        self.drain(leader)

    def lie(self) -> None:
        letter = self.liar.letter()
        if letter is not None:
            origin, m = letter
            self.network.send([Parcel(origin, m.to, m)])  # type: ignore[list-item]

    def drain(self, node: Honest) -> None:
        self.send(node, node.work())
        if node is not self.accused:
            node.check()

    def send(self, node: Honest, messages: list[AnyMessage]) -> None:
        if node is self.accused:
            messages = list(self.liar.rewritten(messages))
        self.network.send([Parcel(node.me.id, m.to, m) for m in messages if m.to in self.nodes])  # type: ignore[misc]

    # --- what must hold at the end ------------------------------------------------------------------------------------

    def check_histories(self) -> bool:
        """Whether honest members have decided different entries; a split has a cause, and a lying leader is convicted."""
        first = self.honest[0]
        for other in self.honest[1:]:
            fork = find_fork(first.genesis, first.decided, other.decided)
            if fork is None:
                continue
            self.split = True
            if fork.evidence is not None and fork.evidence.leader != self.accused.me.id:
                raise Violation("honest convicted", f"by two histories of {first.name} and {other.name}")
            if fork.evidence is None and not self.lies & UNPROVEN:
                raise Violation(
                    "split unseen", f"{first.name} and {other.name} part at {fork.index}, nobody is convicted"
                )
        return self.split

    def check_models(self) -> None:
        """No two models of a round get q votes, though the liar votes for all of them."""
        q = thresholds(self.members, PROFILES[1]).q
        for round_ in {r for n in self.honest for r in n.voted}:
            votes = [n.voted[round_] for n in self.honest if round_ in n.voted]
            certified = [model for model in set(votes) if votes.count(model) + 1 >= q]
            if len(certified) > 1:
                raise Violation("two models", f"{round_} has {len(certified)} models with {q} votes")

    def check_liveness(self) -> None:
        """The liar is switched off and the network heals."""
        network = self.network
        network.heal()
        network.flight.clear()
        network.drop = network.twice = 0.0
        del self.nodes[self.accused.me.id]
        before = max(len(n.decided) for n in self.honest)
        for _ in range(ROUNDS):
            for node in self.honest:
                self.tick(node)
            for _ in range(400):
                if not network.flight:
                    break
                self.deliver()
            self.propose()
            if all(len(n.decided) > before for n in self.honest):
                return
        forked = self.has_fork()
        if not forked and not any(n.raft.state.barred for n in self.honest):
            raise Violation("liveness", "without the liar the others do not go on, and have one history")
        if not any(n.halts() for n in self.honest):
            raise Violation("halt unsaid", "the others stand still and none of them says why")

    def has_fork(self) -> bool:
        """Whether two honest logs differ at an index that one has decided, or at one of the same term."""
        logs = [{e.index: (e.term, entry_hash(e)) for e in [*n.decided, *n.raft.log.entries]} for n in self.honest]
        for node, mine in zip(self.honest, logs, strict=True):
            for theirs in logs:
                for index in mine.keys() & theirs.keys():
                    if mine[index] == theirs[index]:
                        continue
                    if index <= len(node.decided) or mine[index][0] == theirs[index][0]:
                        return True
        return False


def trial(
    seed: int, steps: int, lies: frozenset[str] | None = None, trace: Callable[[str], None] | None = None
) -> Trial:
    """Run one seed.  Raises Violation."""
    with signatures_checked_once():
        found = Trial(seed, lies, trace)
        for _ in range(steps):
            found.step()
        found.check_histories()
        found.check_models()
        found.check_liveness()
        found.check_histories()
        found.check_models()
    return found
