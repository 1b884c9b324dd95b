"""One whole slot of secure aggregation with all its participants in one process: no network, no files, no clock.

    plan = SlotPlan(...)                     what everybody agreed on (slot_plan.py)
    slot = Slot(plan, sites)                 one Site for each participant: its keys and its diff
    outcome = slot.run()                     outcome.diff: the weighted mean of the survivors' diffs

This is the place to embed secure aggregation elsewhere: `Slots` (slots.py) runs one slot after the other, and is all
that an adapter needs.  The steps are those of a swarm over a network, with the same objects for keys (secure/), numbers
(slot_coding.py) and the plan; only the ledger and the votes' signatures are left out.

    share      everybody deals; V1 are those whose shares everybody has
    upload     masked words, cut into shards, to the keeper of each shard
    survivors  U: whose upload reached every keeper whole; q of them agree
    open       seeds of U; keys of those that fell out; of those that vanished by their shares
    reduce     each keeper sums its shard and takes the masks off
    gather     the sums go to everybody
    check      the sums are what the survivors vouch for; else somebody is named
    decode     the same merged diff for all

`Mishaps` make things go wrong in tests.

Source: docs/PROTOCOL.md, "Secure aggregation".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np

from shoal.diff.statistics import Statistics
from shoal.domain import DIGEST_BYTES
from shoal.errors import PeerError
from shoal.kernels.reference_coding import Float32s
from shoal.kernels.ring import Bytes, Streams
from shoal.secure import check
from shoal.secure.check import Sums
from shoal.secure.participant import Participant, withheld
from shoal.swarm.parcel import Parcel, cuts, parcel_root
from shoal.swarm.slot_coding import LANE_BITS, Merged, SlotCoding, Upload
from shoal.swarm.slot_plan import SlotPlan

#: legs of a slot that bytes are counted for
SHARES, UPLOAD, REPAIR, OPEN, GATHER, STATEMENTS = "shares", "upload", "repair", "open", "gather", "statements"
EVERYTHING: Final = (SHARES, UPLOAD, REPAIR, OPEN, GATHER, STATEMENTS)


@dataclass(eq=False)
class Site:
    """One participant's own: its half of the keys, and what it brings.

    diff     float32[elements], its update
    samples  its own count, where weights are private
    secret   32 random bytes where rounding is private
    """

    keys: Participant
    diff: Float32s
    samples: int = 0
    secret: bytes | None = None


@dataclass(frozen=True)
class Mishaps:
    """What goes wrong, by position or shard.

    silent    deals no shares                      mute     shares, then uploads nothing
    torn      its upload of the last shard is lost  corrupt  its upload arrives altered
    vanished  uploads, and is gone before anything is opened
    closed    tells no nonce
    sums      shard -> what its keeper does to the sum
    vouches   position -> what it makes of its check sums
    """

    silent: frozenset[int] = frozenset()
    mute: frozenset[int] = frozenset()
    torn: frozenset[int] = frozenset()
    corrupt: frozenset[int] = frozenset()
    vanished: frozenset[int] = frozenset()
    closed: frozenset[int] = frozenset()
    sums: Mapping[int, Callable[[Bytes], None]] = field(default_factory=dict)
    vouches: Mapping[int, Callable[[Sums], Sums]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Outcome:
    """A slot that went well.

    diff       float32[elements], the survivors' weighted mean; None in a slot of statistics alone
    shared, survivors  V1 and U, positions
    sums       the merged shards, integers as bytes
    statistics what the last shard says
    total      sum of the survivors' weights
    capped     positions whose samples are above the cap of private weights
    sent, received  for each position bytes by leg; statements count as sent to everybody, without signatures
    """

    diff: Float32s | None
    shared: tuple[int, ...]
    survivors: tuple[int, ...]
    sums: list[Bytes]
    statistics: Statistics
    total: float
    capped: tuple[int, ...]
    sent: list[Counter[str]]
    received: list[Counter[str]]


class Slot:
    """See the module.  ``run`` once.

    sites    in the order of the plan's parties
    uploads  position -> what it uploaded, once it did
    found    the merged numbers, as soon as they are decoded, before they are judged
    """

    def __init__(self, plan: SlotPlan, sites: list[Site], mishaps: Mishaps | None = None, threads: int = 0) -> None:
        self.plan = plan
        self.sites = sites
        self.uploads: dict[int, Upload] = {}
        self.found: Merged | None = None
        self._masks: dict[int, Streams] = {}
        self._mishaps = mishaps or Mishaps()
        self._threads = threads
        self._ids = [party.id for party in plan.parties]
        self._sent: list[Counter[str]] = [Counter() for _ in sites]
        self._received: list[Counter[str]] = [Counter() for _ in sites]

    def run(self) -> Outcome:
        """All steps in order.

        raises  PeerError  ``slot.floor``: too few are left;  ``slot.check``: a wrong sum, naming whose;
                           ``slot.wrapped``, ``slot.clipped``, ``statistics.value``, ``weights.sum``: see SlotCoding
                ArgumentError  a site's diff or samples cannot be used
        """
        self._share()
        self._upload()
        self._agree_on_survivors()
        self._open()
        sums = self._reduce()
        self._check(sums)
        self.found = self.coding.decode(sums, self.survivors, self._threads)
        self.coding.judge(sums, self.found.statistics)
        return Outcome(
            self.found.diff,
            tuple(self.shared),
            tuple(self.survivors),
            sums,
            self.found.statistics,
            self.found.total,
            tuple(p for p, upload in sorted(self.uploads.items()) if upload.alpha.capped),
            self._sent,
            self._received,
        )

    # --- share --------------------------------------------------------------------------------------------------------

    def _share(self) -> None:
        self.shared = [p for p in range(len(self.sites)) if p not in self._mishaps.silent]
        dealt = {p: self.sites[p].keys.deal() for p in self.shared}
        for dealer, (committed, sealed) in dealt.items():
            self._state(dealer, 3 * DIGEST_BYTES)
            for holder in range(len(self.sites)):
                if holder == dealer:
                    continue
                self._carry(SHARES, dealer, holder, len(sealed[self._ids[holder]]))
                if holder in dealt:
                    self.sites[holder].keys.hold(self._ids[dealer], sealed[self._ids[holder]], committed)
        for p in self.shared:
            self.sites[p].keys.begin(self._ids[q] for q in self.shared)
        self.coding = SlotCoding(self.plan.terms, self.plan.rid, self.plan.scales, self.shared, self.plan.shards)

    # --- upload and survivors -----------------------------------------------------------------------------------------

    def _upload(self) -> None:
        """Who uploads, names its chunks first; a keeper takes only what fits the name."""
        gone = {*self._mishaps.silent, *self._mishaps.mute}
        self.keepers = self._keepers(gone)
        self._arrived: list[set[int]] = [set() for _ in self.keepers]
        chunks = cuts(self.coding.sizes)
        for p in self.shared:
            if p in gone:
                continue
            site = self.sites[p]
            streams = site.keys.upload_streams()
            upload = self.coding.encode(
                p, site.diff, samples=site.samples, streams=streams, secret=site.secret, threads=self._threads
            )
            parcel = Parcel(upload.data, [cut for shard in chunks for cut in shard])
            site.keys.commit(parcel.root)
            self._state(p, len(parcel.root))
            self.uploads[p], self._masks[p] = upload, streams
            for shard, keeper in enumerate(self.keepers):
                if p in self._mishaps.torn and shard == len(self.keepers) - 1 and keeper != p:
                    continue
                self._carry(UPLOAD, p, keeper, self.coding.sizes[shard])
                if p not in self._mishaps.corrupt or self._arrives(parcel, upload):
                    self._arrived[shard].add(p)

    @staticmethod
    def _arrives(parcel: Parcel, upload: Upload) -> bool:
        """Whether an upload with its first bit turned on the way still fits its name."""
        altered = upload.data.copy()
        altered[:1] ^= 1
        return parcel_root(Parcel(altered, parcel.chunks).hashes) == parcel.root

    def _keepers(self, gone: set[int]) -> list[int]:
        """Of each shard its owner, else its backup, else the next after them that is there."""
        n = len(self.sites)
        left = [p for p in range(n) if p not in gone]
        return [min(left, key=lambda p: (p - who.owner) % n) for who in self.plan.body.shards]

    def _agree_on_survivors(self) -> None:
        """U: those whose upload reached every keeper."""
        self.survivors = sorted(set(self.shared).intersection(*self._arrived))
        for keeper in self.keepers:
            self._state(keeper, -(-len(self.sites) // 8))
        named = [self._ids[p] for p in self.survivors]
        self.online = [p for p in self.shared if p not in self._mishaps.vanished | self._mishaps.mute]
        votes = 0
        for p in self.online:
            self.sites[p].keys.sign(named)
            votes += 1
        if votes < self.plan.body.thresholds.q:
            raise PeerError("slot.floor", f"{votes} votes for the survivors; {self.plan.body.thresholds.q} are needed")
        for p in self.online:
            self.sites[p].keys.certify(named)

    # --- open and reduce ----------------------------------------------------------------------------------------------

    def _open(self) -> None:
        """Seeds are told; what is missing is put together by a clerk, who tells the others."""
        for p in self.online:
            if p in self.survivors:
                self._tell(p, p, self.sites[p].keys.own_seed(), Participant.take_seed)
        clerk = next(p for p in self.survivors if p in self.online)
        seeds, keys = self.sites[clerk].keys.wanted()
        for wanted, take in ((seeds, Participant.take_seed), (keys, Participant.take_key)):
            for subject in sorted(wanted):
                self._tell(clerk, self._ids.index(subject), self._put_together(clerk, subject), take)

    def _tell(
        self, author: int, subject: int, secret: bytes, take: Callable[[Participant, bytes, bytes], None]
    ) -> None:
        for p in self.online:
            if p != author:
                self._carry(OPEN, author, p, len(secret))
                take(self.sites[p].keys, self._ids[subject], secret)

    def _put_together(self, clerk: int, subject: bytes) -> bytes:
        for holder in self.online:
            half = self.sites[holder].keys.half_of(subject)
            if holder != clerk:
                self._carry(OPEN, holder, clerk, len(msgspec.msgpack.encode(half)))
            secret = self.sites[clerk].keys.take_half(subject, self._ids[holder], half)
            if secret is not None:
                return secret
        raise PeerError("slot.floor", f"too few shares of {subject.hex()[:16]} are left to open its secret")

    def _part(self, shard: int, position: int) -> Bytes:
        return self.uploads[position].data[self.coding.spans[shard]]

    def _reduce(self) -> list[Bytes]:
        """Every shard's sum, told to everybody; where a keeper vanished, its backup pulls the uploads anew."""
        before, self.keepers = self.keepers, self._keepers(set(range(len(self.sites))) - set(self.online))
        sums = []
        removals = {keeper: self.sites[keeper].keys.removal() for keeper in set(self.keepers)}
        for shard, keeper in enumerate(self.keepers):
            if keeper != before[shard]:
                for p in self.survivors:
                    self._carry(REPAIR, p, keeper, self.coding.sizes[shard])
            parts = {p: self._part(shard, p) for p in self.survivors}
            total = self.coding.reduce(shard, parts, removals[keeper], self._threads)
            if shard in self._mishaps.sums:
                self._mishaps.sums[shard](total)
            sums.append(total)
            self._state(keeper, DIGEST_BYTES)
            for p in self.online:
                self._carry(GATHER, keeper, p, total.size)
        return sums

    # --- check --------------------------------------------------------------------------------------------------------

    def _check(self, sums: list[Bytes]) -> None:
        """Random subsets of every sum against what survivors vouch for; for one that vanished its keepers do."""
        told = {
            self._ids[p]: self.sites[p].keys.nonce for p in self.online
            if p in self.survivors and p not in self._mishaps.closed
        }  # fmt: skip
        roots = [Parcel(words, cuts([words.size])[0]).root for words in sums]
        beta = check.challenge(self.plan.rid, roots, told)
        checks = check.checks_for(withheld(told, [self._ids[p] for p in self.survivors]))
        vouched = {p: self._vouch(p, beta, checks) for p in self.survivors}
        for shard, words in enumerate(sums):
            bits = self.coding.bits(shard)
            found = self.coding.check_sums(shard, words, beta, checks, self._threads)
            if not check.agree([vouched[p][shard] for p in self.survivors], found, bits):
                self._blame(shard, vouched, beta, checks)

    def _vouch(self, position: int, beta: bytes, checks: int) -> list[Sums]:
        """Check sums of one survivor's words, by shard; told in sum, for the model and for the statistics."""
        present = position in self.online
        found = []
        for shard, keeper in enumerate(self.keepers):
            author = self.sites[position if present else keeper].keys
            own = author.vouching(self._ids[position])
            sums = self.coding.vouched(shard, self._part(shard, position), own, beta, checks, self._threads)
            if not present:
                self._state(keeper, len(check.encode_sums(sums, self.coding.bits(shard))))
            alter = self._mishaps.vouches.get(position)
            found.append(sums if alter is None else alter(sums))
        if present:
            width = -(-self.coding.model_bits // 8) if self.coding.quantiser else 0
            self._state(position, checks * (width + LANE_BITS // 8))
        return found

    def _blame(self, shard: int, vouched: Mapping[int, list[Sums]], beta: bytes, checks: int) -> None:
        """The keeper shows the uploads; whoever vouched for something else is named, else the keeper is."""
        judge = self.sites[self.keepers[shard]].keys
        for p in self.survivors:
            own = judge.vouching(self._ids[p])
            again = self.coding.vouched(shard, self._part(shard, p), own, beta, checks, self._threads)
            if not np.array_equal(again, vouched[p][shard]):
                raise PeerError("slot.check", f"participant {p} vouches for other words than it uploaded")
        keeper = self.keepers[shard]
        raise PeerError(
            "slot.check", f"the sum of shard {shard} is not that of its uploads; participant {keeper} made it"
        )

    # --- small things -------------------------------------------------------------------------------------------------

    def own_part(self, position: int) -> Float32s:
        """What the sum contains of one survivor, for its residual."""
        return self.coding.own_part(position, self.uploads[position], self._masks[position], self._threads)

    def _carry(self, leg: str, sender: int, receiver: int, count: int) -> None:
        if sender != receiver:
            self._sent[sender][leg] += count
            self._received[receiver][leg] += count

    def _state(self, author: int, count: int) -> None:
        """A statement of ``count`` bytes reaches everybody."""
        for p in range(len(self.sites)):
            self._carry(STATEMENTS, author, p, count)
