"""The plan of an attempt: what a coordinator writes down, and every member works out again before it believes it.

Free are only: who takes part and with how many samples (who said so), the seed, and the attempt's numbers, which the
ledger counts.  All else follows from these, the policy and the layout; `check` refuses a plan in which it does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from shoal.errors import PeerError, shown
from shoal.ledger.body import Participant, RoundPlan, ShardOwner
from shoal.ledger.digest import ZERO_DIGEST
from shoal.ledger.state import State
from shoal.limits import ELEMENTS_MAX
from shoal.merge.rules import find
from shoal.model.layout import Layout
from shoal.swarm.coder import GRAIN, Coder, ExactCoder
from shoal.thresholds import PROFILES, thresholds

#: version of `Details`; others are refused by name
VERSION: Final = 1
BY_SAMPLES: Final = 1


class Details(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a plan holds beside the ledger's fields: MessagePack array.

    layout    digest of the flat layout;  elements  its length
    settings  of the merge rule, by name
    """

    version: int
    layout: bytes
    elements: int
    settings: dict[str, float | int] = {}


_DECODER: Final = msgspec.msgpack.Decoder(Details)


def make_plan(state: State, layout: Layout, participants: Mapping[bytes, int], seed: bytes) -> RoundPlan:
    """The next attempt's plan.

    participants  member -> samples
    raises        ArgumentError  ``plan.participants``: too few for the policy
    """
    ids = sorted(participants)
    assert state.policy is not None
    details = Details(VERSION, layout.digest, layout.elements)
    return RoundPlan(
        state.round + 1,
        state.attempt_next,
        state.slot_next,
        state.model,
        tuple(Participant(i, participants[i]) for i in ids),
        thresholds(len(ids), PROFILES[state.policy.profile]),
        owners(len(ids), layout.elements, state.slot_next),
        0,
        0,
        ZERO_DIGEST,
        seed,
        BY_SAMPLES,
        (),
        msgspec.msgpack.encode(details),
    )


def owners(n: int, elements: int, slot: int) -> tuple[ShardOwner, ...]:
    """A shard for each participant, or fewer if there are too few elements; who owns which turns with the slot."""
    count = max(1, min(n, -(-elements // GRAIN)))
    return tuple(ShardOwner((s + slot) % n, (s + slot + 1) % n) for s in range(count))


def check_plan(plan: RoundPlan, layout: Layout) -> Details:
    """Work out again what the plan derives.  (The ledger has checked base, numbers and thresholds already.)

    raises  PeerError  ``plan.version``, ``plan.layout``, ``plan.shards``, ``plan.details``
    """
    try:
        details = _DECODER.decode(plan.details)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise PeerError("plan.details", f"slot {plan.slot}: {shown(str(error))}") from None
    if details.version != VERSION:
        raise PeerError("plan.version", f"slot {plan.slot}: a plan of version {details.version}; this is {VERSION}")
    if msgspec.msgpack.encode(details) != plan.details:
        raise PeerError("plan.details", f"slot {plan.slot}: details are not in their one encoding")
    if details.layout != layout.digest or details.elements != layout.elements or details.elements > ELEMENTS_MAX:
        found = f"layout {details.layout.hex()[:16]} of {details.elements} elements"
        raise PeerError(
            "plan.layout",
            f"slot {plan.slot}: {found}; this site's model has {layout.digest.hex()[:16]} of {layout.elements}",
        )
    expected = owners(len(plan.participants), layout.elements, plan.slot)
    if plan.shards != expected or plan.bits or plan.bound or plan.scales != ZERO_DIGEST:
        raise PeerError("plan.shards", f"slot {plan.slot}: shards or ring are not those that follow from the plan")
    return details


def coder_of(plan: RoundPlan, details: Details, rule: str) -> Coder:
    """The coder that all members use for this plan.

    raises  PeerError  ``plan.rule``: the policy's rule needs more than one coordinate at a time
    """
    if find(rule).scope != "coordinate" or find(rule).needs_base:
        raise PeerError("plan.rule", f"rule {shown(rule)} looks at whole models; it cannot be merged by shards")
    weights = [float(p.samples) for p in plan.participants]
    return ExactCoder(details.elements, len(plan.shards), weights, rule, details.settings)
