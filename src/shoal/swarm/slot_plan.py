"""The plan of one slot, complete: what a ledger's plan says, and what it only names by digest or takes from members."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import msgspec

from shoal.diff.scales import Scales
from shoal.ledger.body import Participant, RoundPlan, ShardOwner
from shoal.ledger.certificate import round_id
from shoal.secure.participant import Slot
from shoal.secure.seeds import Party, SlotName
from shoal.swarm.slot_coding import LANE_BITS, Terms
from shoal.thresholds import thresholds


@dataclass(frozen=True)
class SlotPlan:
    """What everybody agreed on.

    swarm    32 bytes that stand for the swarm;  epoch, slot, attempt  numbers
    parties  ids and public keys, sorted by id
    terms    of the numbers;  scales  the table of clips;  base  digest of the model that diffs are taken from
    shards   runs that the model is cut into;  profile  of thresholds.py
    """

    swarm: bytes
    epoch: int
    slot: int
    parties: tuple[Party, ...]
    terms: Terms
    scales: Scales
    base: bytes
    shards: int
    attempt: int = 0
    profile: str = "default"

    @cached_property
    def body(self) -> RoundPlan:
        """As it would stand in a ledger.  The last shard, the statistics', goes around from slot to slot."""
        n, width = len(self.parties), self.terms.width
        owners = [*range(self.shards), self.slot] if width else [self.slot]
        samples = self.terms.samples or (0,) * n
        return RoundPlan(
            round=1 + self.slot,
            attempt=self.attempt,
            slot=self.slot,
            base=self.base,
            participants=tuple(
                Participant(party.id, count) for party, count in zip(self.parties, samples, strict=True)
            ),
            thresholds=thresholds(n, self.profile),
            shards=tuple(ShardOwner(owner % n, (owner + 1) % n) for owner in owners),
            bits=width.bits if width else LANE_BITS,
            bound=width.bound if width else 0,
            scales=self.scales.digest,
            seed=self.terms.seed,
            weights=int(self.terms.weighting),
            details=msgspec.msgpack.encode((self.terms.cap, self.terms.rounding)),
        )

    @cached_property
    def rid(self) -> bytes:
        """Names the slot with its whole plan."""
        return round_id(self.swarm, self.slot, self.attempt, msgspec.msgpack.encode(self.body))

    @cached_property
    def secure(self) -> Slot:
        """What keys and seeds are bound to."""
        name = SlotName(self.swarm, self.epoch, self.slot, self.rid)
        return Slot(name, self.parties, self.body.thresholds, self.profile == "crash")
