"""Majority arithmetic: how many are enough, what index that many have, how a vote stands.

Pure functions of counts and sets.  Learners never appear here: the caller passes voters only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from shoal.ledger.members import PeerId

PENDING: Final = 0
WON: Final = 1
LOST: Final = 2


def majority(voters: int) -> int:
    """The smallest number of `voters` such that any two sets of that size share a member."""
    return voters // 2 + 1


def reached_by_majority(values: Sequence[int]) -> int:
    """The largest v such that a majority of `values` (one per voter) is at least v; 0 without voters.

    With match indexes it is what may be committed; with numbers of heartbeat rounds, what a quorum has confirmed.
    """
    if not values:
        return 0
    return sorted(values, reverse=True)[majority(len(values)) - 1]


def outcome(votes: Mapping[PeerId, bool], voters: Sequence[PeerId]) -> int:
    """PENDING, WON or LOST, counting only the answers of `voters`; nobody can win where nobody votes."""
    need = majority(len(voters))
    granted = refused = 0
    for peer in voters:
        answer = votes.get(peer)
        if answer is True:
            granted += 1
        elif answer is False:
            refused += 1
    if granted >= need:
        return WON
    return LOST if len(voters) - refused < need else PENDING
