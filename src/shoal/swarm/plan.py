"""The plan of an attempt: what a coordinator writes down, and every member works out again before it believes it.

Free are only: who takes part and with how many samples (who said so), the seed, and the attempt's numbers, which the
ledger counts.  All else follows from these, from the policy, the layout and the statistics of the round before;
`check_plan` refuses a plan in which it does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from shoal.diff.clip import kappa
from shoal.diff.grid import Grid
from shoal.diff.ring_width import Width, choose_bits
from shoal.diff.scales import Scales, next_scales
from shoal.errors import ArgumentError, PeerError, shown
from shoal.kernels.reference_coding import Float64s
from shoal.ledger.attempt import Attempt
from shoal.ledger.body import Participant, Policy, RoundPlan, ShardOwner
from shoal.ledger.digest import ZERO_DIGEST
from shoal.ledger.state import State
from shoal.limits import GRAM_MODELS_MAX
from shoal.merge.rules import find
from shoal.model.layout import Layout
from shoal.swarm.coder import Coder, ExactCoder, Merging
from shoal.swarm.cutting import Pieces
from shoal.swarm.gram_coder import GramCoder
from shoal.swarm.policy import outer_of, rule_of
from shoal.swarm.ring_coder import RingCoder, first_scales, width_of
from shoal.thresholds import PROFILES, thresholds

#: version of `Details`; others are refused by name
VERSION: Final = 1


class Details(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a plan holds beside the ledger's fields: MessagePack array.

    layout  digest of the flat layout;  elements  its length
    """

    version: int
    layout: bytes
    elements: int


class Ring(msgspec.Struct, frozen=True):
    """The ring of a secure round and its table of scales."""

    width: Width
    scales: Scales


_DECODER: Final = msgspec.msgpack.Decoder(Details)


def make_plan(
    state: State, layout: Layout, rms: Float64s | None, participants: Mapping[bytes, int], seed: bytes
) -> RoundPlan:
    """The next attempt's plan.

    rms           statistics of the round before, float64[blocks of the grid], or None
    participants  member -> samples; where these are private they are not looked at
    raises        ArgumentError  ``plan.participants``, ``weights.samples``: too few, or samples that cannot be;
                                 ``plan.rule``: too many for the rule
    """
    ids = sorted(participants)
    assert state.policy is not None
    n = len(ids)
    _check_rule(state.policy, n)
    samples = [0 if state.policy.cap else participants[i] for i in ids]
    ring = None
    if state.policy.secure:
        ring = ring_of(samples, state.policy.weights, layout.elements, basis(state.attempt_next, rms))
    details = Details(VERSION, layout.digest, layout.elements)
    return RoundPlan(
        state.round + 1,
        state.attempt_next,
        state.slot_next,
        state.model,
        tuple(Participant(i, count) for i, count in zip(ids, samples, strict=True)),
        thresholds(n, PROFILES[state.policy.profile]),
        owners(n, _units(layout, ring, state.policy.rule), state.slot_next, ring is not None, _coordinator(state, ids)),
        ring.width.bits if ring else 0,
        ring.width.bound if ring else 0,
        ring.scales.digest if ring else ZERO_DIGEST,
        seed,
        state.policy.weights,
        (),
        msgspec.msgpack.encode(details),
    )


def basis(attempt: int, rms: Float64s | None) -> Float64s | None:
    """What an attempt's scales are made from: the statistics of the round before, or, once an attempt of this round was
    given up, nothing: updates that have grown too much for them would be clipped again and again."""
    return rms if attempt == 0 else None


def ring_of(samples: Sequence[int], weights: int, elements: int, rms: Float64s | None) -> Ring:
    """Ring and scales: wide and coarse of range where nothing is known yet, else fitted to what was."""
    grid = Grid.of(elements)
    width = width_of(samples, weights, choose_bits(len(samples), faithful=rms is None))
    if rms is None:
        return Ring(width, first_scales(grid))
    return Ring(width, next_scales(grid, rms, kappa(width.bound, len(samples))))


def _units(layout: Layout, ring: Ring | None, rule: str) -> int:
    """Pieces that shards are made of: those of cutting.py, or blocks that are sent."""
    return Pieces.of(layout, find(rule).scope).count if ring is None else int(ring.scales.active.sum())


def _check_rule(policy: Policy, participants: int) -> None:
    """raises  ArgumentError  the rule or a setting is not known here, or it is not for so many"""
    rule, _ = rule_of(policy)
    outer_of(policy)
    if rule.scope == "model" and participants > GRAM_MODELS_MAX:
        found = f"{participants} participants; rule {rule.name} compares at most {GRAM_MODELS_MAX}"
        raise ArgumentError("plan.rule", found)


def _coordinator(state: State, ids: Sequence[bytes]) -> int | None:
    """In a federation, where the coordinator stands among these; None in a swarm.

    raises  ArgumentError  ``plan.coordinator``: it is not among them
    """
    if state.policy is None or not state.policy.federated:
        return None
    (who,) = state.registry.voter_keys
    if who not in ids:
        raise ArgumentError("plan.coordinator", "the coordinator takes no part in this round, and owns all shards")
    return ids.index(who)


def owners(n: int, units: int, slot: int, lane: bool, coordinator: int | None = None) -> tuple[ShardOwner, ...]:
    """A shard for each participant, or fewer if there are too few pieces, and one for the lane of statistics; who owns
    which turns with the slot.

    coordinator  position of the one who owns all there is, as one shard, in a federation; the next one backs it up
    """
    if coordinator is not None:
        return (ShardOwner(coordinator, (coordinator + 1) % n),) * (1 + lane)
    count = max(1, min(n, units)) + lane
    return tuple(ShardOwner((s + slot) % n, (s + slot + 1) % n) for s in range(count))


def check_plan(plan: RoundPlan, layout: Layout, rms: Float64s | None, state: State) -> Ring | None:
    """Work out again what the plan derives.  (The ledger has checked base, numbers and thresholds already.)

    raises  PeerError  ``plan.version``, ``plan.layout``, ``plan.shards``, ``plan.ring``, ``plan.details``;
                       ``plan.rule``: the policy's rule or its settings are not known here, or not for so many
    """
    where, policy = f"slot {plan.slot}", state.policy
    assert policy is not None
    try:
        details = _DECODER.decode(plan.details)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise PeerError("plan.details", f"{where}: {shown(str(error))}") from None
    if details.version != VERSION:
        raise PeerError("plan.version", f"{where}: a plan of version {details.version}; this is {VERSION}")
    if msgspec.msgpack.encode(details) != plan.details:
        raise PeerError("plan.details", f"{where}: details are not in their one encoding")
    if details.layout != layout.digest or details.elements != layout.elements:
        found = f"layout {details.layout.hex()[:16]} of {details.elements} elements"
        raise PeerError(
            "plan.layout",
            f"{where}: {found}; this site's model has {layout.digest.hex()[:16]} of {layout.elements}",
        )
    ring = None
    try:
        _check_rule(policy, len(plan.participants))
    except ArgumentError as error:
        raise PeerError("plan.rule", f"{where}: {error}") from None
    if policy.secure:
        try:
            samples = [p.samples for p in plan.participants]
            ring = ring_of(samples, policy.weights, layout.elements, basis(plan.attempt, rms))
        except ArgumentError as error:
            raise PeerError("plan.ring", f"{where}: {error}") from None
    expected = (ring.width.bits, ring.width.bound, ring.scales.digest) if ring else (0, 0, ZERO_DIGEST)
    if (plan.bits, plan.bound, plan.scales) != expected:
        raise PeerError("plan.ring", f"{where}: ring, bound or scales are not those that follow from the last round")
    try:
        coordinator = _coordinator(state, [p.member for p in plan.participants])
    except ArgumentError as error:
        raise PeerError("plan.shards", f"{where}: {error}") from None
    units = _units(layout, ring, policy.rule)
    if plan.shards != owners(len(plan.participants), units, plan.slot, policy.secure, coordinator):
        raise PeerError("plan.shards", f"{where}: shards are not those that follow from the plan")
    return ring


def coder_of(attempt: Attempt, layout: Layout, ring: Ring | None, policy: Policy) -> Coder:
    """The coder that all members use for this attempt."""
    plan = attempt.plan
    if ring is not None:
        return RingCoder(plan, attempt.rid, ring.scales, policy.cap)
    merging = Merging(*rule_of(policy), tuple(p.samples for p in plan.participants))
    return plain_coder(merging, layout, len(plan.shards))


def plain_coder(merging: Merging, layout: Layout, shards: int) -> ExactCoder:
    """The coder of a round in the clear."""
    ends = Pieces.of(layout, merging.rule.scope).ends([1] * shards)
    return GramCoder(merging, ends) if merging.rule.scope == "model" else ExactCoder(merging, ends, layout.starts)
