"""What a peer does with its diff before it leaves and after it comes back, as ratios taken in one run.

upload      rotate, quantise to a ring of 8 bits, 9 masks (8 neighbours and its own), pack
            "of keystreams": time of the streams alone that this needs (9 of masks, dither, signs) over its own
            "x Flower": set SHOAL_FLOWER to a Python that has flwr 1.41.0; see flower_client.py
download    the inverse without masks, added to a base; "of copy": the time to copy the vector over its own
codes       rotate and take the nearest of 16 centroids; and back
rotation    alone

SHOAL_BENCH_ELEMENTS sets the length of the vector (default 25,000,000); with --benchmark-disable the benches run tiny,
as a check of their results.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shoal.kernels import coding, dispatch, reference_coding, reference_ring, ring
from shoal.kernels.coding import Blocks, Spec, StreamKeys
from shoal.kernels.ring import LANE_DITHER, LANE_MODEL, LANE_SIGNS, Streams

HERE = Path(__file__).resolve().parent
ROUNDS = 5
BLOCK = 1 << 14
BITS, MASKS, STEP = 8, 9, 0.25
KEYS = StreamKeys(bytes(range(32)), bytes(range(1, 33)))
#: one thread, and as many as there are
THREADS = (1, 0)


def elements(benchmark: Any) -> int:
    return 40_000 if benchmark.disabled else int(float(os.environ.get("SHOAL_BENCH_ELEMENTS", "25e6")))


@cache
def vector(length: int) -> Any:
    return np.random.default_rng(1).standard_normal(length, dtype=np.float32)


@cache
def blocks(length: int) -> Blocks:
    starts = np.arange(0, length, BLOCK)
    return Blocks(starts, np.full(len(starts), 14, np.uint8), 0)


def streams() -> Streams:
    return Streams.of([bytes([i + 1]) * 32 for i in range(MASKS)], [1, -1, 1, 1, -1, -1, 1, -1, 1])


def spec(length: int) -> Spec:
    return Spec(7, 1.0, np.full(len(blocks(length)), 1 / STEP, np.float32), 12, BITS)


def seconds(run: Callable[[], object], rounds: int = ROUNDS) -> float:
    run()
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))


def measure(benchmark: Any, run: Callable[[], object], yardstick: Callable[[], object], name: str, length: int) -> None:
    """`run` timed, and a yardstick's time over its own: before and after, so that a change of the machine shows less."""
    before = 0.0 if benchmark.disabled else seconds(yardstick)
    benchmark.pedantic(run, rounds=ROUNDS, warmup_rounds=1)
    if benchmark.disabled:
        return
    taken = benchmark.stats.stats.median
    benchmark.extra_info[name] = (before + seconds(yardstick)) / 2 / taken
    benchmark.extra_info["GB/s of float32"] = 4 * length / taken / 1e9


@pytest.mark.parametrize("threads", THREADS)
def test_upload(benchmark: Any, threads: int) -> None:
    n = elements(benchmark)
    x, grid, masks = vector(n), blocks(n), streams()
    out, words = (np.zeros(grid.places, np.uint8) for _ in range(2))
    dither, signs = np.zeros(2 * grid.places, np.uint8), np.zeros(grid.places // 8, np.uint8)

    def keystreams() -> None:
        ring.add_streams(words, BITS, masks, LANE_MODEL, 0, words, threads=threads)
        ring.keystream(KEYS.dither, LANE_DITHER, 0, dither, threads=threads)
        ring.keystream(KEYS.signs, LANE_SIGNS, 0, signs, threads=threads)

    def upload() -> None:
        coding.encode(x, grid, KEYS, spec(n), out, streams=masks, threads=threads)

    measure(benchmark, upload, keystreams, "of keystreams", n)
    if not benchmark.disabled and (python := flower_python()):
        benchmark.extra_info["x Flower"] = flower_seconds(python, n) / benchmark.stats.stats.median
    check_last_block(x, grid, out, masks)


def check_last_block(x: Any, grid: Blocks, out: Any, masks: Streams) -> None:
    start, expected = int(grid.starts[-1]), np.empty(BLOCK, np.uint8)
    rest, step = x[start:], np.full(1, 1 / STEP, np.float32)
    reference_coding.encode(
        rest, np.zeros(1, np.int64), grid.logs[-1:], start, KEYS.signs, KEYS.dither, 7, 1.0, step, 12, BITS, expected
    )
    keys = [key.tobytes() for key in masks.keys]
    reference_ring.add_streams(expected, BITS, keys, masks.signs.tolist(), LANE_MODEL, start, expected)
    assert np.array_equal(out[-BLOCK:], expected)


def flower_python() -> str | None:
    python = os.environ.get("SHOAL_FLOWER", "")
    return python if python and shutil.which(python) else None


@cache
def flower_seconds(python: str, length: int) -> float:
    words = [python, str(HERE / "flower_client.py"), str(length), str(MASKS - 1)]
    return float(json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)["seconds"])


@pytest.mark.parametrize("bits", coding.RING_BITS)
def test_download(benchmark: Any, bits: int) -> None:
    n = elements(benchmark)
    base, grid = vector(n), blocks(n)
    words = np.resize(np.random.default_rng(2).integers(0, 256, 99_991, np.uint8), grid.places * bits // 8)
    table = coding.dither_table(np.arange(10, dtype=np.int64) * 6553)
    scales, out, copied = np.full(len(grid), STEP / 131_072 / 10), np.empty(n, np.float32), np.empty(n, np.float32)
    measure(
        benchmark, lambda: coding.decode(words, grid, KEYS, table, scales, base, out, bits=bits),
        lambda: dispatch.copy(base, copied), "of copy", n,
    )  # fmt: skip
    start, expected = int(grid.starts[-1]), np.empty(n - int(grid.starts[-1]), np.float32)
    reference_coding.decode(
        words[-BLOCK * bits // 8 :], bits, np.zeros(1, np.int64), grid.logs[-1:], start, KEYS.signs, KEYS.dither,
        table, scales[-1:], base[start:], expected,
    )  # fmt: skip
    assert np.array_equal(out[start:], expected)


@pytest.mark.parametrize("bits", coding.CODE_BITS)
@pytest.mark.parametrize("way", ["encode", "decode"])
def test_codes(benchmark: Any, bits: int, way: str) -> None:
    n = elements(benchmark)
    x, grid = vector(n), blocks(n)
    centroids = np.linspace(-3, 3, 1 << bits, dtype=np.float32)
    boundaries = (centroids[1:] + centroids[:-1]) / 2
    codes, back, copied = np.empty(grid.places * bits // 8, np.uint8), np.empty(n, np.float32), np.empty(n, np.float32)

    def encode() -> Any:
        return coding.encode_codes(x, grid, KEYS.signs, boundaries, centroids, codes)

    scales = encode()
    decode = lambda: coding.decode_codes(codes, grid, KEYS.signs, centroids, scales, None, back)  # noqa: E731
    measure(benchmark, encode if way == "encode" else decode, lambda: dispatch.copy(x, copied), "of copy", n)
    decode()
    assert np.abs(back - x).mean() < 6 / (1 << bits)


def test_rotation(benchmark: Any) -> None:
    n = elements(benchmark)
    x, grid = vector(n), blocks(n)
    out, copied = np.empty(grid.places, np.float32), np.empty(n, np.float32)
    measure(benchmark, lambda: coding.rotate(x, grid, KEYS.signs, out), lambda: dispatch.copy(x, copied), "of copy", n)
    assert np.array_equal(out[:BLOCK], reference_coding.rotate(x[:BLOCK], KEYS.signs, 0))


@pytest.mark.parametrize("way", ["absmax", "quantise", "dequantise"])
def test_runs_of_256(benchmark: Any, way: str) -> None:
    n = elements(benchmark)
    x, size = vector(n), 256
    scales, q, back, copied = (
        np.empty(-(-n // size), np.float32),
        np.empty(n, np.int8),
        np.empty_like(x),
        np.empty_like(x),
    )
    coding.absmax(x, size, scales)
    scales /= np.float32(127)
    steps: dict[str, Callable[[], object]] = {
        "absmax": lambda: coding.absmax(x, size, np.empty_like(scales)),
        "quantise": lambda: coding.quantise_absmax(x, size, 127, scales, q),
        "dequantise": lambda: coding.dequantise(q, size, scales, None, back),
    }
    measure(benchmark, steps[way], lambda: dispatch.copy(x, copied), "of copy", n)
    for step in steps.values():
        step()
    assert np.abs(back - x).max() <= scales.max() * 0.5001
