"""The relations between the numbers of a round without which nothing here is safe; checked before any key is used.

    q <= n - d_max          a quorum can form when d_max have fallen out
    2 q > n + t             two certificates share an honest signer, so there is one survivor set
    q > t                   colluders alone cannot open a secret
    n - d_max - t >= 2      every opened sum has two honest contributions at least
    k >= t + d_max + 1      the mask graph holds together without colluders and drop-outs (or is complete);
                            k is even then: of an odd degree the graph would leave one out

Source: Bonawitz et al., CCS 2017, section 6; docs/PROTOCOL.md, "How many".
"""

from __future__ import annotations

from typing import Final

from shoal.errors import ArgumentError
from shoal.limits import LEDGER_MEMBERS_MAX
from shoal.thresholds import Thresholds

#: two would show each other their update: the sum less one's own
PARTICIPANTS_MIN: Final = 3


def fault(n: int, numbers: Thresholds, crash_only: bool = False) -> str:
    """Which relation does not hold for n participants; "" if all do.

    crash_only  members may fail but not lie: then two certificates need only share a signer, 2 q > n.  For 3 only
    """
    t, d_max, q, k = numbers.t, numbers.d_max, numbers.q, numbers.k
    if n < PARTICIPANTS_MIN:
        return f"{n} participants; at least {PARTICIPANTS_MIN} are needed to hide one among others"
    if n > LEDGER_MEMBERS_MAX:
        return f"{n} participants; shares can be made for {LEDGER_MEMBERS_MAX} at most"
    if crash_only and n != PARTICIPANTS_MIN:
        return f"{n} participants that may not lie; that is for {PARTICIPANTS_MIN} only"
    if min(t, d_max, k) < 0 or q < 1:
        return "a negative number"
    if q > n - d_max:
        return f"quorum {q} cannot form when {d_max} of {n} fall out"
    if 2 * q <= (n if crash_only else n + t):
        return f"two quorums of {q} among {n} need not share a signer that is honest"
    if q <= t:
        return f"{t} colluders can open what {q} shares open"
    if n - d_max - t < 2:
        return f"an opened sum could have fewer than two honest contributions ({n} - {d_max} - {t})"
    if k < min(n - 1, t + d_max + 1):
        return f"a mask graph of degree {k} can be parted by {t} colluders and {d_max} that fall out"
    if k % 2 and k < n - 1:
        return f"a mask graph of odd degree {k}"
    return ""


def check(n: int, numbers: Thresholds, crash_only: bool = False) -> None:
    """raises  ArgumentError  ``secure.parameters``"""
    found = fault(n, numbers, crash_only)
    if found:
        raise ArgumentError("secure.parameters", found)
