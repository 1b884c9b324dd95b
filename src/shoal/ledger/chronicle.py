"""What happened, for people: the rounds with who took part, who fell out and why, and what came of them."""

from __future__ import annotations

import msgspec

from shoal.ledger.attempt import Attempt, dropped
from shoal.ledger.body import Abort, Body, Evaluation, ModelCertificate, RoundPlan
from shoal.ledger.state import State
from shoal.ledger.statement import Statement


class Peer(msgspec.Struct, frozen=True):
    """A participant: id, name at the time, samples it was planned with."""

    id: bytes
    name: str
    samples: int


class Fallen(msgspec.Struct, frozen=True):
    """A participant that was planned and is not in the result, and the reason that the log shows."""

    peer: Peer
    reason: str


class Score(msgspec.Struct, frozen=True):
    """What a member measured with the round's model."""

    by: str
    samples: int
    metrics: tuple[tuple[str, float], ...]


class RoundRecord(msgspec.Struct):
    """One attempt at a round.

    outcome      "certified", "aborted" or "open"
    reason       why it was aborted
    first, last  index of its plan and of its certificate or abort (the last entry read while it is open)
    votes        members whose signatures certify the model
    time_ms      of its last entry, by its author's clock: milliseconds since 1970
    """

    round: int
    attempt: int
    slot: int
    first: int
    last: int
    outcome: str
    planned: tuple[Peer, ...]
    took_part: tuple[Peer, ...] = ()
    fallen: tuple[Fallen, ...] = ()
    reason: str = ""
    base: bytes = b""
    model: bytes = b""
    votes: tuple[bytes, ...] = ()
    time_ms: int = 0
    scores: list[Score] = []

    @property
    def samples(self) -> int:
        """Training samples of those that took part."""
        return sum(peer.samples for peer in self.took_part)


class Chronicle:
    """Watches a fold: call ``before`` and ``after`` around each entry that is applied.

    rounds  every attempt so far, in order; names stay as they were when the round was planned
    """

    def __init__(self) -> None:
        self.rounds: list[RoundRecord] = []
        self._certified: dict[int, RoundRecord] = {}
        self._attempt: Attempt | None = None

    def before(self, state: State) -> None:
        """Remember the open attempt, which the next entry may close."""
        self._attempt = state.attempt

    def after(self, state: State, statement: Statement, body: Body) -> None:
        """The entry was applied."""
        if isinstance(body, RoundPlan):
            self._open(state, body, statement.time_ms)
        elif isinstance(body, ModelCertificate):
            record = self._close(state, "certified", statement.time_ms)
            record.model, record.votes = body.model, tuple(v.member for v in body.votes)
            self._certified[record.round] = record
        elif isinstance(body, Abort):
            self._close(state, "aborted", statement.time_ms).reason = body.reason
        elif isinstance(body, Evaluation):
            metrics = tuple((m.name, m.value) for m in body.metrics)
            score = Score(state.registry.members[statement.author].name, body.samples, metrics)
            scores = self._certified[body.round].scores
            scores[:] = [*(s for s in scores if s.by != score.by), score]  # what is said again takes its place

    def finish(self, state: State) -> None:
        """The last entry was applied: what is open stays open."""
        if state.attempt is not None:
            self._attempt = state.attempt
            self._close(state, "open", self.rounds[-1].time_ms)

    def _open(self, state: State, plan: RoundPlan, time_ms: int) -> None:
        members = state.registry.members
        planned = tuple(Peer(p.member, members[p.member].name, p.samples) for p in plan.participants)
        index = state.index
        record = RoundRecord(plan.round, plan.attempt, plan.slot, index, index, "open", planned, base=plan.base)
        record.time_ms = time_ms
        self.rounds.append(record)

    def _close(self, state: State, outcome: str, time_ms: int) -> RoundRecord:
        record, attempt = self.rounds[-1], self._attempt
        assert attempt is not None
        record.outcome, record.last, record.time_ms = outcome, state.index, time_ms
        record.took_part = tuple(record.planned[at] for at in sorted(attempt.survivors or ()))
        reasons = dropped(attempt) if outcome == "certified" or attempt.survivors is not None else {}
        record.fallen = tuple(Fallen(record.planned[at], reason) for at, reason in sorted(reasons.items()))
        return record
