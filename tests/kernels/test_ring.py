"""Ring words and keystreams: every level gives the reference's bits, and the reference gives ChaCha20's."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from shoal.errors import ArgumentError
from shoal.kernels import _native, reference_ring, ring
from shoal.kernels.dispatch import levels_available
from shoal.kernels.ring import Streams

BITS = (8, 12, 16, 32, 64)
#: around a register's, a block's, a group's and a tile's end at every level; even, for 12 bits
COUNTS = (0, 2, 14, 16, 18, 62, 64, 66, 126, 254, 256, 258, 1022, 1024, 1026, 4098, 32766, 32770)
#: in a block, across it, at the ends of 32-bit counters and of what a stream is asked for
PLACES = (0, 1, 2, 7, 63, 64, 65, 2**36 - 64, 2**36 + 3, 2**38 - 5, 2**60 - 1)


@pytest.fixture(params=levels_available())
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    before = _native.level()
    _native.use_level(request.param)
    yield request.param
    _native.use_level(before)


def key(number: int) -> bytes:
    return np.random.default_rng(number).bytes(32)


def words(count: int, bits: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, ring.word_bytes(count, bits), np.uint8)


def openssl(key_: bytes, lane: int, first: int, count: int) -> bytes:
    """Keystream bytes by OpenSSL, block by block, so that no call crosses a 32-bit counter."""
    found = b""
    for block in range(first // 64, (first + count + 63) // 64):
        nonce = block.to_bytes(8, "little") + lane.to_bytes(8, "little")
        found += Cipher(algorithms.ChaCha20(key_, nonce), None).encryptor().update(bytes(64))
    return found[first % 64 :][:count]


def test_known_answer(level: str) -> None:
    out = np.empty(16, np.uint8)
    ring.keystream(bytes(range(32)), 0, 0, out)
    assert out.tobytes().hex() == "39fd2b7dd9c5196a8dbd0377b8dc4a49"


@pytest.mark.parametrize("lane", [0, 7, 2**32 - 1, 2**32, 2**64 - 1])
@pytest.mark.parametrize("first", [0, 1, 63, 64, 1000, 2**38 - 3000, 2**38 - 1, 2**63 + 13, 2**64 - 5000])
def test_keystream_is_openssls_chacha20(level: str, lane: int, first: int) -> None:
    """Also across the counter 2**32 (byte 2**38), where OpenSSL's own calls must end."""
    out = np.empty(4500, np.uint8)
    ring.keystream(key(1), lane, first, out)
    assert out.tobytes() == openssl(key(1), lane, first, 4500)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("count", COUNTS)
def test_masks_are_the_references(level: str, bits: int, count: int) -> None:
    data = words(count, bits)
    data.flags.writeable = False
    for number, first in enumerate(PLACES):
        keys, signs = [key(i) for i in range(number % 4)], [1, -1, -1][: number % 4]
        expected, found = np.empty_like(data), np.empty_like(data)
        reference_ring.add_streams(data, bits, keys, signs, 5, first, expected)
        ring.add_streams(data, bits, Streams.of(keys, signs), 5, first, found, threads=1 + number % 3)
        assert np.array_equal(expected, found), (first, keys)


@pytest.mark.parametrize("bits", BITS)
def test_masks_cancel_in_place_and_come_in_pieces(level: str, bits: int) -> None:
    data = words(100_000, bits)
    streams = Streams.of([key(i) for i in range(5)], [1, -1, 1, 1, -1])
    masked = data.copy()
    ring.add_streams(masked, bits, streams, 0, 128, masked)
    assert not np.array_equal(masked, data)
    pieces = data.copy()
    for start, stop in ((0, 3000), (3000, 3064), (3064, 99_000), (99_000, 100_000)):
        part = pieces[ring.word_bytes(start, bits) : ring.word_bytes(stop, bits)]
        ring.add_streams(part, bits, streams, 0, 128 + start, part)
    assert np.array_equal(pieces, masked)
    ring.add_streams(masked, bits, streams.opposite(), 0, 128, masked)
    assert np.array_equal(masked, data)


def test_hundred_streams_of_twelve_bits(level: str) -> None:
    """More than the fields of 16 bits could hold without wrapping."""
    keys, signs = [key(i) for i in range(100)], [1] * 100
    data = words(1000, 12)
    expected, found = np.empty_like(data), np.empty_like(data)
    reference_ring.add_streams(data, 12, keys, signs, 0, 0, expected)
    ring.add_streams(data, 12, Streams.of(keys, signs), 0, 0, found)
    assert np.array_equal(expected, found)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("inputs", [1, 2, 15, 16, 17, 256])
def test_sums_are_the_references(level: str, bits: int, inputs: int) -> None:
    for count in (0, 2, 30, 34, 1026, 40_002):
        rows = [words(count, bits, seed) for seed in range(inputs if count < 2000 else min(inputs, 3))]
        expected, found = np.empty_like(rows[0]), np.empty_like(rows[0])
        reference_ring.sum_words(rows, bits, expected)
        ring.sum_words(rows, bits, found, threads=2)
        assert np.array_equal(expected, found)
        ring.sum_words(rows, bits, rows[-1])
        assert np.array_equal(expected, rows[-1])


def test_largest_words_wrap_as_a_ring_does(level: str) -> None:
    for bits in BITS:
        top = np.full(ring.word_bytes(64, bits), 255, np.uint8)
        out = np.empty_like(top)
        ring.sum_words([top] * 100, bits, out)
        assert set(reference_ring.lift(out, bits).tolist()) == {-100}


@pytest.mark.parametrize("bits", BITS)
def test_checks_are_the_references_and_add_up(level: str, bits: int) -> None:
    data = words(70_002, bits)
    whole = ring.check_sums(data, bits, key(3), ring.LANE_CHECK, 10, threads=2)
    assert np.array_equal(whole, reference_ring.check_sums(data, bits, key(3), ring.LANE_CHECK, 10))
    cut = ring.word_bytes(1234, bits)
    parts = ring.check_sums(data[:cut], bits, key(3), ring.LANE_CHECK, 10)
    parts = parts + ring.check_sums(data[cut:], bits, key(3), ring.LANE_CHECK, 10 + 1234)
    assert np.array_equal(parts & np.uint64(2**bits - 1), whole)


@pytest.mark.parametrize("bits", BITS)
def test_checks_of_any_number_of_words_anywhere(level: str, bits: int) -> None:
    """Also of none; the largest words; at the last place; ends within a register's words and a piece's."""
    for count in (0, 2, 6, 30, 62, 66, 1022, 1026, 2050):
        data = np.full(ring.word_bytes(count, bits), 255, np.uint8)
        found = ring.check_sums(data, bits, key(4), ring.LANE_CHECK_MORE, 2**60 - 1)
        assert np.array_equal(found, reference_ring.check_sums(data, bits, key(4), ring.LANE_CHECK_MORE, 2**60 - 1))


@pytest.mark.parametrize("bits", (8, 12, 16, 32))
def test_masked_words_are_uniform(level: str, bits: int) -> None:
    """Chi-square over 256 values of the top byte, 255 degrees of freedom: 330 is exceeded once in 1,000 times."""
    data = np.zeros(ring.word_bytes(2**18, bits), np.uint8)
    ring.add_streams(data, bits, Streams.of([key(9), key(10)], [1, -1]), 0, 0, data)
    top = (ring.unpack(data, bits).astype(np.uint64) >> np.uint64(bits - 8)).astype(np.int64)
    counts = np.bincount(top, minlength=256)
    assert ((counts - 2**10) ** 2 / 2**10).sum() < 330


def test_any_bit_of_a_key_changes_half_of_the_stream(level: str) -> None:
    plain, other = np.empty(8192, np.uint8), np.empty(8192, np.uint8)
    ring.keystream(key(4), 0, 0, plain)
    for bit in range(256):
        flipped = bytearray(key(4))
        flipped[bit // 8] ^= 1 << bit % 8
        ring.keystream(bytes(flipped), 0, 0, other)
        changed = int(np.unpackbits(plain ^ other).sum())
        assert abs(changed - 32768) < 5 * 128, "five standard deviations of 65,536 coin tosses"


def test_packing_twelve_bits() -> None:
    values = np.random.default_rng(0).integers(0, 4096, 130).astype("<u2")
    data = ring.pack(values, 12)
    assert len(data) == 195 and np.array_equal(ring.unpack(data, 12), values)
    assert data[:3].tolist() == [values[0] & 255, values[0] >> 8 | (values[1] & 15) << 4, values[1] >> 4]


def test_keys_are_not_shown() -> None:
    streams = Streams.of([bytes(range(32))], [1])
    assert repr(streams) == "Streams(1)" and "1, 2" not in str(streams)


GOOD = np.zeros(48, np.uint8)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda: ring.add_streams(GOOD, 7, Streams.of([], []), 0, 0, GOOD.copy()), "ring.bits"),
        (lambda: ring.add_streams(GOOD[:47], 12, Streams.of([], []), 0, 0, GOOD.copy()), "ring.length"),
        (lambda: ring.add_streams(GOOD, 8, Streams.of([], []), 0, 0, GOOD[:47].copy()), "ring.length"),
        (lambda: ring.add_streams(GOOD, 8, Streams.of([], []), 0, -1, GOOD.copy()), "ring.place"),
        (lambda: ring.add_streams(GOOD, 8, Streams.of([], []), 2**64, 0, GOOD.copy()), "ring.place"),
        (lambda: ring.add_streams(GOOD[::2], 8, Streams.of([], []), 0, 0, GOOD[:24].copy()), "ring.array"),
        (lambda: ring.add_streams(GOOD.astype(np.int8), 8, Streams.of([], []), 0, 0, GOOD.copy()), "ring.array"),
        (lambda: Streams.of([bytes(31)], [1]), "streams.keys"),
        (lambda: Streams.of([bytes(32)], [0]), "streams.signs"),
        (lambda: Streams.of([bytes(32)], [1, 1]), "streams.signs"),
        (lambda: Streams.of([bytes(32)], [257]), "streams.signs"),
        (lambda: Streams.of([bytes(32)], [1.5]), "streams.signs"),
        (lambda: ring.add_streams(GOOD, 8, Streams.of([], []), 0, 2**60, GOOD.copy()), "ring.place"),
        (lambda: ring.check_sums(GOOD, 8, bytes(32), 0, 2**60), "ring.place"),
        (lambda: ring.keystream(bytes(16), 0, 0, GOOD.copy()), "ring.key"),
        (lambda: ring.keystream(bytes(32), 0, 2**64 - 10, GOOD.copy()), "ring.place"),
        (lambda: ring.sum_words([], 8, GOOD.copy()), "ring.inputs"),
        (lambda: ring.sum_words([GOOD] * 257, 8, GOOD.copy()), "ring.inputs"),
        (lambda: ring.sum_words([GOOD, GOOD[:-1]], 8, GOOD.copy()), "ring.length"),
        (lambda: ring.pack(np.zeros(3, "<u2"), 12), "ring.array"),
        (lambda: ring.word_bytes(3, 12), "ring.length"),
    ],
)
def test_bad_arguments_are_named(call, code: str) -> None:
    with pytest.raises(ArgumentError) as raised:
        call()
    assert raised.value.code == code


def test_out_is_checked() -> None:
    frozen = GOOD.copy()
    frozen.flags.writeable = False
    both = np.zeros(60, np.uint8)
    for out, code in ((frozen, "ring.readonly"), (both[4:52], "ring.overlap")):
        with pytest.raises(ArgumentError) as raised:
            ring.add_streams(both[:48], 8, Streams.of([], []), 0, 0, out)
        assert raised.value.code == code


def test_out_is_apart_from_keys() -> None:
    """Keys that change under way would give masks that nobody can take away."""
    keys, data = np.zeros((3, 32), np.uint8), np.zeros(96, np.uint8)
    streams = Streams(keys, np.ones(3, np.int8))
    for out in (keys.reshape(-1), np.frombuffer(keys.data, np.uint8)[32:96]):
        with pytest.raises(ArgumentError) as raised:
            ring.add_streams(data[: len(out)], 8, streams, 0, 0, out)
        assert raised.value.code == "ring.overlap"


def test_native_code_writes_into_no_copy() -> None:
    for out in (np.zeros(96, np.uint8)[::2], np.zeros(48, np.int64), np.zeros((48, 1), np.uint8)):
        with pytest.raises(ValueError):
            _native.ring_keystream(GOOD[:32], 0, 0, out, 1)
