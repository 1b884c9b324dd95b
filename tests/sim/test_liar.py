"""Histories in which one member lies: what the protocol claims then holds, each rule behind it is needed."""

from __future__ import annotations

from collections import Counter

import pytest
from liar import LIES, UNPROVEN
from mutations import LIAR_MUTATIONS, search
from seeds import failure
from trial import trial

SEEDS, STEPS, BATCH = 200, 400, 50


@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_histories_with_a_liar_hold(first: int) -> None:
    found = next(filter(None, (failure(seed, STEPS, liar=True) for seed in range(first, first + BATCH))), "")
    assert not found, found


@pytest.mark.slow
@pytest.mark.parametrize("first", range(10_000, 15_000, 500))
def test_many_histories_with_a_liar_hold(first: int) -> None:
    found = next(filter(None, (failure(seed, STEPS, liar=True) for seed in range(first, first + 500))), "")
    assert not found, found


@pytest.mark.parametrize("name", LIAR_MUTATIONS)
def test_mutation_is_caught(name: str) -> None:
    tried, caught = search(name, 1500, STEPS)
    assert caught, f"{LIAR_MUTATIONS[name][0]}: off for {tried} seeds and nothing noticed"


def test_one_seed_is_one_history() -> None:
    def trace(seed: int) -> list[str]:
        lines: list[str] = []
        trial(seed, 200, trace=lines.append)
        return lines

    assert trace(3) == trace(3) != trace(4)


def test_each_lie_meets_its_answer() -> None:
    """A run without its lie proves nothing: each one alone is noticed, or does no harm that anybody could notice."""
    met: dict[str, Counter[str]] = {}
    for lie in LIES:
        met[lie] = Counter()
        for seed in range(80 if lie in UNPROVEN else 12):
            found = trial(seed, STEPS, frozenset((lie,)))
            assert not (found.split and lie not in UNPROVEN | {"equivocate"})
            met[lie]["split"] += found.split
            for node in found.honest:
                met[lie].update(node.raft.counters)
                met[lie].update(node.strangers)
    assert met["misquote"]["not-admitted"] and met["seal-as-another"]["not-admitted"]
    assert met["impersonate"]["another's name"]
    assert met["equivocate"]["split"] and met["equivocate"]["forked-chain"]
    assert met["commit-beyond"]["commit-beyond-log"] and met["forge-terms"]["term-too-far"]
    assert met["accuse"]["barred"] and met["replay"]["old-term"]
    assert met["vote-twice"]["second-leader"], "two leaders of one term, neither of whom follows the other"
    assert met["usurp"]["contradicts-committed"] and met["acknowledge"]["contradicts-committed"]
