"""Diffs to small integers and back, as the rest of Shoal calls it: arguments are checked here.

The contract of each step stands in `reference_coding`, that of masks in `reference_ring`; here they are fused: `encode`
is rotate, scale, round, clamp, mask, pack; `decode` is unmask, lift, take the dither off, scale, rotate back, add to base.
One keyword more: ``threads`` (0: as many as SHOAL_THREADS or the machine allows; the bits do not depend on it).  Arrays
are numpy's, 1-D, contiguous, of exactly the dtype named; inputs may be read-only, addresses need no alignment.

raises  ArgumentError   for arguments that break the contract: nothing has been written.
                        "diff.nonfinite", "diff.overflow" from the encoders: then ``out`` must not be used
        MachineError    as `dispatch`
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shoal.errors import ArgumentError
from shoal.kernels import dispatch, reference_coding
from shoal.kernels.reference_coding import BLOCK_LOGS, DITHER_VALUES, Float32s, Float64s, Int64s
from shoal.kernels.reference_ring import LANE_MODEL, Bytes, add_streams

Array = npt.NDArray[Any]

#: ring widths that diffs are coded in
RING_BITS: Final = (8, 12, 16, 32)
#: widths of codes that cannot be summed
CODE_BITS: Final = (1, 2, 3, 4, 8)
#: blocks begin at multiples of this many places
PLACES_STEP: Final = 64


@dataclass(frozen=True)
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
        if not np.isin(self.logs, BLOCK_LOGS).all():
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


@dataclass(frozen=True)
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


@dataclass(frozen=True)
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


def _check_out(out: Array, dtype: npt.DTypeLike, length: int, inputs: Sequence[Array], same: bool = False) -> None:
    """Writable, of ``length``, apart from the inputs; the last of them may be ``out`` itself if ``same``."""
    checked(out, dtype, "out", length)
    if not out.flags.writeable:
        raise ArgumentError("array.readonly", "out is read-only; expected a writable array")
    for x in inputs:
        if np.may_share_memory(out, x) and not (same and x is inputs[-1] and x.ctypes.data == out.ctypes.data):
            raise ArgumentError("array.overlap", "out overlaps an input; expected arrays that lie apart")


def _check_within(blocks: Blocks, length: int) -> None:
    if len(blocks) and blocks.starts[-1] >= length:
        raise ArgumentError(
            "blocks.range",
            f"the last block begins at {blocks.starts[-1]}; expected less than {length}, the vector's length",
        )


def _inputs(x: Float32s, base: Float32s | None, blocks: Blocks) -> list[Array]:
    """Checks x and base; [x, base]."""
    checked(x, np.float32, "x")
    _check_within(blocks, len(x))
    return [x] if base is None else [x, checked(base, np.float32, "base", len(x))]


def _check_finite(found: Array, x: Float32s, base: Float32s | None, blocks: Blocks) -> None:
    """Names what makes a number of a block not finite, if one is not."""
    bad = np.flatnonzero(~np.isfinite(found))
    if not len(bad):
        return
    for j in bad:
        start = int(blocks.starts[j])
        part = slice(start, start + (1 << int(blocks.logs[j])))
        with np.errstate(over="ignore", invalid="ignore"):
            values = x[part] if base is None else x[part] - base[part]
        wrong = np.flatnonzero(~np.isfinite(values))
        if len(wrong):
            at = int(wrong[0])
            raise ArgumentError("diff.nonfinite", f"element {start + at} is {values[at]}; expected finite numbers")
    raise ArgumentError(
        "diff.overflow",
        f"the block at element {int(blocks.starts[bad[0]])} has numbers so large that their sums overflow float32",
    )


def encode(
    x: Float32s,
    blocks: Blocks,
    keys: StreamKeys,
    spec: Spec,
    out: Bytes,
    *,
    base: Float32s | None = None,
    streams: Any | None = None,
    threads: int = 0,
) -> BlockSums:
    """x - base, rotated, quantised, masked, packed.

    x        float32[n], finite; base float32[n] or None for zeros (one float32 subtraction)
    spec     inverse_steps for each of the m blocks
    out      uint8[blocks.places * spec.bits / 8], apart from x and base
    streams  masks that are added in LANE_MODEL at the same places, or None
    """
    dispatch.checked_threads(threads)
    inputs = _inputs(x, base, blocks)
    checked(spec.inverse_steps, np.float32, "inverse_steps", len(blocks))
    _check_out(out, np.uint8, blocks.places * spec.bits // 8, inputs)
    with np.errstate(over="ignore", invalid="ignore"):
        given = x if base is None else x - base
    sums = BlockSums(
        *reference_coding.encode(
            given, blocks.starts, blocks.logs, blocks.first, keys.signs, keys.dither,
            spec.offset, spec.alpha, spec.inverse_steps, spec.bound, spec.bits, out,
        )
    )  # fmt: skip
    _check_finite(sums.squares, x, base, blocks)
    if streams is not None:
        masks = [key.tobytes() for key in streams.keys]
        add_streams(out, spec.bits, masks, list(streams.signs), LANE_MODEL, blocks.first, out)
    return sums


def decode(
    words: Bytes,
    blocks: Blocks,
    keys: StreamKeys,
    table: npt.NDArray[np.int32],
    scales: Float64s,
    base: Float32s | None,
    out: Float32s,
    *,
    bits: int,
    streams: Any | None = None,
    threads: int = 0,
) -> None:
    """The inverse of `encode` for a sum of words; out = base + numbers, inside the blocks only.

    words    uint8[blocks.places * bits / 8]
    table    int32[65536] of `dither_table`
    scales   float64[m], finite, >= 0
    base     float32[n] or None for zeros; out float32[n] may be ``base``
    streams  added to the words first, in LANE_MODEL at the same places: what takes masks off
    """
    dispatch.checked_threads(threads)
    checked_bits(bits)
    checked(words, np.uint8, "words", blocks.places * bits // 8)
    checked(table, np.int32, "table", DITHER_VALUES)
    checked_scales(checked(scales, np.float64, "scales", len(blocks)), "scales")
    _check_decoded(blocks, base, out, [words])
    if streams is not None:
        bare = np.empty_like(words)
        masks = [key.tobytes() for key in streams.keys]
        add_streams(words, bits, masks, list(streams.signs), LANE_MODEL, blocks.first, bare)
        words = bare
    reference_coding.decode(
        words, bits, blocks.starts, blocks.logs, blocks.first, keys.signs, keys.dither, table, scales, base, out
    )


def _check_decoded(blocks: Blocks, base: Float32s | None, out: Float32s, inputs: list[Array]) -> None:
    if base is not None:
        inputs = [*inputs, checked(base, np.float32, "base", len(out))]
    _check_out(out, np.float32, len(out), inputs, same=base is not None)
    _check_within(blocks, len(out))


def _code_bits(centroids: Float32s) -> int:
    bits = len(checked(centroids, np.float32, "centroids")).bit_length() - 1
    if bits not in CODE_BITS or len(centroids) != 1 << bits or not np.isfinite(centroids).all():
        raise ArgumentError(
            "codes.centroids", f"{len(centroids)} centroids; expected 2, 4, 8, 16 or 256 finite numbers"
        )
    return bits


def encode_codes(
    x: Float32s,
    blocks: Blocks,
    signs_key: bytes,
    boundaries: Float32s,
    centroids: Float32s,
    out: Bytes,
    *,
    base: Float32s | None = None,
    threads: int = 0,
) -> Float32s:
    """x - base, rotated, as codes of log2(len(centroids)) bits; see `reference_coding.encode_codes`.

    out      uint8[blocks.places * bits / 8]
    returns  float32[m], the scale of each block
    """
    dispatch.checked_threads(threads)
    inputs = _inputs(x, base, blocks)
    checked_key(signs_key, "signs")
    bits = _code_bits(centroids)
    checked(boundaries, np.float32, "boundaries", len(centroids) - 1)
    if not np.isfinite(boundaries).all() or (np.diff(boundaries) < 0).any():
        raise ArgumentError("codes.boundaries", "boundaries are not finite or do not ascend")
    _check_out(out, np.uint8, blocks.places * bits // 8, inputs)
    with np.errstate(over="ignore", invalid="ignore"):
        given = x if base is None else x - base
    scales = reference_coding.encode_codes(
        given, blocks.starts, blocks.logs, blocks.first, signs_key, boundaries, centroids, out
    )
    _check_finite(scales, x, base, blocks)
    return scales


def decode_codes(
    codes: Bytes,
    blocks: Blocks,
    signs_key: bytes,
    centroids: Float32s,
    scales: Float32s,
    base: Float32s | None,
    out: Float32s,
    *,
    threads: int = 0,
) -> None:
    """The inverse of `encode_codes`; out = base + numbers, inside the blocks only; out may be ``base``."""
    dispatch.checked_threads(threads)
    checked_key(signs_key, "signs")
    checked(codes, np.uint8, "codes", blocks.places * _code_bits(centroids) // 8)
    if not np.isfinite(checked(scales, np.float32, "scales", len(blocks))).all():
        raise ArgumentError("scales.value", "scales hold NaN or Inf; expected finite numbers")
    _check_decoded(blocks, base, out, [codes])
    reference_coding.decode_codes(
        codes, blocks.starts, blocks.logs, blocks.first, signs_key, centroids, scales, base, out
    )


def dither_table(offsets: Int64s) -> npt.NDArray[np.int32]:
    """`reference_coding.dither_table`; at most 32,767 offsets, so that sums fit."""
    checked(offsets, np.int64, "offsets")
    if len(offsets) > 2**15 - 1 or ((offsets < 0) | (offsets >= DITHER_VALUES)).any():
        raise ArgumentError("spec.offset", f"offsets must be at most {2**15 - 1}, each 0 to {DITHER_VALUES - 1}")
    return reference_coding.dither_table(offsets)


def _runs(n: int, size: int) -> int:
    if size < 1:
        raise ArgumentError("runs.size", f"size is {size}; expected 1 or more")
    return -(-n // size)


def absmax(x: Float32s, size: int, out: Float32s, *, threads: int = 0) -> None:
    """Largest magnitude of each run of ``size`` elements, float32[ceil(n / size)]; NaN if the run has one."""
    dispatch.checked_threads(threads)
    _check_out(out, np.float32, _runs(len(checked(x, np.float32, "x")), size), [x])
    out[:] = reference_coding.absmax(x, size)


def quantise_absmax(
    x: Float32s, size: int, levels: int, scales: Float32s, out: npt.NDArray[np.int8], *, threads: int = 0
) -> None:
    """`reference_coding.quantise_absmax` into int8[n]; levels 1 ... 127; what is not finite in x gives any level."""
    dispatch.checked_threads(threads)
    checked(x, np.float32, "x")
    checked_scales(checked(scales, np.float32, "scales", _runs(len(x), size)), "scales")
    if not 1 <= levels <= 127:
        raise ArgumentError("codes.levels", f"levels is {levels}; expected 1 to 127")
    _check_out(out, np.int8, len(x), [x, scales])
    with np.errstate(invalid="ignore"):
        out[:] = reference_coding.quantise_absmax(x, size, levels, scales)


def dequantise(
    q: npt.NDArray[np.int8],
    size: int,
    scales: Float32s,
    base: Float32s | None,
    out: Float32s,
    *,
    threads: int = 0,
) -> None:
    """`reference_coding.dequantise`; out may be ``base``."""
    dispatch.checked_threads(threads)
    checked(q, np.int8, "q")
    checked_scales(checked(scales, np.float32, "scales", _runs(len(q), size)), "scales")
    inputs: list[Array] = [q, scales]
    if base is not None:
        inputs.append(checked(base, np.float32, "base", len(q)))
    _check_out(out, np.float32, len(q), inputs, same=base is not None)
    reference_coding.dequantise(q, size, scales, base, out)
