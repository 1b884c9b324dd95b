"""How a round's numbers travel: a diff to the bytes of an upload, uploads to merged shards, shards to a merged diff.

A *coder* is made from the plan alone, so all peers have the same one.  `ExactCoder` sends float32 and merges by any
rule that looks at each coordinate alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from shoal.errors import ArgumentError, PeerError
from shoal.kernels.ring import Streams
from shoal.merge.library import merge
from shoal.swarm.parcel import Bytes

Float32s = npt.NDArray[np.float32]

#: elements that shards are cut by: a cache line of float32 is 16
GRAIN = 64


def fair_shares(units: int, parts: int) -> list[int]:
    """``units`` in ``parts`` runs, whole, as equal as they can be, the longer ones first."""
    low, more = divmod(units, parts)
    return [low + 1] * more + [low] * (parts - more)


class Coder(Protocol):
    """The numbers of one attempt.  Positions are those of the plan; streams are masks, None in the clear.

    sizes  bytes of each shard, in uploads and when merged
    """

    sizes: list[int]

    def encode(self, position: int, diff: Float32s, uploaders: Collection[int], streams: Streams | None) -> Bytes:
        """A participant's diff as upload: uint8[sum of sizes].

        uploaders  those that may upload
        streams    what masks the upload
        raises     ArgumentError  ``diff.nonfinite``, ``diff.length``: this participant must sit the round out
        """
        ...

    def reduce(self, shard: int, uploads: Mapping[int, Bytes], streams: Streams | None) -> Bytes:
        """The merged shard from the survivors' uploads of it, by position.

        streams  what takes the masks off the sum
        raises   PeerError  ``upload.value``: naming the position whose upload cannot be
        """
        ...

    def decode(self, merged: Sequence[Bytes], uploaders: Collection[int], survivors: Collection[int]) -> Float32s:
        """All merged shards -> the merged diff: float32[elements].

        raises  PeerError  ``shard.value``, and others: no honest participants' uploads add up to this
        """
        ...


class ExactCoder:
    """float32 as it is, merged by a coordinate rule; bits = 0 in the plan."""

    def __init__(
        self, elements: int, shards: int, weights: Sequence[float] | None, rule: str, settings: Mapping[str, Any]
    ) -> None:
        """``weights``: one for each participant, or None for equal ones."""
        self._elements = elements
        self._weights = weights
        self._rule = rule
        self._settings = dict(settings)
        ends, at = [], 0
        for share in fair_shares(-(-elements // GRAIN), shards):
            at = min(at + share * GRAIN, elements)
            ends.append(at)
        self._starts = [0, *ends[:-1]]
        self.sizes = [4 * (b - a) for a, b in zip(self._starts, ends, strict=True)]

    def encode(self, position: int, diff: Float32s, uploaders: Collection[int], streams: Streams | None) -> Bytes:  # noqa: ARG002
        if diff.shape != (self._elements,) or diff.dtype != np.float32:
            raise ArgumentError(
                "diff.length", f"a diff of {diff.dtype}{list(diff.shape)}; expected float32[{self._elements}]"
            )
        if not np.isfinite(diff).all():
            place = int(np.flatnonzero(~np.isfinite(diff))[0])
            raise ArgumentError("diff.nonfinite", f"element {place} of the diff is {diff[place]}; expected numbers")
        return np.ascontiguousarray(diff).view(np.uint8)

    def reduce(self, shard: int, uploads: Mapping[int, Bytes], streams: Streams | None) -> Bytes:  # noqa: ARG002
        inputs = []
        for position in sorted(uploads):
            values = uploads[position].view(np.float32)
            if not np.isfinite(values).all():
                raise PeerError("upload.value", f"participant {position}: its upload holds NaN or Inf")
            inputs.append(values)
        weights = None if self._weights is None else [self._weights[p] for p in sorted(uploads)]
        if not inputs[0].size:
            return np.empty(0, np.uint8)
        merged: Float32s = merge(inputs, weights=weights, method=self._rule, **self._settings)
        return merged.view(np.uint8)

    def decode(self, merged: Sequence[Bytes], uploaders: Collection[int], survivors: Collection[int]) -> Float32s:  # noqa: ARG002
        diff = np.empty(self._elements, np.float32)
        for start, data in zip(self._starts, merged, strict=True):
            diff[start : start + data.size // 4] = data.view(np.float32)
        if not np.isfinite(diff).all():
            raise PeerError("shard.value", "a merged shard holds NaN or Inf")
        return diff
