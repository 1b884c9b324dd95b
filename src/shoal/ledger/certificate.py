"""Certificates: q members' signatures under one statement, and the statements that are certified.

    rid        H("rid", genesis, LE64(slot), LE64(attempt), H("plan", body of the plan))
    survivors  H("survivors", rid, bitmap)
    model      H("model", rid, root, model)
    admission  H("admission", genesis, LE64(type), LE64(changes so far), what)
    rotation   H("rotation", genesis, member, new signing key, new CURVE key)

A certificate counts if its votes are sorted by member, each member once, all of them among those who may vote, every
signature holds, and there are at least q.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise

from shoal.errors import PeerError
from shoal.ledger.body import Vote
from shoal.ledger.digest import ZERO_DIGEST, digest, le64
from shoal.ledger.identity import Identity, signature_holds

#: (public key, signature, message, what it is): returns if the signature holds, or raises PeerError; may decide later
SignatureCheck = Callable[[bytes, bytes, bytes, str], None]


def check_now(public_key: bytes, signature: bytes, message: bytes, what: str) -> None:
    """raises  PeerError  ``ledger.signature``"""
    if not signature_holds(public_key, signature, message):
        raise PeerError("ledger.signature", f"{what} does not hold")


def checked_before(public_key: bytes, signature: bytes, message: bytes, what: str) -> None:
    """For statements whose signatures were checked elsewhere already."""


def round_id(genesis: bytes, slot: int, attempt: int, plan_body: bytes) -> bytes:
    """rid: 32 bytes that stand for the whole plan of an attempt."""
    return digest("rid", genesis, le64(slot), le64(attempt), digest("plan", plan_body))


def survivors_statement(rid: bytes, survivors: bytes) -> bytes:
    """What a vote for a survivor set signs; a member signs one for a slot, ever."""
    return digest("survivors", rid, survivors)


def model_statement(rid: bytes, root: bytes, model: bytes, carried: bytes = ZERO_DIGEST) -> bytes:
    """What a vote for a round's model signs."""
    return digest("model", rid, root, model, carried)


def admission_statement(genesis: bytes, type_tag: int, changes: int, what: bytes) -> bytes:
    """What an approval of a change of membership signs; ``what`` is the member's id, or a new one's encoded card."""
    return digest("admission", genesis, le64(type_tag), le64(changes), what)


def rotation_statement(genesis: bytes, member: bytes, signing: bytes, curve: bytes) -> bytes:
    """What a member's new key signs to prove that the member holds it."""
    return digest("rotation", genesis, member, signing, curve)


def vote(statement: bytes, voter: Identity) -> Vote:
    return Vote(voter.id, voter.sign(statement))


def collect(votes: Mapping[bytes, Vote]) -> tuple[Vote, ...]:
    """Votes by member -> the order in which a certificate holds them."""
    return tuple(votes[member] for member in sorted(votes))


def check_certificate(
    votes: tuple[Vote, ...], keys: Mapping[bytes, bytes], quorum: int, statement: bytes, check: SignatureCheck
) -> None:
    """Refuse a certificate that does not count.

    keys    {member id: Ed25519 public key} of all who may vote
    raises  PeerError  ``ledger.certificate``, ``ledger.signature``
    """
    members = [v.member for v in votes]
    if any(a >= b for a, b in pairwise(members)):
        raise PeerError("ledger.certificate", "votes are not sorted by member, each once")
    for member in members:
        if member not in keys:
            raise PeerError("ledger.certificate", f"{member.hex()[:16]} may not vote here")
    if len(votes) < quorum:
        raise PeerError("ledger.certificate", f"{len(votes)} votes, a quorum is {quorum}")
    for each in votes:
        check(keys[each.member], each.signature, statement, f"the vote of {each.member.hex()[:16]}")
