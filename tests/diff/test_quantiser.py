"""The summable quantiser: known answers, sums that are exact, errors that are what the formula says."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import pytest

from shoal.diff.grid import Grid
from shoal.diff.quantiser import Quantiser, Shard, derived_key
from shoal.diff.ring_width import Width, capacity
from shoal.diff.scales import Scales
from shoal.diff.weights import public_alphas, total_public
from shoal.errors import ArgumentError
from shoal.kernels.coding import RING_BITS
from shoal.kernels.reference_coding import float_bound
from shoal.kernels.reference_ring import LANE_DITHER, add_streams, keystream, lift, sum_words
from shoal.kernels.ring import Streams

SEED = hashlib.sha256(b"plan").digest()
Float32s = npt.NDArray[np.float32]


def flat(elements: int, clip: float, factor: float = 3.5) -> Scales:
    grid = Grid.of(elements)
    return Scales(grid, factor, np.full(grid.blocks, clip, np.float32))


def quantiser(scales: Scales, width: Width, **more: object) -> Quantiser:
    return Quantiser(scales, width, SEED, b"r", tuple(range(len(width.bounds))), **more)  # type: ignore[arg-type]


def words(q: Quantiser, position: int, x: Float32s, alpha: float = 1.0, **more: object) -> npt.NDArray[np.uint8]:
    out = np.empty(q.word_bytes, np.uint8)
    q.encode(position, alpha, x, out, **more)  # type: ignore[arg-type]
    return out


def total(q: Quantiser, parts: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    out = np.empty(q.word_bytes, np.uint8)
    sum_words(parts, q.width.bits, out)
    return out


def test_known_answers() -> None:
    q = quantiser(flat(1024, 1.0), Width.equal(10, 8))
    assert q.keys.dither == derived_key(SEED, "dither", b"r")
    assert keystream(q.keys.dither, LANE_DITHER, 0, 8).view("<u2").tolist() == [29478, 45532, 44829, 54191]
    assert q.table({0, 3, 7})[:3].tolist() == [-65535, -65529, -65523]
    assert [q.offset(p) for p in range(10)] == [65536 * p // 10 for p in range(10)]


def test_offsets_go_by_the_order_of_those_that_upload() -> None:
    q = Quantiser(flat(64, 1.0), Width.equal(5, 8), SEED, b"r", (0, 2, 4))
    assert [q.offset(p) for p in (0, 2, 4)] == [0, 21845, 43690]
    with pytest.raises(ArgumentError):
        q.offset(1)
    for uploaders in ((), (2, 0), (0, 0), (4, 5), (-1,)):
        with pytest.raises(ArgumentError) as caught:
            Quantiser(flat(64, 1.0), Width.equal(5, 8), SEED, b"r", uploaders)
        assert caught.value.code == "plan.uploaders"


@pytest.mark.parametrize("bits", RING_BITS)
def test_extreme_values_add_up_exactly(bits: int) -> None:
    """Every number of every participant is clipped, all in one direction: the largest sum there is."""
    x = np.random.default_rng(bits).standard_normal(64).astype(np.float32)
    for n in range(3, 101):
        q = quantiser(flat(64, 2.0**-40), Width.equal(n, bits))
        first, last = words(q, 0, x), words(q, n - 1, x)
        assert np.array_equal(first, last) and set(np.abs(lift(first, bits)).tolist()) == {
            int(float_bound(q.width.bound))
        }
        assert np.array_equal(lift(total(q, [first] * n), bits), n * lift(first, bits))


@pytest.mark.parametrize("bits", RING_BITS)
def test_extreme_values_of_public_weights(bits: int) -> None:
    x = np.random.default_rng(bits).standard_normal(256).astype(np.float32)
    for samples in ([1, 1, 1000], [7] * 20 + [100], list(range(1, 50))):
        q = quantiser(flat(256, 2.0**-40), Width.public(samples, bits))
        each = [words(q, i, x, a.value) for i, a in enumerate(public_alphas(samples))]
        whole = lift(total(q, each), bits)
        assert np.array_equal(whole, sum(lift(part, bits) for part in each))
        assert np.abs(whole).max() == sum(int(float_bound(b)) for b in q.width.bounds) <= capacity(bits)


@pytest.mark.parametrize(("bits", "within"), [(8, 0.16), (12, 0.01), (16, 6e-4), (32, 1e-6)])
def test_mean_of_any_survivors(bits: int, within: float) -> None:
    rng = np.random.default_rng(3)
    xs = [rng.standard_normal(5000).astype(np.float32) for _ in range(7)]
    q = quantiser(flat(5000, 5.0, 5.0), Width.equal(7, bits))
    parts = [words(q, i, x) for i, x in enumerate(xs)]
    for survivors in ((0, 1, 2, 3, 4, 5, 6), (0, 2, 5), (6,)):
        out = np.empty(5000, np.float32)
        q.decode(total(q, [parts[i] for i in survivors]), survivors, len(survivors), None, out)
        mean = np.mean([xs[i] for i in survivors], axis=0)
        assert np.sqrt(np.mean((out - mean) ** 2)) < within
        onto = np.ones(5000, np.float32)
        q.decode(total(q, [parts[i] for i in survivors]), survivors, len(survivors), onto, onto)
        assert np.array_equal(onto, np.float32(1) + out)


@pytest.mark.parametrize(
    ("survivors", "ratio"), [(tuple(range(10)), 1.01), ((0, 1, 2, 4, 5, 7, 8, 9), 1.01), ((1, 4, 9), 1.005)]
)
def test_error_is_that_of_rounding_without_bias(survivors: tuple[int, ...], ratio: float) -> None:
    """Reference check of the protocol: weights 0.1 ... 1 of ten, ring of 12 bits."""
    d, samples = 2**15, list(range(1, 11))
    alphas = public_alphas(samples)
    q = quantiser(flat(d, 6.0, 6.0), Width.public(samples, 12))
    rng = np.random.default_rng(20)
    xs = {i: rng.standard_normal(d).astype(np.float32) for i in survivors}
    out = np.empty(d, np.float32)
    q.decode(
        total(q, [words(q, i, x, alphas[i].value) for i, x in xs.items()]),
        survivors,
        total_public(alphas, survivors),
        None,
        out,
    )
    weight = total_public(alphas, survivors)
    error = out - sum(alphas[i].value * x.astype(np.float64) for i, x in xs.items()) / weight
    step = 6.0 / q.width.bound
    assert np.mean(error**2) / (step**2 / 12 * len(survivors) / weight**2) == pytest.approx(ratio, abs=0.02)
    assert abs(np.mean(error)) < 2 * np.std(error) / np.sqrt(d)


def test_private_rounding_takes_nothing_off_and_is_unbiased() -> None:
    d = 2**14
    x = np.random.default_rng(1).standard_normal(d).astype(np.float32)
    q = quantiser(flat(d, 4.0, 4.0), Width.equal(3, 8), rounding="private")
    assert not q.table({0, 1, 2}).any() and q.offset(2) == 0
    parts = [words(q, i, x, secret=bytes([i]) * 32) for i in range(3)]
    assert not np.array_equal(parts[0], parts[1])
    out = np.empty(d, np.float32)
    q.decode(total(q, parts), (0, 1, 2), 3.0, None, out)
    assert np.mean((out - x) ** 2) / ((4.0 / 42) ** 2 / 6 / 3) == pytest.approx(1, abs=0.08)
    with pytest.raises(ArgumentError):
        words(q, 0, x)
    with pytest.raises(ArgumentError):
        words(quantiser(flat(d, 4.0), Width.equal(3, 8)), 0, x, secret=bytes(32))


def test_blocks_of_zeros_are_left_alone() -> None:
    scales = flat(4096 + 100, 4.0)
    scales.clips[[1, 4]] = 0
    q = quantiser(scales, Width.equal(3, 8))
    assert q.word_bytes == 3 * 1024 + 64
    x = np.random.default_rng(1).standard_normal(4196).astype(np.float32)
    out = np.full(4196, np.nan, np.float32)
    q.decode(words(q, 1, x), (1,), 1.0, None, out)
    gaps = np.r_[1024:2048, 4096:4160]
    assert np.isnan(out[gaps]).all() and np.isfinite(np.delete(out, gaps)).all()


@pytest.mark.parametrize("count", [1, 3, 4, 9, 40])
def test_shards_make_the_whole(count: int) -> None:
    scales = flat(9 * 1024 + 300, 4.0)
    scales.clips[[2, 3]] = 0
    q = quantiser(scales, Width.equal(3, 12))
    shards = q.shards(count)
    assert [s.first for s in shards] == [0, *(s.stop for s in shards[:-1])] and shards[-1].stop == len(q.blocks)
    sizes = [s.blocks.places for s in shards]
    assert sum(sizes) == q.blocks.places and max(sizes) - min(sizes) <= 2 * 1024
    x = np.random.default_rng(1).standard_normal(9516).astype(np.float32)
    whole, each = words(q, 2, x), np.empty(q.word_bytes, np.uint8)
    out, parts = np.zeros(9516, np.float32), np.zeros(9516, np.float32)
    q.decode(whole, (2,), 1.0, None, out)
    for shard in shards:
        if not isinstance(shard, Shard) or not len(shard.blocks):
            continue
        q.encode(2, 1.0, x, each[shard.span(12)], shard=shard)
        q.decode(each[shard.span(12)], (2,), 1.0, None, parts, shard=shard)
    assert np.array_equal(whole, each) and np.array_equal(out, parts)


def test_wrong_lengths() -> None:
    q = quantiser(flat(100, 1.0), Width.equal(3, 8))
    out = np.empty(q.word_bytes, np.uint8)
    with pytest.raises(ArgumentError):
        q.encode(0, 1.0, np.zeros(99, np.float32), out)
    with pytest.raises(ArgumentError):
        q.decode(out, (0,), 1.0, None, np.zeros(101, np.float32))


def test_other_plans_give_other_words() -> None:
    x = np.random.default_rng(1).standard_normal(1024).astype(np.float32)
    q = quantiser(flat(1024, 4.0), Width.equal(3, 8))
    other = Quantiser(q.scales, q.width, SEED, b"s", q.uploaders)
    assert not np.array_equal(words(q, 0, x), words(other, 0, x))
    assert q.keys.signs != q.keys.dither


def test_masks_go_on_and_come_off_in_the_same_pass() -> None:
    keys = [bytes(range(32)), bytes(range(32, 64))]
    masks = Streams.of(keys, [1, -1])
    x = np.random.default_rng(1).standard_normal(2048).astype(np.float32)
    q = quantiser(flat(2048, 4.0), Width.equal(3, 8))
    bare, masked = words(q, 0, x), words(q, 0, x, streams=masks)
    want = bare.copy()
    add_streams(bare, 8, keys, [1, -1], 0, 0, want)
    assert np.array_equal(masked, want)
    out, plain = np.zeros(2048, np.float32), np.zeros(2048, np.float32)
    q.decode(masked, (0,), 1.0, None, out, streams=masks.opposite())
    q.decode(bare, (0,), 1.0, None, plain)
    assert np.array_equal(out, plain)
