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
from shoal.ledger.body import Participant, RoundPlan, ShardOwner
from shoal.ledger.digest import ZERO_DIGEST
from shoal.ledger.state import State
from shoal.merge.rules import find
from shoal.model.layout import Layout
from shoal.swarm.coder import GRAIN, Coder, ExactCoder
from shoal.swarm.ring_coder import RingCoder, first_scales
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
    participants  member -> samples
    raises        ArgumentError  ``plan.participants``, ``weights.samples``: too few, or samples that cannot be
    """
    ids = sorted(participants)
    assert state.policy is not None
    n = len(ids)
    ring = ring_of([participants[i] for i in ids], layout.elements, rms) if state.policy.secure else None
    details = Details(VERSION, layout.digest, layout.elements)
    return RoundPlan(
        state.round + 1,
        state.attempt_next,
        state.slot_next,
        state.model,
        tuple(Participant(i, participants[i]) for i in ids),
        thresholds(n, PROFILES[state.policy.profile]),
        owners(n, _units(layout.elements, ring), state.slot_next, ring is not None),
        ring.width.bits if ring else 0,
        ring.width.bound if ring else 0,
        ring.scales.digest if ring else ZERO_DIGEST,
        seed,
        BY_SAMPLES,
        (),
        msgspec.msgpack.encode(details),
    )


def ring_of(samples: Sequence[int], elements: int, rms: Float64s | None) -> Ring:
    """Ring and scales: wide and coarse of range where nothing is known yet, else fitted to what was."""
    grid = Grid.of(elements)
    if rms is None:
        return Ring(Width.public(samples, choose_bits(len(samples), faithful=True)), first_scales(grid))
    width = Width.public(samples, choose_bits(len(samples)))
    return Ring(width, next_scales(grid, rms, kappa(width.bound, len(samples))))


def _units(elements: int, ring: Ring | None) -> int:
    """Pieces that shards are made of: runs of GRAIN elements, or blocks that are sent."""
    return -(-elements // GRAIN) if ring is None else int(ring.scales.active.sum())


def owners(n: int, units: int, slot: int, lane: bool) -> tuple[ShardOwner, ...]:
    """A shard for each participant, or fewer if there are too few pieces, and one for the lane of statistics; who owns
    which turns with the slot."""
    count = max(1, min(n, units)) + lane
    return tuple(ShardOwner((s + slot) % n, (s + slot + 1) % n) for s in range(count))


def check_plan(plan: RoundPlan, layout: Layout, rms: Float64s | None, secure: bool) -> tuple[Details, Ring | None]:
    """Work out again what the plan derives.  (The ledger has checked base, numbers and thresholds already.)

    raises  PeerError  ``plan.version``, ``plan.layout``, ``plan.shards``, ``plan.ring``, ``plan.details``
    """
    where = f"slot {plan.slot}"
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
    if secure:
        try:
            ring = ring_of([p.samples for p in plan.participants], layout.elements, rms)
        except ArgumentError as error:
            raise PeerError("plan.ring", f"{where}: {error}") from None
    expected = (ring.width.bits, ring.width.bound, ring.scales.digest) if ring else (0, 0, ZERO_DIGEST)
    if (plan.bits, plan.bound, plan.scales) != expected:
        raise PeerError("plan.ring", f"{where}: ring, bound or scales are not those that follow from the last round")
    if plan.shards != owners(len(plan.participants), _units(layout.elements, ring), plan.slot, secure):
        raise PeerError("plan.shards", f"{where}: shards are not those that follow from the plan")
    return details, ring


def coder_of(attempt: Attempt, details: Details, ring: Ring | None, rule: str) -> Coder:
    """The coder that all members use for this attempt.

    raises  PeerError  ``plan.rule``: the policy's rule needs more than one coordinate at a time
    """
    plan = attempt.plan
    if ring is not None:
        return RingCoder(plan, attempt.rid, ring.scales)
    if find(rule).scope != "coordinate" or find(rule).needs_base:
        raise PeerError("plan.rule", f"rule {shown(rule)} looks at whole models; it cannot be merged by shards")
    weights = [float(p.samples) for p in plan.participants]
    return ExactCoder(details.elements, len(plan.shards), weights, rule, details.settings)
