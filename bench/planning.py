"""Whole rounds in virtual time, past one machine: how long they take, what each peer sends, and where the time goes.

What runs is the production code: plan, rounds of all members, chunks, windows, masks and checks, and the ledger's rules.
What is modelled: links (a rate up and down for each peer, a delay for each pair), consensus (a statement travels to the
leader, is decided once the faster half has answered, and is known one way later), and the size of the model.  Its vector
is `scale` times shorter than it stands for, and so are chunks: there are as many chunks, hashes and messages as there
would be, and each byte of a chunk counts `scale` times.  Arithmetic, disks and encryption cost no time here.

usage: python bench/planning.py [--members 3 10 ...] [--parameters 1e7 ...] [--mbits 50 ...] [--secure] [--write]
"""

from __future__ import annotations

import argparse
import hashlib
import heapq
import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "ledger"))
from swarm_builder import SwarmBuilder

from shoal.errors import PeerError
from shoal.ledger import attempt as attempts
from shoal.ledger.attempt import Attempt, Speaker
from shoal.ledger.body import Check, ModelCertificate, Nonce
from shoal.ledger.statement import Seen, make_statement
from shoal.model.layout import Layout
from shoal.secure.journal import MemoryJournal
from shoal.secure.keys import EpochKeys
from shoal.secure.participant import Participant, Secrets, Slot
from shoal.secure.seeds import Party, SlotName
from shoal.swarm import core, fetch, parcel, plan
from shoal.swarm.actions import Compute, Propose, Send, SendChunk
from shoal.swarm.core import Patience, State, View
from shoal.swarm.messages import encode_head, encode_said
from shoal.swarm.round import Phase, Round

#: bytes of a message on the wire beside its own: TCP, ZeroMQ, CURVE
MESSAGE_EXTRA = 100
#: chunks of a whole round; they are cut larger, and windows are made of fewer, where there would be more
CHUNKS_MAX = 60_000
CHUNK_BYTES = 2**20
WINDOW, WINDOW_ALL = fetch.WINDOW_CHUNKS, core.WINDOW_CHUNKS_ALL
#: a leader tells what is decided with its next message, at the latest after a heartbeat of 2 ticks of 50 ms
HEARTBEAT_S = 0.1


class Case(msgspec.Struct, frozen=True):
    """One line of the table.  mbits: of each peer, up and down;  delays_s: one way, least and most of the pairs."""

    members: int
    parameters: int
    mbits: float
    secure: bool
    delays_s: tuple[float, float] = (0.02, 0.08)


class Found(msgspec.Struct):
    """round_s: from the plan in the ledger until every member has the certified model;  sent: bytes of a peer, mean and
    most, of them control in the mean;  phases: seconds of each, as the leader sees them
    """

    case: Case
    round_s: float
    sent: float
    sent_most: float
    control: float
    phases: dict[str, float]
    ledger_bytes: int
    bits: int


class Member:
    """One peer: a real round, its own view of the ledger, its link."""

    def __init__(self, world: World, position: int) -> None:
        self.world, self.position = world, position
        self.who = world.ids[position]
        self.attempt = world.fresh_attempt()
        self.certified = b""
        self.done_s = 0.0
        self.up_s = self.down_s = 0.0
        self.sent = self.control = 0.0
        self.due_s = -1.0
        self.told = 0.0
        draw = np.random.default_rng(position)
        diff = draw.standard_normal(world.elements).astype(np.float32)
        state = State(
            world.builder.people[self.who], self.view(), world.coder(), diff, self.settle,
            lambda _slot, _survivors: True, world.privacy(self.who), world.patience,
        )  # fmt: skip
        self.round = Round(state)

    @staticmethod
    def settle(diff: np.ndarray, rms: Any) -> tuple[bytes, bytes]:
        return hashlib.sha256(diff.tobytes()).digest(), bytes(32)

    def view(self) -> View:
        return View(self.attempt, self.world.keys, self.world.ids[0], self.certified)


class World:
    """A round of one case."""

    def __init__(self, case: Case, seed: int = 0) -> None:
        self.case = case
        self.random = Random(seed)
        n = case.members
        self.scale = scale_of(case)
        self.elements = -(-case.parameters // self.scale)
        self.builder = SwarmBuilder(members=n, secure=case.secure)
        ledger = self.builder.ledger.state
        members = sorted(ledger.registry.members)
        self.keys = {i: m.signing for i, m in ledger.registry.members.items()}
        layout = Layout.of_arrays({"w": np.zeros(self.elements, np.float32)})
        if not case.secure:
            ledger.policy = msgspec.structs.replace(ledger.policy, rule="mean")
        self.policy, self.layout = ledger.policy, layout
        rms = np.ones(plan.Grid.of(self.elements).blocks) if case.secure else None
        body = plan.make_plan(ledger, layout, rms, dict.fromkeys(members, 100), bytes(32))
        self.ring = plan.ring_of([100] * n, body.weights, self.elements, rms) if case.secure else None
        self.plan = body
        self.bits = body.bits
        self.builder.say(body)
        opened = ledger.attempt or self.builder.ledger.state.attempt
        assert opened is not None
        self.opened = opened
        self.ids = [p.member for p in body.participants]
        # The leader stands at position 0 of the delays; who it is does not matter.
        self.patience = Patience(*(max(1, round(s / self.tick_s)) for s in (1.0, 10.0, 60.0, 5.0)))
        self.delay = {
            (a, b): 0.0 if a == b else self.random.uniform(*case.delays_s)
            for a, b in itertools.combinations_with_replacement(range(n), 2)
        }
        self._privacy = self._secrets() if case.secure else {}
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self.ledger_bytes = 0
        self.phase_s: dict[str, float] = {}
        self._decided_at = 0.0
        self.master = self.fresh_attempt()
        self.certified = b""
        self.members = [Member(self, p) for p in range(n)]
        self.by_id = {m.who: m for m in self.members}

    @property
    def rate(self) -> float:
        """Bytes in a second, each way."""
        return self.case.mbits * 1e6 / 8

    @property
    def tick_s(self) -> float:
        """50 ms, more where there are many members, or a two-thousandth of the time that the bytes need."""
        case = self.case
        each = 4.0 * case.parameters * 2 * 8 / (case.mbits * 1e6)
        return max(0.05, 0.05 * case.members / 25, each / 2000)

    def fresh_attempt(self) -> Attempt:
        return Attempt(
            self.plan, self.opened.rid, self.case.secure, 1, {}, None, {}, {}, None, set(), set(), {}, set(), set()
        )

    def coder(self) -> Any:
        return plan.coder_of(self.opened, self.layout, self.ring, self.policy)

    def privacy(self, who: bytes) -> Participant | None:
        return self._privacy.get(who)

    def _secrets(self) -> dict[bytes, Participant]:
        draw, slot = self.random.randbytes, self.plan.slot
        keys = {i: EpochKeys.generate(slot, draw) for i in self.ids}
        parties = tuple(Party(i, keys[i].batch(slot, 1)[0], keys[i].share_public) for i in self.ids)
        known = Slot(SlotName(self.builder.genesis, 0, slot, self.opened.rid), parties, self.plan.thresholds, False)
        return {
            i: Participant(i, known, Secrets(k.one_time(slot), k.share_private), MemoryJournal(), draw)
            for i, k in keys.items()
        }

    # --- time ---------------------------------------------------------------------------------------------------------

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._count), what))

    def run(self) -> Found:
        for member in self.members:
            self.at(0.0, lambda m=member: self.turn(m))  # type: ignore[misc]
        self.at(self.tick_s, self.tick)
        while not all(m.done_s for m in self.members):
            self.now, _, what = heapq.heappop(self._events)
            what()
            assert self.now < 1e6, "no end"
        sent = [m.sent for m in self.members]
        return Found(
            self.case, max(m.done_s for m in self.members), sum(sent) / len(sent), max(sent),
            sum(m.control for m in self.members) / len(sent), self.phases(), self.ledger_bytes, self.bits,
        )  # fmt: skip

    def phases(self) -> dict[str, float]:
        """How long the leader was in each phase; the last one ends with the certificate."""
        names = [p.name for p in Phase if p.name in self.phase_s]
        starts = [self.phase_s[name] for name in names]
        ends = [*starts[1:], max(m.done_s for m in self.members)]
        return {name: end - start for name, start, end in zip(names, starts, ends, strict=True)}

    def tick(self) -> None:
        for member in self.members:
            member.round.tick()
            self.turn(member)
        self.at(self.now + self.tick_s, self.tick)

    def wake(self, member: Member) -> None:
        """A turn of this member, a little later: what comes meanwhile is dealt with in the same one."""
        if member.due_s < self.now:
            member.due_s = self.now + self.tick_s / (25 if self.case.members <= 30 else 5)
            self.at(member.due_s, lambda: self.turn(member))

    # --- one member ---------------------------------------------------------------------------------------------------

    def turn(self, member: Member) -> None:
        member.due_s = -1.0
        busy = True
        while busy:
            busy = False
            member.round.advance(member.view())
            for action in member.round.take():
                if isinstance(action, Compute):
                    member.round.computed(action.name, action.run())
                    busy = True
                elif isinstance(action, Propose):
                    self.propose(member, action.body)
                elif isinstance(action, Send):
                    self.send(member, action)
                else:
                    self.send_chunk(member, action)
        assert not member.round.state.failure, member.round.state.failure
        if member.position == 0:
            self.phase_s.setdefault(member.round.phase.name, self.now)
        if member.round.finished and not member.done_s:
            member.done_s = self.now

    def between(self, a: int, b: int) -> float:
        return self.delay[min(a, b), max(a, b)]

    def carry(self, member: Member, to: Member, size: float, heard: Callable[[], None]) -> None:
        """A message of the control plane: it does not wait behind chunks."""
        member.sent += size
        member.control += size
        self.at(self.now + size / self.rate + self.between(member.position, to.position), heard)

    def carry_bulk(self, member: Member, to: Member, size: float, heard: Callable[[], None]) -> None:
        """A chunk waits for those before it on the sender's way out and on the receiver's way in."""
        member.sent += size
        start = max(self.now, member.up_s)
        member.up_s = start + size / self.rate

        def comes_in() -> None:
            to.down_s = max(self.now, to.down_s) + size / self.rate
            self.at(to.down_s, heard)

        self.at(start + self.between(member.position, to.position), comes_in)

    def send(self, member: Member, action: Send) -> None:
        to = self.by_id[action.to]

        def heard() -> None:
            to.round.said(member.who, action.said)
            self.wake(to)

        self.carry(member, to, len(encode_said(action.said)) + MESSAGE_EXTRA, heard)

    def send_chunk(self, member: Member, action: SendChunk) -> None:
        to = self.by_id[action.to]

        def heard() -> None:
            to.round.chunk(member.who, action.head, action.chunk)
            self.wake(to)

        size = len(action.chunk) * self.scale + len(encode_head(action.head)) + MESSAGE_EXTRA
        self.carry_bulk(member, to, size, heard)

    # --- the ledger ---------------------------------------------------------------------------------------------------

    def propose(self, member: Member, body: Any) -> None:
        size = (
            len(make_statement(body, self.builder.people[member.who], self.builder.genesis, Seen(), 0)) + MESSAGE_EXTRA
        )
        self.carry(member, self.members[0], size, lambda: self.append(member, body, size))

    def append(self, member: Member, body: Any, size: int) -> None:
        """The leader takes it, if the rules do; half of the others answer; everybody learns of it."""
        try:
            self.apply(self.master, member, body)
        except PeerError:
            return
        self.ledger_bytes += size
        trips = sorted(2 * self.between(0, m.position) for m in self.members[1:])
        self.members[0].sent += size * (len(self.members) - 1)
        self.members[0].control += size * (len(self.members) - 1)
        decided = max(self._decided_at, self.now + trips[len(self.members) // 2 - 1])
        self._decided_at = decided
        for other in self.members:
            known = decided + self.between(0, other.position)
            if other.position:
                known += self.random.uniform(0, HEARTBEAT_S)
            known = max(known, other.told)
            other.told = known
            self.at(known, lambda m=other: self.learn(m, member, body))  # type: ignore[misc]

    def learn(self, member: Member, author: Member, body: Any) -> None:
        self.apply(member.attempt, author, body)
        if isinstance(body, Nonce | Check):
            member.round.decided(author.who, body)
        if isinstance(body, ModelCertificate):
            member.certified = body.model
        self.wake(member)

    def apply(self, attempt: Attempt, author: Member, body: Any) -> None:
        """Its rules, but for signatures, which cost nothing here."""
        speaker = Speaker(author.position, self.builder.ledger.state.registry, lambda *_: None)
        if isinstance(body, ModelCertificate) and attempt is self.master:
            if self.certified:
                raise PeerError("ledger.slot", "the round is over")
            self.certified = body.model
        attempts.RULES[type(body)](attempt, speaker, body)


def scale_of(case: Case) -> int:
    """How much shorter the vector is: chunks of 512 bytes for a large model, of more where it would get too short to be
    cut into a shard for each."""
    return max(1, min(2048, case.parameters // (case.members * 4096)))


def play(case: Case) -> Found:
    """The round of one case; chunks are cut as they are, or coarser where there would be too many of them."""
    bits = 8 if case.secure else 32
    part = case.parameters * bits / 8 / case.members
    pieces = max(2, CHUNKS_MAX // (2 * case.members * (case.members - 1)))
    coarse = max(1, round(part / CHUNK_BYTES / pieces))
    scale = scale_of(case)
    patches = [
        (parcel, "CHUNK_BYTES", max(8, CHUNK_BYTES * coarse // scale // 8 * 8)),
        (fetch, "WINDOW_CHUNKS", max(1, WINDOW // coarse)),
        (core, "WINDOW_CHUNKS_ALL", max(4, WINDOW_ALL // coarse)),
    ]
    right = [getattr(where, name) for where, name, _ in patches]
    for where, name, value in patches:
        setattr(where, name, value)
    try:
        return World(case).run()
    finally:
        for (where, name, _), value in zip(patches, right, strict=True):
            setattr(where, name, value)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, nargs="+", default=[3, 10, 30])
    parser.add_argument("--parameters", type=float, nargs="+", default=[1e7, 1e8, 1e9])
    parser.add_argument("--mbits", type=float, nargs="+", default=[50.0, 1000.0, 10_000.0])
    parser.add_argument("--modes", nargs="+", choices=["plain", "secure"], default=["plain", "secure"])
    parser.add_argument("--json", type=Path, help="append what was found, a line for each case")
    a = parser.parse_args()
    for n, parameters, mbits, mode in itertools.product(a.members, a.parameters, a.mbits, a.modes):
        found = play(Case(n, int(parameters), mbits, mode == "secure"))
        print(row(found), flush=True)
        if a.json:
            with a.json.open("a") as file:
                file.write(json.dumps(msgspec.to_builtins(found)) + "\n")
    return 0


def row(found: Found) -> str:
    case = found.case
    cells = [
        str(case.members),
        f"{case.parameters / 1e6:,.0f} M",
        f"{case.mbits:,.0f}",
        f"secure, {found.bits} bit" if case.secure else "plain",
        f"{found.round_s:,.2f}",
        f"{found.sent / 1e6:,.1f}",
        f"{found.control / 1e6:,.2f}",
        " ".join(f"{name.lower()} {seconds:.2f}" for name, seconds in found.phases.items() if name != "LINGER"),
    ]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
