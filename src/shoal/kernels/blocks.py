"""What the coding kernels are told: which parts of a vector are coded, with which keys, how finely.

Checked when made, so that calls need not check again: ArgumentError for what cannot be used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shoal.errors import ArgumentError
from shoal.kernels.reference_coding import BLOCK_LOGS, DITHER_VALUES, Float32s, Float64s, Int64s

Array = npt.NDArray[Any]

#: ring widths that diffs are coded in
RING_BITS: Final = (8, 12, 16, 32)
#: blocks begin at multiples of this many places
PLACES_STEP: Final = 64
#: log -> whether a block may have it; np.isin takes a hundred times as long for the few of a chunk
_IS_LOG: Final = np.isin(np.arange(256), BLOCK_LOGS)


@dataclass(frozen=True, eq=False)
class Blocks:
    """Which parts of a vector are coded.

    starts  int64[m]   where each block begins in the vector, ascending; blocks do not overlap
    logs    uint8[m]   log2 of each block's size: 6, 8, 10, 12 or 14
    first   the place of the first block's first element, a multiple of 64, >= 0
    """

    starts: Int64s
    logs: npt.NDArray[np.uint8]
    first: int = 0

    def __post_init__(self) -> None:
        checked(self.starts, np.int64, "starts")
        checked(self.logs, np.uint8, "logs", len(self.starts))
        if not _IS_LOG[self.logs].all():
            raise ArgumentError("blocks.log", f"logs hold other values than {BLOCK_LOGS}")
        if self.first < 0 or self.first % PLACES_STEP or self.first > 2**62:
            raise ArgumentError("blocks.first", f"first is {self.first}; expected a multiple of {PLACES_STEP}, >= 0")
        ends = self.starts + (np.int64(1) << self.logs.astype(np.int64))
        if len(ends) and (self.starts[0] < 0 or self.starts.max() > 2**62 or (self.starts[1:] < ends[:-1]).any()):
            raise ArgumentError("blocks.order", "starts are negative, overlap or do not ascend")

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def places(self) -> int:
        """Elements that are coded, padding included."""
        return int((np.int64(1) << self.logs.astype(np.int64)).sum())


@dataclass(frozen=True, repr=False)
class StreamKeys:
    """Keys of the public streams of one slot, 32 bytes each: rotation signs and dither."""

    signs: bytes
    dither: bytes

    def __post_init__(self) -> None:
        checked_key(self.signs, "signs")
        checked_key(self.dither, "dither")


@dataclass(frozen=True, eq=False)
class Spec:
    """How one peer quantises; see `reference_coding.encode` for ranges and meaning."""

    offset: int
    alpha: float
    inverse_steps: Float32s
    bound: int
    bits: int

    def __post_init__(self) -> None:
        if not 0 <= self.offset < DITHER_VALUES:
            raise ArgumentError("spec.offset", f"offset is {self.offset}; expected 0 to {DITHER_VALUES - 1}")
        if not 0 < np.float32(self.alpha) <= 1:
            raise ArgumentError("spec.alpha", f"alpha is {self.alpha}; expected a float32 in (0, 1]")
        checked_bits(self.bits)
        if not 1 <= self.bound < 2 ** (self.bits - 1):
            raise ArgumentError("spec.bound", f"bound is {self.bound}; expected 1 to {2 ** (self.bits - 1) - 1}")
        checked(self.inverse_steps, np.float32, "inverse_steps")
        checked_scales(self.inverse_steps, "inverse_steps")


@dataclass(frozen=True, eq=False)
class BlockSums:
    """What `encode` finds in each block.

    squares  float64[m]  sum of (alpha * z)**2, finite
    clipped  int64[m]    elements that the bound cut
    totals   int64[m]    sum of the integers before masks
    """

    squares: Float64s
    clipped: Int64s
    totals: Int64s


def checked(x: object, dtype: npt.DTypeLike, what: str, length: int | None = None) -> Array:
    if not isinstance(x, np.ndarray) or x.dtype != dtype:
        found = str(x.dtype) if isinstance(x, np.ndarray) else type(x).__name__
        raise ArgumentError("array.dtype", f"{what} is {found}; expected a numpy array of {np.dtype(dtype)}")
    if x.ndim != 1 or not x.flags.c_contiguous:
        raise ArgumentError("array.layout", f"{what} has shape {x.shape}; expected one dimension, contiguous")
    if length is not None and len(x) != length:
        raise ArgumentError("array.length", f"{what} has {len(x)} elements; expected {length}")
    return x


def checked_key(key: object, what: str) -> None:
    if not isinstance(key, bytes) or len(key) != 32:
        raise ArgumentError("key.length", f"key of {what} is not 32 bytes")


def checked_bits(bits: int) -> None:
    if bits not in RING_BITS:
        raise ArgumentError("spec.bits", f"bits is {bits}; expected one of {RING_BITS}")


def checked_scales(scales: Array, what: str) -> None:
    if not np.isfinite(scales).all() or (scales < 0).any():
        raise ArgumentError("scales.value", f"{what} hold NaN, Inf or a negative number; expected finite, >= 0")
