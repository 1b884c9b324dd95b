"""The adaptive interval, against the rule of its paper."""

from __future__ import annotations

import math

import pytest

from shoal.errors import ArgumentError
from shoal.interval import Interval


def test_it_follows_the_square_root_of_the_loss() -> None:
    interval = Interval(100)
    assert interval.next(4.0) == 100, "the first loss is what the others are compared with"
    assert interval.next(1.0) == 50 and interval.next(0.25) == 25
    assert interval.next(0.04) == math.ceil(100 * math.sqrt(0.01)) == 10


def test_where_the_loss_stands_still_it_is_halved() -> None:
    interval = Interval(20, least=3)
    assert [interval.next(2.0) for _ in range(5)] == [20, 10, 5, 3, 3]
    assert interval.next(8.0) == 3, "it never grows"


def test_a_loss_that_is_none_changes_nothing() -> None:
    interval = Interval(8)
    assert [interval.next(loss) for loss in (float("nan"), float("inf"), 0.0, -1.0)] == [8] * 4
    assert interval.next(1.0) == 8 and interval.next(0.25) == 4


def test_steps_that_make_no_sense() -> None:
    for first, least in ((0, 0), (5, 6), (5, 0)):
        with pytest.raises(ArgumentError) as refused:
            Interval(first, least)
        assert refused.value.code == "interval.steps"
