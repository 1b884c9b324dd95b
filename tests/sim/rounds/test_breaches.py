"""Each rule of the rounds is needed: with it off some law is broken; with all of them on the same histories hold."""

from __future__ import annotations

import pytest
from breaches import BREACHES, breached, clean, search
from history import betrayal
from traitor import LIES

#: found within a few histories; the others need some more, and `make slow` or `make sim ROUNDS=1 MUTATE=all`
QUICK = [name for name in BREACHES if name not in ("sums-unchecked", "batches-alone", "seeds-only", "way-back")]


@pytest.mark.parametrize("name", QUICK)
def test_breach_is_missed(name: str) -> None:
    tried, caught = search(name, 60)
    assert caught, f"{BREACHES[name][0]}: off for {tried} histories and nothing noticed"


@pytest.mark.slow
@pytest.mark.parametrize("name", BREACHES.keys() - set(QUICK))
def test_rare_breach_is_missed(name: str) -> None:
    tried, caught = search(name, 1000)
    assert caught, f"{BREACHES[name][0]}: off for {tried} histories and nothing noticed"


def test_with_all_rules_on_their_histories_hold() -> None:
    found = clean(QUICK, 2)
    assert not found, found


def test_rules_are_on_again() -> None:
    with breached("no-floor"), breached("any-base"):
        pass
    assert not clean(["no-floor", "any-base"], 1)


@pytest.mark.slow
@pytest.mark.parametrize("lie", LIES)
def test_each_lie_alone_breaks_no_law(lie: str) -> None:
    for seed in range(40):
        betrayal(seed, (lie,))
