"""Slots to test with: keys from a seeded source, diffs that are drawn, and the sum in the clear beside the masked one."""

from __future__ import annotations

from random import Random

import numpy as np
import numpy.typing as npt

from shoal.diff.grid import Grid
from shoal.diff.scales import Scales
from shoal.diff.weights import Weighting
from shoal.domain import hashed, le64
from shoal.kernels import ring
from shoal.secure.journal import MemoryJournal
from shoal.secure.keys import EpochKeys
from shoal.secure.participant import Participant, Secrets
from shoal.secure.seeds import Party
from shoal.swarm.slot import Mishaps, Outcome, Site, Slot
from shoal.swarm.slot_coding import Terms
from shoal.swarm.slot_plan import SlotPlan

Float32s = npt.NDArray[np.float32]


def flat_scales(elements: int, clip: float = 4.0, factor: float = 4.0) -> Scales:
    grid = Grid.of(elements)
    return Scales(grid, factor, np.full(grid.blocks, clip, np.float32))


def make_slot(
    diffs: list[Float32s],
    bits: int | None,
    *,
    mishaps: Mishaps | None = None,
    samples: list[int] | None = None,
    weighting: Weighting = Weighting.UNIFORM,
    cap: int = 0,
    scales: Scales | None = None,
    shards: int | None = None,
    number: int = 5,
    seed: int = 0,
    rounding: str = "public",
) -> Slot:
    """A slot of as many participants as there are diffs; uniform weights unless told."""
    n, random = len(diffs), Random(seed)
    ids = sorted(hashed(b"test/", "id", le64(i)) for i in range(n))
    keys = [EpochKeys.generate(number, random.randbytes) for _ in ids]
    terms = Terms.of(
        n, bits, weighting, random.randbytes(32),
        samples=tuple(samples or ()) if weighting == Weighting.PUBLIC else (), cap=cap, rounding=rounding,  # type: ignore[arg-type]
    )  # fmt: skip
    parties = tuple(Party(i, k.batch(number, 1)[0], k.share_public) for i, k in zip(ids, keys, strict=True))
    plan = SlotPlan(bytes(32), 0, number, parties, terms, scales or flat_scales(len(diffs[0])), bytes(32), shards or n)
    sites = [
        Site(
            Participant(
                i, plan.secure, Secrets(k.one_time(number), k.share_private), MemoryJournal(), random.randbytes
            ),
            diff,
            samples[p] if samples and weighting == Weighting.PRIVATE else 0,
            random.randbytes(32) if rounding == "private" else None,
        )
        for p, (i, k, diff) in enumerate(zip(ids, keys, diffs, strict=True))
    ]
    return Slot(plan, sites, mishaps)


def plain_sums(slot: Slot, outcome: Outcome) -> list[npt.NDArray[np.uint8]]:
    """The survivors' words, encoded without masks and added in the clear, by shard."""
    uploads = [
        slot.coding.encode(p, slot.sites[p].diff, samples=slot.sites[p].samples, secret=slot.sites[p].secret).data
        for p in outcome.survivors
    ]
    sums = []
    for shard, span in enumerate(slot.coding.spans):
        out = np.empty(slot.coding.sizes[shard], np.uint8)
        ring.sum_words([data[span] for data in uploads], slot.coding.bits(shard), out)
        sums.append(out)
    return sums


def same_sums(slot: Slot, outcome: Outcome) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(outcome.sums, plain_sums(slot, outcome), strict=True))


def draws(n: int, elements: int, seed: int = 1) -> list[Float32s]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(elements).astype(np.float32) for _ in range(n)]


def spread(count: int, n: int, start: int = 0) -> frozenset[int]:
    """``count`` of n positions, no two side by side unless there are too many."""
    order = [*range(start, n, 2), *range(1 - start, n, 2)]
    return frozenset(order[:count])
