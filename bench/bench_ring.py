"""Keystreams, masks, sums, checks and secret sharing, as ratios taken in one run.

add_streams   one key and nine, in place, each level.  GB/s counts bytes of keystream (12-bit words take two bytes of it).
              "of openssl" is the rate over that of `openssl speed -bytes 16384 -evp chacha20`, run just before on one
              thread; "of openssl AVX2" the same with OpenSSL held to AVX2 (OPENSSL_ia32cap).  Both count processor
              seconds of one thread, on the average over one: other load on the machine shows less.
keystream     as add_streams
both cores    "of one core": the rate of two threads over that of one, by the clock; rounds by turns, the fastest of each
sum_words     eight inputs: "of copy" is the time to copy 4.5 vectors over its own
check_sums    nanoseconds of one thread for a word, keystream included
shamir        microseconds to share 64 bytes among 100, threshold 67, and back

Vectors are of 2^19 words, so that caches hold them, as they hold the tiles of a fused pass; those of sum_words are of
2^22, of both cores 2^24 (waking a thread takes its time).  With --benchmark-disable the benches run tiny, as a check of
their results.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from shoal.kernels import _native, dispatch, reference_ring, ring, shamir
from shoal.kernels.ring import LANE_CHECK, LANE_MODEL, Streams

ROUNDS = 9
WORDS, WORDS_OF_SUMS, WORDS_OF_CORES = 2**19, 2**22, 2**24
SMALL = 4_098
#: bits of CPUID leaf 7 that switch on AVX-512 F, DQ, IFMA, CD, BW, VL, taken away
NO_AVX512 = ":~0xd0230000"


@pytest.fixture(params=_native.levels())
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    before = _native.level()
    _native.use_level(request.param)
    yield request.param
    _native.use_level(before)


def count_of(benchmark: Any, full: int = WORDS) -> int:
    return SMALL if benchmark.disabled else full


def keys(count: int) -> Streams:
    rng = np.random.default_rng(2)
    return Streams.of([rng.bytes(32) for _ in range(count)], [1 - 2 * (i % 2) for i in range(count)])


def words(count: int, bits: int, seed: int = 1) -> Any:
    return np.random.default_rng(seed).integers(0, 256, ring.word_bytes(count, bits), np.uint8)


def fastest(*runs: Callable[[], object]) -> list[float]:
    """Seconds of the fastest of some rounds of each, by turns: what other load on the machine disturbed least."""
    found = [float("inf")] * len(runs)
    end = time.perf_counter() + 0.2 * len(runs)
    rounds = 0
    while rounds < ROUNDS or time.perf_counter() < end:
        for i, run in enumerate(runs):
            start = time.perf_counter()
            run()
            found[i] = min(found[i], time.perf_counter() - start)
        rounds += 1
    return found


def rate_of(run: Callable[[], object], amount: int) -> float:
    """What `run` does in a processor second of this thread, on the average over one second, as `openssl speed` counts."""
    run()
    start, now, rounds = time.thread_time(), 0.0, 0
    while now < 1:
        run()
        now, rounds = time.thread_time() - start, rounds + 1
    return amount * rounds / now


def openssl(capabilities: str | None = None) -> float | None:
    """Bytes of ChaCha20 in a second of one thread, or None where there is no openssl."""
    if not shutil.which("openssl"):
        return None
    environment = {**os.environ, **({"OPENSSL_ia32cap": capabilities} if capabilities else {})}
    command = ["openssl", "speed", "-seconds", "1", "-bytes", "16384", "-evp", "chacha20"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    rate = re.search(r"^chacha20\s+([\d.]+)k", done.stdout, re.MULTILINE | re.IGNORECASE)
    return float(rate[1]) * 1000 if rate else None


def compare(benchmark: Any, run: Callable[[], object], stream_bytes: int) -> None:
    """`run` timed, beside OpenSSL."""
    ciphers = {} if benchmark.disabled else {"of openssl": openssl(), "of openssl AVX2": openssl(NO_AVX512)}
    benchmark.pedantic(run, rounds=ROUNDS, warmup_rounds=1)
    if benchmark.disabled:
        return
    rate = rate_of(run, stream_bytes)
    benchmark.extra_info["GB/s"] = rate / 1e9
    benchmark.extra_info.update({name: rate / found for name, found in ciphers.items() if found})


@pytest.mark.parametrize("bits", [8, 12, 16, 32])
@pytest.mark.parametrize("count", [1, 9])
def test_add_streams(benchmark: Any, level: str, count: int, bits: int) -> None:
    n, streams = count_of(benchmark), keys(count)
    data = words(n, bits)
    out = data.copy()
    width = reference_ring.WORDS[bits].itemsize
    compare(
        benchmark,
        lambda: ring.add_streams(out, bits, streams, LANE_MODEL, 0, out, threads=1),
        n * width * count,
    )
    ring.add_streams(data, bits, streams, LANE_MODEL, 0, out, threads=1)
    first = n - SMALL
    tail, expected = data[-ring.word_bytes(SMALL, bits) :], np.empty(ring.word_bytes(SMALL, bits), np.uint8)
    raw = [key.tobytes() for key in streams.keys]
    reference_ring.add_streams(tail, bits, raw, streams.signs.tolist(), LANE_MODEL, first, expected)
    assert np.array_equal(out[-len(expected) :], expected)


def test_keystream(benchmark: Any, level: str) -> None:
    n, key = count_of(benchmark), bytes(range(32))
    out = np.empty(n, np.uint8)
    compare(benchmark, lambda: ring.keystream(key, LANE_MODEL, 0, out, threads=1), n)
    assert np.array_equal(out[-SMALL:], reference_ring.keystream(key, LANE_MODEL, n - SMALL, SMALL))


@pytest.mark.parametrize("count", [1, 9])
def test_both_cores(benchmark: Any, level: str, count: int) -> None:
    n, streams = count_of(benchmark, WORDS_OF_CORES), keys(count)
    data = words(n, 8)
    one, two = np.zeros_like(data), np.zeros_like(data)
    runs = [
        lambda: ring.add_streams(data, 8, streams, LANE_MODEL, 0, one, threads=1),
        lambda: ring.add_streams(data, 8, streams, LANE_MODEL, 0, two, threads=2),
    ]
    benchmark.pedantic(runs[1], rounds=ROUNDS, warmup_rounds=1)
    if not benchmark.disabled:
        alone, together = fastest(*runs)
        benchmark.extra_info["of one core"] = alone / together
    runs[0]()
    assert np.array_equal(one, two)


@pytest.mark.parametrize("bits", [8, 12, 16, 32])
def test_sum_words(benchmark: Any, bits: int) -> None:
    n = count_of(benchmark, WORDS_OF_SUMS)
    inputs = [words(n, bits, seed) for seed in range(8)]
    out = np.empty_like(inputs[0])
    # Copies as dispatch makes them: of float32, into pages that have been written before.
    floats = [x[: len(x) // 4 * 4].view(np.float32) for x in inputs[:4]]
    target = np.ones_like(floats[0])
    benchmark.pedantic(lambda: ring.sum_words(inputs, bits, out, threads=1), rounds=ROUNDS, warmup_rounds=1)
    if not benchmark.disabled:
        taken, copies = fastest(
            lambda: ring.sum_words(inputs, bits, out, threads=1),
            lambda: [dispatch.copy(x, target, threads=1) for x in floats],
        )
        benchmark.extra_info["of copy"] = copies / 4 * 4.5 / taken
        benchmark.extra_info["GB/s read"] = sum(x.nbytes for x in inputs) / taken / 1e9
    part = ring.word_bytes(SMALL, bits)
    expected = np.empty(part, np.uint8)
    reference_ring.sum_words([x[-part:] for x in inputs], bits, expected)
    assert np.array_equal(out[-part:], expected)


@pytest.mark.parametrize("bits", [8, 12, 16, 32, 64])
def test_check_sums(benchmark: Any, level: str, bits: int) -> None:
    n, key = count_of(benchmark), bytes(range(32))
    data = words(n, bits)

    def run() -> Any:
        return ring.check_sums(data, bits, key, LANE_CHECK, 0, threads=1)

    found = benchmark.pedantic(run, rounds=ROUNDS, warmup_rounds=1)
    if not benchmark.disabled:
        benchmark.extra_info["ns a word"] = 1e9 / rate_of(run, n)
    # The reference's sums of the first words, and ours of the rest.
    cut = ring.word_bytes(SMALL, bits)
    head = reference_ring.check_sums(data[:cut], bits, key, LANE_CHECK, 0)
    rest = ring.check_sums(data[cut:], bits, key, LANE_CHECK, SMALL)
    assert np.array_equal((head + rest) & np.uint64(2**bits - 1), found)


@pytest.mark.parametrize("step", ["split", "combine"])
def test_shamir(benchmark: Any, step: str) -> None:
    """64 bytes among 100 holders, any 67 of whom can give them back."""
    secret, holders, threshold = bytes(range(64)), range(1, 101), 67
    shares = shamir.split(secret, threshold, holders)
    runs: dict[str, Callable[[], object]] = {
        "split": lambda: shamir.split(secret, threshold, holders),
        "combine": lambda: shamir.combine(shares[:threshold], holders[:threshold]),
    }
    benchmark.pedantic(runs[step], rounds=1 if benchmark.disabled else 50, warmup_rounds=1)
    if not benchmark.disabled:
        benchmark.extra_info["us"] = 1e6 / rate_of(runs[step], 1)
    assert shamir.combine(shares[-threshold:], holders[-threshold:]) == secret
