"""Members of one attempt around a table: real rounds and a real ledger, a seeded network between them, no time but ticks.

Statements are appended in the order in which they are made; what breaks a rule is refused, as a leader would.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "ledger"))
from swarm_builder import SwarmBuilder

from shoal.errors import PeerError, ShoalError
from shoal.ledger.body import Body, ModelCertificate, RoundPlan
from shoal.secure.journal import MemoryJournal
from shoal.secure.keys import EpochKeys
from shoal.secure.participant import Participant, Secrets, Slot
from shoal.secure.seeds import Party, SlotName
from shoal.swarm.actions import Action, Compute, Propose, Send, SendChunk
from shoal.swarm.coder import Coder
from shoal.swarm.core import Patience, State, View
from shoal.swarm.messages import decode_control, encode_said
from shoal.swarm.round import Round


class Member:
    """One member: its round, what it signed, which model came out."""

    def __init__(
        self, table: RoundTable, who: bytes, coder: Coder, diff: np.ndarray | None, privacy: Participant | None
    ) -> None:
        self.signed: dict[int, bytes] = {}
        self.merged: np.ndarray | None = None
        self.table = table
        self.who = who
        me = table.builder.people[who]
        state = State(me, table.view(), coder, diff, self.settle, self.may_sign, privacy, table.patience)
        self.round = Round(state)

    def settle(self, diff: np.ndarray, _rms: object) -> tuple[bytes, bytes]:
        import hashlib

        self.merged = diff
        return hashlib.sha256(diff.tobytes()).digest(), bytes(32)

    def may_sign(self, slot: int, survivors: bytes) -> bool:
        return self.signed.setdefault(slot, survivors) == survivors


class RoundTable:
    """``diffs``: by position; None for one that has none.  ``lose``: share of messages and chunks that get lost.
    ``coder``: the coder of a plan and its rid; in a secure round each member gets one of its own."""

    def __init__(
        self,
        diffs: list[np.ndarray | None],
        coder: Callable[[RoundPlan, bytes], Coder],
        shards: int,
        seed: int = 0,
        lose: float = 0.0,
        secure: bool = False,
    ) -> None:
        self.builder = SwarmBuilder(members=len(diffs), secure=secure)
        self.patience = Patience(retry=3, grace=12, give_up=60)
        self.builder.say(self.builder.plan(shards))
        self.attempt = self.builder.ledger.state.attempt
        plan, rid = self.attempt.plan, self.attempt.rid
        self.certified = b""
        self.random = Random(seed)
        self.lose = lose
        self.dead: set[bytes] = set()
        self.refused: list[str] = []
        self.log: list[str] = []
        self.said: list[Body] = []
        self.ids = [p.member for p in self.attempt.plan.participants]
        privacy = self._secrets() if secure else dict.fromkeys(self.ids)
        self.members = {
            who: Member(self, who, coder(plan, rid), d, privacy[who]) for who, d in zip(self.ids, diffs, strict=True)
        }
        self._queue: list[tuple[bytes, bytes, Action]] = []

    def _secrets(self) -> dict[bytes, Participant]:
        """A participant with keys for each member."""
        plan, draw = self.attempt.plan, self.random.randbytes
        keys = {i: EpochKeys.generate(plan.slot, draw) for i in self.ids}
        parties = tuple(Party(i, keys[i].batch(plan.slot, 1)[0], keys[i].share_public) for i in self.ids)
        name = SlotName(self.builder.genesis, 0, plan.slot, self.attempt.rid)
        slot = Slot(name, parties, plan.thresholds, plan.thresholds.q == 2)
        return {
            i: Participant(i, slot, Secrets(k.one_time(plan.slot), k.share_private), MemoryJournal(), draw)
            for i, k in keys.items()
        }

    def view(self) -> View:
        members = self.builder.ledger.state.registry.members
        keys = {i: m.signing for i, m in members.items()}
        return View(self.attempt, keys, self.builder.leader.id, self.certified)

    def run(self, ticks: int = 400) -> None:
        """Until everybody alive has finished, the attempt was aborted, or time is up."""
        for _ in range(ticks):
            alive = [m for who, m in sorted(self.members.items()) if who not in self.dead]
            if all(m.round.finished for m in alive) or self.aborted:
                return
            for member in alive:
                member.round.tick()
                self._turn(member)
            self._deliver()
        raise AssertionError(f"no end after {ticks} ticks: {self.log[-20:]}")

    @property
    def aborted(self) -> bool:
        return self.builder.ledger.state.attempt is None and not self.certified

    def _turn(self, member: Member) -> None:
        member.round.advance(self.view())
        for action in member.round.take():
            if isinstance(action, Propose):
                self._append(member, action)
            elif isinstance(action, Compute):
                try:
                    member.round.computed(action.name, action.run())
                except ShoalError as error:
                    member.round.computed(action.name, error)
            else:
                self._queue.append((member.who, action.to, action))

    def _append(self, member: Member, action: Propose) -> None:
        if member.who in self.dead:
            return
        try:
            self.builder.say(action.body, self.builder.people[member.who])
        except PeerError as error:
            self.refused.append(str(error))
            return
        self.said.append(action.body)
        self.log.append(f"{type(action.body).__name__} by {self.ids.index(member.who)}")
        for other in self.members.values():
            other.round.decided(member.who, action.body)
        if isinstance(action.body, ModelCertificate):
            self.certified = action.body.model

    def _deliver(self) -> None:
        queue, self._queue = self._queue, []
        self.random.shuffle(queue)
        for sender, to, action in queue:
            if to in self.dead or sender in self.dead or self.random.random() < self.lose:
                continue
            round_ = self.members[to].round
            if isinstance(action, SendChunk):
                round_.chunk(sender, action.head, action.chunk)
            elif isinstance(action, Send):
                said = decode_control(encode_said(action.said))
                round_.said(sender, said)
