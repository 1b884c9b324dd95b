"""How a round's numbers travel: a diff to the bytes of an upload, uploads to merged shards, shards to a merged diff.

A *coder* is made from the plan alone, so all peers have the same one.  `ExactCoder` sends float32 in the clear and
merges by a rule that looks at coordinates or tensors; gram_coder.py does the same for rules that look at whole models.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from shoal.errors import ArgumentError, PeerError
from shoal.kernels.reference_coding import Float64s
from shoal.kernels.ring import Streams
from shoal.merge.library import merge
from shoal.merge.rules import Rule
from shoal.swarm.parcel import Bytes
from shoal.swarm.stock import STOCK

Float32s = npt.NDArray[np.float32]

#: elements that are looked at in one go for NaN and Inf: they, and a mark for each, stay in a core's cache
_LOOKED_AT: Final = 2**16


def first_nonfinite(values: Float32s) -> int:
    """Place of the first NaN or Inf in a flat array, -1 if there is none."""
    for start in range(0, values.size, _LOOKED_AT):
        finite = np.isfinite(values[start : start + _LOOKED_AT])
        if not finite.all():
            return start + int(finite.argmin())
    return -1


def joined(pieces: Sequence[Bytes]) -> Bytes:
    """Pieces one behind the other: as they are where they lie so in one array, else a copy."""
    whole, size = pieces[0].base, sum(piece.size for piece in pieces)
    if isinstance(whole, np.ndarray) and whole.dtype == np.uint8:
        first = at = _address(pieces[0])
        for piece in pieces:
            if piece.size and (piece.base is not whole or _address(piece) != at):
                break
            at += piece.size
        else:
            start = first - _address(whole)
            return whole[start : start + size]
    copy = STOCK.take(size)
    np.concatenate(pieces, out=copy)
    return copy


def _address(array: Bytes) -> int:
    return int(array.__array_interface__["data"][0])


class Coder(Protocol):
    """The numbers of one attempt.  Positions are those of the plan; streams are masks, None in the clear.

    sizes      bytes of each shard, in uploads and when merged
    witnessed  a shard's backup does all that its owner does, and what they tell must be the same
    rms        statistics of the round, float64[blocks of the grid], once it was decoded; None where there are none
    """

    sizes: list[int]
    witnessed: bool
    rms: Float64s | None

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


@dataclass(frozen=True, slots=True)
class Merging:
    """How the plain rounds of a swarm merge.

    rule      of the merge;  settings  those of its parameters that are not the defaults
    samples   of each participant
    """

    rule: Rule
    settings: Mapping[str, Any]
    samples: tuple[int, ...]

    def weights(self, positions: Sequence[int]) -> list[float] | None:
        """What `shoal.merge` is given for these participants: samples, their shares where weights multiply, or none."""
        if self.rule.weights == "none":
            return None
        samples = [self.samples[p] for p in positions]
        return [n / sum(samples) for n in samples] if self.rule.weights == "as given" else [float(n) for n in samples]


class ExactCoder:
    """float32 as it is; bits = 0 in the plan.

    A merged shard has the bits that `shoal.merge` gives for the same diffs (with a base of zeros where the rule needs
    one): as one array, or, for a rule that looks at tensors, as the list of the layout's tensors.
    """

    witnessed = False

    def __init__(self, merging: Merging, ends: Sequence[int], tensors: Sequence[int]) -> None:
        """ends     where each shard ends, ascending, the last one at the number of elements
        tensors  where each tensor begins, and where the last one ends (layout.starts)
        """
        self.rms: Float64s | None = None
        self.merging = merging
        self._elements = ends[-1]
        self._ends = list(ends)
        self._starts = [0, *self._ends[:-1]]
        self._tensors = list(pairwise(tensors))
        self.sizes = [4 * (b - a) for a, b in zip(self._starts, self._ends, strict=True)]

    def encode(self, position: int, diff: Float32s, uploaders: Collection[int], streams: Streams | None) -> Bytes:  # noqa: ARG002
        if diff.shape != (self._elements,) or diff.dtype != np.float32:
            raise ArgumentError(
                "diff.length", f"a diff of {diff.dtype}{list(diff.shape)}; expected float32[{self._elements}]"
            )
        place = first_nonfinite(diff)
        if place >= 0:
            raise ArgumentError("diff.nonfinite", f"element {place} of the diff is {diff[place]}; expected numbers")
        return np.ascontiguousarray(diff).view(np.uint8)

    def reduce(self, shard: int, uploads: Mapping[int, Bytes], streams: Streams | None) -> Bytes:  # noqa: ARG002
        inputs = read(uploads)
        out = STOCK.take(self.sizes[shard]).view(np.float32)
        if out.size:
            self._merge(shard, sorted(uploads), inputs, out)
        return out.view(np.uint8)

    def _merge(self, shard: int, positions: list[int], inputs: list[Float32s], out: Float32s) -> None:
        """The merge of these participants' shards, into ``out``."""
        rule, per_tensor = self.merging.rule, self.merging.rule.scope == "tensor"
        shape = self._tensors_of(shard) if per_tensor else {"": slice(None)}
        base = np.zeros(len(out), np.float32) if rule.needs_base else None
        merge(
            [{key: values[span] for key, span in shape.items()} for values in inputs],
            weights=self.merging.weights(positions),
            method=rule.name,
            base=None if base is None else {key: base[span] for key, span in shape.items()},
            out={key: out[span] for key, span in shape.items()},
            **self.merging.settings,
        )

    def _tensors_of(self, shard: int) -> dict[str, slice]:
        """The tensors of a shard, as keys that `shoal.merge` gives the items of a list, and where they lie in it."""
        start, end = self._starts[shard], self._ends[shard]
        return {
            f"{number:09d}": slice(a - start, b - start)
            for number, (a, b) in enumerate(self._tensors)
            if start <= a < b <= end
        }

    def decode(self, merged: Sequence[Bytes], uploaders: Collection[int], survivors: Collection[int]) -> Float32s:  # noqa: ARG002
        diff = joined(merged).view(np.float32)
        if first_nonfinite(diff) >= 0:
            raise PeerError("shard.value", "a merged shard holds NaN or Inf")
        return diff


def read(uploads: Mapping[int, Bytes]) -> list[Float32s]:
    """Uploads of a shard as numbers, in the order of their positions.

    raises  PeerError  ``upload.value``: NaN or Inf, naming the position
    """
    found = []
    for position in sorted(uploads):
        values = uploads[position].view(np.float32)
        if first_nonfinite(values) >= 0:
            raise PeerError("upload.value", f"participant {position}: its upload holds NaN or Inf")
        found.append(values)
    return found
