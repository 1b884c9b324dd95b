"""Where the flat vector of a plain round is cut into shards: between pieces that the merge rule does not look across.

rule looks at   a piece is                     so that
coordinates     GRAIN elements                 shards begin on a cache line
whole models    GRAM_BLOCK elements            the sums of a Gram matrix are those of a merge on one machine
tensors         a tensor                       whoever owns it sees it whole; a large one makes shares unequal
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from shoal.limits import GRAM_BLOCK
from shoal.merge.rules import Scope
from shoal.model.layout import Layout

#: elements that shards are cut by: a cache line of float32 is 16
GRAIN: Final = 64


@dataclass(frozen=True, slots=True)
class Pieces:
    """What shards are made of.

    elements  of the whole vector
    size      elements of each piece (the last one may be shorter), or 0:
    starts    where tensors begin, ascending, and where the last one ends
    """

    elements: int
    size: int
    starts: tuple[int, ...] = ()

    @classmethod
    def of(cls, layout: Layout, scope: Scope) -> Pieces:
        """The pieces for a rule of that scope."""
        if scope == "tensor":
            return cls(layout.elements, 0, tuple(sorted({*layout.starts})))
        return cls(layout.elements, GRAIN if scope == "coordinate" else GRAM_BLOCK)

    @property
    def count(self) -> int:
        return -(-self.elements // self.size) if self.size else len(self.starts) - 1

    def ends(self, shares: Sequence[int]) -> list[int]:
        """Where each shard ends: as near as pieces allow to ``shares`` of the whole; some may be empty.

        shares  whole numbers >= 0, their sum > 0
        """
        total = sum(shares)
        return [self._nearest(self.elements * part, total) for part in accumulate(shares)]

    def _nearest(self, number: int, by: int) -> int:
        """The end of a piece (or 0) nearest to the place ``number / by``; of two the lower one.  Whole numbers only."""
        if self.size:
            pieces = (2 * number + by * self.size - 1) // (2 * by * self.size)
            at = min(pieces * self.size, self.elements)
            # The last piece may be shorter: its end may be nearer than half a piece says.
            below = (self.elements - 1) // self.size * self.size
            return self.elements if 2 * number > by * (below + self.elements) else min(at, below)
        after = bisect_left(self.starts, -(-number // by))
        low, high = self.starts[max(after - 1, 0)], self.starts[after]
        return low if 2 * number <= by * (low + high) else high
