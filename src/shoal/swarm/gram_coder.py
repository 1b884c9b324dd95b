"""The coder for rules that look at whole models: each owner measures how the updates lie to each other in its shard,
everybody works out the same coefficients from all that is told, and each owner combines its shard by them.

    measure(uploads, centre)          an owner's Gram matrix, as it is told
    take(centre, told)                everybody: the matrices of all shards, added up
    wanted(survivors)                 the centre around which it is still to be measured, or None
    reduce(...)                       as ExactCoder, once nothing is wanted

The sums are exact (merge/exact.py) and shards are cut at the blocks of the kernel, so coefficients and results have the
bits that `shoal.merge` gives for the whole vectors.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from shoal.kernels import dispatch
from shoal.ledger import gram
from shoal.limits import GRAM_LEVELS_MAX
from shoal.merge.exact import ExactSum
from shoal.merge.options import MergeOptions, plan
from shoal.merge.tile import Array, Combine, Float64s, Measure, Tile
from shoal.swarm.coder import ExactCoder, Float32s, Merging, read
from shoal.swarm.parcel import Bytes


class GramCoder(ExactCoder):
    """See the module, and coder.Coder.

    Owner and backup of a shard both measure and combine it: such rules are chosen because somebody may lie.
    """

    witnessed = True

    def __init__(self, merging: Merging, ends: Sequence[int]) -> None:
        super().__init__(merging, ends, ())
        self._sums: dict[int, Float64s] = {}
        self._combine: Combine | None = None
        self._places: tuple[int, ...] = ()

    def measure(self, uploads: Mapping[int, Bytes], centre: int) -> bytes:
        """The Gram matrix of the survivors' uploads of a shard around the one at position ``centre``, packed.

        raises  PeerError  ``upload.value``
        """
        inputs, total = read(uploads), ExactSum()
        total.add(np.zeros((len(inputs), len(inputs))))
        if inputs[0].size:
            for block in dispatch.gram(inputs, inputs[sorted(uploads).index(centre)]):
                total.add(block)
        return gram.pack(total.levels(GRAM_LEVELS_MAX))

    def take(self, centre: int, told: Sequence[bytes], survivors: Collection[int]) -> None:
        """Add up what was told of all shards; the first time counts.

        told  of each shard, as the ledger's rules let through
        """
        if centre in self._sums:
            return
        total = ExactSum()
        for values in told:
            for level in gram.unpack(values, len(survivors)):
                total.add(level)
        found = total.value
        assert found is not None
        self._sums[centre] = found

    @property
    def settled(self) -> bool:
        """It is known how to combine."""
        return self._combine is not None

    @property
    def centres(self) -> list[int]:
        """Around which it was measured."""
        return list(self._sums)

    def wanted(self, survivors: Collection[int]) -> int | None:
        """The centre that is needed next, or None: it is known how to combine.

        raises  ArgumentError  ``rule.models``: too few survivors for the rule's parameters
        """
        if self._combine is not None:
            return None
        positions = sorted(survivors)
        checked = plan(
            MergeOptions(self.merging.weights(positions), self.merging.rule.name, parameters=self.merging.settings),
            len(positions),
            False,
        )
        run = _Agreed(checked.places, checked.weights, checked.settings, positions, self._sums)
        try:
            combine = self.merging.rule.build(run)
        except _WantedError as wanted:
            return wanted.centre
        chosen = checked.places if combine.models is None else tuple(checked.places[i] for i in combine.models)
        self._places, self._combine = tuple(positions[place] for place in chosen), combine
        return None

    def _merge(self, shard: int, positions: list[int], inputs: list[Float32s], out: Float32s) -> None:  # noqa: ARG002
        assert self._combine is not None
        chosen: list[Array] = [inputs[positions.index(position)] for position in self._places]
        self._combine.apply(Tile("", 0, chosen, None, out, 0))


class _WantedError(Exception):
    """A rule asks for a matrix that nobody has told."""

    def __init__(self, centre: int) -> None:
        super().__init__(centre)
        self.centre = centre


class _Agreed:
    """merge.tile.Run over what the ledger says.

    positions  of the survivors, ascending;  sums  centre's position -> Gram matrix of all survivors
    """

    models_at_once = 1

    def __init__(
        self,
        places: tuple[int, ...],
        weights: tuple[float, ...] | None,
        parameters: Mapping[str, Any],
        positions: list[int],
        sums: Mapping[int, Float64s],
    ) -> None:
        self.places = places
        self.count = len(places)
        self.weights = weights
        self.parameters = parameters
        self.notes: dict[str, Any] = {}
        self._positions = positions
        self._sums = sums

    def gram(self, centre: int) -> Float64s:
        position = self._positions[self.places[centre]]
        if position not in self._sums:
            raise _WantedError(position)
        return self._sums[position][np.ix_(self.places, self.places)]

    def total(self, measure: Measure, models: Sequence[int] | None = None, *, blocks: bool = False) -> Array:  # noqa: ARG002
        raise AssertionError("rules that look at whole models ask for Gram matrices alone")

    def small(self) -> Tile | None:
        return None

    def nonfinite(self) -> frozenset[int]:
        return frozenset()
