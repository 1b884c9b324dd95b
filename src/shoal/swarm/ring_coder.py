"""Diffs as small integers of a ring, masked or not: what a secure round sends, sums and decodes.

Shards are runs of whole blocks of the rotation; behind them comes one more shard, the lane of statistics: 64-bit words
from which the next round's scales and this round's canaries are read (diff/statistics.py).  All of it is summed and
masked alike, each in its lane.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from shoal.diff import residual, statistics
from shoal.diff.grid import Grid
from shoal.diff.quantiser import Quantiser, Shard
from shoal.diff.ring_width import Width
from shoal.diff.scales import Scales, block_squares
from shoal.diff.weights import public_alphas, total_public
from shoal.kernels import reference_ring, ring
from shoal.kernels.reference_coding import Float64s
from shoal.kernels.ring import Streams
from shoal.ledger.body import RoundPlan
from shoal.swarm.coder import Float32s
from shoal.swarm.parcel import Bytes

#: bits of one word of the lane of statistics
LANE_BITS = 64


class RingCoder:
    """See coder.Coder.

    scales       table that the plan names
    rms          statistics of this round, from which the next one's scales are made, once a sum was decoded
    own          what the sum will contain of this participant, where residuals are carried, once it was encoded
    """

    def __init__(self, plan: RoundPlan, rid: bytes, scales: Scales) -> None:
        samples = [p.samples for p in plan.participants]
        self.scales = scales
        self.rms: Float64s | None = None
        self.own: Float32s | None = None
        self._plan = plan
        self._rid = rid
        self._width = Width.public(samples, plan.bits)
        self._alphas = public_alphas(samples)
        whole = self._quantiser(range(len(samples)))
        self._shards = whole.shards(len(plan.shards) - 1)
        lane = 8 * statistics.words_count(scales.grid)
        self.sizes = [shard.blocks.places * plan.bits // 8 for shard in self._shards] + [lane]

    @property
    def bits(self) -> int:
        return self._width.bits

    @property
    def places(self) -> list[int]:
        """First place of each model shard, for its masks and checks."""
        return [shard.blocks.first for shard in self._shards]

    @property
    def norm(self) -> float:
        """Of an update of the expected size."""
        return self.scales.norm

    @property
    def carries(self) -> bool:
        """Whether steps are so coarse that residuals are worth carrying."""
        return residual.wanted(self._width.bound)

    def encode(self, position: int, diff: Float32s, uploaders: Collection[int], streams: Streams | None) -> Bytes:
        alpha = self._alphas[position]
        out = np.empty(sum(self.sizes), np.uint8)
        model = out[: out.size - self.sizes[-1]]
        quantiser = self._quantiser(uploaders)
        if self.carries:
            sums = quantiser.encode(position, alpha.value, diff, model)
            self.own = residual.own_part(quantiser, position, alpha.value, model)
            if streams is not None:
                ring.add_streams(model, self.bits, streams, ring.LANE_MODEL, 0, model)
        else:
            sums = quantiser.encode(position, alpha.value, diff, model, streams=streams)
        squares = self._squares(diff, alpha.value, sums.squares)
        lane = statistics.words_of(self.scales, squares, sums, len(self._alphas)).view(np.uint8)
        if streams is not None:
            ring.add_streams(lane, LANE_BITS, streams, ring.LANE_STATISTICS, 0, lane)
        out[out.size - self.sizes[-1] :] = lane
        return out

    def reduce(self, shard: int, uploads: Mapping[int, Bytes], streams: Streams | None) -> Bytes:
        lane = shard == len(self._shards)
        bits = LANE_BITS if lane else self.bits
        total = np.empty(self.sizes[shard], np.uint8)
        ring.sum_words([uploads[position] for position in sorted(uploads)], bits, total)
        if streams is not None:
            which, first = (ring.LANE_STATISTICS, 0) if lane else (ring.LANE_MODEL, self.places[shard])
            ring.add_streams(total, bits, streams, which, first, total)
        return total

    def decode(self, merged: Sequence[Bytes], uploaders: Collection[int], survivors: Collection[int]) -> Float32s:
        grid = self.scales.grid
        divisor = float(sum(self._alphas[p].value ** 2 for p in sorted(survivors)))
        words = np.ascontiguousarray(merged[-1]).view(np.uint64)
        found = statistics.read(self.scales, words, len(survivors), divisor, len(self._alphas))
        totals = np.zeros(statistics.runs(grid), np.int64)
        for shard, data in zip(self._shards, merged[:-1], strict=True):
            self._add_totals(shard, data, totals)
        statistics.check(self.scales, found, totals.tolist())
        diff = np.zeros(grid.elements, np.float32)
        quantiser = self._quantiser(uploaders)
        total = total_public(self._alphas, survivors)
        for shard, data in zip(self._shards, merged[:-1], strict=True):
            quantiser.decode(data, survivors, total, None, diff, shard=shard)
        self.rms = found.rms
        return diff

    def _quantiser(self, uploaders: Collection[int]) -> Quantiser:
        return Quantiser(self.scales, self._width, self._plan.seed, self._rid, tuple(sorted(uploaders)))

    def _squares(self, diff: Float32s, alpha: float, sent: np.ndarray) -> np.ndarray:
        """|alpha z|^2 of every block, also of those that are not sent."""
        squares = np.zeros(self.scales.grid.blocks)
        squares[self.scales.active] = sent
        if not self.scales.active.all():
            rest = block_squares(self.scales.grid, diff, only=~self.scales.active)
            squares += rest * np.float64(alpha) ** 2
        return squares

    def _add_totals(self, shard: Shard, data: Bytes, totals: np.ndarray) -> None:
        """Add the shard's integers to those of the runs that its blocks lie in."""
        blocks = shard.blocks
        at = 0
        for start, log in zip(blocks.starts.tolist(), blocks.logs.tolist(), strict=True):
            size = (1 << log) * self.bits // 8
            totals[start >> statistics.RUN_LOG] += int(reference_ring.lift(data[at : at + size], self.bits).sum())
            at += size


def first_scales(grid: Grid, clip: float = 16.0) -> Scales:
    """The table before any statistics are known: one clip for all, wide enough for any sensible update, for a ring of
    32 bits, whose steps are then about as fine as float32 is near 1."""
    return Scales(grid, 1.0, np.full(grid.blocks, clip, np.float32))
