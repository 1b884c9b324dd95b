"""Words of Z_{2^bits} and their masks as the rest of Shoal calls them: arguments are checked here.

The contract of each function stands in `reference_ring`; here one keyword more: ``threads`` (0: as many as
SHOAL_THREADS or the machine allows; the bits do not depend on it).  Arrays are uint8, 1-D, contiguous; inputs may be
read-only; ``out`` may be the input, but not overlap it in part.  The GIL is released.

raises  ArgumentError   for arguments that break the contract: nothing has been written
        MachineError    as `dispatch`
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from shoal.errors import ArgumentError
from shoal.kernels import _native, dispatch, reference_ring
from shoal.kernels.reference_ring import (
    CHECKS,
    LANE_CHECK,
    LANE_CHECK_MORE,
    LANE_DITHER,
    LANE_MODEL,
    LANE_SIGNS,
    LANE_STATISTICS,
    LANE_WEIGHT,
    WORDS,
    Bytes,
    Words,
)
from shoal.limits import LEDGER_MEMBERS_MAX

__all__ = [
    "CHECKS", "KEY_BYTES", "LANE_CHECK", "LANE_CHECK_MORE", "LANE_DITHER", "LANE_MODEL", "LANE_SIGNS",
    "LANE_STATISTICS", "LANE_WEIGHT", "WORDS", "Bytes", "Streams", "add_streams", "check_sums", "keystream", "pack",
    "sum_words", "unpack", "word_bytes",
]  # fmt: skip

KEY_BYTES: Final = 32
#: vectors in one sum: all members and one running total
INPUTS_MAX: Final = LEDGER_MEMBERS_MAX + 1


@dataclass(frozen=True, eq=False)
class Streams:
    """Streams that are added to words, or taken away.  Keys are secrets: never shown.

    keys   uint8[m, 32]
    signs  int8[m], +1 or -1
    """

    keys: npt.NDArray[np.uint8]
    signs: npt.NDArray[np.int8]

    def __post_init__(self) -> None:
        keys, signs = self.keys, self.signs
        if keys.dtype != np.uint8 or keys.ndim != 2 or keys.shape[1] != KEY_BYTES or not keys.flags.c_contiguous:
            raise ArgumentError(
                "streams.keys", f"keys are {keys.dtype}{list(keys.shape)}; expected uint8[m, {KEY_BYTES}]"
            )
        if signs.dtype != np.int8 or signs.shape != (len(keys),) or not np.isin(signs, (1, -1)).all():
            raise ArgumentError("streams.signs", f"signs are not {len(keys)} int8 of +1 or -1")

    @classmethod
    def of(cls, keys: Sequence[bytes], signs: Sequence[int]) -> Streams:
        """From keys of 32 bytes each."""
        if any(len(key) != KEY_BYTES for key in keys):
            raise ArgumentError("streams.keys", f"a key is not of {KEY_BYTES} bytes")
        if any(sign not in (1, -1) for sign in signs):
            raise ArgumentError("streams.signs", "a sign is neither +1 nor -1")
        joined = np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), KEY_BYTES)
        return cls(joined, np.array(signs, np.int8))

    def opposite(self) -> Streams:
        """The same streams with the other signs: what takes these away again."""
        return Streams(self.keys, -self.signs)

    def __len__(self) -> int:
        return len(self.signs)

    def __repr__(self) -> str:
        return f"Streams({len(self)})"


def word_bytes(count: int, bits: int) -> int:
    """Wire bytes of ``count`` words.

    raises  ArgumentError  ``ring.bits``, ``ring.length``
    """
    _checked_bits(bits)
    if count < 0 or (bits == 12 and count % 2):
        raise ArgumentError("ring.length", f"{count} words of {bits} bits; expected a number, even for 12 bits")
    return reference_ring.word_bytes(count, bits)


def _checked_bits(bits: int) -> None:
    if bits not in WORDS:
        raise ArgumentError("ring.bits", f"a ring of {bits} bits; expected one of {', '.join(map(str, WORDS))}")


def _bytes(x: object, what: str, length: int | None = None) -> Bytes:
    if not isinstance(x, np.ndarray) or x.dtype != np.uint8 or x.ndim != 1 or (len(x) > 1 and x.strides != (1,)):
        found = f"{x.dtype}{list(x.shape)}" if isinstance(x, np.ndarray) else type(x).__name__
        raise ArgumentError("ring.array", f"{what} is {found}; expected uint8[n], contiguous")
    if length is not None and len(x) != length:
        raise ArgumentError("ring.length", f"{what} has {len(x)} bytes; expected {length}")
    return x


def _words(x: object, bits: int, what: str) -> Bytes:
    _checked_bits(bits)
    data = _bytes(x, what)
    unit = 3 if bits == 12 else bits // 8
    if len(data) % unit:
        raise ArgumentError("ring.length", f"{what} has {len(data)} bytes; expected whole words of {bits} bits")
    return data


def _out(out: object, length: int, inputs: Sequence[Bytes]) -> Bytes:
    data = _bytes(out, "out", length)
    if not data.flags.writeable:
        raise ArgumentError("ring.readonly", "out is read-only; expected a writable array")
    if _native.first_overlap(data, list(inputs)) >= 0:
        raise ArgumentError("ring.overlap", "out overlaps an input in part; expected the same array, or apart")
    return data


def _key(key: bytes) -> Bytes:
    if len(key) != KEY_BYTES:
        raise ArgumentError("ring.key", f"a key of {len(key)} bytes; expected {KEY_BYTES}")
    return np.frombuffer(key, np.uint8)


def _number(value: int, what: str, below: int) -> int:
    if not 0 <= value < below:
        raise ArgumentError("ring.place", f"{what} is {value}; expected 0 to {below - 1}")
    return int(value)


def keystream(key: bytes, lane: int, first: int, out: Bytes, *, threads: int = 0) -> None:
    """out = bytes first ... first + len(out) - 1 of a stream."""
    data = _out(out, len(_bytes(out, "out")), ())
    place = _number(first, "first", 2**64 - len(data))
    _native.ring_keystream(_key(key), _number(lane, "lane", 2**64), place, data, dispatch.checked_threads(threads))


def add_streams(
    data: Bytes, bits: int, streams: Streams, lane: int, first: int, out: Bytes, *, threads: int = 0
) -> None:
    words = _words(data, bits, "data")
    to = _out(out, len(words), (words,))
    if np.may_share_memory(to, streams.keys) or np.may_share_memory(to, streams.signs):
        raise ArgumentError("ring.overlap", "out overlaps the keys or signs of the streams; expected it apart")
    place = _number(first, "first", 2**60)
    n = dispatch.checked_threads(threads)
    _native.ring_add_streams(words, bits, streams.keys, streams.signs, _number(lane, "lane", 2**64), place, to, n)


def sum_words(inputs: Sequence[Bytes], bits: int, out: Bytes, *, threads: int = 0) -> None:
    if not 1 <= len(inputs) <= INPUTS_MAX:
        raise ArgumentError("ring.inputs", f"{len(inputs)} vectors in one sum; expected 1 to {INPUTS_MAX}")
    first = _words(inputs[0], bits, "input 0")
    checked = [first, *(_bytes(x, f"input {i + 1}", len(first)) for i, x in enumerate(inputs[1:]))]
    to = _out(out, len(first), checked)
    _native.ring_sum_words(checked, bits, to, dispatch.checked_threads(threads))


def check_sums(
    data: Bytes, bits: int, key: bytes, lane: int, first: int, *, threads: int = 0
) -> npt.NDArray[np.uint64]:
    words = _words(data, bits, "data")
    place = _number(first, "first", 2**60)
    n = dispatch.checked_threads(threads)
    return _native.ring_check_sums(words, bits, _key(key), _number(lane, "lane", 2**64), place, n)


def unpack(data: Bytes, bits: int) -> Words:
    """Wire bytes -> words below 2**bits, in WORDS[bits]; a view where the words lie apart."""
    return reference_ring.unpack(_words(data, bits, "data"), bits)


def pack(words: Words, bits: int) -> Bytes:
    """Words, of which the low ``bits`` bits count, -> wire bytes."""
    _checked_bits(bits)
    if words.dtype != WORDS[bits] or words.ndim != 1 or (bits == 12 and len(words) % 2):
        found = f"{words.dtype}{list(words.shape)}"
        raise ArgumentError("ring.array", f"words are {found}; expected {WORDS[bits]}[n], n even for 12 bits")
    return reference_ring.pack(words, bits)
