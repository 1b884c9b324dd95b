"""Who is a member, with which keys, at each index: a pure fold over the entries, one change at a time."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, Final

import msgspec

from shoal.errors import InputError, PeerError, shown
from shoal.exchange_key import exchange_key_fault
from shoal.ledger.body import (
    TAGS,
    Body,
    EpochKey,
    Genesis,
    KeyBatch,
    KeysRotated,
    LearnerAdded,
    MemberAdded,
    MemberCard,
    MemberRemoved,
    Votes,
)
from shoal.ledger.certificate import SignatureCheck, admission_statement, check_certificate, rotation_statement
from shoal.ledger.identity import member_id, signing_key_fault
from shoal.ledger.members import NOBODY, Change
from shoal.ledger.statement import read_statement
from shoal.limits import LEDGER_FAULTS_MAX, LEDGER_MEMBERS_MAX


class Member(msgspec.Struct):
    """A member now.

    voter      False for a learner
    since      index of the entry with which it came
    epochs     X25519 keys for sealed shares: (first slot, key), slots ascending; the past is dropped
    batches    one-time keys: (first slot, keys), slots ascending; the past is dropped
    dealt      last slot for which it dealt shares of its secrets; -1 before the first: a journal that does not know of
               this slot is an old copy
    faults     how often it was found to have told something wrong in a round;  fault_round  in which one last
    """

    signing: bytes
    curve: bytes
    name: str
    address: str
    voter: bool
    since: int
    epochs: list[tuple[int, bytes]] = []
    batches: list[tuple[int, tuple[bytes, ...]]] = []
    dealt: int = -1
    faults: int = 0
    fault_round: int = 0

    def epoch_key(self, slot: int) -> bytes | None:
        """The public key that shares of ``slot`` are sealed for, if one was published."""
        return next((key for first, key in reversed(self.epochs) if first <= slot), None)

    def one_time_key(self, slot: int) -> bytes | None:
        """The public one-time key for ``slot``, if one was published."""
        for first, keys in self.batches:
            if first <= slot < first + len(keys):
                return keys[slot - first]
        return None


class Registry(msgspec.Struct):
    """All members by id.  ``changes`` counts additions, promotions, removals and rotations: approvals name it."""

    members: dict[bytes, Member] = {}
    changes: int = 0

    @property
    def voter_keys(self) -> dict[bytes, bytes]:
        return {i: m.signing for i, m in self.members.items() if m.voter}

    def set_aside(self, who: bytes, round_: int) -> None:
        """A member was found out in an attempt at this round."""
        member = self.members.get(who)
        if member is not None:
            member.faults += 1
            member.fault_round = round_

    def left_out(self, round_: int, least: int) -> set[bytes]:
        """Members that take no part in further attempts at this round: those found out in one of them, and those found
        out LEDGER_FAULTS_MAX times, for as long as they are members.  Nobody, if fewer than ``least`` would be left."""
        found = {
            i
            for i, m in self.members.items()
            if m.faults >= LEDGER_FAULTS_MAX or (m.faults and m.fault_round == round_)
        }
        return found if len(self.members) - len(found) >= least else set()

    def found(self, genesis: Genesis, founder: bytes) -> None:
        """Take in the first members; ``founder`` signed the genesis.  raises  PeerError  ``ledger.member``"""
        ids = [member_id(card.signing) for card in genesis.members]
        if any(a >= b for a, b in pairwise(ids)):
            raise PeerError("ledger.member", "first members are not sorted by id, each once")
        for card in genesis.members:
            self._enter(card, 1, voter=not genesis.policy.federated or member_id(card.signing) == founder)

    def _enter(self, card: MemberCard, index: int, *, voter: bool) -> None:
        who = member_id(card.signing)
        if who in self.members:
            raise PeerError("ledger.member", f"{who.hex()[:16]} is a member already")
        if len(self.members) >= LEDGER_MEMBERS_MAX:
            raise PeerError("ledger.member", f"the swarm is full: {LEDGER_MEMBERS_MAX} members")
        self._check_keys(who, card.signing, card.curve)
        if any(m.name == card.name for m in self.members.values()):
            raise PeerError("ledger.member", f"a member is called {shown(card.name)!r} already")
        self.members[who] = Member(card.signing, card.curve, card.name, card.address, voter, index)

    def _check_keys(self, who: bytes, signing: bytes, curve: bytes) -> None:
        fault = signing_key_fault(signing) or exchange_key_fault(curve, "CURVE key")
        if fault:
            raise PeerError("ledger.key", fault)
        for other, member in self.members.items():
            if other == who:
                continue
            if signing == member.signing or curve == member.curve or member_id(signing) == other:
                raise PeerError("ledger.key", f"a key of {who.hex()[:16]} is in use by {other.hex()[:16]}")


class Context(msgspec.Struct, frozen=True):
    """Where a change of membership stands and who says it."""

    index: int
    genesis: bytes
    author: bytes
    admission: int
    federated: bool
    next_slot: int
    check: SignatureCheck


def _approved(registry: Registry, context: Context, body: Body, what: bytes, approvals: Votes) -> None:
    """Enforce the genesis' admission policy.  raises  PeerError  ``ledger.author``, ``ledger.certificate``"""
    keys = registry.voter_keys
    if context.admission == 1:
        if approvals:
            raise PeerError("ledger.certificate", "approvals are given where the genesis asks for none")
        if context.author not in keys:
            raise PeerError("ledger.author", "only a voter may change the membership")
        return
    statement = admission_statement(context.genesis, TAGS[type(body)], registry.changes, what)
    check_certificate(approvals, keys, len(keys) // 2 + 1, statement, context.check)


def _add_learner(registry: Registry, context: Context, body: LearnerAdded) -> None:
    _approved(registry, context, body, msgspec.msgpack.encode(body.card), body.approvals)
    registry._enter(body.card, context.index, voter=False)


def _promote(registry: Registry, context: Context, body: MemberAdded) -> None:
    member = registry.members.get(body.member)
    if member is None or member.voter:
        raise PeerError("ledger.member", f"{body.member.hex()[:16]} is no learner")
    if context.federated:
        raise PeerError("ledger.member", "a federation has one voter, its coordinator")
    _approved(registry, context, body, body.member, body.approvals)
    member.voter = True


def _remove(registry: Registry, context: Context, body: MemberRemoved) -> None:
    member = registry.members.get(body.member)
    if member is None:
        raise PeerError("ledger.member", f"{body.member.hex()[:16]} is no member")
    if member.voter and len(registry.voter_keys) == 1:
        raise PeerError("ledger.member", "the last voter cannot leave")
    if context.author != body.member:
        _approved(registry, context, body, body.member, body.approvals)
    elif body.approvals:
        raise PeerError("ledger.certificate", "a member that leaves by its own word needs no approvals")
    del registry.members[body.member]


def _rotate(registry: Registry, context: Context, body: KeysRotated) -> None:
    member = registry.members[context.author]
    if body.signing == member.signing and body.curve == member.curve:
        raise PeerError("ledger.key", "both keys are the old ones")
    registry._check_keys(context.author, body.signing, body.curve)
    message = rotation_statement(context.genesis, context.author, body.signing, body.curve)
    context.check(body.signing, body.proof, message, "the proof of the new key")
    member.signing, member.curve = body.signing, body.curve


def _set_epoch_key(registry: Registry, context: Context, body: EpochKey) -> None:
    member = registry.members[context.author]
    fault = exchange_key_fault(body.key, "epoch key")
    if fault or any(body.key == key for m in registry.members.values() for _, key in m.epochs):
        raise PeerError("ledger.key", fault or "epoch key is in use already")
    if body.first_slot < context.next_slot or (member.epochs and body.first_slot <= member.epochs[-1][0]):
        raise PeerError("ledger.slot", f"epoch key from slot {body.first_slot} on: not after the slots before it")
    past = [i for i, (first, _) in enumerate(member.epochs) if first <= context.next_slot]
    member.epochs = [*member.epochs[past[-1] if past else 0 :], (body.first_slot, body.key)]


def _add_batch(registry: Registry, context: Context, body: KeyBatch) -> None:
    member = registry.members[context.author]
    last = member.batches[-1] if member.batches else (0, ())
    if body.first_slot < context.next_slot or body.first_slot < last[0] + len(last[1]):
        raise PeerError("ledger.slot", f"key batch from slot {body.first_slot} on: some of its slots are past or taken")
    if body.first_slot + len(body.keys) >= 2**63:
        raise PeerError("ledger.slot", "key batch ends above the last slot")
    held = {key for m in registry.members.values() for _, keys in m.batches for key in keys}
    if len(set(body.keys)) < len(body.keys) or not held.isdisjoint(body.keys):
        raise PeerError("ledger.key", "a one-time key is there twice")
    for key in body.keys:
        fault = exchange_key_fault(key, "one-time key")
        if fault:
            raise PeerError("ledger.key", fault)
    current = [b for b in member.batches if b[0] + len(b[1]) > context.next_slot]
    member.batches = [*current, (body.first_slot, body.keys)]


#: body -> rule.  Each checks everything before it changes anything.
RULES: Final[dict[type[Body], Callable[[Registry, Context, Any], None]]] = {
    LearnerAdded: _add_learner,
    MemberAdded: _promote,
    MemberRemoved: _remove,
    KeysRotated: _rotate,
    EpochKey: _set_epoch_key,
    KeyBatch: _add_batch,
}
#: those after which approvals must be asked for anew
_COUNTED: Final = (LearnerAdded, MemberAdded, MemberRemoved, KeysRotated)


def apply_change(registry: Registry, context: Context, body: Body) -> None:
    """Apply a body that has a rule in RULES, or change nothing.

    raises  PeerError
    """
    RULES[type(body)](registry, context, body)
    if isinstance(body, _COUNTED):
        registry.changes += 1


def change_of(payload: bytes) -> Change | None:
    """What a payload does to the set of members, for the consensus core; looks at the payload alone.

    A payload that is no statement changes nothing; that it is none is said when the entry is applied.
    """
    try:
        statement, body = read_statement(payload)
    except InputError:
        return None
    if isinstance(body, Genesis):
        alone = statement.author if body.policy.federated else NOBODY
        return Change("found", tuple(member_id(card.signing) for card in body.members), alone)
    if isinstance(body, LearnerAdded):
        return Change("add", (member_id(body.card.signing),))
    if isinstance(body, MemberAdded):
        return Change("promote", (body.member,))
    if isinstance(body, MemberRemoved):
        return Change("remove", (body.member,))
    return None
