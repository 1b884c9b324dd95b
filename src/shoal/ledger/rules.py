"""What each type of statement may do to the ledger, apart from membership (registry.py) and the course of an attempt
(attempt.py), to which this module hands on."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any, Final

import msgspec

from shoal.errors import ArgumentError, PeerError
from shoal.ledger import attempt as attempts
from shoal.ledger import registry as registries
from shoal.ledger.attempt import Attempt, Speaker
from shoal.ledger.body import (
    TYPES,
    Abort,
    Body,
    Evaluation,
    Genesis,
    ModelCertificate,
    Noop,
    Note,
    OfSlot,
    Policy,
    RoundPlan,
    ShareSet,
)
from shoal.ledger.certificate import SignatureCheck, round_id
from shoal.ledger.registry import Context, Registry
from shoal.ledger.state import State
from shoal.ledger.statement import Statement
from shoal.limits import LEDGER_MODELS_KEPT
from shoal.thresholds import PROFILES, thresholds

_RINGS: Final = (8, 12, 16, 32, 64)


class Said(msgspec.Struct, frozen=True, gc=False):
    """A statement by a member, at its place in the log; signature and place are checked already."""

    index: int
    statement: Statement
    body: Any
    check: SignatureCheck


def follow(state: State, said: Said) -> None:
    """Apply a statement, or change nothing.

    raises  PeerError
    """
    kind = type(said.body)
    if kind in _RULES:
        _RULES[kind](state, said)
    elif kind in registries.RULES:
        assert state.policy is not None
        author, policy = said.statement.author, state.policy
        context = Context(
            said.index, state.genesis, author, policy.admission, policy.federated, state.slot_next, said.check
        )
        registries.apply_change(state.registry, context, said.body)
    elif kind in attempts.RULES:
        _of_slot(state, said)
    else:
        raise PeerError("ledger.genesis", "a second genesis")


def _nothing(state: State, said: Said) -> None:  # noqa: ARG001
    return


def _plan(state: State, said: Said) -> None:
    body: RoundPlan = said.body
    _must_vote(state, said)
    if state.attempt is not None:
        raise PeerError("ledger.order", f"round {state.attempt.plan.round} is still open")
    expected = (state.round + 1, state.attempt_next)
    if (body.round, body.attempt) != expected:
        found = f"round {body.round} attempt {body.attempt}, expected {expected[0]} attempt {expected[1]}"
        raise PeerError("ledger.order", found)
    if body.slot != state.slot_next:
        raise PeerError("ledger.slot", f"slot {body.slot}, the next that was never used is {state.slot_next}")
    if body.base != state.model:
        found = f"base {body.base.hex()[:16]}, the last certified model is {state.model.hex()[:16]}"
        raise PeerError("ledger.base", found)
    assert state.policy is not None
    check_plan(body, state.policy, state.registry)
    rid = round_id(state.genesis, body.slot, body.attempt, said.statement.body)
    state.attempt = Attempt(body, rid, state.policy.secure, said.index)
    state.attempt_next += 1
    state.slot_next = body.slot + 1


def _abort(state: State, said: Said) -> None:
    body: Abort = said.body
    attempt = _open(state, body)
    if attempt.position(said.statement.author) is None:
        _must_vote(state, said)
    if attempt.survivors is not None and not body.discard:
        raise PeerError("ledger.order", "after a survivor certificate an attempt can only be given up for good")
    state.attempt = None


def _evaluation(state: State, said: Said) -> None:
    body: Evaluation = said.body
    if state.models.get(body.round) != body.model:
        raise PeerError("ledger.model", f"{body.model.hex()[:16]} is not the certified model of round {body.round}")
    names = [m.name for m in body.metrics]
    if names != sorted(set(names)) or not all(isfinite(m.value) for m in body.metrics):
        raise PeerError("ledger.metric", "metrics must be sorted by name, each once, each a finite number")


def _of_slot(state: State, said: Said) -> None:
    body: OfSlot = said.body
    attempt = _open(state, body)
    position = attempt.position(said.statement.author)
    if position is None:
        raise PeerError("ledger.author", f"{said.statement.author.hex()[:16]} takes no part in slot {body.slot}")
    if isinstance(body, ShareSet):
        _must_vote(state, said)
    attempts.RULES[type(body)](attempt, Speaker(position, state.registry, said.check), body)
    if isinstance(body, ModelCertificate):
        state.round, state.model, state.carried = attempt.plan.round, body.model, body.carried
        state.models[state.round] = body.model
        state.models.pop(state.round - LEDGER_MODELS_KEPT, None)
        state.attempt, state.attempt_next = None, 0


def _open(state: State, body: OfSlot) -> Attempt:
    attempt = state.attempt
    if attempt is None or attempt.plan.slot != body.slot:
        now = "no slot is open" if attempt is None else f"slot {attempt.plan.slot} is open"
        raise PeerError("ledger.slot", f"speaks of slot {body.slot}, {now}")
    return attempt


def _must_vote(state: State, said: Said) -> None:
    if not state.registry.members[said.statement.author].voter:
        raise PeerError("ledger.author", "the author is a learner; only a voter may say this")


def check_plan(plan: RoundPlan, policy: Policy, registry: Registry) -> None:
    """Compute again what a plan derives, and check the rest against the swarm's policy and members.

    raises  PeerError  ``ledger.plan``
    """
    ids = [p.member for p in plan.participants]
    n = len(ids)
    reason = ""
    if ids != sorted(set(ids)):
        reason = "participants are not sorted by id, each once"
    elif any(i not in registry.members for i in ids):
        reason = "a participant is no member"
    elif registry.left_out(plan.round, policy.peers_min) & set(ids):
        reason = "a participant is set aside: it was found out in a round"
    elif n < policy.peers_min:
        reason = f"{n} participants, the genesis asks for {policy.peers_min}"
    elif any(max(s.owner, s.backup) >= n or s.owner == s.backup for s in plan.shards):
        reason = "a shard's owner and backup are not two participants"
    elif policy.secure and plan.weights != policy.weights:
        reason = f"weights of kind {plan.weights}, the genesis asks for {policy.weights}"
    elif plan.weights == 1 and not 0 < sum(p.samples for p in plan.participants) < 2**63:
        reason = "weights go by samples, and there are none or too many"
    elif policy.secure and plan.bits not in _RINGS:
        reason = f"a ring of {plan.bits} bits, expected one of {', '.join(map(str, _RINGS))}"
    elif plan.bits and not 1 <= plan.bound < 2 ** (plan.bits - 1):
        reason = f"bound {plan.bound} in a ring of {plan.bits} bits"
    elif plan.weights == 2 and any(p.samples for p in plan.participants):
        reason = "samples are told though they are private"
    else:
        try:
            expected = thresholds(n, PROFILES[policy.profile])
        except ArgumentError as error:
            raise PeerError("ledger.plan", str(error)) from None
        if plan.thresholds != expected:
            reason = f"{plan.thresholds}, expected {expected}"
    if reason:
        raise PeerError("ledger.plan", reason)


_RULES: Final[dict[type[Body], Callable[[State, Said], None]]] = {
    Noop: _nothing,
    Note: _nothing,
    RoundPlan: _plan,
    Abort: _abort,
    Evaluation: _evaluation,
}
assert {body for body, _ in TYPES.values()} == {Genesis, *_RULES, *registries.RULES, *attempts.RULES}
