"""The quantiser whose outputs can be summed: what each participant sends, and what the sum of a set of survivors means.

Everything follows from the plan of a slot, so all participants make the same one.  Words are centred integers of a
ring (`ring_width`); their steps come from the table of scales; the dither is public, shifted for each participant by
its position, and the survivors' dithers are known, so decoding takes them off.  With ``rounding="private"`` each
participant rounds with a stream of its own that nobody learns, and nothing is taken off: twice the error, for proofs of
differential privacy that need it.

Source: docs/PROTOCOL.md, "Quantiser"; Suresh et al., ICML 2022 (correlated quantisation).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from shoal.diff.ring_width import Width
from shoal.diff.scales import Scales
from shoal.domain import SECURE, labelled
from shoal.errors import ArgumentError
from shoal.kernels import coding
from shoal.kernels.coding import Blocks, BlockSums, Spec, StreamKeys
from shoal.kernels.reference_coding import DITHER_VALUES, Float32s, Int64s
from shoal.kernels.ring import Bytes, Streams

Rounding = Literal["public", "private"]


def derived_key(seed: bytes, label: str, rid: bytes) -> bytes:
    """HKDF-Expand-SHA256 of the plan's seed for one use in one slot: 32 bytes."""
    return HKDFExpand(SHA256(), 32, labelled(SECURE, label, rid)).derive(seed)


@dataclass(frozen=True)
class Shard:
    """A run of whole blocks.

    blocks  its blocks; starts are positions in the whole vector
    first, stop  which of the blocks that are sent these are
    """

    blocks: Blocks
    first: int
    stop: int

    def span(self, bits: int) -> slice:
        """Where its words lie among those of all blocks."""
        start = self.blocks.first * bits // 8
        return slice(start, start + self.blocks.places * bits // 8)


@dataclass(frozen=True)
class Quantiser:
    """The coding of one slot.

    scales     clips of every block
    width      ring and bounds of each planned participant
    seed, rid  of the plan
    uploaders  positions in the plan of those that may upload (V1), ascending: their order shifts the dither
    rounding   "public", or "private" where each participant gives a secret key to `encode`
    raises     ArgumentError  ``plan.uploaders``
    """

    scales: Scales
    width: Width
    seed: bytes
    rid: bytes
    uploaders: tuple[int, ...]
    rounding: Rounding = "public"

    def __post_init__(self) -> None:
        known = range(len(self.width.bounds))
        if not self.uploaders or list(self.uploaders) != sorted(set(self.uploaders) & set(known)):
            raise ArgumentError(
                "plan.uploaders", f"uploaders {self.uploaders}; expected positions below {len(known)}, ascending"
            )

    @cached_property
    def keys(self) -> StreamKeys:
        """Of the public streams."""
        return StreamKeys(derived_key(self.seed, "rot", self.rid), derived_key(self.seed, "dither", self.rid))

    @property
    def blocks(self) -> Blocks:
        return self.scales.blocks

    @property
    def word_bytes(self) -> int:
        """Bytes of one participant's words."""
        return self.blocks.places * self.width.bits // 8

    @cached_property
    def inverse_steps(self) -> Float32s:
        return self.scales.inverse_steps(self.width.bound)

    def offset(self, position: int) -> int:
        """Of a participant's dither: uploader number i of m gets floor(65536 i / m); 0 if rounding is private."""
        if position not in self.uploaders:
            raise ArgumentError("plan.uploaders", f"position {position} is not among those that may upload")
        if self.rounding == "private":
            return 0
        return DITHER_VALUES * self.uploaders.index(position) // len(self.uploaders)

    def table(self, survivors: Collection[int]) -> npt.NDArray[np.int32]:
        """What the dithers of the survivors add up to: int32[65536]; zeros if rounding is private."""
        if self.rounding == "private":
            return np.zeros(DITHER_VALUES, np.int32)
        offsets: Int64s = np.array([self.offset(position) for position in sorted(survivors)], np.int64)
        return coding.dither_table(offsets)

    def whole(self) -> Shard:
        """All blocks that are sent."""
        return Shard(self.blocks, 0, len(self.blocks))

    def shards(self, count: int) -> list[Shard]:
        """The blocks that are sent in ``count`` runs of places as equal as whole blocks allow; some may be empty."""
        sizes = (np.int64(1) << self.blocks.logs.astype(np.int64)).tolist()
        ends = np.array([0, *accumulate(sizes)], np.int64)
        targets = [int(ends[-1]) * s // count for s in range(count + 1)]
        cuts = [int(np.abs(ends - target).argmin()) for target in targets]
        return [
            Shard(Blocks(self.blocks.starts[a:b], self.blocks.logs[a:b], int(ends[a])), a, b) for a, b in pairwise(cuts)
        ]

    def encode(
        self,
        position: int,
        alpha: float,
        x: Float32s,
        out: Bytes,
        *,
        base: Float32s | None = None,
        shard: Shard | None = None,
        streams: Streams | None = None,
        secret: bytes | None = None,
        threads: int = 0,
    ) -> BlockSums:
        """One participant's words of ``shard`` (default: all), masked with ``streams``, into ``out``.

        x, base  float32[elements]: the diff is x - base
        alpha    the participant's weight
        secret   32 random bytes for this slot alone, kept and then forgotten; only where rounding is private
        raises   ArgumentError  ``plan.rounding``, and as `coding.encode`
        """
        if (secret is not None) != (self.rounding == "private"):
            raise ArgumentError(
                "plan.rounding", f"rounding is {self.rounding}; a secret key goes with private rounding and no other"
            )
        self._check_length(x)
        part = shard or self.whole()
        spec = Spec(
            self.offset(position),
            alpha,
            self.inverse_steps[part.first : part.stop],
            self.width.bounds[position],
            self.width.bits,
        )
        keys = self.keys if secret is None else StreamKeys(self.keys.signs, secret)
        return coding.encode(x, part.blocks, keys, spec, out, base=base, streams=streams, threads=threads)

    def decode(
        self,
        words: Bytes,
        survivors: Collection[int],
        total: float,
        base: Float32s | None,
        out: Float32s,
        *,
        shard: Shard | None = None,
        streams: Streams | None = None,
        threads: int = 0,
    ) -> None:
        """The survivors' mean, added to ``base`` (or to nothing), into ``out`` inside the shard's blocks only.

        words  the sum of the survivors' words of ``shard`` (default: all)
        total  A, the sum of their weights
        streams  as `coding.decode`: added to the words first
        """
        self._check_length(out)
        part = shard or self.whole()
        coding.decode(
            words,
            part.blocks,
            self.keys,
            self.table(survivors),
            self.scales.decoding(self.width.bound, total)[part.first : part.stop],
            base,
            out,
            bits=self.width.bits,
            streams=streams,
            threads=threads,
        )

    def _check_length(self, x: Float32s) -> None:
        if len(x) != self.scales.grid.elements:
            raise ArgumentError("diff.length", f"{len(x)} elements; expected {self.scales.grid.elements}")
