"""The kernels of the ring Z_{2^b} in plain numpy: keystreams, masks, sums, checks.  This file *defines* what is right.

Words.  A vector of n elements of Z_{2^bits} is one contiguous uint8 array, as it goes over the wire:

    bits 8, 16, 32, 64   each word little-endian, n * bits / 8 bytes
    bits 12              two words in three bytes, w0 | w1 << 12 as a 24-bit little-endian number; n is even

Keystream.  ChaCha20 (Bernstein 2008, the original layout): 20 rounds, 256-bit key, state words 12, 13 = 64-bit block
counter, words 14, 15 = 64-bit lane, both little-endian.  It is random access: byte p of a stream is byte p % 64 of
block p // 64.  Element e of a vector of words takes bytes [e*w, e*w + w) of the stream, w = 1, 2, 4, 8 for bits 8, 16,
32, 64, and w = 2 for bits 12 (of which the low 12 bits count).

Source: docs/PROTOCOL.md; Bonawitz et al., CCS 2017 (masks that cancel).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[Any]

#: ring width in bits -> dtype that one word is computed in
WORDS: Final[dict[int, np.dtype[Any]]] = {
    8: np.dtype("<u1"),
    12: np.dtype("<u2"),
    16: np.dtype("<u2"),
    32: np.dtype("<u4"),
    64: np.dtype("<u8"),
}
#: what each lane of a stream is for
LANE_MODEL: Final = 0
LANE_STATISTICS: Final = 1
LANE_WEIGHT: Final = 2
LANE_CHECK: Final = 3
LANE_DITHER: Final = 4
LANE_SIGNS: Final = 5
LANE_CHECK_MORE: Final = 6
#: checks made by one word of the check stream
CHECKS: Final = 32

_SIGMA: Final = np.frombuffer(b"expand 32-byte k", "<u4")
_ROUNDS: Final = (
    (0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
    (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14),
)  # fmt: skip


def word_bytes(count: int, bits: int) -> int:
    """Bytes of ``count`` words; for 12 bits ``count`` is even."""
    return count * bits // 8


def chacha20_blocks(key: bytes, lane: int, first: int, count: int) -> Bytes:
    """Keystream blocks first ... first + count - 1 (counters modulo 2**64): uint8[64 * count]."""
    counters = np.uint64(int(first) % 2**64) + np.arange(count, dtype=np.uint64)
    state = np.empty((16, count), np.uint32)
    state[:4] = _SIGMA[:, None]
    state[4:12] = np.frombuffer(key, "<u4")[:, None]
    state[12] = counters & np.uint64(0xFFFFFFFF)
    state[13] = counters >> np.uint64(32)
    state[14], state[15] = lane & 0xFFFFFFFF, lane >> 32
    x = state.copy()
    for _ in range(10):
        for a, b, c, d in _ROUNDS:
            for first_word, second, third, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
                x[first_word] += x[second]
                x[third] ^= x[first_word]
                x[third] = (x[third] << np.uint32(turn)) | (x[third] >> np.uint32(32 - turn))
    return np.ascontiguousarray((x + state).T).astype("<u4").view(np.uint8).reshape(-1)


def keystream(key: bytes, lane: int, first: int, count: int) -> Bytes:
    """Bytes first ... first + count - 1 of a stream: uint8[count]."""
    if count == 0:
        return np.empty(0, np.uint8)
    block = first // 64
    blocks = chacha20_blocks(key, lane, block, (first + count - 1) // 64 - block + 1)
    return blocks[first - 64 * block :][:count]


def stream_words(key: bytes, lane: int, first: int, count: int, bits: int) -> Words:
    """Words of elements first ... first + count - 1 of a stream, in WORDS[bits]; below 2**bits."""
    dtype = WORDS[bits]
    words = keystream(key, lane, first * dtype.itemsize, count * dtype.itemsize).view(dtype)
    low: Words = words & dtype.type(2**bits - 1)
    return low


def unpack(data: Bytes, bits: int) -> Words:
    """Wire bytes -> words below 2**bits, in WORDS[bits]."""
    if bits != 12:
        return data.view(WORDS[bits])
    three = data.reshape(-1, 3).astype(np.uint32)
    both = three[:, 0] | three[:, 1] << 8 | three[:, 2] << 16
    return np.stack([both & 0xFFF, both >> 12], axis=1).reshape(-1).astype("<u2")


def pack(words: Words, bits: int) -> Bytes:
    """Words (only the low ``bits`` bits count) -> wire bytes."""
    if bits != 12:
        return np.ascontiguousarray(words, WORDS[bits]).view(np.uint8)
    pairs = (words & np.uint16(0xFFF)).astype(np.uint32).reshape(-1, 2)
    both = pairs[:, 0] | pairs[:, 1] << 12
    return np.stack([both & 0xFF, both >> 8 & 0xFF, both >> 16], axis=1).astype(np.uint8).reshape(-1)


def add_streams(
    data: Bytes, bits: int, keys: Sequence[bytes], signs: Sequence[int], lane: int, first: int, out: Bytes
) -> None:
    """out = data + sum over i of signs[i] * stream(keys[i]), elementwise modulo 2**bits.

    data   words as wire bytes; element j of them is element first + j of the streams
    signs  +1 or -1 for each key
    out    uint8[len(data)], may be ``data``
    """
    total = unpack(data, bits).copy()
    for key, sign in zip(keys, signs, strict=True):
        words = stream_words(key, lane, first, len(total), bits)
        total = total + words if sign > 0 else total - words
    out[:] = pack(total, bits)


def sum_words(inputs: Sequence[Bytes], bits: int, out: Bytes) -> None:
    """out = sum of the inputs, elementwise modulo 2**bits; out may be one of them."""
    total = unpack(inputs[0], bits).copy()
    for data in inputs[1:]:
        total = total + unpack(data, bits)
    out[:] = pack(total, bits)


def lift(data: Bytes, bits: int) -> npt.NDArray[np.int64]:
    """Words as the integers in [-2**(bits-1), 2**(bits-1)) that they stand for: int64[n]."""
    words = unpack(data, bits)
    if bits == 64:
        return words.view(np.int64)
    values = words.astype(np.int64)
    return values - ((values >> (bits - 1)) << bits)


def check_sums(data: Bytes, bits: int, key: bytes, lane: int, first: int) -> npt.NDArray[np.uint64]:
    """For r = 0 ... 31 the sum, modulo 2**bits, of those words j for which bit r of check word first + j is set.

    Check word e is word e of 32 bits of the stream of ``key`` in ``lane`` (LANE_CHECK; LANE_CHECK_MORE for 32 more).
    returns  uint64[32], each below 2**bits.  Sums of pieces add up, modulo 2**bits, to the sums of the whole.
    """
    words = unpack(data, bits).astype(np.uint64)
    chosen = stream_words(key, lane, first, len(words), 32)
    sums = np.empty(CHECKS, np.uint64)
    for r in range(CHECKS):
        sums[r] = words[(chosen >> np.uint32(r) & 1).astype(bool)].sum(dtype=np.uint64)
    return sums & np.uint64(2**bits - 1)
