"""Histories of whole rounds: every law holds, and one seed is one history."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from batches import batch, failure, large
from hazards import PHASES, ROLES
from history import history

from shoal.swarm import upload
from shoal.swarm.coder import ExactCoder

SEEDS, TRAITORS, BATCH = 1000, 150, 25
Batches = dict[tuple[int, bool], Future[tuple[str, Counter[str]]]]


@pytest.fixture(scope="module")
def batches() -> Iterator[Batches]:
    """All batches in two processes, started once."""
    jobs = [(first, False) for first in range(0, SEEDS, BATCH)] + [(first, True) for first in range(0, TRAITORS, BATCH)]
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield {(first, traitor): pool.submit(batch, (first, BATCH, traitor)) for first, traitor in jobs}


@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_histories_of_rounds_hold(first: int, batches: Batches) -> None:
    found, _ = batches[first, False].result()
    assert not found, found


@pytest.mark.parametrize("first", range(0, TRAITORS, BATCH))
def test_histories_of_rounds_with_a_traitor_hold(first: int, batches: Batches) -> None:
    found, _ = batches[first, True].result()
    assert not found, found


TRUE_REDUCE = ExactCoder.reduce


def half_of_reduce(coder: ExactCoder, shard: int, uploads: dict, streams: object) -> np.ndarray:
    """A wrong sum: one participant is left out."""
    return TRUE_REDUCE(coder, shard, dict(list(uploads.items())[1:]), None)


def trace_of_rounds(seed: int) -> list[str]:
    lines: list[str] = []
    history(seed, trace=lines.append)
    return lines


@pytest.mark.parametrize("seed", [3, 4])
def test_one_seed_is_one_history_of_rounds(seed: int) -> None:
    assert trace_of_rounds(seed) == trace_of_rounds(seed) != trace_of_rounds(seed + 2)


def test_a_history_of_rounds_does_not_depend_on_the_hash_seed() -> None:
    here = Path(__file__).parent
    code = "import hashlib; from history import history; h = hashlib.sha256()\n"
    code += "for s in range(4): history(s, trace=lambda line: h.update(line.encode()))\nprint(h.hexdigest())"
    found = set()
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run([sys.executable, "-c", code], cwd=here, env=environment, capture_output=True, check=True)
        found.add(done.stdout)
    assert len(found) == 1


def test_every_kind_of_fault_happens_in_rounds(batches: Batches) -> None:
    """A run without its fault proves nothing: count what the first seeds do."""
    met = sum((batches[first, False].result()[1] for first in range(0, 100, BATCH)), Counter())
    assert met["exact models"] > 60 and met["rounds"] > 60
    assert met["fell out"] > 5 and met["aborted after survivors"] and met["pause"]
    assert all(met[f"strike {role}"] for role in ROLES) and all(met[f"strike in {phase}"] for phase in PHASES)
    assert all(met[f"opening of kind {kind}"] for kind in (1, 2, 3, 4))
    assert {f"partition {kind}" for kind in ("halves", "deaf", "mute", "link", "bridge")} <= met.keys()


def test_a_failing_seed_of_rounds_says_how_to_see_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "is_named", lambda state, own: True)
    monkeypatch.setattr(ExactCoder, "reduce", half_of_reduce)
    text = failure(1)
    assert "seed 1: exact mean" in text and "make sim ROUNDS=1 SEED=1" in text and "differs" not in text
    assert "RoundPlan by" in text


@pytest.mark.slow
@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("members", [16, 40, 100])
def test_large_swarms_hold(members: int, secure: bool) -> None:
    for seed in range(3):
        history(seed, large(seed, members, secure))
