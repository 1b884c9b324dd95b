"""One attempt at a round as one member sees it: no clock, socket, file or thread.

What is to be done depends on the phase, and the phase on the ledger alone; each duty looks at what is there, does what
is missing, and repeats what has had no effect.  So it does not matter in which order things arrive, who leads, or
whether this node has just been restarted.

    phase      until the ledger has        duties of a member (position in the plan, owner, coordinator)
    SHARE      share-set (secure only)     deal, hold; propose the share-set (coordinator)
    UPLOAD     survivor certificate        upload; collect and receipt (owner); ask for votes, certify (coordinator)
    REDUCE     the sum of every shard      open secrets; collect (backup), compare whole updates if the rule does, sum
                                           and tell (owner)
    COMMIT     model certificate           as before; gather, vouch and check, decode, vote; certify (coordinator)
    LINGER     (certified)                 gather and decode, if not done; serve others

The *coordinator* is the ledger's leader if it takes part, else a participant that all agree on; where one stands still
the next one takes over.  Two coordinators do no harm: what counts is signed by a quorum.  Progress, not patience:
`Patience` counts ticks since anything useful happened, not since the start.

Source: docs/PROTOCOL.md, "A round, message by message".
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from enum import IntEnum
from typing import Any, Final

from shoal.errors import PeerError, ShoalError
from shoal.ledger.attempt import Attempt
from shoal.ledger.body import Abort, Body, Check, Nonce
from shoal.swarm import blame, commit, compare, secrecy, survive, upload, vouching
from shoal.swarm.actions import Action
from shoal.swarm.core import State, View
from shoal.swarm.messages import (
    UPLOAD,
    AnySaid,
    AskVote,
    ChunkHead,
    DealtShare,
    Holds,
    Lacks,
    ModelVote,
    Offer,
    Opening,
    SurvivorVote,
    Want,
)

#: of a reason in the ledger
_REASON_CHARS_MAX: Final = 200


class Phase(IntEnum):
    SHARE = 0
    UPLOAD = 1
    REDUCE = 2
    COMMIT = 3
    LINGER = 4


def phase_of(attempt: Attempt, certified: bytes) -> Phase:
    """What the ledger says."""
    if certified:
        return Phase.LINGER
    if attempt.survivors is None:
        return Phase.SHARE if attempt.secure and attempt.shared is None else Phase.UPLOAD
    return Phase.REDUCE if len(attempt.shards) < len(attempt.plan.shards) else Phase.COMMIT


def _give_up(state: State) -> None:
    """The coordinator ends an attempt that stands still, and at once one whose sums nobody can use; after a survivor
    certificate its updates are void."""
    if state.view.certified or not state.coordinates:
        return
    phase = phase_of(state.view.attempt, state.view.certified).name
    reason = vouching.lacking(state) or f"no progress in phase {phase} for {state.still} ticks"
    found_out = blame.found_out(state)
    if state.hopeless or found_out:
        reason = found_out or state.failure
    elif state.still < state.patience.give_up:
        return
    state.propose("abort", Abort(state.slot, state.view.attempt.survivors is not None, reason[:_REASON_CHARS_MAX]))


def _on_offer(state: State, peer: bytes, said: Offer) -> None:  # noqa: ARG001
    """Hashes are believed only if their root is the ledger's; so it does not matter who tells them."""
    state.offers[(said.kind, said.subject)] = said.hashes


def _on_want(state: State, peer: bytes, said: Want) -> None:
    state.serve(peer, said)


def _on_lacks(state: State, peer: bytes, said: Lacks) -> None:
    for (kind, subject, _), fetch in state.fetches.items():
        if (kind, subject) == (said.kind, said.subject) and fetch.source == peer:
            fetch.next_source()


Duty = Callable[[State], None]
_OWN: Final[tuple[Duty, ...]] = (upload.collect, compare.measure, compare.reduce)
PHASES: Final[dict[Phase, tuple[Duty, ...]]] = {
    Phase.SHARE: (secrecy.deal, secrecy.hold, secrecy.share_set, _give_up),
    Phase.UPLOAD: (
        secrecy.begin, upload.upload, upload.collect, upload.receipt,
        survive.ask, survive.answer, survive.certify, _give_up,
    ),
    Phase.REDUCE: (secrecy.certify, secrecy.open_, *_OWN, _give_up),
    Phase.COMMIT: (
        secrecy.certify, secrecy.open_, *_OWN,
        vouching.tell_nonce, commit.gather, commit.vote, commit.certify, _give_up,
    ),
    Phase.LINGER: (commit.gather,),
}  # fmt: skip
#: once the sums are found wrong
AUDIT: Final[tuple[Duty, ...]] = (blame.audit, _give_up)
HANDLERS: Final[dict[type, Callable[[State, bytes, Any], None]]] = {
    Offer: _on_offer,
    Want: _on_want,
    Lacks: _on_lacks,
    AskVote: survive.on_ask,
    SurvivorVote: survive.on_vote,
    ModelVote: commit.on_vote,
    DealtShare: secrecy.on_share,
    Holds: secrecy.on_holds,
    Opening: secrecy.on_opening,
}


class Round:
    """Feed it `said`, `chunk`, `computed`, `tick` and `advance`; do what `take` gives.

    heard_itself  the last `advance` brought a message of this node to itself: advance once more
    """

    def __init__(self, state: State) -> None:
        self.state = state
        self.heard_itself = False
        # Weak, so that no cycle keeps what a round holds beyond its end: garbage is looked for by number, not by size.
        itself = weakref.ref(self)

        def inbox(peer: bytes, said: AnySaid) -> None:
            round_ = itself()
            assert round_ is not None, "the state of a round outlives it"
            round_._said_to_itself(peer, said)

        state.inbox = inbox
        self._facts: tuple[int, ...] = ()

    @property
    def phase(self) -> Phase:
        return phase_of(self.state.view.attempt, self.state.view.certified)

    @property
    def finished(self) -> bool:
        """Certified, and this node has computed a model of its own."""
        return bool(self.state.view.certified and self.state.model)

    def tick(self) -> None:
        """One tick of the node's monotonic clock."""
        self.state.now += 1
        self.state.still += 1
        self.state.lapses += self.state.still % self.state.patience.grace == 0

    def said(self, peer: bytes, said: AnySaid) -> None:
        """A message of this slot from an authenticated peer.  Raises nothing."""
        handler = HANDLERS.get(type(said))
        if handler is not None:
            handler(self.state, peer, said)

    def _said_to_itself(self, peer: bytes, said: AnySaid) -> None:
        self.heard_itself = True
        self.said(peer, said)

    def chunk(self, peer: bytes, head: ChunkHead, body: memoryview) -> None:
        """A chunk from a peer; what nobody asked for, or has another hash, is dropped."""
        for (kind, subject, _), fetch in self.state.fetches.items():
            if (kind, subject) != (head.kind, head.subject) or head.index not in fetch.gathering.wanted:
                continue
            since = fetch.asked_at(head.index)
            if fetch.put(head.index, body):
                self.state.came(since)
            elif fetch.source == peer and fetch.gathering.hashes and fetch.gathering.arrived(head.index) is None:
                fetch.next_source()  # it is not the one that was named; one that comes twice does no harm

    def decided(self, author: bytes, body: Body) -> None:
        """A statement of this slot stands in the ledger.  The ledger's state holds the rest; these it does not keep."""
        state, position = self.state, self.state.view.attempt.position(author)
        if position is None:
            return
        if isinstance(body, Nonce):
            state.nonces[position] = body.nonce
        elif isinstance(body, Check):
            state.check_sums.setdefault((body.subject, body.part), {})[position] = body.values

    def computed(self, name: str, result: Any) -> None:
        """What a `Compute` gave, or the ShoalError that it raised."""
        self.state.computing.discard(name)
        if isinstance(result, ShoalError):
            if name == upload.ENCODE:
                self.state.sits_out = str(result)
            else:
                self.state.failure = f"{name}: {result}"
                self.state.hopeless = name == commit.DECODE and isinstance(result, PeerError)
            return
        self.state.results[name] = result
        self.state.progress()

    def advance(self, view: View) -> None:
        """Do what is to be done now."""
        state = self.state
        state.view = view
        self.heard_itself = False
        facts = _count(view)
        if facts != self._facts:
            self._facts = facts
            state.progress()
        duties = PHASES[self.phase]
        if state.failure:
            duties = AUDIT if state.suspected >= 0 else (_give_up,)
        for duty in duties:
            duty(state)
        state.ask()

    def let_go(self) -> None:
        """The model that came out here is in force: what is left of the round is for those that are behind."""
        state = self.state
        state.diff = state.own = None
        state.results.clear()
        state.streams = state.removal = None
        state.fetches = {key: fetch for key, fetch in state.fetches.items() if key[0] != UPLOAD}

    def forget(self) -> None:
        """The next round has begun: whoever is behind this far fetches the model."""
        self.state.sums.clear()
        self.state.made.clear()
        self.state.fetches.clear()
        self.state.forget_room()

    def take(self) -> list[Action]:
        """What the node is to do, in order."""
        actions, self.state.actions = self.state.actions, []
        return actions


def _count(view: View) -> tuple[int, ...]:
    """Changes whenever the ledger learned something about this attempt."""
    attempt = view.attempt
    return (
        len(attempt.shares),
        len(attempt.shared or ()),
        len(attempt.masked),
        sum(map(len, attempt.receipts.values())),
        len(attempt.survivors or ()),
        len(attempt.opened_seeds) + len(attempt.opened_keys),
        sum(len(told) for shards in attempt.grams.values() for told in shards.values()),
        sum(map(len, attempt.shards.values())),
        len(attempt.nonces) + len(attempt.checks) + sum(map(len, attempt.blamed.values())),
        len(view.certified),
    )
