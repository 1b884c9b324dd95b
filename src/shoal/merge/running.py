"""Running means and variances of batch normalisation: they are measured, not learned.

They are merged like any other tensor.  But an outer optimiser takes the merged model as a gradient, which a measurement
has none of: a step of Adam's size would make small variances negative.  So steps leave them out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from shoal.errors import InputError, shown
from shoal.merge.source import Item
from shoal.merge.tile import Array
from shoal.model.structure import Structure

#: what frameworks call them, where there is no graph to ask: torch, keras
_MEANS = frozenset({"running_mean", "moving_mean"})
_VARIANCES = frozenset({"running_var", "moving_variance"})


@dataclass(frozen=True, slots=True)
class Running:
    """Keys of a model's running statistics.

    all        means and variances
    variances  numbers that must not be negative
    """

    all: frozenset[str]
    variances: frozenset[str]

    @classmethod
    def among(cls, keys: Iterable[str], structure: Structure | None = None) -> Running:
        """Find them by the nodes that use them, where there is a graph, and by their names."""
        last = {key: re.split(r"[./:]", key.removesuffix(":0"))[-1] for key in keys}
        means = {key for key, name in last.items() if name in _MEANS}
        variances = {key for key, name in last.items() if name in _VARIANCES}
        if structure is not None:
            means, variances = means | structure.means, variances | structure.variances
        return cls(frozenset(means | variances), frozenset(variances))

    def held(self, item: Item, values: Array) -> list[tuple[slice, Array]]:
        """Copies of those parts of an item's values that a step leaves out, and where they lie."""
        return [(part, values[part].copy()) for key, part, _ in _parts(item) if key in self.all]

    def refuse_negative(self, item: Item, values: Array) -> None:
        """InputError ``merge.variance`` if a merged variance is negative."""
        for key, part, first in _parts(item) if self.variances else ():
            if key in self.variances and bool((values[part] < 0).any()):
                place = int((values[part] < 0).argmax())
                raise InputError(
                    "merge.variance",
                    f"tensor {shown(key)}: the merged running variance is {float(values[part][place]):g} at element "
                    f"{first + place}; expected 0 or more (leave it out with exclude)",
                )


def _parts(item: Item) -> Iterator[tuple[str, slice, int]]:
    """Key, place in the item's values, and first element of each stretch."""
    offset = 0
    for stretch in item:
        yield stretch.tensor.key, slice(offset, offset + stretch.count), stretch.first
        offset += stretch.count
