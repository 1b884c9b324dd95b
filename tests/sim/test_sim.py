"""Histories of a simulated cluster: every invariant holds, each rule is needed, and one seed is one history."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

import pytest
from cluster import Cluster, history
from invariants import Violation
from mutations import MUTATIONS, mutated, search
from seeds import batch, failure

from shoal.ledger import life

SEEDS, STEPS, BATCH = 4000, 500, 250
#: caught within a few seeds; the others need hundreds or thousands, and `make slow` or `make sim MUTATE=all`
QUICK = {name: 1500 for name in MUTATIONS if name not in ("vote-forgotten", "early-change")}


@pytest.fixture(scope="module")
def batches() -> Iterator[dict[int, Future[str]]]:
    """All batches in two processes, started once."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield {first: pool.submit(batch, (first, BATCH, STEPS, False)) for first in range(0, SEEDS, BATCH)}


@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_histories_hold(first: int, batches: dict[int, Future[str]]) -> None:
    found = batches[first].result()
    assert not found, found


@pytest.mark.parametrize("name", QUICK)
def test_mutation_is_caught(name: str) -> None:
    tried, caught = search(name, QUICK[name], STEPS)
    assert caught, f"{MUTATIONS[name][0]}: off for {tried} seeds and nothing noticed"


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTATIONS.keys() - QUICK.keys())
def test_rare_mutation_is_caught(name: str) -> None:
    tried, caught = search(name, 30_000, STEPS)
    assert caught, f"{MUTATIONS[name][0]}: off for {tried} seeds and nothing noticed"


@pytest.mark.slow
def test_many_histories_hold() -> None:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        for found in pool.map(batch, [(first, 250, STEPS, False) for first in range(10_000, 30_000, 250)]):
            assert not found, found


@pytest.mark.parametrize("first", [0, 150])
def test_a_machine_that_gets_old_disks_back_does_no_harm(first: int) -> None:
    """Where those who know better can be heard (ledger/life.py)."""
    barred = 0
    for seed in range(first, first + 150):
        cluster = history(seed, STEPS, restores=True)
        barred += any(n.raft.state.barred for n in cluster.nodes.values())
    assert barred > 100


def test_without_lives_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(life, "is_newest", lambda state, m: True)
    monkeypatch.setattr(life, "accuse", lambda state, m: None)
    with pytest.raises(Violation):
        for seed in range(100):
            history(seed, STEPS, restores=True)


def trace_of(seed: int) -> list[str]:
    lines: list[str] = []
    history(seed, 200, lines.append)
    return lines


def test_one_seed_is_one_history() -> None:
    assert trace_of(11) == trace_of(11) != trace_of(12)


def test_a_history_does_not_depend_on_the_hash_seed() -> None:
    here = Path(__file__).parent
    code = "import sys, hashlib; from cluster import history; h = hashlib.sha256()\n"
    code += "for s in range(12): history(s, 200, lambda line: h.update(line.encode()))\nprint(h.hexdigest())"
    found = set()
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run([sys.executable, "-c", code], cwd=here, env=environment, capture_output=True, check=True)
        found.add(done.stdout)
    assert len(found) == 1


def test_a_failing_seed_says_how_to_see_it_again() -> None:
    with mutated("half-is-majority"):
        seed = next(s for s in range(50) if failure(s, STEPS))
        text = failure(seed, STEPS)
    assert f"make sim SEED={seed} STEPS={STEPS}" in text
    assert "differs" not in text
    assert "step " in text
    assert not failure(seed, STEPS), "the rule is on again"


def test_every_kind_of_fault_happens() -> None:
    """A run without its fault proves nothing: count what the first seeds do."""
    seen: set[str] = set()
    words = (
        "crashes",
        "starts",
        "partition",
        "heal",
        "cut off",
        "transfers",
        "compacts",
        "SnapshotChunk",
        "TimeoutNow",
    )
    words += ("Hello", "Outdated", "propose +", "propose ^", "propose -", "rejected=True", "pre=True", "transfer=True")
    for seed in range(60):
        lines = trace_of(seed)
        seen |= {w for w in words if any(w in line for line in lines)}
    assert seen == set(words)


def test_leaders_and_decisions_happen() -> None:
    clusters = [history(seed, STEPS) for seed in range(40)]
    assert sum(len(c.laws.leaders) for c in clusters) > 60
    assert sum(len(c.laws.decided) for c in clusters) > 400


def test_the_invariants_know_a_violation() -> None:
    """Two leaders of one term, given by hand."""
    cluster = Cluster(0)
    first, second = list(cluster.nodes.values())[:2]
    cluster.laws.leaders[first.raft.term] = second.id
    with pytest.raises(Violation, match="election safety"):
        cluster.laws.leadership(first)
