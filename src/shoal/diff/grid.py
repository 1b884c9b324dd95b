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
        return _starts(self.logs())

    def within(self, first: int, count: int) -> Blocks:
        """The blocks of elements [first, first + count), for kernels that get just these elements.

        raises  ArgumentError  if the range does not begin and end where blocks do, or at the vector's end
        """
        stop, whole = first + count, self.regular << self.log
        if not 0 <= first <= stop <= self.elements:
            raise ArgumentError("grid.range", f"elements {first} to {stop}; the vector has {self.elements}")
        number = first >> self.log
        logs = np.full(max(min(stop >> self.log, self.regular) - number, 0), self.log, np.uint8)
        begins = number << self.log if first < whole else stop
        if stop > whole:
            tail = np.array(self.tail, np.uint8)
            at = whole + _starts(tail)
            inside = (first <= at) & (at < stop)
            logs = np.concatenate([logs, tail[inside]])
            begins = min(begins, *at[inside].tolist(), stop)
        starts = _starts(logs)
        reached = first + (int(starts[-1]) + (1 << int(logs[-1])) if len(logs) else 0)
        padded = stop == self.elements and stop < reached < stop + (1 << _LEAST_LOG)
        if count and (begins != first or not (reached == stop or padded)):
            raise ArgumentError("grid.range", f"elements {first} to {stop} do not begin and end where blocks do")
        return Blocks(starts, logs, first)


def _starts(logs: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Where blocks of these sizes begin, one behind the other from 0 on."""
    sizes = np.int64(1) << logs.astype(np.int64)
    starts: npt.NDArray[np.int64] = np.cumsum(sizes) - sizes
    return starts
