"""Arrays that are hard to get right: every special number, random bits, ties, any alignment."""

from __future__ import annotations

from typing import Any

import numpy as np

from shoal.kernels.reference import BFLOAT16, DTYPES, Array

NAMES = {str(dtype): dtype for dtype in DTYPES}

#: Lengths on both sides of: nothing, one register (2 to 32 elements), the unrolled blocks (16 to 256), a tile.
LENGTHS = (0, 1, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65, 127, 129, 255, 257, 1031)


def specials(dtype: np.dtype[Any]) -> Array:
    """Zeros, denormals, one, the largest, infinities, NaN of both signs with payloads."""
    bits = 8 * dtype.itemsize
    fraction = {64: 52, 32: 23, 16: 7 if dtype == BFLOAT16 else 10}[bits]
    infinity = ((1 << (bits - 1 - fraction)) - 1) << fraction
    one = (infinity >> 1) & ~((1 << fraction) - 1)
    magnitudes = [0, 1, 2, (1 << fraction) - 1, 1 << fraction, one, one + 1, infinity - 1, infinity, infinity + 1]
    magnitudes += [infinity | 1 << (fraction - 1), infinity | (1 << fraction) - 1, one - (3 << fraction)]
    every = [m | sign << (bits - 1) for m in magnitudes for sign in (0, 1)]
    return np.array(every, f"u{dtype.itemsize}").view(dtype)


def sample(rng: np.random.Generator, dtype: np.dtype[Any], length: int, kind: str) -> Array:
    """kind: plain (like weights), bits (any pattern), specials, ties (few values), tiny (denormal), huge."""
    whole = f"u{dtype.itemsize}"
    if kind == "plain":
        return (rng.standard_normal(length) * 0.05).astype(dtype)
    if kind == "bits":
        return np.frombuffer(rng.bytes(length * dtype.itemsize), whole).view(dtype)
    if kind == "specials":
        return rng.choice(specials(dtype).view(whole), length).view(dtype)
    if kind == "ties":
        return rng.choice(np.array([-1.5, -0.0, 0.0, 1.0, 1.0078125], dtype).view(whole), length).view(dtype)
    smallest, largest = (float(specials(dtype)[i]) for i in (2, 14))
    if kind == "tiny":
        return (rng.integers(-40, 40, length) * smallest).astype(dtype)
    return (rng.uniform(-1, 1, length) * largest).astype(dtype)


KINDS = ("plain", "bits", "specials", "ties", "tiny", "huge")


def shifted(x: Array, offset: int) -> Array:
    """A copy of x that begins `offset` bytes after a multiple of 64."""
    room = np.zeros(x.nbytes + 128, np.uint8)
    start = -room.ctypes.data % 64 + offset
    placed = room[start : start + x.nbytes].view(x.dtype)
    placed[...] = x
    return placed


def bits_of(x: Array) -> Array:
    return np.ascontiguousarray(x).view(f"u{x.dtype.itemsize}")
