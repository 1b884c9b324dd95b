"""Round after round of secure aggregation among the same participants, all in one process: to simulate, for adapters.

    slots = Slots(participants=5, elements=d)
    outcome = slots.merge(diffs, samples)        # float32[d] of each participant, samples of each
    new = base + outcome.diff                    # the same for everybody

or with named arrays, `merge_arrays`.  What lasts from round to round is kept here: keys, the table of scales,
residuals.  The first round runs a slot of statistics before, so that it knows its scales.

Nobody sees another's diff: what becomes known is what docs/SECURITY.md says.  In one process that is a promise about
the messages, not about the memory; over a network the same steps run between nodes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shoal.diff import residual
from shoal.diff.grid import Grid
from shoal.diff.quantiser import Rounding
from shoal.diff.residual import Residual
from shoal.diff.ring_width import choose_bits
from shoal.diff.scales import Scales
from shoal.diff.weights import Weighting
from shoal.domain import DIGEST_BYTES, hashed, le64
from shoal.errors import ArgumentError
from shoal.kernels.reference_coding import Float32s
from shoal.ledger.digest import ZERO_DIGEST
from shoal.limits import EPOCH_SLOTS_MAX
from shoal.model.layout import Layout
from shoal.secure.journal import MemoryJournal
from shoal.secure.keys import EpochKeys
from shoal.secure.participant import Participant, Secrets
from shoal.secure.seeds import Party
from shoal.swarm.slot import Mishaps, Outcome, Site, Slot
from shoal.swarm.slot_coding import Terms, scales_after
from shoal.swarm.slot_plan import SlotPlan

#: slots of statistics that are made at most to find a scale; one is enough for root mean squares of 1e-7 to 0.5, and
#: each more widens that by a factor of 50 upwards and of 10**5 downwards
_STATISTICS_MAX = 8


@dataclass(frozen=True)
class Settings:
    """What the participants choose.

    bits       ring width, 8, 12, 16 or 32; None: what their number asks for
    weighting  PUBLIC by samples, UNIFORM, or PRIVATE with ``cap``: the samples that count fully
    rounding   "public", or "private": see quantiser.py
    feedback   carry what coding loses to the next round, where steps are coarse (residual.py)
    profile    default, light or crash: how many may fall out or collude
    shards     runs that the model is cut into; None: one for each participant
    threads    0: as many as the machine has
    """

    bits: int | None = None
    weighting: Weighting = Weighting.PUBLIC
    cap: int = 0
    rounding: Rounding = "public"
    feedback: bool = True
    profile: str = "default"
    shards: int | None = None
    threads: int = 0


class Slots:
    """See the module.

    participants  3 or more
    elements      length of a diff
    draw          ``draw(n)`` gives n random bytes; the operating system's unless for tests
    scales        the table of the next round; None before the first
    """

    def __init__(
        self,
        participants: int,
        elements: int,
        settings: Settings | None = None,
        draw: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.settings = settings or Settings()
        self.grid = Grid.of(elements)
        self.scales: Scales | None = None
        self._draw = draw
        self._bits = self.settings.bits or choose_bits(participants)
        self._swarm = draw(DIGEST_BYTES)
        self._ids = sorted(hashed(b"shoal-slots/v1/", "id", self._swarm, le64(i)) for i in range(participants))
        self._journals = [MemoryJournal() for _ in self._ids]
        self._keys: list[EpochKeys] = []
        self._slot = 0
        self._residuals = [Residual(elements) for _ in self._ids]

    def merge(self, diffs: Sequence[Float32s], samples: Sequence[int] = (), mishaps: Mishaps | None = None) -> Outcome:
        """One round.

        diffs    float32[elements] of each participant, finite
        samples  of each, unless weights are uniform
        returns  the outcome of its slot; its ``diff`` is there
        raises   ArgumentError  ``slot.inputs``, and as `Slot.run`
                 PeerError      as `Slot.run`.  After ``slot.clipped`` the scales have grown, and another round may
                                go well; these diffs are not used again
        """
        counts = tuple(samples)
        if len(diffs) != len(self._ids) or (self.settings.weighting != Weighting.UNIFORM) != bool(counts):
            raise ArgumentError(
                "slot.inputs",
                f"{len(diffs)} diffs and {len(counts)} sample counts for {len(self._ids)} participants with "
                f"{self.settings.weighting.name.lower()} weights",
            )
        terms = self._terms(self._bits, counts)
        assert terms.width is not None
        feedback = self.settings.feedback and residual.wanted(
            terms.width.bound, private=self.settings.rounding == "private"
        )
        given = [r.added(d) for r, d in zip(self._residuals, diffs, strict=True)] if feedback else list(diffs)
        if self.scales is None:
            self.scales = self._first_scales(given, counts, terms)
        slot = self._new_slot(terms, self.scales, given, counts, mishaps)
        before = self.scales
        try:
            outcome = slot.run()
        finally:
            if slot.found is not None:
                self.scales = scales_after(before, slot.found.statistics, terms)
        if feedback:
            for position, kept in enumerate(self._residuals):
                if position in outcome.survivors:
                    kept.kept(given[position], slot.own_part(position), before.norm)
                else:
                    kept.missed(given[position])
        return outcome

    def merge_arrays(
        self, diffs: Sequence[Mapping[str, npt.NDArray[Any]]], samples: Sequence[int] = ()
    ) -> dict[str, npt.NDArray[Any]]:
        """As `merge`, for named arrays: their floating ones, in float32, become one flat vector (model/layout.py).

        raises  ArgumentError  ``layout.differs``: participants' arrays differ in names, types or shapes
        """
        layout = Layout.of_arrays(diffs[0])
        if any(Layout.of_arrays(d).digest != layout.digest for d in diffs) or layout.elements != self.grid.elements:
            raise ArgumentError(
                "layout.differs", f"participants' arrays differ, or do not have {self.grid.elements} elements in sum"
            )
        flat = [np.concatenate([np.asarray(d[t.key], np.float32).reshape(-1) for t in layout.tensors]) for d in diffs]
        merged = self.merge(flat, samples).diff
        assert merged is not None
        starts = layout.starts
        return {t.key: merged[starts[i] : starts[i + 1]].reshape(t.dims) for i, t in enumerate(layout.tensors)}

    def _terms(self, bits: int | None, samples: tuple[int, ...]) -> Terms:
        chosen = self.settings
        return Terms.of(
            len(self._ids),
            bits,
            chosen.weighting,
            self._draw(DIGEST_BYTES),
            samples=samples if chosen.weighting == Weighting.PUBLIC else (),
            cap=chosen.cap,
            rounding=chosen.rounding,
        )

    def _first_scales(self, diffs: Sequence[Float32s], samples: tuple[int, ...], terms: Terms) -> Scales:
        """By slots of statistics alone, until every block's size is told."""
        scales = Scales(self.grid, 1.0, np.zeros(self.grid.blocks, np.float32))
        alone = self._terms(None, samples)
        for _ in range(_STATISTICS_MAX):
            found = self._new_slot(alone, scales, diffs, samples, None).run().statistics
            if not found.saturated and not found.coarse:
                break
            scales = scales_after(scales, found, alone)
        return scales_after(scales, found, terms)

    def _new_slot(
        self, terms: Terms, scales: Scales, diffs: Sequence[Float32s], samples: tuple[int, ...], mishaps: Mishaps | None
    ) -> Slot:
        """The next slot, with keys that were never used."""
        number = self._slot
        self._slot += 1
        if number % EPOCH_SLOTS_MAX == 0:
            self._keys = [EpochKeys.generate(number, self._draw) for _ in self._ids]
        for keys in self._keys:
            keys.erase_before(number)
        parties = tuple(
            Party(who, keys.batch(number, 1)[0], keys.share_public)
            for who, keys in zip(self._ids, self._keys, strict=True)
        )
        plan = SlotPlan(
            self._swarm,
            number // EPOCH_SLOTS_MAX,
            number,
            parties,
            terms,
            scales,
            ZERO_DIGEST,
            self.settings.shards or len(self._ids),
            profile=self.settings.profile,
        )
        sites = [
            Site(
                Participant(who, plan.secure, Secrets(keys.one_time(number), keys.share_private), journal, self._draw),
                diff,
                samples[position] if terms.weighting == Weighting.PRIVATE else 0,
                self._draw(DIGEST_BYTES) if terms.width and terms.rounding == "private" else None,
            )
            for position, (who, keys, journal, diff) in enumerate(
                zip(self._ids, self._keys, self._journals, diffs, strict=True)
            )
        ]
        return Slot(plan, sites, mishaps, self.settings.threads)
