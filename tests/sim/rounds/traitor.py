"""A member of a swarm that lies in its rounds: an ordinary peer whose statements and mail are rewritten on their way out.

It holds its own keys and no other, and hears what it is sent.  Each history with a traitor draws some of LIES.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from machine import Machine

from shoal.ledger.body import (
    Abort,
    Check,
    ModelCertificate,
    Nonce,
    Receipt,
    RoundPlan,
    ShareSet,
    SurvivorCertificate,
    Vote,
    bitmap,
    positions,
)
from shoal.ledger.certificate import collect, model_statement, survivors_statement, vote
from shoal.secure.shares import KEY_HALF, SEED_HALF, encode_opened
from shoal.swarm import messages
from shoal.swarm.messages import (
    AskVote,
    DealtShare,
    Holds,
    ModelVote,
    Offer,
    Opening,
    Prepared,
    SurvivorVote,
)
from shoal.swarm.peer import Outgoing, SendBulk, SendControl

if TYPE_CHECKING:
    from shoal.swarm.core import State

replace = msgspec.structs.replace

#: name -> what the traitor does
LIES = {
    "wrong sum": "owns a shard, and adds something to its sum",
    "wrong upload": "sends other bytes than it named",
    "wrong offer": "offers the hashes of other bytes",
    "not delivered": "owns a shard, and leaves somebody out of its receipt",
    "delivered": "owns a shard, and gives a receipt for everybody at once",
    "forged votes": "forges votes for certificates, and lacks some",
    "two sets": "asks some for one survivor set and others for another, votes for all",
    "any model": "votes for models that nobody made",
    "another plan": "leads, and plans what does not follow from the policy and the last round",
    "another base": "leads, and plans on a model that is not the certified one",
    "both halves": "opens both halves of every share it holds, to everybody, at any time",
    "wrong opening": "tells other seeds and halves than it has",
    "bad share": "deals shares that do not open",
    "false holds": "says that it holds all shares",
    "quick share-set": "proposes a share-set before everybody holds everybody's",
    "wrong check": "vouches for something else than it uploaded",
    "wrong nonce": "tells another nonce than it committed to",
    "absurd samples": "says that it has more samples than anybody could have",
    "abort": "gives attempts up for no reason",
    "replay": "sends again what it has sent before, to others",
}
#: lies that nothing shows in the clear: a sum is its owner's word there
UNCHECKED_IN_THE_CLEAR = frozenset(("wrong sum",))
#: frames kept for replays
_SENT_MAX = 200


class Traitor(Machine):
    """See the module.  ``lies``: of LIES."""

    lies: frozenset[str] = frozenset()

    def start(self) -> None:
        super().start()
        self.sent: list[SendControl] = []
        self.peer.propose = self._propose  # type: ignore[method-assign]
        self.wrong: set[int] = set()

    def _lies(self, *names: str, chance: float = 0.7) -> bool:
        return any(n in self.lies for n in names) and self.rng.random() < chance

    def _others(self) -> list[bytes]:
        return [m.who.id for m in self.history.machines if m is not self]

    def _state(self) -> State | None:
        attempt = self.peer.ledger.attempt
        round_ = self.peer.rounds.get(attempt.plan.slot) if attempt is not None else None
        return round_.state if round_ is not None else None

    # --- statements ---------------------------------------------------------------------------------------------------

    def _propose(self, body: Any) -> None:
        for said in self._twisted(body):
            self.peer._pass_on(self.peer.replica.propose(said))

    def _twisted(self, body: Any) -> Iterator[Any]:
        attempt = self.peer.ledger.attempt
        if isinstance(body, Receipt) and attempt is not None and self._lies("not delivered"):
            arrived = positions(body.arrived, attempt.size) or set()
            others = sorted(arrived - {attempt.position(self.who.id)})
            yield replace(body, arrived=bitmap(arrived - set(others[:1]), attempt.size))
        elif isinstance(body, RoundPlan) and self._lies("another plan", "another base"):
            false = self._planned(body)
            self.history.laws.false_plans.add(msgspec.msgpack.encode(false))
            yield false
        elif isinstance(body, Check) and self._lies("wrong check"):
            yield replace(body, values=bytes(len(body.values) - 1) + b"\x01")
        elif isinstance(body, Nonce) and self._lies("wrong nonce"):
            yield replace(body, nonce=self.rng.randbytes(32))
        else:
            yield body

    def _planned(self, plan: RoundPlan) -> RoundPlan:
        if "another base" in self.lies:
            return replace(plan, base=self.rng.randbytes(32))
        kind = self.rng.randrange(4)
        if kind == 0:
            return replace(plan, shards=plan.shards[::-1])
        if kind == 1:
            return replace(plan, bound=plan.bound + 1)
        if kind == 2:
            return replace(plan, scales=self.rng.randbytes(32))
        return replace(plan, details=plan.details + b"\x00")

    def _volunteered(self, state: State) -> Iterator[Any]:
        """Statements of its own accord."""
        attempt, me = state.view.attempt, state.position
        slot, size = state.slot, attempt.size
        if me is None:
            return
        if self._lies("delivered", chance=0.3) and attempt.survivors is None and attempt.masked:
            for shard, owner in enumerate(attempt.plan.shards):
                if me in (owner.owner, owner.backup):
                    yield Receipt(slot, shard, bitmap(set(attempt.masked), size))
        if self._lies("quick share-set", chance=0.3) and attempt.secure and attempt.shared is None:
            yield ShareSet(slot, bitmap(set(attempt.shares), size))
        if self._lies("abort", chance=0.02):
            yield Abort(slot, True, "no reason at all")
        if self._lies("forged votes", chance=0.3):
            yield self._forged(state)

    def _forged(self, state: State) -> Any:
        """A certificate whose votes are few, or not the voters'."""
        attempt = state.view.attempt
        everybody = [p.member for p in attempt.plan.participants]
        if attempt.survivors is None:
            chosen = set(attempt.masked) or {0}
            bits = bitmap(chosen, attempt.size)
            votes = self._votes(everybody, survivors_statement(attempt.rid, bits))
            return SurvivorCertificate(state.slot, bits, votes)
        root, model = self.rng.randbytes(32), self.rng.randbytes(32)
        return ModelCertificate(
            state.slot, root, model, self._votes(everybody, model_statement(attempt.rid, root, model))
        )

    def _votes(self, everybody: list[bytes], statement: bytes) -> tuple[Vote, ...]:
        mine = vote(statement, self.who)
        if self.rng.random() < 0.3:
            return (mine,)
        return collect({who: Vote(who, mine.signature) for who in everybody})

    # --- messages -----------------------------------------------------------------------------------------------------

    def listen(self) -> None:
        super().listen()
        state = self._state()
        if state is None or state.position is None:
            return
        if "wrong sum" in self.lies and state.slot not in self.wrong:
            self.wrong.add(state.slot)
            self._spoil(state)
        if self.rng.random() < 0.2:
            for body in self._volunteered(state):
                self.peer._pass_on(self.peer.replica.propose(body))
            for out in self._letters(state):
                self.history.post(self, out.to, out.data)

    def _spoil(self, state: State) -> None:
        reduce = state.coder.reduce

        def wrong(shard: int, uploads: Any, streams: Any, *more: Any) -> Any:
            found = reduce(shard, uploads, streams, *more)
            if len(found):
                found = np.array(found)
                found[self.rng.randrange(len(found))] ^= 1 << self.rng.randrange(8)
            return found

        state.coder.reduce = wrong  # type: ignore[method-assign]

    def _letters(self, state: State) -> Iterator[SendControl]:
        to = self.rng.choice(self._others())
        if self._lies("replay") and self.sent:
            yield SendControl(to, self.rng.choice(self.sent).data)
        if self._lies("any model"):
            root, model = self.rng.randbytes(32), self.rng.randbytes(32)
            signed = vote(model_statement(state.view.attempt.rid, root, model), self.who)
            yield SendControl(to, messages.encode_said(ModelVote(state.slot, root, model, bytes(32), signed.signature)))
        if self._lies("two sets") and state.view.attempt.survivors is None:
            yield from self._sets(state)
        if self._lies("both halves") and state.privacy is not None:
            yield from self._halves(state)
        if self._lies("forged votes"):
            bits = bitmap(set(state.view.attempt.masked) or {0}, state.view.attempt.size)
            yield SendControl(to, messages.encode_said(SurvivorVote(state.slot, bits, self.rng.randbytes(64))))

    def _sets(self, state: State) -> Iterator[SendControl]:
        """Each set of `floor` of those that arrived, to somebody else."""
        attempt = state.view.attempt
        arrived = sorted(set(attempt.masked))
        for who in self._others():
            left = self.rng.sample(arrived, max(0, min(len(arrived), attempt.floor - (self.rng.random() < 0.2))))
            if left:
                yield SendControl(who, messages.encode_said(AskVote(state.slot, bitmap(left, attempt.size))))
                statement = survivors_statement(attempt.rid, bitmap(left, attempt.size))
                signed = vote(statement, self.who)
                said = SurvivorVote(state.slot, bitmap(left, attempt.size), signed.signature)
                yield SendControl(who, messages.encode_said(said))

    def _halves(self, state: State) -> Iterator[SendControl]:
        privacy = state.privacy
        assert privacy is not None
        for subject, held in privacy._held.items():
            for which, kind in ((SEED_HALF, 3), (KEY_HALF, 4)):
                position = state.view.attempt.position(subject)
                assert position is not None
                said = Opening(state.slot, position, kind, encode_opened(held.half(which)))
                yield SendControl(self.rng.choice(self._others()), messages.encode_said(said))

    def act(self, out: Outgoing) -> None:
        if isinstance(out, SendControl) and out.data[:1] == messages.ROUND:
            out = SendControl(out.to, messages.encode_said(self._rewritten(messages.decode_control(out.data))))
            self.sent = [*self.sent, out][-_SENT_MAX:]
        elif isinstance(out, SendBulk) and self._lies("wrong upload"):
            chunk = bytearray(out.chunk)
            chunk[self.rng.randrange(len(chunk))] ^= 0x40
            out = SendBulk(out.to, out.header, memoryview(bytes(chunk)))
        super().act(out)

    def _rewritten(self, said: Any) -> Any:
        if isinstance(said, Offer) and self._lies("wrong offer"):
            return replace(said, hashes=self.rng.randbytes(len(said.hashes)))
        if isinstance(said, Opening) and self._lies("wrong opening"):
            return replace(said, data=self.rng.randbytes(len(said.data)))
        if isinstance(said, DealtShare) and self._lies("bad share"):
            return replace(said, sealed=self.rng.randbytes(len(said.sealed)))
        if isinstance(said, Holds) and self._lies("false holds"):
            attempt = self.peer.ledger.attempt
            size = attempt.size if attempt is not None and attempt.plan.slot == said.slot else 1
            return replace(said, dealers=bitmap(range(size), size))
        if isinstance(said, Prepared) and self._lies("absurd samples"):
            return replace(said, samples=self.rng.choice((0, 2**31, 2**62)))
        return said
