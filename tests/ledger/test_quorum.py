from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.ledger.quorum import LOST, PENDING, WON, majority, outcome, reached_by_majority


@pytest.mark.parametrize("n", range(1, 12))
def test_two_majorities_share_a_member_and_fewer_do_not(n: int) -> None:
    q = majority(n)
    everybody = range(n)
    assert all(set(a) & set(b) for a in combinations(everybody, q) for b in combinations(everybody, q))
    if n > 1:
        assert any(not set(a) & set(b) for a in combinations(everybody, n - q) for b in combinations(everybody, n - q))
        assert 2 * (q - 1) <= n


@given(st.lists(st.integers(0, 20), min_size=1, max_size=9))
def test_reached_by_majority_is_the_largest_such_value(values: list[int]) -> None:
    found = reached_by_majority(values)
    assert sum(v >= found for v in values) >= majority(len(values))
    assert sum(v > found for v in values) < majority(len(values))


def test_nobody_reaches_nothing() -> None:
    assert reached_by_majority([]) == 0
    assert outcome({}, ()) == LOST


@given(st.integers(1, 8), st.dictionaries(st.integers(0, 9), st.booleans()))
def test_outcome_counts_voters_only(n: int, answers: dict[int, bool]) -> None:
    voters = tuple(bytes([i]) for i in range(n))
    votes = {bytes([i]): answer for i, answer in answers.items()}
    granted = sum(votes.get(v) is True for v in voters)
    refused = sum(votes.get(v) is False for v in voters)
    expected = WON if 2 * granted > n else LOST if 2 * (n - refused) <= n else PENDING
    assert outcome(votes, voters) == expected
