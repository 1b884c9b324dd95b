"""Where to clip: the bound, in units of the root mean square, that costs least for L steps and the mean of m peers.

After the rotation numbers are close to normal.  With a clip at kappa and L steps on each side, the squared error of one
number of variance 1 is, in the mean over m participants that hold alike updates,

    kappa**2 / (12 L**2 m)  +  2 [(1 + kappa**2) Q(kappa) - kappa phi(kappa)]

rounding, with subtracted dither, and clipping, which does not average out (Q and phi: tail and density of N(0, 1)).

Source: docs/PROTOCOL.md, "Scales".
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

from shoal.errors import ArgumentError

#: kappa is a multiple of this, so that machines whose exp differs in the last bit agree
_GRAIN: Final = 1 / 64
_LEAST, _MOST = 0.5, 12.0
_GOLDEN: Final = (math.sqrt(5) - 1) / 2


def tail(x: float) -> float:
    """Q(x): how often a standard normal number is above x."""
    return 0.5 * math.erfc(x / math.sqrt(2))


def clip_error(kappa: float) -> float:
    """Squared error of clipping a standard normal number to [-kappa, kappa]."""
    density = math.exp(-kappa * kappa / 2) / math.sqrt(2 * math.pi)
    return 2 * ((1 + kappa * kappa) * tail(kappa) - kappa * density)


def mean_error(kappa: float, bound: int, mean_of: int) -> float:
    """The whole formula above."""
    return kappa * kappa / (12 * bound * bound * mean_of) + clip_error(kappa)


@lru_cache(maxsize=256)
def kappa(bound: int, mean_of: int) -> float:
    """The kappa of least error for L = ``bound`` and m = ``mean_of``, to the nearest 1/64, within 0.5 ... 12.

    raises  ArgumentError  ``plan.bound``
    """
    if bound < 1 or mean_of < 1:
        raise ArgumentError("plan.bound", f"a bound of {bound} for {mean_of} participants; expected 1 or more")
    low, high = _LEAST, _MOST
    while high - low > 1e-5:
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if mean_error(left, bound, mean_of) < mean_error(right, bound, mean_of):
            high = right
        else:
            low = left
    return round((low + high) / 2 / _GRAIN) * _GRAIN
