"""Every kernel, as a ratio to the copy limit and to numpy, all taken in one run.

The copy limit of N inputs is the time to copy (N + 1) / 2 vectors with the same threads: the same traffic as reading N and
writing one.  SHOAL_BENCH_ELEMENTS sets the length of a vector (default 25,000,000); with --benchmark-disable the benches
run tiny, as a check of their results.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

from shoal.kernels import dispatch, reference
from shoal.kernels.reference import Array

BFLOAT16 = reference.BFLOAT16
SMALL = 4_099
ROUNDS = 5
#: numpy is timed on a part of this length and scaled up: its time per element does not depend on the length.
NUMPY_ELEMENTS = 1_000_000


def elements(benchmark: Any, inputs: int = 8) -> int:
    """Fewer for more inputs, so that memory stays below 1 GB."""
    if benchmark.disabled:
        return SMALL
    return int(float(os.environ.get("SHOAL_BENCH_ELEMENTS", "25e6"))) * 8 // max(inputs, 8)


@cache
def vectors(count: int, length: int, dtype: Any) -> list[Array]:
    """Like models of one base: equal but for a little noise."""
    rng = np.random.default_rng(1)
    base = rng.standard_normal(length, dtype=np.float32)
    noise = rng.standard_normal(10_007, dtype=np.float32)
    return [
        (base + np.float32(0.01 * (i + 1)) * np.resize(np.roll(noise, i), length)).astype(dtype) for i in range(count)
    ]


@pytest.fixture(autouse=True)
def forget() -> Any:
    yield
    vectors.cache_clear()


def seconds(run: Callable[[], object]) -> float:
    run()
    taken = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))


def copy_limit(inputs: list[Array]) -> float:
    """Seconds to copy (N + 1) / 2 vectors, measured by copying some of the inputs one after the other."""
    out = np.zeros_like(inputs[0])
    whole = seconds(lambda: [dispatch.copy(x, out) for x in inputs[: min(4, len(inputs))]])
    return whole / min(4, len(inputs)) * (len(inputs) + 1) / 2


def measure(
    benchmark: Any,
    run: Callable[[], object],
    inputs: list[Array],
    numpy_run: Callable[[list[Array]], object] | None = None,
) -> None:
    limit = None if benchmark.disabled else copy_limit(inputs)
    benchmark.pedantic(run, rounds=ROUNDS, warmup_rounds=1)
    if limit is None:
        return
    taken = benchmark.stats.stats.median
    benchmark.extra_info["of copy limit"] = limit / taken
    benchmark.extra_info["GB/s"] = sum(x.nbytes for x in inputs) * (1 + 1 / len(inputs)) / taken / 1e9
    if numpy_run is not None:
        part = [x[:NUMPY_ELEMENTS] for x in inputs]
        start = time.perf_counter()
        numpy_run(part)
        benchmark.extra_info["x numpy"] = (time.perf_counter() - start) * len(inputs[0]) / len(part[0]) / taken


def check(run: Callable[[Any, list[Array], Array], object], inputs: list[Array], out: Array) -> None:
    """The last SMALL elements are the reference's."""
    ends = [x[-SMALL:] for x in inputs]
    expected = np.empty_like(ends[0])
    run(reference, ends, expected)
    whole = f"u{out.dtype.itemsize}"
    assert np.array_equal(out[-SMALL:].view(whole), expected.view(whole))


RULES: dict[str, tuple[Callable[[Any, list[Array], Array], object], Callable[[list[Array]], object] | None]] = {
    "weighted mean": (
        lambda m, x, out: m.weighted_mean(x, [812.0 + i for i in range(len(x))], out),
        lambda x: np.average(x, axis=0, weights=[812.0 + i for i in range(len(x))]),
    ),
    "median": (lambda m, x, out: m.median(x, None, out), lambda x: np.median(x, axis=0)),
    "weighted median": (lambda m, x, out: m.median(x, [812.0 + i for i in range(len(x))], out), None),
    "trimmed mean": (
        lambda m, x, out: m.trimmed_mean(x, None, len(x) // 5, out),
        lambda x: np.sort(x, axis=0)[len(x) // 5 : len(x) - len(x) // 5].mean(axis=0),
    ),
    "mean around median": (lambda m, x, out: m.mean_around_median(x, len(x) // 2, out), None),
    "combine with base": (
        lambda m, x, out: m.combine(x[0], x, [0.3] * len(x), out),
        lambda x: x[0] + sum(np.float32(0.3) * (y - x[0]) for y in x),
    ),
}


@pytest.mark.parametrize(
    ("rule", "count", "dtype"),
    [
        *((rule, 8, np.float32) for rule in RULES),
        *(("weighted mean", 8, dtype) for dtype in (np.float64, np.float16, BFLOAT16)),
        *(("median", 8, dtype) for dtype in (np.float64, np.float16, BFLOAT16)),
        ("weighted mean", 32, np.float32),
        ("median", 32, np.float32),
        ("trimmed mean", 32, np.float32),
        ("median", 5, np.float32),
        ("median", 128, np.float32),
    ],
    ids=lambda value: (
        value if isinstance(value, str) else str(value) if isinstance(value, int) else np.dtype(value).name
    ),
)
def test_rule(benchmark: Any, rule: str, count: int, dtype: Any) -> None:
    length = elements(benchmark, count) // (2 if dtype is np.float64 else 1)
    inputs = vectors(count, length, np.dtype(dtype))
    out = np.zeros_like(inputs[0])
    run, numpy_run = RULES[rule]
    numpy_run = numpy_run if dtype is np.float32 else None
    measure(benchmark, lambda: run(dispatch, inputs, out), inputs, numpy_run)
    check(run, inputs, out)


def test_gram(benchmark: Any) -> None:
    inputs = vectors(8, elements(benchmark), np.dtype(np.float32))
    measure(
        benchmark, lambda: dispatch.gram(inputs), inputs, lambda x: (lambda a: a @ a.T)(np.stack(x).astype(np.float64))
    )
    found, expected = dispatch.gram(inputs)[-1], reference.gram([x[-(len(x) % 65_536 or 65_536) :] for x in inputs])[-1]
    assert np.array_equal(found, expected)


def test_stats(benchmark: Any) -> None:
    x = vectors(1, elements(benchmark), np.dtype(np.float32))[0]
    measure(benchmark, lambda: dispatch.stats(x), [x], lambda part: (np.abs(part[0]).max(), part[0] @ part[0]))
    assert dispatch.stats(x[:SMALL]) == reference.stats(x[:SMALL])


@pytest.mark.parametrize(
    ("source", "target"),
    [(np.float32, np.float16), (np.float16, np.float32), (np.float32, BFLOAT16), (BFLOAT16, np.float32)],
    ids=lambda dtype: np.dtype(dtype).name,
)
def test_convert(benchmark: Any, source: Any, target: Any) -> None:
    x = vectors(1, elements(benchmark), np.dtype(source))[0]
    out = np.zeros(len(x), target)
    measure(benchmark, lambda: dispatch.convert(x, out), [x], lambda part: part[0].astype(target))
    expected = np.empty(SMALL, target)
    reference.convert(x[-SMALL:], expected)
    assert np.array_equal(out[-SMALL:].view(f"u{out.itemsize}"), expected.view(f"u{out.itemsize}"))


def test_scaled_add(benchmark: Any) -> None:
    y, x = vectors(2, elements(benchmark), np.dtype(np.float32))
    out = np.zeros_like(y)
    measure(
        benchmark, lambda: dispatch.scaled_add(y, 0.3, x, out), [y, x], lambda part: part[0] + np.float32(0.3) * part[1]
    )
    check(lambda m, inputs, made: m.scaled_add(inputs[0], 0.3, inputs[1], made), [y, x], out)


def test_rule_of_a_user(benchmark: Any) -> None:
    pytest.importorskip("numba", reason="rules of users need numba")
    from shoal.kernels.custom import compile_rule

    def mean(values: Any, weights: Any) -> float:
        total, weight = 0.0, 0.0
        for i in range(len(values)):
            total += weights[i] * values[i]
            weight += weights[i]
        return total / weight

    rule = compile_rule(mean)
    inputs = vectors(8, elements(benchmark), np.dtype(np.float32))
    out = np.zeros_like(inputs[0])
    measure(benchmark, lambda: rule.apply(inputs, [1.0] * 8, out), inputs)
    assert np.allclose(out[-SMALL:], np.mean([x[-SMALL:] for x in inputs], axis=0), atol=1e-5)
