"""The kernels as the rest of Shoal calls them (native code; until it is built: `reference`).

The contract of each function stands in `reference`; here one keyword more: ``threads`` (0: as many as SHOAL_THREADS or
the machine allows; the bits do not depend on it).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from shoal.kernels import reference
from shoal.kernels.reference import Array


def level() -> str:
    return "reference"


def thread_count() -> int:
    return 1


def weighted_mean(inputs: Sequence[Array], weights: Sequence[float], out: Array, *, threads: int = 0) -> bool:
    return reference.weighted_mean(inputs, weights, out)


def combine(base: Array | None, inputs: Sequence[Array], coefficients: Sequence[float], out: Array, *, threads: int = 0) -> bool:
    return reference.combine(base, inputs, coefficients, out)


def median(inputs: Sequence[Array], weights: Sequence[float] | None, out: Array, *, threads: int = 0) -> bool:
    return reference.median(inputs, weights, out)


def trimmed_mean(inputs: Sequence[Array], weights: Sequence[float] | None, trim: int, out: Array, *, threads: int = 0) -> bool:
    return reference.trimmed_mean(inputs, weights, trim, out)


def mean_around_median(inputs: Sequence[Array], keep: int, out: Array, *, threads: int = 0) -> bool:
    return reference.mean_around_median(inputs, keep, out)


def gram(inputs: Sequence[Array], base: Array | None = None, *, threads: int = 0) -> npt.NDArray[np.float64]:
    return reference.gram(inputs, base)


def stats(x: Array, *, threads: int = 0) -> tuple[float, float, int, int]:
    return reference.stats(x)


def convert(x: Array, out: Array, *, threads: int = 0) -> None:
    reference.convert(x, out)


def scaled_add(y: Array, scale: float, x: Array, out: Array, *, threads: int = 0) -> bool:
    return reference.scaled_add(y, scale, x, out)
