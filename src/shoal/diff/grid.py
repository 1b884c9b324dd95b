"""How a flat vector is cut into the blocks of the rotation (docs/PROTOCOL.md, quantiser).

Blocks of 2**14 elements if there are 2**20 or more, else of 2**10; what is left at the end is cut greedily into smaller
even powers of two, 2**12, 2**10, 2**8, 2**6; the last block may reach beyond the end, by less than 64 elements.  All
blocks but the last are full, so the place of an element is its position.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from shoal.errors import ArgumentError
from shoal.kernels.coding import Blocks

#: elements from which the large blocks are used
LARGE_FROM: Final = 2**20
_LARGE_LOG: Final = 14
_SMALL_LOG: Final = 10
_LEAST_LOG: Final = 6


@dataclass(frozen=True, slots=True)
class Grid:
    """The blocks of a vector.

    elements  of the vector, >= 0
    log       log2 of the size of the regular blocks
    regular   how many of them there are, from element 0 on
    tail      logs of the blocks after them, descending; several of one size may follow each other
    """

    elements: int
    log: int
    regular: int
    tail: tuple[int, ...]

    @classmethod
    def of(cls, elements: int) -> Grid:
        """The grid of a vector of so many elements."""
        log = _LARGE_LOG if elements >= LARGE_FROM else _SMALL_LOG
        regular, rest = divmod(elements, 1 << log)
        tail: list[int] = []
        for smaller in range(log - 2, _LEAST_LOG - 1, -2):
            count, rest = divmod(rest, 1 << smaller)
            tail += [smaller] * count
        return cls(elements, log, regular, tuple(tail + [_LEAST_LOG] * (rest > 0)))

    @property
    def places(self) -> int:
        """Elements that are coded: those of the vector and the padding of the last block."""
        return (self.regular << self.log) + sum(1 << log for log in self.tail)

    @property
    def blocks(self) -> int:
        return self.regular + len(self.tail)

    def logs(self) -> npt.NDArray[np.uint8]:
        """uint8[blocks]: log2 of each block's size."""
        found = np.full(self.blocks, self.log, np.uint8)
        found[self.regular :] = self.tail
        return found

    def starts(self) -> npt.NDArray[np.int64]:
        """int64[blocks]: where each block begins, its place too."""
        ends = np.cumsum(np.int64(1) << self.logs().astype(np.int64))
        return np.concatenate([np.zeros(min(1, len(ends)), np.int64), ends[:-1]])

    def within(self, first: int, count: int) -> Blocks:
        """The blocks of elements [first, first + count), for kernels that get just these elements.

        raises  ArgumentError  if the range does not begin and end where blocks do, or at the vector's end
        """
        stop = first + count
        if not 0 <= first <= stop <= self.elements:
            raise ArgumentError("grid.range", f"elements {first} to {stop}; the vector has {self.elements}")
        whole = self.regular << self.log
        sizes = [self.log] * ((min(stop, whole) - first) >> self.log if first < whole else 0)
        at = whole
        for log in self.tail:
            if first <= at < stop:
                sizes.append(log)
            at += 1 << log
        logs = np.array(sizes, np.uint8)
        ends = np.cumsum(np.int64(1) << logs.astype(np.int64))
        starts = np.concatenate([np.zeros(min(1, len(ends)), np.int64), ends[:-1]])
        reached = first + (int(ends[-1]) if len(ends) else 0)
        if reached != stop and not (stop == self.elements and stop < reached < stop + (1 << _LEAST_LOG)):
            raise ArgumentError("grid.range", f"elements {first} to {stop} do not begin and end where blocks do")
        return Blocks(starts, logs, first)
