"""The mask graph holds together, and the numbers of a round keep their relations."""

from __future__ import annotations

from itertools import combinations

import msgspec
import pytest

from shoal.errors import ArgumentError
from shoal.secure.graph import neighbours, ring_order
from shoal.secure.kdf import digest
from shoal.secure.parameters import check, fault
from shoal.thresholds import thresholds

IDS = [digest("m", bytes([i])) for i in range(255)]


def connected(graph: dict[bytes, frozenset[bytes]], left: set[bytes]) -> bool:
    start = next(iter(left))
    seen, todo = {start}, [start]
    while todo:
        for other in graph[todo.pop()] & left - seen:
            seen.add(other)
            todo.append(other)
    return seen == left


@pytest.mark.parametrize("n", [*range(3, 33), 64, 100, 255])
def test_degree_and_symmetry(n: int) -> None:
    k = thresholds(n).k
    graph = neighbours(IDS[:n], k, b"seed")
    assert all(len(others) == k and me not in others for me, others in graph.items())
    assert all(me in graph[other] for me, others in graph.items() for other in others)
    assert graph == neighbours(IDS[:n][::-1], k, b"seed")
    assert ring_order(IDS[:n], b"a") != ring_order(IDS[:n], b"b") or n < 4


@pytest.mark.parametrize(("n", "k"), [(8, 4), (9, 4), (10, 6), (11, 4), (12, 6)])
def test_exactly_k_connected(n: int, k: int) -> None:
    """Exhaustive: no k - 1 removals part it, some k do."""
    graph = neighbours(IDS[:n], k, b"seed")
    everybody = set(IDS[:n])
    assert all(connected(graph, everybody - set(gone)) for gone in combinations(IDS[:n], k - 1))
    assert not all(connected(graph, everybody - set(gone)) for gone in combinations(IDS[:n], k))


@pytest.mark.parametrize("n", [4, 5, 7, 10])
def test_colluders_and_drop_outs_cannot_part_the_rest(n: int) -> None:
    numbers = thresholds(n)
    graph = neighbours(IDS[:n], numbers.k, b"seed")
    for gone in combinations(IDS[:n], numbers.t + numbers.d_max):
        assert connected(graph, set(IDS[:n]) - set(gone))


@pytest.mark.parametrize("profile", ["default", "light"])
def test_relations_hold_for_every_number_of_participants(profile: str) -> None:
    for n in range(3, 256):
        numbers = thresholds(n, profile)
        assert fault(n, numbers) == "", (n, numbers)


@pytest.mark.parametrize("profile", ["default", "light"])
def test_a_quorum_is_enough_to_vouch_and_to_find_out(profile: str) -> None:
    """Of any q: more than t honest ones, and more than t survivors that tell their nonce (docs/adr/0015-vouching.md)."""
    for n in range(3, 256):
        numbers = thresholds(n, profile)
        assert numbers.q - numbers.t > numbers.t and numbers.q - numbers.d_max > numbers.t, (n, numbers)


def test_known_numbers() -> None:
    found = {n: tuple(msgspec.structs.astuple(thresholds(n))) for n in (3, 4, 5, 7, 10, 16, 31, 64, 100)}
    assert found == {
        3: (1, 0, 3, 2), 4: (1, 1, 3, 3), 5: (1, 1, 4, 4), 7: (2, 2, 5, 6), 10: (3, 3, 7, 8), 16: (5, 5, 11, 12),
        31: (10, 10, 21, 22), 64: (21, 21, 43, 44), 100: (33, 33, 67, 68),
    }  # fmt: skip
    assert (thresholds(100, "light").q, thresholds(100, "light").k) == (56, 32)


@pytest.mark.parametrize(
    ("n", "change", "words"),
    [
        (2, {}, "at least 3"),
        (10, {"q": 8}, "cannot form"),
        (10, {"q": 6}, "need not share"),
        (10, {"q": 3, "t": 3}, "need not share"),
        (10, {"d_max": 6, "q": 4, "t": 0}, "need not share"),
        (10, {"k": 6}, "parted"),
        (10, {"t": 6, "q": 9, "d_max": 1}, ""),
        (10, {"t": 8, "q": 10, "d_max": 0, "k": 9}, ""),
        (10, {"t": 9, "q": 10, "d_max": 0, "k": 9}, "two honest"),
        (10, {"k": 7}, "odd degree"),
        (256, {}, "at most"),
        (10, {"k": -1}, "negative"),
        (10, {"q": 0}, "negative"),
    ],
)
def test_numbers_that_are_not_safe_are_refused(n: int, change: dict[str, int], words: str) -> None:
    numbers = msgspec.structs.replace(thresholds(max(n, 3)), **change)
    if words:
        with pytest.raises(ArgumentError, match=words):
            check(n, numbers)
    else:
        check(n, numbers)


def test_three_that_may_fail_but_not_lie() -> None:
    """A quorum of 2 among 3; for 3 only, and only where it is said."""
    numbers = thresholds(3, "crash")
    assert fault(3, numbers, crash_only=True) == "" and "need not share" in fault(3, numbers)
    assert "for 3 only" in fault(4, thresholds(4), crash_only=True)
    assert "need not share" in fault(3, msgspec.structs.replace(numbers, q=1), crash_only=True)


def test_an_odd_degree_would_be_one_less() -> None:
    """Why it is refused: each participant has as many partners on either side."""
    assert {len(others) for others in neighbours(IDS[:10], 5, b"seed").values()} == {4}
