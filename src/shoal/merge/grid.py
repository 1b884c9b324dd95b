"""Codes (whole numbers) <-> the numbers that they stand for: (code - zero) * scale, per tensor or per slice of an axis.

source  ONNX operators QuantizeLinear and DequantizeLinear, opset 21
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shoal.merge.tile import Array, Float64s

#: elements that are worked on at a time, so that temporaries stay in the cache.
PIECE: Final = 32_768
#: largest magnitude of codes of seven bits: what quantisers use where eight would overflow the sums of 16 bits of older
#: processors (onnxruntime: reduce_range).  Who finds exactly this magnitude in a tensor, takes it for such a one.
REDUCED: Final = {"int8": 64, "uint8": 127}

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Slices:
    """How a tensor, flattened in C order, falls into slices that have a scale each.

    count  slices
    inner  neighbouring elements in one slice
    """

    count: int
    inner: int

    @staticmethod
    def of(dims: tuple[int, ...], axis: int | None) -> Slices:
        """axis None: one slice."""
        return Slices(1, math.prod(dims)) if axis is None else Slices(dims[axis], math.prod(dims[axis + 1 :]))

    def at(self, first: int, count: int) -> Int64s | int:
        """The slice of each of the elements [first, first + count); one number where it is the same for all."""
        if self.count == 1:
            return 0
        start = first // self.inner
        if start == (first + count - 1) // self.inner:
            return start % self.count
        return np.arange(first, first + count, dtype=np.int64) // self.inner % self.count

    def extremes(self, values: Float64s) -> tuple[Float64s, Float64s]:
        """float64[count]: least and largest number of each slice of a whole tensor."""
        shaped = values.reshape(-1, self.count, self.inner)
        return shaped.min(axis=(0, 2)), shaped.max(axis=(0, 2))


@dataclass(frozen=True, slots=True)
class Grid:
    """The numbers that codes can stand for.

    slices  of the tensor
    scale   float64[slices.count], finite; the stored values, which may be of a narrower dtype
    zero    int64[slices.count]: the code of 0
    """

    slices: Slices
    scale: Float64s
    zero: Int64s

    def numbers(self, codes: Array, first: int, out: Float64s) -> None:
        """out[i] = (codes[i] - zero) * scale, for the elements from ``first`` on; exact but for one rounding."""
        for start in range(0, len(codes), PIECE):
            piece = slice(start, min(start + PIECE, len(codes)))
            at = self.slices.at(first + start, piece.stop - start)
            np.subtract(codes[piece], self.zero[at], out=out[piece], dtype=np.float64)
            out[piece] *= self.scale[at]

    def codes(self, values: Float64s, dtype: np.dtype[Any]) -> Array:
        """The code nearest to each number of a whole tensor, ties to even, saturating at the ends of ``dtype``."""
        info, out = np.iinfo(dtype), np.empty(len(values), dtype)
        for start in range(0, len(values), PIECE):
            piece = slice(start, min(start + PIECE, len(values)))
            at = self.slices.at(start, piece.stop - start)
            found = np.rint(values[piece] / self.scale[at]) + self.zero[at]
            out[piece] = np.clip(found, info.min, info.max)
        return out


def fit(values: Float64s, like: Grid, codes: tuple[int, int], scale_dtype: np.dtype[Any], symmetric: bool) -> Grid:
    """The finest grid that reaches every number of each slice.

    values     of a whole tensor, finite
    like       a slice of nothing but zeros keeps this grid's scale (1 if that is not positive) and code of 0
    codes      lowest and highest code to use
    symmetric  the code of 0 is 0, and only codes[1] of either sign are used; else the range is from the least to the
               largest number, and 0 (which is always on the grid)
    returns    Grid whose scales are numbers of ``scale_dtype``, rounded up: no number lies beyond the last code by more
               than half a step.  A scale is inf if ``scale_dtype`` cannot hold it
    """
    least, largest = like.slices.extremes(values)
    low, high = codes
    if symmetric:
        step = np.maximum(np.abs(least), np.abs(largest)) / high
    else:
        least, largest = np.minimum(least, 0.0), np.maximum(largest, 0.0)
        step = (largest - least) / (high - low)
    empty = step == 0.0
    scale = np.where(empty, np.where(like.scale > 0.0, like.scale, 1.0), rounded_up(step, scale_dtype))
    if symmetric:
        return Grid(like.slices, scale, np.zeros(like.slices.count, np.int64))
    with np.errstate(invalid="ignore"):
        zero = np.clip(np.rint(low - least / scale), low, high)
    return Grid(like.slices, scale, np.where(empty, like.zero, zero).astype(np.int64))


def rounded_up(numbers: Float64s, dtype: np.dtype[Any]) -> Float64s:
    """The least number of a floating ``dtype`` that is not below each of these (all >= 0); inf if there is none."""
    with np.errstate(over="ignore", under="ignore"):
        near = numbers.astype(dtype)
    bits = near.view(f"u{dtype.itemsize}")  # of numbers >= 0 the bits count upwards
    bits += near.astype(np.float64) < numbers
    return near.astype(np.float64)


def code_range(dtype: np.dtype[Any], largest: int, symmetric: bool) -> tuple[int, int]:
    """Lowest and highest code to use.

    largest    largest magnitude among the codes of the template: says whether it was quantised to seven bits
    symmetric  -128 is not used
    """
    info = np.iinfo(dtype)
    high = REDUCED[dtype.name] if largest == REDUCED.get(dtype.name) else int(info.max)
    if info.min == 0:
        return 0, high
    return (-high if symmetric or high != info.max else int(info.min)), high
