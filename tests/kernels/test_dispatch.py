"""Native kernels give the bits of `reference`, at every level, for any thread count, length and address."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_arrays import KINDS, LENGTHS, NAMES, bits_of, sample, shifted, specials

from shoal.kernels import _native, dispatch, reference
from shoal.kernels.reference import BFLOAT16, DTYPES, Array

LEVELS = dispatch.levels_available()
#: One, few, on both sides of the largest group that is sorted in registers (16), and merges of groups with a ragged end.
COUNTS = (1, 2, 3, 4, 5, 8, 15, 16, 17, 24, 33)

Kernel = Callable[[Any, list[Array], Any, Array], bool]


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    before = _native.level()
    _native.use_level(request.param)
    yield request.param
    _native.use_level(before)


@pytest.fixture(params=NAMES.values(), ids=str)
def dtype(request: pytest.FixtureRequest) -> np.dtype[Any]:
    found: np.dtype[Any] = request.param
    return found


def weights_for(rng: np.random.Generator, count: int) -> list[float]:
    return [float(w) for w in rng.choice([1.0, 2.0, 812.0, 240.0, 0.1, 1e-30, 3.5], count)]


KERNELS: dict[str, Kernel] = {
    "weighted_mean": lambda m, x, w, out: m.weighted_mean(x, w, out),
    "combine": lambda m, x, w, out: m.combine(None, x, [c - 1.7 for c in w], out),
    "combine_base": lambda m, x, w, out: m.combine(x[-1], x, [c - 1.7 for c in w], out),
    "median": lambda m, x, w, out: m.median(x, None, out),
    "weighted_median": lambda m, x, w, out: m.median(x, w, out),
    "trimmed_mean": lambda m, x, w, out: m.trimmed_mean(x, None, (len(x) - 1) // 3, out),
    "weighted_trimmed_mean": lambda m, x, w, out: m.trimmed_mean(x, w, (len(x) - 1) // 3, out),
    "mean_around_median": lambda m, x, w, out: m.mean_around_median(x, (len(x) + 1) // 2, out),
    "scaled_add": lambda m, x, w, out: m.scaled_add(x[0], w[0] - 1.7, x[-1], out),
}


def check_same(kernel: Kernel, inputs: list[Array], weights: list[float], out: Array) -> None:
    """The native kernel, written to `out`, against the reference."""
    expected = np.empty_like(inputs[0])
    finite = kernel(reference, inputs, weights, expected)
    found = kernel(dispatch, inputs, weights, out)
    different = np.flatnonzero(bits_of(out) != bits_of(expected))
    where = different[:3]
    assert not len(different), (where, [x[where] for x in inputs][:4], out[where], expected[where])
    assert found is finite


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", KERNELS)
def test_same_bits(level: str, dtype: np.dtype[Any], name: str, count: int) -> None:
    rng = np.random.default_rng(count)
    for kind in KINDS:
        inputs = [sample(rng, dtype, 300, kind) for _ in range(count)]
        check_same(KERNELS[name], inputs, weights_for(rng, count), np.empty_like(inputs[0]))


@pytest.mark.parametrize("name", KERNELS)
def test_any_length_threads_and_address(level: str, dtype: np.dtype[Any], name: str) -> None:
    rng = np.random.default_rng(7)
    for length in LENGTHS:
        kind = KINDS[length % len(KINDS)]
        inputs = [shifted(sample(rng, dtype, length, kind), 1 + 3 * i) for i in range(5)]
        out = shifted(np.zeros(length, dtype), length % 64)
        check_same(KERNELS[name], inputs, weights_for(rng, 5), out)


@pytest.mark.parametrize("name", KERNELS)
def test_threads_and_streaming_do_not_matter(level: str, dtype: np.dtype[Any], name: str) -> None:
    """Large enough for several pieces of work and for stores past the caches."""
    rng = np.random.default_rng(8)
    length = (4 << 20) // dtype.itemsize + 77
    inputs = [np.resize(sample(rng, dtype, 10_007 + i, "plain"), length) for i in range(3)]
    weights = weights_for(rng, 3)
    made = []
    for threads, offset in ((1, 16), (2, 0), (5, 48), (3, 1)):
        out = shifted(np.zeros(length, dtype), offset)
        numbers = KERNELS[name](Threads(threads), inputs, weights, out)
        assert numbers is True
        made.append(bits_of(out))
    assert all(np.array_equal(made[0], other) for other in made[1:])
    some = slice(length - 2000, length)
    expected = np.empty(2000, dtype)
    KERNELS[name](reference, [x[some] for x in inputs], weights, expected)
    assert np.array_equal(made[0][some], bits_of(expected))


class Threads:
    """dispatch, with a number of threads."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *given: getattr(dispatch, name)(*given, threads=self.threads)


@pytest.mark.parametrize("name", KERNELS)
def test_out_may_be_an_input(level: str, dtype: np.dtype[Any], name: str) -> None:
    rng = np.random.default_rng(9)
    for which in (0, 2):
        inputs = [sample(rng, dtype, 517, "bits") for _ in range(3)]
        kept = [x.copy() for x in inputs]
        expected = np.empty_like(inputs[0])
        weights = weights_for(rng, 3)
        finite = KERNELS[name](reference, kept, weights, expected)
        mutable = [x.copy() for x in kept]
        assert KERNELS[name](dispatch, mutable, weights, mutable[which]) is finite
        assert np.array_equal(bits_of(mutable[which]), bits_of(expected))


@pytest.mark.parametrize("count", [64, 100, 257, 1024])
@pytest.mark.parametrize("name", [name for name in KERNELS if name != "scaled_add"])
def test_many_inputs(level: str, dtype: np.dtype[Any], name: str, count: int) -> None:
    rng = np.random.default_rng(count)
    inputs = [sample(rng, dtype, 37, KINDS[i % 2 * 2]) for i in range(count)]
    check_same(KERNELS[name], inputs, weights_for(rng, count), np.empty_like(inputs[0]))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), dtype=st.sampled_from(DTYPES), count=st.integers(1, 20), length=st.integers(0, 40))
def test_any_bits(data: st.DataObject, dtype: np.dtype[Any], count: int, length: int) -> None:
    size = length * dtype.itemsize
    inputs = [np.frombuffer(data.draw(st.binary(min_size=size, max_size=size)), dtype) for _ in range(count)]
    weight = st.floats(min_value=0, exclude_min=True, allow_infinity=False, allow_nan=False)
    weights = data.draw(st.lists(weight, min_size=count, max_size=count))
    name = data.draw(st.sampled_from(sorted(KERNELS)))
    if "combine" in name or name == "scaled_add":
        weights = [min(w, 1e300) for w in weights]
    for level in LEVELS:
        _native.use_level(level)
        check_same(KERNELS[name], inputs, weights, np.empty(length, dtype))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 9, 13])
def test_gram(level: str, dtype: np.dtype[Any], count: int) -> None:
    rng = np.random.default_rng(count)
    for length, kind in (
        (0, "plain"),
        (1, "huge"),
        (777, "plain"),
        (65_536 + 13, "plain"),
        (100, "specials"),
        (100, "tiny"),
    ):
        inputs = [shifted(sample(rng, dtype, length, kind), i) for i in range(count)]
        for base in (None, inputs[0]):
            expected = reference.gram(inputs, base)
            for threads in (1, 2):
                assert np.array_equal(bits_of(dispatch.gram(inputs, base, threads=threads)), bits_of(expected)), (
                    length,
                    kind,
                )


def test_stats(level: str, dtype: np.dtype[Any]) -> None:
    rng = np.random.default_rng(3)
    for length in (*LENGTHS, 2 * 65_536 + 5):
        for kind in KINDS:
            x = shifted(sample(rng, dtype, length, kind), length % 8)
            assert dispatch.stats(x) == reference.stats(x), (length, kind)


@pytest.mark.parametrize("to", NAMES.values(), ids=str)
def test_convert(level: str, dtype: np.dtype[Any], to: np.dtype[Any]) -> None:
    rng = np.random.default_rng(4)
    for length in LENGTHS:
        for kind in KINDS:
            x = sample(rng, dtype, length, kind)
            found, expected = np.empty(length, to), np.empty(length, to)
            dispatch.convert(x, found)
            reference.convert(x, expected)
            assert np.array_equal(bits_of(found), bits_of(expected)), (length, kind)


@pytest.mark.parametrize("to", [np.dtype(np.float16), BFLOAT16], ids=str)
def test_convert_rounds_once(level: str, to: np.dtype[Any]) -> None:
    """Numbers half way between two 16-bit neighbours, and a little off, where rounding twice would go wrong."""
    infinity = {BFLOAT16: 0x7F80}.get(to, 0x7C00)
    near = np.arange(infinity, dtype=np.uint16).view(to).astype(np.float64)
    middle = (near[:-1] + near[1:]) / 2
    for x in (middle, np.nextafter(middle, 0), np.nextafter(middle, np.inf), middle * (1 + 2.0**-30)):
        found, expected = np.empty(len(x), to), np.empty(len(x), to)
        dispatch.convert(x, found)
        reference.convert(x, expected)
        assert np.array_equal(bits_of(found), bits_of(expected))


def test_every_half_survives(level: str) -> None:
    for narrow in (np.dtype(np.float16), BFLOAT16):
        every = np.arange(65536, dtype=np.uint16).view(narrow)
        wide, back = np.empty(65536), np.empty(65536, narrow)
        dispatch.convert(every, wide)
        dispatch.convert(wide, back)
        numbers = ~np.isnan(wide)
        assert np.array_equal(bits_of(back)[numbers], bits_of(every)[numbers])
        assert len(set(bits_of(back)[~numbers].tolist())) == 1


def rounded(exact: Fraction, dtype: np.dtype[Any]) -> Array:
    """The exact value, rounded once."""
    if dtype == np.float64:
        return np.array([float(exact)])
    near = np.array([float(exact)]).astype(dtype)
    bits = int(bits_of(near)[0])
    candidates = [np.array([b], f"u{dtype.itemsize}").view(dtype) for b in (bits - 1, bits, bits + 1) if b >= 0]
    numbers = [c for c in candidates if np.isfinite(c.astype(np.float64))[0]]
    return min(numbers, key=lambda c: (abs(Fraction(float(c[0])) - exact), int(bits_of(c)[0]) & 1))


def test_mean_against_exact_rationals(level: str, dtype: np.dtype[Any]) -> None:
    """To the last bit for float64; for the others the float64 sum on the way may move a tie, which these cases avoid."""
    rng = np.random.default_rng(11)
    weights = [812.0, 240.0, 1504.0, 0.1]
    shares = [Fraction(w) for w in weights]
    inputs = [sample(rng, dtype, 200, "plain") for _ in weights]
    out = np.empty(200, dtype)
    dispatch.weighted_mean(inputs, weights, out)
    for k in range(200):
        exact = sum(share * Fraction(float(x[k])) for share, x in zip(shares, inputs, strict=True)) / sum(shares)
        assert bits_of(out[k : k + 1]) == bits_of(rounded(exact, dtype)), k


def test_equal_models_come_back(level: str, dtype: np.dtype[Any]) -> None:
    x = specials(dtype)[:16]
    rng = np.random.default_rng(12)
    for count in (1, 2, 3, 7, 16, 20, 50):
        for name in KERNELS:
            if name not in ("combine", "scaled_add"):
                out = np.empty_like(x)
                assert KERNELS[name](dispatch, [x] * count, weights_for(rng, count), out)
                assert np.array_equal(bits_of(out), bits_of(x)), (name, count, x[bits_of(out) != bits_of(x)])


def test_median_is_numpys_median(level: str) -> None:
    x = np.random.default_rng(13).standard_normal((9, 1000)).astype(np.float32)
    out = np.empty(1000, np.float32)
    dispatch.median(list(x), None, out)
    assert np.array_equal(out, np.median(x, axis=0))


def test_order_of_inputs_does_not_matter(level: str, dtype: np.dtype[Any]) -> None:
    rng = np.random.default_rng(14)
    inputs = [sample(rng, dtype, 400, "specials") for _ in range(21)]
    for run in (
        lambda x, out: dispatch.median(x, None, out),
        lambda x, out: dispatch.trimmed_mean(x, None, 4, out),
        lambda x, out: dispatch.mean_around_median(x, 9, out),
    ):
        one, other = np.empty(400, dtype), np.empty(400, dtype)
        run(inputs, one)
        run([inputs[i] for i in rng.permutation(21)], other)
        assert np.array_equal(bits_of(one), bits_of(other))


def test_copy() -> None:
    x = np.random.default_rng(15).standard_normal(1_500_000)
    for offset in (0, 8, 3):
        out = shifted(np.zeros_like(x), offset)
        dispatch.copy(x, out)
        assert np.array_equal(out, x)
