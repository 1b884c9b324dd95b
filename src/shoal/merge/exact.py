"""Sums of float64 arrays without rounding, so that nothing depends on who adds what, and in which order.

A sum is held as an unevaluated sum of arrays, the largest numbers first; what an addition would round off goes into the
next array.  Gram matrices are summed like this: the parts of a vector may then be measured on different machines, and
what comes out has the same bits as on one.

source  Knuth, TAOCP 2, 4.2.2, theorem B (the error of a sum is a float); Shewchuk 1997, section 2 (expansions)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from shoal.merge.tile import Float64s


class ExactSum:
    """Add float64 arrays of one shape with ``add``.

    Elements that have met NaN or Inf, or overflowed on the way, are what float64 makes of them.
    """

    def __init__(self) -> None:
        self._plain: Float64s | None = None
        self._parts: list[Float64s] = []

    @property
    def value(self) -> Float64s | None:
        """The float64 nearest to each element of the sum; None if nothing was added yet."""
        return None if self._plain is None else nearest(self._parts, self._plain)

    def add(self, row: Float64s) -> None:
        with np.errstate(all="ignore"):
            self._plain = row.copy() if self._plain is None else self._plain + row
            rest: Float64s = np.where(np.isfinite(self._plain), row, 0.0)
            for i, part in enumerate(self._parts):
                total = part + rest
                added = total - part
                rest = (part - (total - added)) + (rest - added)
                self._parts[i] = total
                rest = np.where(np.isfinite(rest), rest, 0.0)
        if rest.any():
            self._parts.append(rest)

    def levels(self, most: int) -> list[Float64s]:
        """The sum as at most ``most`` arrays, each the float64 nearest to what is left of it; at least one.

        They follow from the sum alone, not from the order of additions.  Each level has 53 bits more than the one
        before; what is left below the last one is dropped.
        """
        assert self._plain is not None
        found = [nearest(self._parts, self._plain)]
        while len(found) < most:
            left = nearest([*self._parts, *(-level for level in found)], np.zeros_like(self._plain))
            if not left.any():
                break
            found.append(left)
        return found


def nearest(parts: Sequence[Float64s], plain: Float64s) -> Float64s:
    """The float64 nearest to the sum of ``parts``, element by element; ``plain`` where that is not finite."""
    if len(parts) < 2:
        return np.where(np.isfinite(plain), parts[0], plain) if parts else plain.copy()
    rows = np.stack(parts).reshape(len(parts), -1)
    found = plain.reshape(-1).copy()
    for i in np.flatnonzero(np.isfinite(found) & np.isfinite(rows).all(axis=0)):
        found[i] = math.fsum(rows[:, i])
    return found.reshape(plain.shape)
