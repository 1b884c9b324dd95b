"""The numbers of one masked slot: a participant's diff to the bytes that it uploads, and sums of such bytes back.

An upload is cut into shards: runs of whole blocks, words of b bits in the model's lane; behind them one shard more with
words of 64 bits: the lane of statistics (diff/statistics.py) and, where weights are private, one word in the lane of
weights.  Everything is masked, summed and checked alike, each word in its lane at its element.

    terms     what the plan says               scales    the table that it names
    encode    diff -> upload                   reduce    uploads of one shard -> their sum, masks taken off
    vouched   upload -> check sums             decode    all sums -> merged diff, statistics

A slot of statistics alone (no ring) has only the last shard: for the first round, when no scale is known.

Source: docs/PROTOCOL.md, "Weights", "Scales", "Quantiser", "Checking the sums".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from shoal.diff import residual, statistics
from shoal.diff.clip import kappa
from shoal.diff.quantiser import Quantiser, Rounding, Shard
from shoal.diff.ring_width import Width
from shoal.diff.scales import Scales, block_squares, next_scales
from shoal.diff.statistics import Statistics
from shoal.diff.weights import (
    UNIFORM_ALPHA,
    Alpha,
    Weighting,
    private_alpha,
    public_alphas,
    total_private,
    total_public,
)
from shoal.errors import ArgumentError
from shoal.kernels import reference_ring, ring
from shoal.kernels.coding import BlockSums
from shoal.kernels.reference_coding import Float32s
from shoal.kernels.ring import Bytes, Streams
from shoal.secure.check import Sums, check_sums

#: bits of a word of the last shard
LANE_BITS: Final = 64


@dataclass(frozen=True)
class Terms:
    """What everybody agreed on for the numbers of a slot.

    width      ring and bounds of every planned participant; None for statistics alone
    weighting  how participants count
    samples    of each planned participant where weights are public, else empty
    cap        samples that count fully where weights are private, else 0
    seed       of rotation and dither, 32 public bytes
    rounding   "public", or "private" (see quantiser.py)
    raises     ArgumentError  ``plan.weights``
    """

    planned: int
    width: Width | None
    weighting: Weighting
    seed: bytes
    samples: tuple[int, ...] = ()
    cap: int = 0
    rounding: Rounding = "public"

    def __post_init__(self) -> None:
        public, private = self.weighting == Weighting.PUBLIC, self.weighting == Weighting.PRIVATE
        if len(self.samples) != (self.planned if public else 0) or (self.cap > 0) != private:
            raise ArgumentError(
                "plan.weights",
                f"{self.weighting.name.lower()} weights with {len(self.samples)} sample counts and a cap of {self.cap}",
            )

    @classmethod
    def of(
        cls,
        planned: int,
        bits: int | None,
        weighting: Weighting,
        seed: bytes,
        *,
        samples: tuple[int, ...] = (),
        cap: int = 0,
        rounding: Rounding = "public",
    ) -> Terms:
        """The terms with the bounds that follow from them; ``bits`` None for statistics alone."""
        if bits is None:
            width = None
        elif weighting == Weighting.PUBLIC:
            width = Width.public(samples, bits)
        else:
            width = Width.equal(planned, bits)
        return cls(planned, width, weighting, seed, samples, cap, rounding)

    def alpha(self, position: int, samples: int) -> Alpha:
        """How much a participant counts; ``samples`` is its own count where weights are private."""
        if self.weighting == Weighting.PUBLIC:
            return public_alphas(self.samples)[position]
        return private_alpha(samples, self.cap) if self.weighting == Weighting.PRIVATE else UNIFORM_ALPHA


@dataclass(frozen=True, eq=False)
class Upload:
    """What a participant made of its diff.

    data    uint8[sum of sizes]: all shards, masked if streams were given
    alpha   its weight; ``alpha.capped`` says that it has more samples than count
    """

    data: Bytes
    alpha: Alpha


@dataclass(frozen=True, eq=False)
class Merged:
    """What the sums say.

    diff        float32[elements], the survivors' weighted mean; None in a slot of statistics alone
    statistics  see there
    total       A, the sum of the survivors' weights
    """

    diff: Float32s | None
    statistics: Statistics
    total: float


def scales_after(scales: Scales, found: Statistics, terms: Terms) -> Scales:
    """The table for the next round, which will have ``terms``, from the statistics of a slot with ``scales``."""
    if terms.width is None:
        return next_scales(scales.grid, found.rms, 1.0, 1.0)
    return next_scales(scales.grid, found.rms, kappa(terms.width.bound, terms.planned))


class SlotCoding:
    """The coding of one slot, the same for all participants.

    sizes  bytes of each shard; the last one is the statistics'

    uploaders  positions of those that may upload (V1)
    shards     runs that the blocks are cut into
    """

    def __init__(self, terms: Terms, rid: bytes, scales: Scales, uploaders: Sequence[int], shards: int) -> None:
        self.terms = terms
        self.scales = scales
        self.quantiser: Quantiser | None = None
        self._shards: list[Shard] = []
        if terms.width is not None:
            self.quantiser = Quantiser(
                scales, terms.width, terms.seed, rid, tuple(sorted(uploaders)), rounding=terms.rounding
            )
            self._shards = self.quantiser.shards(shards)
        self.model_bits = terms.width.bits if terms.width else LANE_BITS
        self._words = statistics.words_count(scales.grid)
        self._private = terms.weighting == Weighting.PRIVATE
        lane = 8 * (self._words + self._private)
        self.sizes = [shard.blocks.places * self.model_bits // 8 for shard in self._shards] + [lane]

    @cached_property
    def spans(self) -> list[slice]:
        """Where each shard lies in an upload."""
        ends = list(accumulate(self.sizes, initial=0))
        return [slice(a, b) for a, b in pairwise(ends)]

    @property
    def model_bytes(self) -> int:
        """Bytes of all shards but the last."""
        return sum(self.sizes[:-1])

    def bits(self, shard: int) -> int:
        """Of a word of that shard."""
        return LANE_BITS if shard == len(self._shards) else self.model_bits

    # --- one participant ----------------------------------------------------------------------------------------------

    def encode(
        self,
        position: int,
        diff: Float32s,
        *,
        samples: int = 0,
        base: Float32s | None = None,
        streams: Streams | None = None,
        secret: bytes | None = None,
        threads: int = 0,
    ) -> Upload:
        """Quantise diff - base, add the masks of ``streams``.

        samples  the participant's own count, where weights are private
        secret   32 random bytes where rounding is private
        raises   ArgumentError  ``diff.nonfinite``, ``diff.length``, ``weights.samples`` ...: nothing may be uploaded
        """
        alpha = self.terms.alpha(position, samples)
        data = np.empty(sum(self.sizes), np.uint8)
        sums: BlockSums | None = None
        if self.quantiser is None:
            squares = self._squares(diff, base, alpha, None)
        else:
            sums = self.quantiser.encode(
                position, alpha.value, diff, data[: self.model_bytes],
                base=base, streams=streams, secret=secret, threads=threads,
            )  # fmt: skip
            squares = self._squares(diff, base, alpha, sums)
        lane = statistics.words_of(self.scales, squares, sums, self.terms.planned)
        last = data[self.spans[-1]]
        last[: 8 * self._words] = lane.view(np.uint8)
        if self._private:
            last[8 * self._words :] = np.array([alpha.units], "<u8").view(np.uint8)
        if streams is not None:
            self._add_to_lane(last, streams, last, threads)
        return Upload(data, alpha)

    def own_part(self, position: int, upload: Upload, streams: Streams | None, threads: int = 0) -> Float32s:
        """What the sum will contain of this participant: float32[elements]."""
        assert self.quantiser is not None
        masks = None if streams is None else streams.opposite()
        words = upload.data[: self.model_bytes]
        return residual.own_part(self.quantiser, position, upload.alpha.value, words, streams=masks, threads=threads)

    def _squares(
        self, diff: Float32s, base: Float32s | None, alpha: Alpha, sums: BlockSums | None
    ) -> npt.NDArray[np.float64]:
        """|alpha z|^2 of every block, also of those that are not sent."""
        active = self.scales.active if sums is not None else np.zeros(self.scales.grid.blocks, bool)
        squares = block_squares(self.scales.grid, diff, base, ~active) * alpha.value**2
        if sums is not None:
            squares[active] = sums.squares
        return squares

    # --- sums ---------------------------------------------------------------------------------------------------------

    def masked(self, shard: int, data: Bytes, streams: Streams, threads: int = 0) -> Bytes:
        """The words of a shard with streams added, each in its lane: a new array."""
        out = np.empty_like(data)
        if shard == len(self._shards):
            self._add_to_lane(data, streams, out, threads)
        else:
            first = self._shards[shard].blocks.first
            ring.add_streams(data, self.model_bits, streams, ring.LANE_MODEL, first, out, threads=threads)
        return out

    def _add_to_lane(self, data: Bytes, streams: Streams, out: Bytes, threads: int) -> None:
        cut = 8 * self._words
        for part, lane in ((slice(cut), ring.LANE_STATISTICS), (slice(cut, None), ring.LANE_WEIGHT)):
            if len(data[part]):
                ring.add_streams(data[part], LANE_BITS, streams, lane, 0, out[part], threads=threads)

    def reduce(self, shard: int, uploads: Mapping[int, Bytes], streams: Streams | None, threads: int = 0) -> Bytes:
        """The sum of the survivors' words of a shard, masks taken off by ``streams``.

        uploads  position -> uint8[sizes[shard]]
        """
        total = np.empty(self.sizes[shard], np.uint8)
        parts = [uploads[position] for position in sorted(uploads)]
        ring.sum_words(parts, self.bits(shard), total, threads=threads)
        return total if streams is None else self.masked(shard, total, streams, threads)

    def check_sums(self, shard: int, words: Bytes, beta: bytes, checks: int, threads: int = 0) -> Sums:
        """The selected sums of a shard's words: uint64[checks].  No two words of a slot share check bits."""
        last = shard == len(self._shards)
        first = self.scales.blocks.places if last else self._shards[shard].blocks.first
        return check_sums(words, self.bits(shard), beta, first, checks, threads)

    def vouched(self, shard: int, upload: Bytes, own: Streams, beta: bytes, checks: int, threads: int = 0) -> Sums:
        """Check sums of one participant's words of a shard, without the masks that ``own`` takes off."""
        return self.check_sums(shard, self.masked(shard, upload, own, threads), beta, checks, threads)

    def decode(self, merged: Sequence[Bytes], survivors: Collection[int], threads: int = 0) -> Merged:
        """All sums, in the order of the shards -> what they say.  `judge` it before it is used.

        raises  PeerError  ``statistics.value``, ``weights.sum``: no honest survivors' words add up to this
        """
        last = np.ascontiguousarray(merged[-1]).view(np.uint64)
        weighting, count = self.terms.weighting, len(survivors)
        if weighting == Weighting.PUBLIC:
            alphas = public_alphas(self.terms.samples)
            total = total_public(alphas, survivors)
            divisor = sum(alphas[position].value ** 2 for position in sorted(survivors))
        elif weighting == Weighting.PRIVATE:
            total = divisor = total_private(int(last[-1]), count)
        else:
            total = divisor = float(count)
        found = statistics.read(self.scales, last[: self._words], count, divisor, self.terms.planned)
        if self.quantiser is None:
            return Merged(None, found, total)
        diff = np.zeros(self.scales.grid.elements, np.float32)
        for shard, words in zip(self._shards, merged[:-1], strict=True):
            self.quantiser.decode(words, survivors, total, None, diff, shard=shard, threads=threads)
        return Merged(diff, found, total)

    def judge(self, merged: Sequence[Bytes], found: Statistics) -> None:
        """Compare the merged integers with the canaries among the statistics.

        raises  PeerError  ``slot.wrapped``, ``slot.clipped``, see statistics.check
        """
        if self.quantiser is None:
            return
        totals = np.zeros(statistics.runs(self.scales.grid), np.int64)
        for shard, words in zip(self._shards, merged[:-1], strict=True):
            starts = shard.blocks.starts >> statistics.RUN_LOG
            ends = np.cumsum(np.int64(1) << shard.blocks.logs.astype(np.int64)) * self.model_bits // 8
            for run in np.unique(starts).tolist():
                inside = np.flatnonzero(starts == run)
                begin = int(ends[inside[0] - 1]) if inside[0] else 0
                part = words[begin : int(ends[inside[-1]])]
                totals[run] += reference_ring.lift(part, self.model_bits).sum()
        statistics.check(self.scales, found, totals.tolist())
