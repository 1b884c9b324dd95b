"""Symmetric matrices of exact sums as bytes, one encoding for one matrix.

A matrix of n x n sums is told in *levels*: the float64 nearest to each sum, then the float64 nearest to what that left,
and so on, at most GRAM_LEVELS_MAX; a level of zeros is left out, but for the first.  Of each level the lower triangle
is written row by row, the diagonal with it, as little-endian float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from shoal.limits import GRAM_LEVELS_MAX

Float64s = npt.NDArray[np.float64]


def pack(levels: Sequence[Float64s]) -> bytes:
    """``levels``: 1 to GRAM_LEVELS_MAX symmetric float64[n, n], finite."""
    rows, columns = np.tril_indices(len(levels[0]))
    return b"".join(level[rows, columns].astype("<f8").tobytes() for level in levels)


def unpack(values: bytes, models: int) -> list[Float64s]:
    """The levels; ``fault`` found nothing wrong with them."""
    rows, columns = np.tril_indices(models)
    found = []
    for part in np.frombuffer(values, "<f8").reshape(-1, len(rows)):
        level = np.empty((models, models))
        level[rows, columns] = level[columns, rows] = part
        found.append(level)
    return found


def fault(values: bytes, models: int) -> str:
    """Why these bytes are no Gram matrix of so many models; "" if they are."""
    size = 8 * models * (models + 1) // 2
    if len(values) % size or not 1 <= len(values) // size <= GRAM_LEVELS_MAX:
        return f"{len(values)} bytes; expected 1 to {GRAM_LEVELS_MAX} times {size} for {models} survivors"
    numbers = np.frombuffer(values, "<f8")
    if not np.isfinite(numbers).all():
        return "NaN or Inf among the inner products"
    if len(values) > size and not numbers[-size // 8 :].any():
        return "a last level of zeros: not the one encoding"
    return ""
