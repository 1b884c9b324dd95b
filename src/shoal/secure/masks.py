"""Which streams stand for what: keys and signs, to be added to words by one kernel call.

For participant i with mask partners N(i), survivors U, and those that fell out D:

    upload     + m_i + sum over j in N(i) of sgn(i, j) s_ij                 y_i = v_i + these
    removal    - sum over U of m_i
               - sum over i in U, d in N(i) and D of sgn(i, d) s_id         S = sum over U of y_i + these
    vouching   - m_i - sum over d in N(i) and D of sgn(i, d) s_id           w_i = y_i + these

The removal over all of U is the sum of the vouchings: what is left in sum w_i are pair masks that cancel.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from shoal.kernels.ring import Streams
from shoal.secure.seeds import pair_sign


def upload(me: bytes, own: bytes, pairs: Mapping[bytes, bytes]) -> Streams:
    """own: m_i;  pairs: partner -> s_ij"""
    partners = sorted(pairs)
    return Streams.of([own, *(pairs[p] for p in partners)], [1, *(pair_sign(me, p) for p in partners)])


def vouching(me: bytes, own: bytes, fallen: Mapping[bytes, bytes]) -> Streams:
    """own: m_i;  fallen: partner that fell out -> s_id"""
    return upload(me, own, fallen).opposite()


def removal(own: Mapping[bytes, bytes], fallen: Mapping[tuple[bytes, bytes], bytes]) -> Streams:
    """own: survivor -> m_i;  fallen: (survivor, partner that fell out) -> s_id"""
    keys = [own[i] for i in sorted(own)] + [fallen[pair] for pair in sorted(fallen)]
    signs = [-1] * len(own) + [-pair_sign(i, d) for i, d in sorted(fallen)]
    return Streams.of(keys, signs)


def edges(survivors: Iterable[bytes], graph: Mapping[bytes, frozenset[bytes]], fallen: frozenset[bytes]) -> list[
    tuple[bytes, bytes]
]:  # fmt: skip
    """(survivor, partner that fell out), sorted: whose masks are left in the sum."""
    return sorted((i, d) for i in survivors for d in graph[i] & fallen)
