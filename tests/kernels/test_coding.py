"""Native coding kernels give the bits of `reference_coding`, at every level, for any grid, thread count and address."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_arrays import bits_of, sample, shifted

from shoal.errors import ArgumentError
from shoal.kernels import _native, coding, dispatch
from shoal.kernels import reference_coding as reference
from shoal.kernels.coding import Blocks, Spec, StreamKeys
from shoal.kernels.reference_ring import LANE_MODEL, add_streams
from shoal.kernels.ring import Streams

KEYS = StreamKeys(hashlib.sha256(b"signs").digest(), hashlib.sha256(b"dither").digest())
FLOAT32 = np.dtype(np.float32)
#: what makes rotations hard: denormals that add up, sums that nearly overflow, signed zeros
KINDS = ("plain", "ties", "tiny", "large")

#: first digits of the SHA-256 of words, squares, decoded numbers, codes, scales
GOLDEN = ["dba7389e08d50fd7", "6af676cf8021ff0d", "f57c8209ce5debf8", "8834d13a6e33c917", "27437aa372041da3"]


@pytest.fixture(params=dispatch.levels_available())
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    before = _native.level()
    _native.use_level(request.param)
    yield request.param
    _native.use_level(before)


def finite(rng: np.random.Generator, length: int, kind: str) -> np.ndarray:
    """Numbers whose rotation does not overflow."""
    if kind == "large":
        return (rng.uniform(-1, 1, length) * 2.0**112).astype(np.float32)
    return sample(rng, FLOAT32, length, kind)


def grid(logs: list[int], gaps: list[int] | None = None, first: int = 0) -> tuple[Blocks, int]:
    """Blocks one after the other with gaps before them, and where the last one ends."""
    gaps = gaps or [0] * len(logs)
    starts, at = [], 0
    for log, gap in zip(logs, gaps, strict=True):
        starts.append(at + gap)
        at += gap + (1 << log)
    return Blocks(np.array(starts, np.int64), np.array(logs, np.uint8), first), at


def some_streams(count: int) -> Streams:
    keys = [hashlib.sha256(bytes([i])).digest() for i in range(count)]
    return Streams.of(keys, [1 if i % 3 else -1 for i in range(count)])


#: every block size, small ones together in one piece of work, gaps, a place that is not 0, an end that is not there
GRIDS = [
    (*grid([6]), 0),
    (*grid([6]), 63),
    (*grid([8, 6], [3, 70]), 0),
    (*grid([10, 10, 8, 6, 6], first=64), 17),
    (*grid([12, 6, 12, 8], [0, 5, 1000, 0], first=192), 100),
    (*grid([14, 12, 6], [1, 0, 7], first=2**33 + 64), 1),
    (*grid([14, 14], first=2**14), 9000),
    (*grid([6, 10] * 15 + [6] * 9), 33),
]


def expected_words(
    x: np.ndarray, blocks: Blocks, spec: Spec, streams: Streams | None
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    out = np.empty(blocks.places * spec.bits // 8, np.uint8)
    sums = reference.encode(
        x, blocks.starts, blocks.logs, blocks.first, KEYS.signs, KEYS.dither,
        spec.offset, spec.alpha, spec.inverse_steps, spec.bound, spec.bits, out,
    )  # fmt: skip
    if streams is not None:
        keys = [key.tobytes() for key in streams.keys]
        add_streams(out, spec.bits, keys, streams.signs.tolist(), LANE_MODEL, blocks.first, out)
    return out, sums


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """The same bits; one NaN is like another."""
    return np.array_equal(np.where(a == a, bits_of(a), 0), np.where(b == b, bits_of(b), 0))


def check_encode(
    x: np.ndarray,
    blocks: Blocks,
    spec: Spec,
    streams: Streams | None = None,
    base: np.ndarray | None = None,
    *,
    expected: tuple[np.ndarray, tuple[np.ndarray, ...]] | None = None,
    threads: int = 0,
) -> np.ndarray:
    words, sums = expected or expected_words(x if base is None else x - base, blocks, spec, streams)
    out = shifted(np.zeros(len(words), np.uint8), 1)
    found = coding.encode(x, blocks, KEYS, spec, out, base=base, streams=streams, threads=threads)
    assert np.array_equal(bits_of(found.squares), bits_of(sums[0]))
    assert np.array_equal(found.clipped, sums[1]) and np.array_equal(found.totals, sums[2])
    assert np.array_equal(out, words)
    return out


def fitting(x: np.ndarray, blocks: Blocks, bound: int) -> np.ndarray:
    """Inverse steps for which some numbers lie beyond the bound, some far within; now and then 0, denormal or huge."""
    steps = np.empty(len(blocks), np.float32)
    for j, (start, log) in enumerate(zip(blocks.starts, blocks.logs, strict=True)):
        rms = float(np.sqrt(np.mean(x[start : start + (1 << int(log))].astype(np.float64) ** 2))) or 1.0
        steps[j] = np.float32(min(bound / 2.5 / rms, 3e38))
    steps[::7] = np.minimum(steps[::7], 1e38) * np.float32(1.7)
    steps[5::11] = [0, 1e-42, 3e38][len(blocks) % 3]
    return steps


@cache
def encode_cases(bits: int, kind: str) -> list[tuple[Any, ...]]:
    """(arguments, what the reference makes of them), the same for all levels."""
    rng = np.random.default_rng(bits)
    cases: list[tuple[Any, ...]] = []
    for i, (blocks, end, missing) in enumerate(GRIDS):
        x = shifted(finite(rng, end - missing, kind), 4 * i)
        bound = [2 ** (bits - 1) - 1, 1, 12, max(1, 2 ** (bits - 1) // 10)][i % 4]
        alpha = [1.0, 0.1, 1e-40, 0.7][i // 2 % 4]
        spec = Spec([0, 65_535, 40_000][i % 3], alpha, fitting(np.float32(alpha) * x, blocks, bound), bound, bits)
        streams = some_streams(i % 4) if i % 4 else None
        cases.append(((x, blocks, spec, streams), expected_words(x, blocks, spec, streams)))
    return cases


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", coding.RING_BITS)
def test_encode_gives_the_same_bits(level: str, bits: int, kind: str) -> None:
    for arguments, expected in encode_cases(bits, kind):
        check_encode(*arguments, expected=expected)


@cache
def decode_cases(bits: int, kind: str) -> list[tuple[Any, ...]]:
    rng = np.random.default_rng(bits)
    cases: list[tuple[Any, ...]] = []
    for i, (blocks, end, missing) in enumerate(GRIDS):
        n = end - missing
        words = rng.integers(0, 256, blocks.places * bits // 8, np.uint8)
        words.flags.writeable = False
        table = coding.dither_table(np.array([0, 30_000, 65_535][: i % 4], np.int64))
        if i % 3 == 2:
            table = rng.integers(-(2**31), 2**31, 65_536).astype(np.int32)
        scales = rng.choice([0.0, 1e-320, 3e-50, 1.7e-9, 1.0, 1e25], len(blocks))
        base = [None, finite(rng, n, kind)][i % 2]
        before = sample(rng, FLOAT32, n, "bits").copy()
        streams, bare, expected = some_streams(i % 3), np.empty_like(words), before.copy()
        keys = [key.tobytes() for key in streams.keys]
        add_streams(words, bits, keys, streams.signs.tolist(), LANE_MODEL, blocks.first, bare)
        reference.decode(
            bare, bits, blocks.starts, blocks.logs, blocks.first, KEYS.signs, KEYS.dither, table, scales, base, expected
        )
        cases.append((words, blocks, table, scales, base, streams, shifted(before, 4 * i), expected))
    return cases


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", coding.RING_BITS)
def test_decode_gives_the_same_bits(level: str, bits: int, kind: str) -> None:
    for words, blocks, table, scales, base, streams, before, expected in decode_cases(bits, kind):
        out = shifted(before, before.ctypes.data % 64)
        coding.decode(words, blocks, KEYS, table, scales, base, out, bits=bits, streams=streams)
        assert same(out, expected)
        if base is None:
            continue
        out = base.copy()
        coding.decode(words, blocks, KEYS, table, scales, out, out, bits=bits, streams=streams)
        inside = np.zeros(len(out), bool)
        for start, log in zip(blocks.starts, blocks.logs, strict=True):
            inside[start : start + (1 << int(log))] = True
        assert same(out[inside], expected[inside])
        assert same(out[~inside], base[~inside])


@cache
def long_cases() -> list[tuple[Any, ...]]:
    """(table, bits, words, base, what the reference makes of them): long vectors are decoded by other ways.

    Tables of few peers and of many, with falls at the ends of parts, two falls close together, another table, none.
    """
    rng = np.random.default_rng(11)
    blocks, end = grid([14] * 16 + [12, 6])
    offsets = [np.arange(n, dtype=np.int64) * 65_536 // n for n in (3, 10, 32, 33, 100)]
    offsets += [np.array(o, np.int64) for o in ([0], [0, 2048, 4096 - 1, 65_535], [7, 8], [500, 500])]
    tables = [coding.dither_table(o) for o in offsets]
    tables += [
        tables[1] + np.int32(2**28 - 2**21),
        tables[0].copy(),
        rng.integers(-(2**31), 2**31, 65_536).astype(np.int32),
    ]
    tables[-2][40_000] += 1
    cases = []
    for i, table in enumerate(tables):
        bits = coding.RING_BITS[i % 4]
        words = rng.integers(0, 256, blocks.places * bits // 8, np.uint8)
        base = finite(rng, end - 5, "plain") if i % 3 else None
        scales, expected = rng.uniform(0, 1e-6, len(blocks)), np.zeros(end - 5, np.float32)
        reference.decode(
            words, bits, blocks.starts, blocks.logs, 0, KEYS.signs, KEYS.dither, table, scales, base, expected
        )  # fmt: skip
        cases.append((blocks, table, bits, words, scales, base, expected))
    return cases


def test_long_vectors_are_decoded_to_the_same_bits(level: str) -> None:
    for blocks, table, bits, words, scales, base, expected in long_cases():
        out = np.empty_like(expected)
        coding.decode(words, blocks, KEYS, table, scales, base, out, bits=bits)
        assert same(out, expected)


def test_what_goes_past_the_caches_is_the_same(level: str) -> None:
    """A vector of more than 4 MiB, at any address, on a base and on none."""
    rng = np.random.default_rng(12)
    blocks, end = grid([14] * 65)
    codes, centroids = rng.integers(0, 256, blocks.places // 2, np.uint8), np.linspace(-2, 2, 16, dtype=np.float32)
    scales = rng.uniform(0.5, 1, len(blocks)).astype(np.float32)
    base = finite(rng, end - 77, "plain")
    for under in (None, base):
        apart = shifted(np.zeros(end - 77, np.float32), 20)
        coding.decode_codes(codes, blocks, KEYS.signs, centroids, scales, under, apart)
        inside = np.zeros(end - 77, np.float32) if under is None else under.copy()
        for j in range(0, len(blocks), 5):  # a few blocks at a time are too little to go past them
            some = slice(j, j + 5)
            part = Blocks(blocks.starts[some], blocks.logs[some], int(blocks.starts[j]))
            part = Blocks(part.starts - part.starts[0], part.logs, part.first)
            where = slice(part.first, part.first + part.places)
            coding.decode_codes(
                codes[part.first // 2 :][: part.places // 2], part, KEYS.signs, centroids, scales[some],
                None if under is None else under[where], inside[where],
            )  # fmt: skip
        assert same(apart, inside)


def test_a_base_is_taken_off_in_float32(level: str) -> None:
    rng = np.random.default_rng(3)
    blocks, end = grid([10, 14, 6], [0, 3, 0])
    x, base = finite(rng, end - 5, "plain"), finite(rng, end - 5, "plain")
    x.flags.writeable = base.flags.writeable = False
    check_encode(x, blocks, Spec(7, 0.5, np.full(3, 300, np.float32), 100, 8), some_streams(2), base)


def test_threads_do_not_matter(level: str) -> None:
    rng = np.random.default_rng(4)
    blocks, end = grid([14] * 9 + [12, 10, 6])
    x = finite(rng, end - 50, "plain")
    spec = Spec(1, 1.0, np.full(12, 500, np.float32), 2000, 12)
    made = []
    for threads in (1, 2, 3, 0):
        out = np.empty(blocks.places * 12 // 8, np.uint8)
        sums = coding.encode(x, blocks, KEYS, spec, out, streams=some_streams(3), threads=threads)
        back = np.empty_like(x)
        coding.decode(
            out, blocks, KEYS, coding.dither_table(np.array([1])), np.full(12, 1e-8), None, back,
            bits=12, streams=some_streams(3).opposite(), threads=threads,
        )  # fmt: skip
        made.append((out, back, sums.squares, sums.totals))
    for other in made[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(made[0], other, strict=True))


def test_the_largest_bound_of_32_bits(level: str) -> None:
    """The bound is no float32: what is cut is cut at the next lower one, and nothing wraps."""
    rng = np.random.default_rng(5)
    blocks, end = grid([8, 6])
    x = finite(rng, end, "plain")
    for bound in (2**31 - 1, 2**31 - 65, 2**24 + 1, 2**30 + 3):
        out = check_encode(x, blocks, Spec(9, 1.0, np.array([1e12, bound * 20.0], np.float32), bound, 32))
        assert np.abs(out.view(np.int32).astype(np.int64)).max() <= bound


@pytest.mark.parametrize("bits", coding.CODE_BITS)
def test_codes_give_the_same_bits(level: str, bits: int) -> None:
    rng = np.random.default_rng(bits)
    count = 1 << bits
    books = [
        np.sort(rng.standard_normal(count)).astype(np.float32),
        np.linspace(-4, 4, count, dtype=np.float32),
        np.sort(rng.choice(np.array([-1, -1e-30, 0, 0.5], np.float32), count)),
        np.sort(rng.choice(np.array([-3e38, 1e-45, 1, 3e38], np.float32), count)),
    ]
    for i, (blocks, end, missing) in enumerate(GRIDS * 2):
        centroids = books[i % 4]
        boundaries = ((centroids[1:].astype(np.float64) + centroids[:-1]) / 2).astype(np.float32)
        x = shifted(finite(rng, end - missing, KINDS[i % 3]), 4 * i)
        x[int(blocks.starts[0]) : int(blocks.starts[0]) + 64 * (i % 2)] = 0
        expected = np.empty(blocks.places * bits // 8, np.uint8)
        grids = (blocks.starts, blocks.logs, blocks.first, KEYS.signs)
        scales = reference.encode_codes(x, *grids, boundaries, centroids, expected)
        if not np.isfinite(scales).all():
            continue
        out = shifted(np.zeros_like(expected), 3)
        found = coding.encode_codes(x, blocks, KEYS.signs, boundaries, centroids, out)
        assert np.array_equal(out, expected)
        assert np.array_equal(bits_of(found), bits_of(scales))
        base = [None, finite(rng, len(x), "plain")][i % 2]
        made, back = np.zeros_like(x), np.zeros_like(x)
        scales = np.where(rng.random(len(scales)) < 0.1, np.float32(1e-42), scales)
        reference.decode_codes(expected, *grids, centroids, scales, base, made)
        coding.decode_codes(out, blocks, KEYS.signs, centroids, scales, base, back)
        assert np.array_equal(bits_of(back), bits_of(made))


def test_values_on_boundaries(level: str) -> None:
    """Boundaries taken from the numbers themselves: equal is not below."""
    rng = np.random.default_rng(6)
    blocks, end = grid([6] * 10)
    x = finite(rng, end, "ties")
    z = np.concatenate([reference.rotate(x[i * 64 : i * 64 + 64], KEYS.signs, i * 64) for i in range(10)])
    rms = [np.sqrt(reference.folded(z[i * 64 : i * 64 + 64].astype(np.float64) ** 2) / 64) for i in range(10)]
    seen = np.sort(np.concatenate([z[i * 64 : i * 64 + 64] * np.float32(1 / rms[i]) for i in range(10)]))
    for bits, spread in [(bits, spread) for bits in coding.CODE_BITS for spread in (False, True)]:
        count = (1 << bits) - 1
        boundaries = (
            seen[np.linspace(0, len(seen) - 1, count + 2).astype(int)[1:-1]]
            if spread
            else np.sort(rng.choice(seen, count))
        )
        centroids = np.linspace(-2, 2, 1 << bits, dtype=np.float32)
        out, expected = (np.empty(end * bits // 8, np.uint8) for _ in range(2))
        reference.encode_codes(x, blocks.starts, blocks.logs, 0, KEYS.signs, boundaries, centroids, expected)
        coding.encode_codes(x, blocks, KEYS.signs, boundaries, centroids, out)
        assert np.array_equal(out, expected)


def test_rotation_alone(level: str) -> None:
    rng = np.random.default_rng(8)
    for blocks, end, missing in GRIDS:
        x = finite(rng, end - missing, "tiny")
        out = np.empty(blocks.places, np.float32)
        coding.rotate(x, blocks, KEYS.signs, out)
        padded = np.concatenate([x, np.zeros(1 << 14, np.float32)])
        for j, at, size in reference.places(blocks.logs):
            start = int(blocks.starts[j])
            expected = reference.rotate(padded[start : start + size], KEYS.signs, blocks.first + at)
            assert np.array_equal(bits_of(out[at : at + size]), bits_of(expected))


@pytest.mark.parametrize("size", [1, 5, 64, 256, 10**15])
def test_runs(level: str, size: int) -> None:
    rng = np.random.default_rng(size % 1000)
    for n in (0, 1, 63, 64, 257, 70_001):
        for kind in ("plain", "specials", "ties", "tiny", "huge"):
            x = shifted(sample(rng, FLOAT32, n, kind), 4 * (n % 16))
            wide = min(size, max(n, 1))
            found, expected = np.empty(-(-n // size), np.float32), reference.absmax(x, wide)
            coding.absmax(x, size, found)
            assert np.array_equal(found, expected, equal_nan=True)
            x = np.where(np.isfinite(x), x, np.float32(-0.0))
            scales = reference.absmax(x, wide) / np.float32(127)
            scales[::3] *= np.float32(0.6)
            for levels in (7, 127):
                q = np.empty(n, np.int8)
                coding.quantise_absmax(x, size, levels, scales, q)
                assert np.array_equal(q, reference.quantise_absmax(x, wide, levels, scales))
            for base in (None, sample(rng, FLOAT32, n, "plain")):
                out, made = np.empty(n, np.float32), np.empty(n, np.float32)
                coding.dequantise(q, size, scales, base, out)
                reference.dequantise(q, wide, scales, base, made)
                assert np.array_equal(bits_of(out), bits_of(made))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(reference.BLOCK_LOGS), st.integers(0, 100)), min_size=1, max_size=6),
    st.integers(0, 2**40), st.integers(0, 63), st.sampled_from(coding.RING_BITS), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_any_grid(parts: list[tuple[int, int]], first: int, missing: int, bits: int, seed: int) -> None:
    blocks, end = grid([log for log, _ in parts], [gap for _, gap in parts], first * 64)
    rng = np.random.default_rng(seed)
    x = finite(rng, end - missing, KINDS[seed % 4])
    bound = int(rng.integers(1, 2 ** (bits - 1)))
    spec = Spec(seed % 65_536, float(rng.uniform(0.01, 1)), fitting(x, blocks, bound), bound, bits)
    check_encode(x, blocks, spec, some_streams(seed % 3), threads=1 + seed % 3)


def test_masks_come_off_again() -> None:
    """A masked sum, unmasked while it is decoded, is the sum without masks; many keys."""
    rng = np.random.default_rng(10)
    blocks, end = grid([14, 14, 8])
    x = finite(rng, end, "plain")
    streams = some_streams(40)
    for bits in coding.RING_BITS:
        spec = Spec(0, 1.0, np.full(3, 40, np.float32), 5, bits)
        bare, masked = (np.empty(end * bits // 8, np.uint8) for _ in range(2))
        coding.encode(x, blocks, KEYS, spec, bare)
        coding.encode(x, blocks, KEYS, spec, masked, streams=streams)
        assert np.mean(bare == masked) < 0.01
        table, scales = coding.dither_table(np.array([0])), np.full(3, 1 / (131_072 * 40))
        one, other = np.empty_like(x), np.empty_like(x)
        coding.decode(bare, blocks, KEYS, table, scales, None, one, bits=bits)
        coding.decode(masked, blocks, KEYS, table, scales, None, other, bits=bits, streams=streams.opposite())
        assert np.array_equal(one, other)


def test_rounding_has_no_bias_and_the_known_variance() -> None:
    """10**6 draws: the mean error within 4 sigma of 0; with the dither taken off it is uniform on one step."""
    rng = np.random.default_rng(11)
    n = 1 << 20
    blocks, _ = grid([14] * (n >> 14))
    x = rng.standard_normal(n).astype(np.float32)
    step, m = 0.25, len(blocks)
    out, back = np.empty(n, np.uint8), np.empty(n, np.float32)
    sums = coding.encode(x, blocks, KEYS, Spec(123, 1.0, np.full(m, 1 / step, np.float32), 127, 8), out)
    assert sums.clipped.sum() == 0
    for table, variance in (
        (coding.dither_table(np.array([123])), step**2 / 12),
        (np.zeros(65_536, np.int32), step**2 / 6),
    ):
        coding.decode(out, blocks, KEYS, table, np.full(m, step / 131_072), None, back, bits=8)
        rotated = np.empty(n, np.float32)
        coding.rotate(back - x, blocks, KEYS.signs, rotated)
        error = rotated.astype(np.float64)
        sigma = np.sqrt(variance / n)
        assert abs(error.mean()) < 4 * sigma
        assert abs(error.var() / variance - 1) < 0.02


def test_the_known_answers_of_the_dither() -> None:
    table = coding.dither_table(np.array([0, 19_660, 45_875], np.int64))
    assert table[:3].tolist() == [-65_535, -65_529, -65_523]


def test_the_golden_bits(level: str) -> None:
    """docs/FORMAT.md, "Rotation, quantiser and codes": what no version may change.  Inputs are made of whole numbers."""
    blocks, end = grid([14, 10, 6], [0, 2, 0], 128)
    x = ((np.arange(end, dtype=np.int64) * 7919 % 2003 - 1001) / 1024).astype(np.float32)[:-5]
    spec = Spec(4096, 0.75, np.array([9, 1.1, 30], np.float32), 40, 12)
    words = np.empty(blocks.places * 12 // 8, np.uint8)
    sums = coding.encode(x, blocks, KEYS, spec, words, streams=some_streams(2))
    back = np.zeros_like(x)
    table, scales = coding.dither_table(np.array([4096])), np.array([1e-6, 1e-5, 3e-7])
    coding.decode(words, blocks, KEYS, table, scales, x, back, bits=12, streams=some_streams(2).opposite())
    boundaries, centroids = np.array([-1, 0, 1], np.float32), np.array([-1.5, -0.5, 0.5, 1.5], np.float32)
    codes = np.empty(blocks.places // 4, np.uint8)
    found = coding.encode_codes(x, blocks, KEYS.signs, boundaries, centroids, codes)
    made = [hashlib.sha256(part.tobytes()).hexdigest()[:16] for part in (words, sums.squares, back, codes, found)]
    assert made == GOLDEN


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named(level: str, wrong: float) -> None:
    rng = np.random.default_rng(12)
    blocks, end = grid([10, 14, 6], [2, 0, 0])
    for at in (2, 1026, end - 1, 5000):
        x = finite(rng, end, "plain")
        x[at] = wrong
        out = np.empty(blocks.places, np.uint8)
        with pytest.raises(ArgumentError, match=rf"element {at} is") as caught:
            coding.encode(x, blocks, KEYS, Spec(0, 1.0, np.ones(3, np.float32), 5, 8), out)
        assert caught.value.code == "diff.nonfinite"
        for bits in coding.CODE_BITS:
            centroids = np.linspace(-2, 2, 1 << bits, dtype=np.float32)
            codes = np.empty(blocks.places * bits // 8, np.uint8)
            with pytest.raises(ArgumentError, match=rf"element {at} is"):
                coding.encode_codes(x, blocks, KEYS.signs, centroids[1:], centroids, codes)
    x = finite(rng, end, "plain")
    x[0] = wrong  # in a gap
    coding.encode(x, blocks, KEYS, Spec(0, 1.0, np.ones(3, np.float32), 5, 8), out)


def test_overflow_is_refused(level: str) -> None:
    blocks, end = grid([6, 8])
    x = np.ones(end, np.float32)
    x[64:] = 3e38
    out = np.empty(end, np.uint8)
    with pytest.raises(ArgumentError, match="block at element 64") as caught:
        coding.encode(x, blocks, KEYS, Spec(0, 1.0, np.ones(2, np.float32), 5, 8), out)
    assert caught.value.code == "diff.overflow"
    with pytest.raises(ArgumentError, match="element 64 is inf"):
        coding.encode(x, blocks, KEYS, Spec(0, 1.0, np.ones(2, np.float32), 5, 8), out, base=-x)
