"""One history: a swarm of real peers over the network in memory, in virtual time, and one seed for every die.

First the faults that the seed has drawn; then all heals, and rounds must go on.  The laws are asked after every step.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "ledger"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hazards import Hazards, Strike
from laws import SIGNATURE_HOLDS, Laws, Violation
from machine import Machine
from network import Network
from swarm_builder import card, identity, seed
from traitor import LIES, Traitor

from shoal.kernels import coding
from shoal.ledger import certificate
from shoal.ledger import identity as ledger_identity
from shoal.ledger.body import Genesis, Policy
from shoal.ledger.digest import ZERO_DIGEST
from shoal.ledger.entry import GENESIS_PREV, GENESIS_TERM, Entry, entry_hash
from shoal.ledger.statement import Seen, make_statement
from shoal.model.layout import Layout
from shoal.swarm import commit, keyring, parcel, survive
from shoal.swarm.book import Book
from shoal.swarm.memory import MemoryNetwork
from shoal.swarm.peer import SendBulk
from shoal.swarm.round import phase_of
from shoal.swarm.transport import Endpoint

TICK_S = 0.05
#: ticks in which a healed swarm must finish a round, come what came before: some attempts may have to be given up first
HEALED_TICKS = 700
CHUNK_BYTES, BATCH, LEFT_LEAST = 160, 6, 3


@lru_cache(maxsize=64)
def founded(members: int, secure: bool, rule: str, elements: int) -> tuple[tuple, dict, Layout, Entry, bytes]:
    """Keys, base model, layout, genesis entry and digest of the base."""
    people = sorted((identity(i) for i in range(members)), key=lambda who: who.id)
    draw = np.random.default_rng(elements)
    base = {"w": draw.standard_normal(elements - 3).astype(np.float32), "b": draw.standard_normal(3).astype(np.float32)}
    book = Book(base)
    policy = Policy(secure, rule, 1, 3 if secure else 2, 1)
    cards = tuple(card(who, i) for i, who in enumerate(people))
    body = Genesis("rounds", seed("nonce")[:16], policy, book.layout.digest, book.digest, cards)
    payload = make_statement(body, people[0], ZERO_DIGEST, Seen(), 0)
    return tuple(people), base, book.layout, Entry(1, GENESIS_TERM, GENESIS_PREV, payload), book.digest


def _once(work: Callable[..., Any], name: Callable[..., Any]) -> Callable[..., Any]:
    """A pure function that works each thing out once."""
    known: dict[Any, Any] = {}

    def remembered(*given: Any) -> Any:
        key = name(*given)
        if key not in known:
            if len(known) > 4096:
                known.clear()
            known[key] = work(*given)
        return known[key]

    return remembered


#: what one node has worked out the others need not work out again: a third of the time
_SIGNATURE_HOLDS = _once(SIGNATURE_HOLDS, lambda *given: given)
_ON_CURVE = _once(ledger_identity._is_on_curve, lambda *given: given)
_DITHER_TABLE = _once(coding.dither_table, lambda offsets: offsets.tobytes())


@contextmanager
def small() -> Iterator[None]:
    """Small chunks and batches, so that a history has many of them, and pure functions that remember."""
    patches: list[tuple[Any, str, Any]] = [
        (parcel, "CHUNK_BYTES", CHUNK_BYTES),
        (keyring, "BATCH", BATCH),
        (keyring, "LEFT_LEAST", LEFT_LEAST),
        (ledger_identity, "_is_on_curve", _ON_CURVE),
        (coding, "dither_table", _DITHER_TABLE),
    ]
    for module in (certificate, commit, survive):
        if module.signature_holds is SIGNATURE_HOLDS:  # not where a mutation has put another
            patches.append((module, "signature_holds", _SIGNATURE_HOLDS))
    right = [getattr(where, name) for where, name, _ in patches]
    for where, name, value in patches:
        setattr(where, name, value)
    try:
        yield
    finally:
        for (where, name, _), value in zip(patches, right, strict=True):
            setattr(where, name, value)


class History:
    """One seed.  ``trace`` is called with a line for each event."""

    def __init__(self, number: int, hazards: Hazards | None = None, trace: Callable[[str], None] | None = None) -> None:
        self.seed = number
        self.rng = rng = Random(number)
        self.trace = trace
        self.faults = faults = hazards or Hazards.draw(rng)
        self.now = 0
        people, base, self.layout, self.genesis, digest = founded(
            faults.members, faults.secure, faults.rule, faults.elements
        )
        self.network = MemoryNetwork(rng.randrange(2**60), faults.weather)
        self.dice = Network(Random(rng.randrange(2**60)), 0.0, 0.0, 1)
        self.endpoints = {who.id: Endpoint(c.curve, c.address) for i, who in enumerate(people) for c in [card(who, i)]}
        policy = Policy(faults.secure, faults.rule, 1, 3 if faults.secure else 2, 1)
        keys = {who.id: who.public for who in people}
        self.laws = Laws(keys, entry_hash(self.genesis), base, digest, policy)
        self.note(f"{faults}")
        guilty = rng.randrange(len(people)) if faults.lies else -1
        self.machines = [(Traitor if n == guilty else Machine)(self, who, n, base) for n, who in enumerate(people)]
        if faults.lies:
            self.machines[guilty].lies = faults.lies
            self.laws.convict(people[guilty].id, faults.lies)
            self.note(f"{self.machines[guilty].name} lies: {', '.join(sorted(faults.lies))}")
        self.strikes = list(faults.strikes)
        self.down: dict[int, int] = {n: rng.randint(20, 90) for n in faults.late}
        for machine in self.machines:
            if machine.number not in faults.late:
                machine.start()
        self.network.advance(0.5)

    def note(self, line: str) -> None:
        if self.trace:
            self.trace(f"{self.now:5} {line}")

    def name(self, who: bytes) -> str:
        return next((m.name for m in self.machines if m.who.id == who), who.hex()[:8])

    # --- mail ---------------------------------------------------------------------------------------------------------

    def post(self, machine: Machine, to: bytes, data: bytes) -> None:
        machine.transport.send(to, data)

    def post_chunk(self, machine: Machine, out: SendBulk) -> None:
        machine.transport.send_bulk(out.to, out.header, out.chunk)

    # --- a history ----------------------------------------------------------------------------------------------------

    def run(self) -> History:
        """Raises Violation."""
        faults, laws = self.faults, self.laws
        while self.now < faults.ticks and laws.seen["rounds"] < faults.rounds:
            self._break_things()
            self.step()
        self._heal()
        self._go_on()
        return self

    def step(self) -> None:
        """One tick."""
        self.now += 1
        self.network.advance(TICK_S)
        for machine in self.machines:
            if machine.up:
                machine.step()
        self._strike()

    def _break_things(self) -> None:
        faults, rng = self.faults, self.rng
        for number, at in list(self.down.items()):
            if at <= self.now:
                del self.down[number]
                self._start(self.machines[number])
        if faults.crashes and rng.random() < faults.crashes:
            self._light(rng.choice(self.machines), rng.randrange(40))
        if faults.pauses and rng.random() < faults.pauses:
            machine = rng.choice(self.machines)
            machine.paused = rng.choice((3, 12, 40))
            self.laws.seen["pause"] += 1
            self.note(f"{machine.name} stands still for {machine.paused} ticks")
        if faults.partitions and rng.random() < faults.partitions:
            if self.network.blocked or rng.random() < 0.3:
                self.network.blocked = set()
                self.note("links heal")
            else:
                kind = self.dice.partition([m.who.id for m in self.machines])
                self.network.blocked = self.dice.blocked
                self.laws.seen[f"partition {kind}"] += 1
                self.note(f"partition: {kind}")
        for machine in self.machines:
            if not machine.up and machine.number not in self.down:
                self.down[machine.number] = self.now + rng.randint(1, faults.down_ticks)

    def _light(self, machine: Machine, after: int) -> None:
        if machine.up and machine.fuse.left is None:
            machine.fuse.left = after

    def _start(self, machine: Machine) -> None:
        self.note(f"{machine.name} starts")
        machine.start()

    def _strike(self) -> None:
        for strike in self.strikes:
            hit = self._meets(strike)
            if hit:
                self.strikes.remove(strike)
                for machine in hit:
                    self._light(machine, strike.after)
                self.laws.seen[f"strike {strike.role}"] += 1
                self.laws.seen[f"strike in {strike.phase}"] += 1
                self.note(f"strike at {strike.role} in {strike.phase}: {' '.join(m.name for m in hit)}")
                return

    def _meets(self, strike: Strike) -> list[Machine]:
        """Whom a strike meets now, if it does."""
        for machine in self.machines:
            if not machine.up:
                continue
            peer = machine.peer
            attempt = peer.ledger.attempt
            if strike.phase == "LINGER":
                phase = "LINGER" if attempt is None and machine.merges else ""
            elif strike.phase == "PLAN":
                phase = "PLAN" if attempt is None and peer.replica.leading else ""
            else:
                phase = "" if attempt is None else phase_of(attempt, b"").name
            if phase != strike.phase:
                continue
            if self._has_role(machine, strike.role):
                return [m for m in self.machines if m.up] if strike.role == "everybody" else [machine]
        return []

    @staticmethod
    def _has_role(machine: Machine, role: str) -> bool:
        peer = machine.peer
        attempt = peer.ledger.attempt
        if role in ("anybody", "everybody"):
            return True
        if role == "leader":
            return peer.replica.leading
        position = attempt.position(peer.me.id) if attempt is not None else None
        if role == "onlooker":
            return position is None
        if role == "straggler":
            return machine.training is not None
        if attempt is None or position is None:
            return False
        if role == "coordinator":
            round_ = peer.rounds.get(attempt.plan.slot)
            return round_ is not None and round_.state.coordinates
        return any(position == (s.owner if role == "owner" else s.backup) for s in attempt.plan.shards)

    # --- the end ------------------------------------------------------------------------------------------------------

    def _heal(self) -> None:
        self.note("everything heals")
        weather = self.network.weather
        self.network.weather = type(weather)(weather.delay_s)
        self.network.blocked = set()
        self.strikes.clear()
        for traitor in [m for m in self.machines if isinstance(m, Traitor)]:
            if traitor.up:
                traitor.lose_power("for good")
            self.machines.remove(traitor)
        for machine in self.machines:
            machine.paused = 0
            machine.fuse.left = None
            if not machine.up:
                self._start(machine)

    def _go_on(self) -> None:
        """Another round is certified, and everybody gets a model that was certified since."""
        before, models = max(self.laws.models), self.laws.models
        behind = list(self.machines)
        for _ in range(HEALED_TICKS):
            behind = [
                m for m in behind if m.peer.ledger.round <= before or m.peer.book.digest != models[m.peer.ledger.round]
            ]
            if not behind:
                return
            self.step()
        names = " ".join(m.name for m in behind)
        raise Violation("liveness", f"{HEALED_TICKS} ticks after all healed {names} has no model after round {before}")


def history(number: int, hazards: Hazards | None = None, trace: Callable[[str], None] | None = None) -> History:
    """Run one seed.  Raises Violation."""
    with small():
        return History(number, hazards, trace).run()


def betrayal(number: int, lies: Sequence[str] = tuple(LIES), trace: Callable[[str], None] | None = None) -> History:
    """Run one seed in which a member lies.  Raises Violation."""
    hazards = Hazards.draw_traitor(Random(f"traitor {number}"), lies)
    return history(number, hazards, trace)


__all__ = ["Hazards", "History", "Violation", "betrayal", "history", "small"]
