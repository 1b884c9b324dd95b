"""Memory that is used again: never while anybody looks at it, and never more than was in use at once."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest

from shoal.swarm.coder import joined
from shoal.swarm.stock import Stock

MB = 2**20


def address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def test_what_nobody_looks_at_is_used_again() -> None:
    stock = Stock()
    first = stock.take(3 * MB)
    at = address(first)
    del first
    again = stock.take(3 * MB - 100)
    assert address(again) == at and again.size == 3 * MB - 100 and again.dtype == np.uint8
    assert stock.held == 3 * MB


LOOKS: list[Callable[[np.ndarray], object]] = [
    lambda a: a[5:7],
    lambda a: a.data[2**20 :],
    lambda a: a.view(np.float32)[1:].reshape(3, -1)[:, :2],
    lambda a: np.frombuffer(a.data, np.uint8),
]


@pytest.mark.parametrize("look", LOOKS)
def test_what_somebody_looks_at_is_not(look: Callable[[np.ndarray], object]) -> None:
    stock = Stock()
    seen = look(stock.take(3 * MB + 4))
    others = [stock.take(3 * MB + 4) for _ in range(3)]
    for other in others:
        assert not np.shares_memory(np.asarray(seen), other)
    assert len({address(other) for other in others}) == 3


def test_small_arrays_are_not_kept() -> None:
    stock = Stock()
    assert stock.take(1000).size == 1000 and stock.take(0).size == 0 and stock.held == 0


def test_never_more_than_was_in_use_at_once() -> None:
    stock = Stock()
    both = [stock.take(4 * MB), stock.take(6 * MB)]
    del both
    for size in (9, 2, 7, 3, 10, 1, 5, 8):
        large = stock.take(size * MB)
        assert large.size == size * MB and stock.held <= 10 * MB
        del large
    wide = [stock.take(2 * MB) for _ in range(5)]
    assert len({address(array) for array in wide}) == 5 and stock.held == 10 * MB


def test_threads_never_share() -> None:
    stock, faults = Stock(), []

    def work(mark: int) -> None:
        for _ in range(200):
            mine = stock.take(MB)
            mine[::4096] = mark
            if not (mine[::4096] == mark).all():
                faults.append(mark)
            del mine

    threads = [threading.Thread(target=work, args=(mark,)) for mark in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults and stock.held <= 4 * MB


def test_pieces_that_lie_in_a_row_are_one_array_already() -> None:
    whole = np.arange(100, dtype=np.uint8)
    row = [whole[10:30], whole[30:30], whole[30:90]]
    assert np.shares_memory(joined(row), whole) and joined(row).tolist() == list(range(10, 90))
    for pieces in (
        [whole[10:30], whole[31:40]],
        [whole[30:40], whole[20:30]],
        [whole[:10], np.arange(5, dtype=np.uint8)],
    ):
        found = joined(pieces)
        assert not np.shares_memory(found, whole) and found.tolist() == np.concatenate(pieces).tolist()
