"""CUDA kernels, on the host and on a device if there is one: rotation, rounding, masks as the reference."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from device_kernels import CODING
from sample_arrays import bits_of, sample, shifted

from shoal.errors import ArgumentError
from shoal.kernels import _cuda_host, reference_ring
from shoal.kernels import reference_coding as reference
from shoal.kernels.blocks import RING_BITS, Blocks, Spec, StreamKeys
from shoal.kernels.cuda_coding import Coding
from shoal.kernels.ring import Streams

pytestmark = pytest.mark.usefixtures("target")

KEYS = StreamKeys(hashlib.sha256(b"signs").digest(), hashlib.sha256(b"dither").digest())
KINDS = ("plain", "ties", "tiny", "large")


def grid_of(logs: list[int], gaps: list[int], first: int) -> tuple[Blocks, int]:
    """Blocks with gaps before them, and where the last one ends."""
    starts, at = [], 0
    for log, gap in zip(logs, gaps, strict=True):
        starts.append(at + gap)
        at += gap + (1 << log)
    return Blocks(np.array(starts, np.int64), np.array(logs, np.uint8), first), at


#: every size; gaps; places whose signs begin in the middle of a cipher block; ends that are not there
GRIDS = [
    (*grid_of([6], [0], 0), 0),
    (*grid_of([6], [0], 64), 63),
    (*grid_of([8, 6, 10], [3, 70, 0], 2**33 + 192), 17),
    (*grid_of([12, 6, 12], [0, 5, 1000], 448), 4095),
    (*grid_of([14, 6], [1, 0], 64), 0),
    (*grid_of([14], [0], 0), 1),
]


def finite(rng: np.random.Generator, length: int, kind: str) -> np.ndarray:
    """Numbers whose rotation does not overflow."""
    if kind == "large":
        return (rng.uniform(-1, 1, length) * 2.0**112).astype(np.float32)
    return sample(rng, np.dtype(np.float32), length, kind)


def streams_of(count: int) -> Streams:
    keys = [hashlib.sha256(bytes([i])).digest() for i in range(count)]
    return Streams.of(keys, [1 if i % 3 else -1 for i in range(count)])


def added(words: np.ndarray, bits: int, streams: Streams, blocks: Blocks) -> np.ndarray:
    out = np.empty_like(words)
    keys = [key.tobytes() for key in streams.keys]
    lane = reference_ring.LANE_MODEL
    reference_ring.add_streams(words, bits, keys, streams.signs.tolist(), lane, blocks.first, out)
    return out


@pytest.mark.parametrize("kind", KINDS)
def test_cuda_rotation_is_the_references(kind: str) -> None:
    rng = np.random.default_rng(0)
    for number, (blocks, end, missing) in enumerate(GRIDS):
        x = shifted(finite(rng, end - missing, kind), 4 * (number % 2))
        expected = np.empty(blocks.places, np.float32)
        for j, at, size in reference.places(blocks.logs):
            block = np.zeros(size, np.float32)
            there = x[blocks.starts[j] : blocks.starts[j] + size]
            block[: len(there)] = there
            expected[at : at + size] = reference.rotate(block, KEYS.signs, blocks.first + at)
        out = np.empty_like(expected)
        CODING.rotate(x, CODING.grid(blocks), KEYS.signs, out)
        assert np.array_equal(bits_of(out), bits_of(expected))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", RING_BITS)
def test_cuda_encoding_is_the_references(bits: int, kind: str) -> None:
    rng = np.random.default_rng(bits)
    for i, (blocks, end, missing) in enumerate(GRIDS):
        x = shifted(finite(rng, end - missing, kind), 4 * (i % 2))
        base = finite(rng, len(x), "plain") if i % 3 == 1 else None
        bound = [2 ** (bits - 1) - 1, 1, 12, max(1, 2 ** (bits - 1) // 10)][i % 4]
        alpha = [1.0, 0.1, 1e-40][i % 3]
        diff = x if base is None else x - base
        rms = float(np.sqrt(np.mean(diff.astype(np.float64) ** 2))) or 1.0
        inverse = np.float32(min(bound / 2.5 / rms / max(alpha, 1e-30), 3e38))
        steps = np.full(len(blocks), inverse, np.float32)
        steps[1::2] = [0, 1e-42, 3e38][i % 3]
        spec = Spec([0, 65_535, 40_000][i % 3], alpha, steps, bound, bits)
        streams = streams_of([0, 1, 3, 70][i % 4])
        words = np.empty(blocks.places * bits // 8, np.uint8)
        expected = reference.encode(
            diff, blocks.starts, blocks.logs, blocks.first, KEYS.signs, KEYS.dither,
            spec.offset, spec.alpha, steps, bound, bits, words,
        )  # fmt: skip
        words = added(words, bits, streams, blocks)
        out, sums = shifted(np.zeros_like(words), i % 2), CODING.sums(len(blocks))
        CODING.encode(x, CODING.grid(blocks), KEYS, spec, out, sums, base=base, streams=streams)
        found = CODING.read_sums(sums)
        assert np.array_equal(out, words)
        assert np.array_equal(bits_of(found.squares), bits_of(expected[0]))
        assert np.array_equal(found.clipped, expected[1]) and np.array_equal(found.totals, expected[2])


@pytest.mark.parametrize("bits", RING_BITS)
def test_cuda_decoding_is_the_references(bits: int) -> None:
    rng = np.random.default_rng(bits)
    for i, (blocks, end, missing) in enumerate(GRIDS):
        words = rng.integers(0, 256, blocks.places * bits // 8, np.uint8)
        offsets = np.array([[0], [5, 65_535], []][i % 3], np.int64)
        table = reference.dither_table(offsets)
        scales = rng.uniform(0, 1e-9, len(blocks))
        scales[1::2] = 0
        base = finite(rng, end - missing, "plain") if i % 2 else None
        expected = np.full(end - missing, 7, np.float32)
        reference.decode(
            words, bits, blocks.starts, blocks.logs, blocks.first, KEYS.signs, KEYS.dither, table, scales, base,
            expected,
        )  # fmt: skip
        masks = streams_of(i % 4)
        masked = shifted(added(words, bits, masks, blocks), i % 2)
        out = np.full_like(expected, 7)
        CODING.decode(
            masked, CODING.grid(blocks), KEYS, table, scales, base, out, bits=bits, dithered=len(offsets) > 0,
            streams=masks.opposite(),
        )  # fmt: skip
        assert np.array_equal(bits_of(out), bits_of(expected))


def test_cuda_decoding_may_write_over_its_base() -> None:
    blocks, end, _ = GRIDS[2]
    rng = np.random.default_rng(1)
    words = rng.integers(0, 256, blocks.places, np.uint8)
    base = finite(rng, end, "plain")
    arguments = (words, CODING.grid(blocks), KEYS, reference.dither_table(np.array([9])), np.full(len(blocks), 1e-7))
    apart = base.copy()
    CODING.decode(*arguments, base, apart, bits=8)
    CODING.decode(*arguments, base, base, bits=8)
    assert np.array_equal(bits_of(base), bits_of(apart))


def test_cuda_encoding_says_what_is_not_finite() -> None:
    """No wait, so no error: the block's sum of squares tells, and the other blocks are not touched by it."""
    blocks, end = grid_of([6, 6], [0, 0], 0)
    x = np.ones(end, np.float32)
    x[70] = np.nan
    sums, out = CODING.sums(2), np.empty(blocks.places, np.uint8)
    spec = Spec(0, 1.0, np.ones(2, np.float32), 100, 8)
    CODING.encode(x, CODING.grid(blocks), KEYS, spec, out, sums)
    assert np.isfinite(CODING.read_sums(sums).squares).tolist() == [True, False]


def test_a_warps_elements_lie_in_different_banks() -> None:
    """In each pass over 2**14 elements, when they are read and written in order, and in units of words."""
    lanes = np.arange(32)
    visits = [lanes + 32 * i for i in range(512)]
    visits += [unit * lanes + i for unit in (32, 64) for i in range(unit)]
    for span, together in ((1, 16), (16, 16), (256, 16), (4096, 4)):
        for first in range(0, 2**14 // together, 32):
            group = first + lanes
            at = group // span * (together * span) + group % span
            visits += [at + i * span for i in range(together)]
    places = np.array([_cuda_host.banked(e) for e in range(2**14)])
    assert sorted(places) == list(range(2**14))
    assert all(len(set(places[elements] % 32)) == 32 for elements in visits)


def test_coding_arguments_of_a_device_are_checked() -> None:
    coding = Coding(_cuda_host, -1)
    blocks, end = grid_of([6, 6], [0, 0], 0)
    grid, sums = coding.grid(blocks), coding.sums(2)
    x, out = np.zeros(end, np.float32), np.zeros(blocks.places, np.uint8)
    spec = Spec(0, 1.0, np.ones(2, np.float32), 100, 8)
    bad = [
        (lambda: coding.encode(x[:64], grid, KEYS, spec, out, sums), "blocks.range"),
        (lambda: coding.encode(x, grid, KEYS, spec, out[1:], sums), "array.length"),
        (lambda: coding.encode(x, grid, KEYS, spec, x.view(np.uint8)[:128], sums), "array.overlap"),
        (lambda: coding.encode(x, grid, KEYS, spec, out, coding.sums(1)), "array.length"),
        (lambda: coding.encode(x.astype(np.float64), grid, KEYS, spec, out, sums), "array.dtype"),
        (lambda: coding.rotate(x, grid, bytes(31), np.zeros(128, np.float32)), "key.length"),
        (lambda: coding.decode(out, grid, KEYS, np.zeros(9, np.int32), np.ones(2), None, x, bits=8), "array.length"),
        (
            lambda: coding.decode(
                out, grid, KEYS, np.zeros(65536, np.int32), np.ones(2), None, x, bits=8, streams=streams_of(65)
            ),
            "streams.count",
        ),
        (
            lambda: coding.decode(out, grid, KEYS, np.zeros(65536, np.int32), np.array([1, np.nan]), None, x, bits=8),
            "scales.value",
        ),
    ]
    for call, code in bad:
        with pytest.raises(ArgumentError) as raised:
            call()
        assert raised.value.code == code
