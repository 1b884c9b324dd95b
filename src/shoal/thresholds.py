"""How many: the numbers of a round that follow from its number of participants.  Every peer computes them again.

    t        colluding peers tolerated                    max(1, ceil(n/3) - 1)
    d_max    participants that may fall out               ceil(n/3) - 1
    q        votes of a certificate, and Shamir threshold  floor((n + t)/2) + 1
    k        degree of the mask graph                     min(n - 1, 2 ceil((t + d_max + 1)/2))

Source: docs/PROTOCOL.md, "How many".
"""

from __future__ import annotations

from typing import Final

import msgspec

from shoal.errors import ArgumentError

#: numbers of a genesis' quorum profile -> names
PROFILES: Final = {1: "default", 2: "light", 3: "crash"}


class Thresholds(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The four numbers of a round, see the module."""

    t: int
    d_max: int
    q: int
    k: int


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def thresholds(n: int, profile: str = "default") -> Thresholds:
    """The numbers for ``n`` participants.

    light  for swarms that trust each other more: t = ceil(n/10), d_max = ceil(n/5); below 10 the same as default
    crash  q = 2 for 3 participants: one that lies, not only fails, could then split the swarm; else as default

    raises  ArgumentError  ``plan.participants``: fewer than 2, or no such profile
    """
    if n < 2 or profile not in PROFILES.values():
        raise ArgumentError("plan.participants", f"no round of {n} participants in profile {profile!r}")
    if profile == "light" and n >= 10:
        t, d_max = _ceil_div(n, 10), _ceil_div(n, 5)
    else:
        d_max = _ceil_div(n, 3) - 1
        t = max(1, d_max)
    q = 2 if profile == "crash" and n == 3 else (n + t) // 2 + 1
    k = min(n - 1, 2 * _ceil_div(t + d_max + 1, 2))
    return Thresholds(t, d_max, q, k)
