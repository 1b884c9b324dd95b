"""Who shares masks with whom: Harary's graph H(k, n), the least graph that k - 1 removals cannot part.

The circulant graph C_n(1 .. k/2): in a ring, everybody with the k/2 next on either side; complete for k >= n - 1.  It
is exactly k-connected, so after any t colluders and any d_max that fall out are taken away, whoever chose them, the
rest hang together, and only their total is determined.  The order in the ring is drawn for load only.

Source: Harary, PNAS 1962; Bell et al., CCS 2020 (mask graphs).
"""

from __future__ import annotations

from collections.abc import Iterable

from shoal.secure.kdf import digest


def ring_order(members: Iterable[bytes], seed: bytes) -> list[bytes]:
    """The members in an order that ``seed`` draws, the same for everybody."""
    return sorted(members, key=lambda member: digest("perm", seed, member))


def neighbours(members: Iterable[bytes], k: int, seed: bytes) -> dict[bytes, frozenset[bytes]]:
    """Each member's partners in masking: k of them, or all others if there are no more than k.

    k     even, or at least the number of others
    seed  public bytes, the rid
    """
    order = ring_order(members, seed)
    n = len(order)
    if k >= n - 1:
        return {member: frozenset(order) - {member} for member in order}
    reach = [step for step in range(-(k // 2), k // 2 + 1) if step]
    return {member: frozenset(order[(at + step) % n] for step in reach) for at, member in enumerate(order)}
