"""One attempt at a round, from its plan to its certificate or its end: what may be said, by whom, in which order.

    plan -> share* -> share-set -> masked* -> receipt* -> survivor-certificate -> opened* -> shard* -> nonce* -> check*
         -> model-certificate            abort: at any time before it            complaint: at any time

Without secure aggregation there is no share, share-set, opened, nonce and check; rules that look at whole models have
gram* before shard*.  The rules stand in RULES; each checks
everything before it changes anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from shoal.errors import PeerError
from shoal.ledger import gram
from shoal.ledger.body import (
    Check,
    Complaint,
    Gram,
    Masked,
    ModelCertificate,
    Nonce,
    OfSlot,
    Opened,
    Receipt,
    RoundPlan,
    Shard,
    Share,
    ShareSet,
    SurvivorCertificate,
    positions,
)
from shoal.ledger.certificate import SignatureCheck, check_certificate, model_statement, survivors_statement
from shoal.ledger.digest import digest, le64
from shoal.ledger.registry import Registry
from shoal.limits import GRAM_MODELS_MAX

#: centres of Gram matrices in one attempt: the first, and one more if that lies far from the others (merge/distance.py)
_CENTRES_MAX: Final = 2


class Attempt(msgspec.Struct):
    """What is known of an open attempt.  Participants are told by their position in the plan.

    shares     position -> what it dealt                 masked     position -> root of its upload
    receipts   shard -> position -> who arrived there    shards     shard -> position -> root of the sum
    shared     V1, None before the share-set             survivors  U, None before the certificate
    nonces     survivors whose nonces are told; no more once there is a check
    checks     (author, subject, part)
    grams      centre -> shard -> position -> matrix
    blamed     who is blamed -> by whom
    """

    plan: RoundPlan
    rid: bytes
    secure: bool
    plan_index: int
    shares: dict[int, Share] = {}
    shared: set[int] | None = None
    masked: dict[int, bytes] = {}
    receipts: dict[int, dict[int, set[int]]] = {}
    survivors: set[int] | None = None
    opened_seeds: set[int] = set()
    opened_keys: set[int] = set()
    shards: dict[int, dict[int, bytes]] = {}
    nonces: set[int] = set()
    checks: set[tuple[int, int, int]] = set()
    grams: dict[int, dict[int, dict[int, bytes]]] = {}
    blamed: dict[int, set[int]] = {}

    @property
    def size(self) -> int:
        return len(self.plan.participants)

    @property
    def floor(self) -> int:
        """Fewest participants whose sum may be opened."""
        return self.size - self.plan.thresholds.d_max

    def position(self, member: bytes) -> int | None:
        """Where a member stands in the plan; None if it takes no part."""
        for at, participant in enumerate(self.plan.participants):
            if participant.member == member:
                return at
        return None


class Speaker(msgspec.Struct, frozen=True):
    """Who says it: a position in the plan, and what is needed to check a certificate."""

    position: int
    registry: Registry
    check: SignatureCheck


def _refuse(code: str, reason: str) -> PeerError:
    return PeerError(f"ledger.{code}", reason)


def _keys(attempt: Attempt, speaker: Speaker) -> dict[bytes, bytes]:
    """Ed25519 keys of the participants that are members still: those who may vote."""
    members = speaker.registry.members
    return {p.member: members[p.member].signing for p in attempt.plan.participants if p.member in members}


def _set_of(attempt: Attempt, bits: bytes, what: str) -> set[int]:
    found = positions(bits, attempt.size)
    if found is None:
        raise _refuse("set", f"the bitmap of {what} is not one of {attempt.size} participants")
    return found


def _only_secure(attempt: Attempt) -> None:
    if not attempt.secure:
        raise _refuse("order", "this swarm aggregates in the clear: there is nothing to share, open or check")


def _after_survivors(attempt: Attempt) -> set[int]:
    if attempt.survivors is None:
        raise _refuse("order", "before the survivor certificate")
    return attempt.survivors


def _own_shard(attempt: Attempt, speaker: Speaker, shard: int) -> None:
    if shard >= len(attempt.plan.shards):
        raise _refuse("shard", f"shard {shard} of {len(attempt.plan.shards)}")
    owner = attempt.plan.shards[shard]
    if speaker.position not in (owner.owner, owner.backup):
        raise _refuse("author", f"the author is neither owner nor backup of shard {shard}")


def _share(attempt: Attempt, speaker: Speaker, body: Share) -> None:
    _only_secure(attempt)
    if attempt.shared is not None:
        raise _refuse("order", "after the share-set")
    if speaker.position in attempt.shares:
        raise _refuse("twice", "the author has dealt its shares already")
    attempt.shares[speaker.position] = body
    author = attempt.plan.participants[speaker.position].member
    speaker.registry.members[author].dealt = body.slot


def _share_set(attempt: Attempt, speaker: Speaker, body: ShareSet) -> None:  # noqa: ARG001
    _only_secure(attempt)
    members = _set_of(attempt, body.members, "the share-set")
    if attempt.shared is not None:
        raise _refuse("twice", "the slot has a share-set already")
    if not members <= attempt.shares.keys():
        raise _refuse("set", "the share-set names participants that dealt no shares")
    if len(members) < attempt.floor:
        raise _refuse("floor", f"{len(members)} in the share-set, at least {attempt.floor} are needed")
    attempt.shared = members


def _masked(attempt: Attempt, speaker: Speaker, body: Masked) -> None:
    if attempt.secure and (attempt.shared is None or speaker.position not in attempt.shared):
        raise _refuse("order", "the author is not in a share-set of this slot")
    if attempt.survivors is not None:
        raise _refuse("order", "after the survivor certificate: the upload is late")
    if speaker.position in attempt.masked:
        raise _refuse("twice", "the author has committed to an upload already")
    attempt.masked[speaker.position] = body.root


def _receipt(attempt: Attempt, speaker: Speaker, body: Receipt) -> None:
    _own_shard(attempt, speaker, body.shard)
    arrived = _set_of(attempt, body.arrived, "the receipt")
    if attempt.survivors is not None:
        raise _refuse("order", "after the survivor certificate")
    if not arrived <= attempt.masked.keys():
        raise _refuse("set", "the receipt names participants that committed to no upload")
    if speaker.position in attempt.receipts.get(body.shard, {}):
        raise _refuse("twice", f"the author has given a receipt for shard {body.shard} already")
    attempt.receipts.setdefault(body.shard, {})[speaker.position] = arrived


def _survivor_certificate(attempt: Attempt, speaker: Speaker, body: SurvivorCertificate) -> None:
    survivors = _set_of(attempt, body.survivors, "survivors")
    if attempt.survivors is not None:
        raise _refuse("twice", "the slot has a survivor certificate already")
    if len(survivors) < attempt.floor:
        raise _refuse("floor", f"{len(survivors)} survivors, at least {attempt.floor} are needed")
    for shard in range(len(attempt.plan.shards)):
        arrived: set[int] = set().union(*attempt.receipts.get(shard, {}).values())
        if not survivors <= arrived:
            raise _refuse("set", f"no receipt of shard {shard} for some survivors")
    statement = survivors_statement(attempt.rid, body.survivors)
    check_certificate(body.votes, _keys(attempt, speaker), attempt.plan.thresholds.q, statement, speaker.check)
    attempt.survivors = survivors


def _opened(attempt: Attempt, speaker: Speaker, body: Opened) -> None:  # noqa: ARG001
    _only_secure(attempt)
    survivors = _after_survivors(attempt)
    seeds, keys = _set_of(attempt, body.seeds, "seeds"), _set_of(attempt, body.keys, "keys")
    fallen = (attempt.shared or set()) - survivors
    if not seeds | keys:
        raise _refuse("set", "nothing was opened")
    if not seeds <= survivors or not keys <= fallen:
        raise _refuse("set", "seeds are opened of survivors only, keys only of those that fell out after sharing")
    if seeds & attempt.opened_seeds or keys & attempt.opened_keys:
        raise _refuse("twice", "a secret is opened twice")
    attempt.opened_seeds |= seeds
    attempt.opened_keys |= keys


def _gram(attempt: Attempt, speaker: Speaker, body: Gram) -> None:
    if attempt.secure:
        raise _refuse("order", "this swarm aggregates under masks: nobody can see how updates lie to each other")
    survivors = _after_survivors(attempt)
    _own_shard(attempt, speaker, body.shard)
    if body.centre not in survivors:
        raise _refuse("set", f"centred on position {body.centre}, which did not survive")
    if len(survivors) > GRAM_MODELS_MAX:
        raise _refuse("set", f"{len(survivors)} survivors, at most {GRAM_MODELS_MAX} can be compared")
    told = [centre for centre, shards in attempt.grams.items() if speaker.position in shards.get(body.shard, {})]
    if body.centre in told or len(told) >= _CENTRES_MAX:
        raise _refuse("twice", f"the author has told how shard {body.shard} lies, around {sorted(told)}")
    fault = gram.fault(body.values, len(survivors))
    if fault:
        raise _refuse("gram", fault)
    attempt.grams.setdefault(body.centre, {}).setdefault(body.shard, {})[speaker.position] = body.values


def _shard(attempt: Attempt, speaker: Speaker, body: Shard) -> None:
    survivors = _after_survivors(attempt)
    _own_shard(attempt, speaker, body.shard)
    if body.summed != len(survivors):
        raise _refuse("set", f"shard {body.shard} sums {body.summed} participants, {len(survivors)} survived")
    if speaker.position in attempt.shards.get(body.shard, {}):
        raise _refuse("twice", f"the author has told the sum of shard {body.shard} already")
    attempt.shards.setdefault(body.shard, {})[speaker.position] = body.root


def _nonce(attempt: Attempt, speaker: Speaker, body: Nonce) -> None:
    """The first check fixes the challenge, with the nonces of survivors that stand before it: one for everybody."""
    _only_secure(attempt)
    survivors = _after_survivors(attempt)
    if len(attempt.shards) < len(attempt.plan.shards):
        raise _refuse("order", "before the sum of every shard is told")
    if attempt.checks:
        raise _refuse("order", "after the first check: the challenge stands, and this nonce is not in it")
    if speaker.position not in survivors:
        raise _refuse("set", "the author did not survive: its nonce does not count")
    share = attempt.shares.get(speaker.position)
    who = attempt.plan.participants[speaker.position].member
    if share is None or digest("nonce", le64(body.slot), who, body.nonce) != share.nonce_commitment:
        raise _refuse("nonce", "not the nonce that the author committed to")
    if speaker.position in attempt.nonces:
        raise _refuse("twice", "the author has told its nonce already")
    attempt.nonces.add(speaker.position)


def _check(attempt: Attempt, speaker: Speaker, body: Check) -> None:
    _only_secure(attempt)
    survivors = _after_survivors(attempt)
    if body.subject not in survivors or body.part > len(attempt.plan.shards):
        raise _refuse("set", "check of a participant that did not survive, or of no shard")
    if (body.part == 0) != (speaker.position == body.subject):
        raise _refuse("set", "a participant vouches for the whole of its own update, and for shards of others'")
    nonces, t = _set_of(attempt, body.nonces, "the nonces"), attempt.plan.thresholds.t
    if nonces != attempt.nonces:
        raise _refuse("nonces", f"made with {len(nonces)} nonces, not with the {len(attempt.nonces)} of the challenge")
    if len(nonces) <= t:
        raise _refuse("nonces", f"{len(nonces)} nonces; of more than {t}, one at least is of somebody honest")
    key = (speaker.position, body.subject, body.part)
    if key in attempt.checks:
        raise _refuse("twice", "the author has told these check scalars already")
    attempt.checks.add(key)


def _model_certificate(attempt: Attempt, speaker: Speaker, body: ModelCertificate) -> None:
    _after_survivors(attempt)
    if len(attempt.shards) < len(attempt.plan.shards):
        raise _refuse("order", f"{len(attempt.shards)} of {len(attempt.plan.shards)} shards have a sum")
    statement = model_statement(attempt.rid, body.root, body.model, body.carried)
    check_certificate(body.votes, _keys(attempt, speaker), attempt.plan.thresholds.q, statement, speaker.check)


def _complaint(attempt: Attempt, speaker: Speaker, body: Complaint) -> None:
    """Anybody who takes part may complain.  Whom more than t blame, one of whom at least is honest, is set aside."""
    if body.blamed is None:
        return
    _after_survivors(attempt)
    if body.blamed >= attempt.size or body.blamed == speaker.position:
        raise _refuse("set", f"position {body.blamed} is blamed: nobody's, or the author's own")
    accusers = attempt.blamed.setdefault(body.blamed, set())
    if speaker.position in accusers:
        raise _refuse("twice", f"the author has blamed participant {body.blamed} already")
    accusers.add(speaker.position)
    if len(accusers) == attempt.plan.thresholds.t + 1:
        speaker.registry.set_aside(attempt.plan.participants[body.blamed].member, attempt.plan.round)


#: body -> rule
RULES: Final[dict[type[OfSlot], Callable[[Attempt, Speaker, Any], None]]] = {
    Share: _share,
    ShareSet: _share_set,
    Masked: _masked,
    Receipt: _receipt,
    SurvivorCertificate: _survivor_certificate,
    Opened: _opened,
    Gram: _gram,
    Shard: _shard,
    Nonce: _nonce,
    Check: _check,
    ModelCertificate: _model_certificate,
    Complaint: _complaint,
}


def dropped(attempt: Attempt) -> dict[int, str]:
    """Participants that are not among the survivors so far, by position, each with the reason that the log shows."""
    found: dict[int, str] = {}
    for at in range(attempt.size):
        if attempt.survivors is not None and at in attempt.survivors:
            continue
        if attempt.secure and at not in attempt.shares:
            found[at] = "dealt no shares"
        elif attempt.secure and attempt.shared is not None and at not in attempt.shared:
            found[at] = "its shares did not reach everybody"
        elif at not in attempt.masked:
            found[at] = "committed to no upload"
        elif attempt.survivors is not None:
            missing = [s for s, got in sorted(attempt.receipts.items()) if at not in set().union(*got.values())]
            found[at] = (
                f"its upload of shard {missing[0]} did not arrive" if missing else "not named by the certificate"
            )
    return found
