"""`shoal.merge` of state dicts in memory against numpy on the same arrays, and against a copy of the same bytes.

SHOAL_BENCH_NUMBERS  float32 numbers in one model (default 25,000,000; 20,000 when benchmarks are disabled)
Times are the best of some rounds, in seconds; results are written into arrays that were made before (``out=``).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import shoal

Models = list[dict[str, npt.NDArray[np.float32]]]
MODELS = 8
ROUNDS = 5


def best(call: Callable[[], object], rounds: int) -> float:
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return min(found)


@pytest.fixture(scope="module")
def models(request: pytest.FixtureRequest) -> Models:
    disabled = request.config.getoption("benchmark_disable")
    numbers = 20_000 if disabled else int(os.environ.get("SHOAL_BENCH_NUMBERS", "25000000"))
    rng = np.random.default_rng(7)
    base = rng.standard_normal(numbers, dtype=np.float32).reshape(8, -1)
    return [{f"layer{k}": base[k] + np.float32(0.01 * m) * base[-k] for k in range(8)} for m in range(MODELS)]


NUMPY: dict[str, Callable[[list[npt.NDArray[np.float32]]], Any]] = {
    "mean": lambda same: np.average(same, axis=0, weights=[1, 2, 3, 4, 5, 6, 7, 8]),
    "median": lambda same: np.median(same, axis=0),
    "trimmed-mean": lambda same: np.sort(same, axis=0)[1:-1].mean(axis=0),
}


@pytest.mark.parametrize("method", ["mean", "median", "trimmed-mean", "geometric-median", "krum", "bulyan"])
def test_merge_in_memory(benchmark: Any, models: Models, method: str) -> None:
    """8 state dicts of 8 tensors each."""
    rounds = 1 if benchmark.disabled else ROUNDS
    out = {key: np.empty_like(value) for key, value in models[0].items()}
    weights = [1, 2, 3, 4, 5, 6, 7, 8] if method == "mean" else None

    def ours() -> object:
        return shoal.merge(models, method=method, weights=weights, out=out)

    ours()
    copy = best(lambda: [np.copyto(out[key], m[key]) for m in models for key in out], rounds)
    seconds = best(ours, rounds)
    benchmark.extra_info.update({"seconds": seconds, "ratio to copying all inputs": seconds / copy})
    theirs = NUMPY.get(method)
    if theirs is not None:
        part = {key: [m[key] for m in models] for key in list(out)[:1]}  # an eighth, timed and multiplied
        numpy = best(lambda: [theirs(same) for same in part.values()], 1) * len(out)
        benchmark.extra_info["times faster than numpy"] = numpy / seconds
    benchmark.pedantic(ours, rounds=rounds)

    ours()
    if theirs is not None:
        key = next(iter(out))
        np.testing.assert_allclose(out[key], theirs([m[key] for m in models]), rtol=1e-5, atol=1e-6)
    else:
        assert all(np.isfinite(value).all() for value in out.values())


def test_many_small_tensors(benchmark: Any) -> None:
    """10,000 tensors of 1,000 numbers in 8 models: what is paid for each tensor."""
    count = 50 if benchmark.disabled else 10_000
    rng = np.random.default_rng(3)
    models = [{f"{k}": rng.standard_normal(1000, dtype=np.float32) for k in range(count)} for _ in range(MODELS)]
    seconds = best(lambda: shoal.merge(models), 1 if benchmark.disabled else 3)
    benchmark.extra_info.update({"seconds": seconds, "microseconds for one tensor": seconds / count * 1e6})
    found = benchmark.pedantic(shoal.merge, (models,), rounds=1)
    np.testing.assert_allclose(found["0"], np.mean([m["0"] for m in models], axis=0), rtol=1e-5, atol=1e-6)
