"""The coder of a secure round: `slot_coding.SlotCoding` for the attempt of a ledger."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import numpy as np

from shoal.diff import residual
from shoal.diff.grid import Grid
from shoal.diff.ring_width import Width
from shoal.diff.scales import Scales, block_squares
from shoal.diff.weights import Weighting
from shoal.errors import ArgumentError
from shoal.kernels.reference_coding import Float64s
from shoal.kernels.ring import Streams
from shoal.ledger.body import RoundPlan
from shoal.secure import check
from shoal.secure.check import Sums
from shoal.swarm.coder import Float32s
from shoal.swarm.parcel import Bytes
from shoal.swarm.slot_coding import LANE_BITS, SlotCoding, Terms


def width_of(samples: Sequence[int], weights: int, bits: int) -> Width:
    """The ring of a plan; where samples are private any of the participants may count fully.

    raises  ArgumentError  ``weights.samples``
    """
    return Width.public(samples, bits) if weights == Weighting.PUBLIC else Width.equal(len(samples), bits)


class RingCoder:
    """See coder.Coder.  Its last shard is the lane of statistics.

    scales  table that the plan names
    rms     statistics of this round, from which the next one's scales are made, once a sum was decoded
    samples of this participant, where they are private: to be set before `encode`
    own     what the sum will contain of this participant, where residuals are carried, once it was encoded
    """

    witnessed = False

    def __init__(self, plan: RoundPlan, rid: bytes, scales: Scales, cap: int = 0) -> None:
        """``cap``: samples that count fully where they are private, else 0."""
        samples = tuple(p.samples for p in plan.participants)
        width = width_of(samples, plan.weights, plan.bits)
        weighting = Weighting(plan.weights)
        told = samples if weighting == Weighting.PUBLIC else ()
        self._terms = Terms(len(samples), width, weighting, plan.seed, told, cap)
        self.samples = 0
        self._rid = rid
        self._model_shards = len(plan.shards) - 1
        self.scales = scales
        self.rms: Float64s | None = None
        self.own: Float32s | None = None
        #: for what does not depend on who uploads
        self._whole = self._coding(range(len(samples)))
        self.sizes = self._whole.sizes
        self.carries = residual.wanted(width.bound)

    @property
    def norm(self) -> float:
        """Of an update of the expected size."""
        return self.scales.norm

    def encode(self, position: int, diff: Float32s, uploaders: Collection[int], streams: Streams | None) -> Bytes:
        coding = self._coding(uploaders)
        if not self.carries:
            return coding.encode(position, diff, samples=self.samples, streams=streams).data
        upload = coding.encode(position, diff, samples=self.samples)
        self.own = coding.own_part(position, upload, None)
        if streams is not None:
            for shard, span in enumerate(coding.spans):
                upload.data[span] = coding.masked(shard, upload.data[span], streams)
        return upload.data

    def reduce(self, shard: int, uploads: Mapping[int, Bytes], streams: Streams | None) -> Bytes:
        return self._whole.reduce(shard, uploads, streams)

    def decode(self, merged: Sequence[Bytes], uploaders: Collection[int], survivors: Collection[int]) -> Float32s:
        coding = self._coding(uploaders)
        found = coding.decode(merged, survivors)
        coding.judge(merged, found.statistics)
        self.rms = found.statistics.rms
        assert found.diff is not None
        return found.diff

    # --- checks -------------------------------------------------------------------------------------------------------

    def vouched(self, upload: Bytes, own: Streams, beta: bytes, checks: int) -> bytes:
        """Check sums of this participant's upload, as the ledger holds them: of the model, then of the last lane."""
        parts = [self._whole.masked(s, upload[span], own) for s, span in enumerate(self._whole.spans)]
        return self._encoded(self._sums(parts, beta, checks))

    def vouched_shard(self, shard: int, upload: Bytes, masks: Streams, beta: bytes, checks: int) -> bytes:
        """Check sums of what a participant uploaded of one shard; ``masks`` takes off what is not to be in them."""
        sums = self._whole.vouched(shard, upload, masks, beta, checks)
        return check.encode_sums(sums, self._whole.bits(shard))

    def joined(self, parts: Sequence[bytes], checks: int) -> bytes:
        """Check sums of every shard of an upload -> those of the whole, as `vouched` gives them.

        raises  PeerError  ``check.malformed``
        """
        bits = self._terms_bits
        model = sum((check.decode_sums(p, bits, checks) for p in parts[:-1]), start=np.zeros(checks, np.uint64))
        lane = check.decode_sums(parts[-1], LANE_BITS, checks)
        return self._encoded((model & np.uint64(2**bits - 1), lane))

    def agrees(self, told: Sequence[bytes], merged: Sequence[Bytes], beta: bytes, checks: int) -> bool:
        """Whether what the survivors vouch for adds up to the merged shards.

        raises  PeerError  ``check.malformed``
        """
        model, lane = self._sums(merged, beta, checks)
        cut = -(-self._terms_bits // 8) * checks
        bits = self._terms_bits
        models = [check.decode_sums(data[:cut], bits, checks) for data in told]
        lanes = [check.decode_sums(data[cut:], LANE_BITS, checks) for data in told]
        return check.agree(models, model, bits) and check.agree(lanes, lane, LANE_BITS)

    @property
    def _terms_bits(self) -> int:
        return self._whole.model_bits

    def _sums(self, parts: Sequence[Bytes], beta: bytes, checks: int) -> tuple[Sums, Sums]:
        total = np.zeros(checks, np.uint64)
        for shard in range(self._model_shards):
            total = total + self._whole.check_sums(shard, parts[shard], beta, checks)
        mask = np.uint64(2**self._terms_bits - 1)
        return total & mask, self._whole.check_sums(self._model_shards, parts[-1], beta, checks)

    def _encoded(self, sums: tuple[Sums, Sums]) -> bytes:
        return check.encode_sums(sums[0], self._terms_bits) + check.encode_sums(sums[1], LANE_BITS)

    def _coding(self, uploaders: Collection[int]) -> SlotCoding:
        return SlotCoding(self._terms, self._rid, self.scales, sorted(uploaders), self._model_shards)


#: clip of the first scales, and the largest root mean square of a block of which they clip few numbers
FIRST_CLIP: Final = 16.0
_RMS_MAX: Final = FIRST_CLIP / 2.5


def check_size(diff: Float32s) -> None:
    """Refuse an update that not even the first scales could carry: it would keep the others from merging theirs.

    raises  ArgumentError  ``diff.large``
    """
    grid = Grid.of(diff.size)
    squares = block_squares(grid, diff) / np.exp2(grid.logs().astype(np.float64))
    largest = math.sqrt(float(squares.max(initial=0.0)))
    if largest > _RMS_MAX:
        found = f"parts of the update have a root mean square of {largest:.3g}; at most {_RMS_MAX:g} can be summed"
        raise ArgumentError("diff.large", f"{found} under masks: has training diverged? This site sits the round out")


def first_scales(grid: Grid, clip: float = FIRST_CLIP) -> Scales:
    """The table before any statistics are known: one clip for all, wide enough for any sensible update, for a ring of
    32 bits, whose steps are then about as fine as float32 is near 1."""
    return Scales(grid, 1.0, np.full(grid.blocks, clip, np.float32))
