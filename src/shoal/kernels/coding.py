"""Diffs to small integers and back, as the rest of Shoal calls it: arguments are checked here.

The contract of each step stands in `reference_coding`, that of masks in `reference_ring`; here they are fused: `encode`
is rotate, scale, round, clamp, mask, pack in one pass, and `decode` unmask, lift, take the dither off, scale, rotate
back, add to base.  A thread works on one tile of 2**14 elements at a time and needs no memory but for that.
One keyword more: ``threads`` (0: as many as SHOAL_THREADS or the machine allows; the bits do not depend on it).  Arrays
are numpy's, 1-D, contiguous, of exactly the dtype named; inputs may be read-only, addresses need no alignment.

raises  ArgumentError   for arguments that break the contract: nothing has been written.
                        "diff.nonfinite", "diff.overflow" from the encoders: then ``out`` must not be used
        MachineError    as `dispatch`
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from shoal.errors import ArgumentError
from shoal.kernels import _native, reference_coding
from shoal.kernels.blocks import (
    RING_BITS,
    Array,
    Blocks,
    BlockSums,
    Spec,
    StreamKeys,
    checked,
    checked_bits,
    checked_key,
    checked_scales,
)
from shoal.kernels.dispatch import checked_threads
from shoal.kernels.reference_coding import DITHER_VALUES, Float32s, Float64s, Int64s
from shoal.kernels.reference_ring import Bytes
from shoal.kernels.ring import Streams

__all__ = [
    "CODE_BITS", "RING_BITS", "BlockSums", "Blocks", "Spec", "StreamKeys", "absmax", "decode", "decode_codes",
    "dequantise", "dither_table", "encode", "encode_codes", "quantise_absmax", "rotate",
]  # fmt: skip

#: widths of codes that cannot be summed
CODE_BITS: Final = (1, 2, 3, 4, 8)

_NO_STREAMS: Final = Streams(np.empty((0, 32), np.uint8), np.empty(0, np.int8))


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
        f"the block at element {int(blocks.starts[bad[0]])} is not finite when rotated or scaled: numbers too large",
    )


def encode(
    x: Float32s,
    blocks: Blocks,
    keys: StreamKeys,
    spec: Spec,
    out: Bytes,
    *,
    base: Float32s | None = None,
    streams: Streams | None = None,
    threads: int = 0,
) -> BlockSums:
    """x - base, rotated, quantised, masked, packed.

    x        float32[n], finite; base float32[n] or None for zeros (one float32 subtraction)
    spec     inverse_steps for each of the m blocks
    out      uint8[blocks.places * spec.bits / 8], apart from x and base
    streams  masks that are added in LANE_MODEL at the same places, or None
    """
    inputs = _inputs(x, base, blocks)
    checked(spec.inverse_steps, np.float32, "inverse_steps", len(blocks))
    _check_out(out, np.uint8, blocks.places * spec.bits // 8, inputs)
    keys_of, signs_of = _masks(streams)
    sums = BlockSums(
        *_native.encode(
            x, base, blocks.starts, blocks.logs, blocks.first, keys.signs, keys.dither, spec.offset, spec.alpha,
            spec.inverse_steps, spec.bound, spec.bits, keys_of, signs_of, out, checked_threads(threads),
        )
    )  # fmt: skip
    _check_finite(sums.squares, x, base, blocks)
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
    streams: Streams | None = None,
    threads: int = 0,
) -> None:
    """The inverse of `encode` for a sum of words; out = base + numbers, inside the blocks only.

    words    uint8[blocks.places * bits / 8]
    table    int32[65536] of `dither_table`
    scales   float64[m], finite, >= 0
    base     float32[n] or None for zeros; out float32[n] may be ``base``
    streams  added to the words first, in LANE_MODEL at the same places: what takes masks off
    """
    checked_bits(bits)
    checked(words, np.uint8, "words", blocks.places * bits // 8)
    checked(table, np.int32, "table", DITHER_VALUES)
    checked_scales(checked(scales, np.float64, "scales", len(blocks)), "scales")
    _check_decoded(blocks, base, out, [words])
    keys_of, signs_of = _masks(streams)
    _native.decode(
        words, bits, blocks.starts, blocks.logs, blocks.first, keys.signs, keys.dither, table, scales,
        keys_of, signs_of, base, out, checked_threads(threads),
    )  # fmt: skip


def _masks(streams: Streams | None) -> tuple[Bytes, npt.NDArray[np.int8]]:
    given = streams or _NO_STREAMS
    return given.keys, np.ascontiguousarray(given.signs)


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
    inputs = _inputs(x, base, blocks)
    checked_key(signs_key, "signs")
    bits = _code_bits(centroids)
    checked(boundaries, np.float32, "boundaries", len(centroids) - 1)
    if not np.isfinite(boundaries).all() or (np.diff(boundaries) < 0).any():
        raise ArgumentError("codes.boundaries", "boundaries are not finite or do not ascend")
    _check_out(out, np.uint8, blocks.places * bits // 8, inputs)
    scales = _native.encode_codes(
        x, base, blocks.starts, blocks.logs, blocks.first, signs_key, boundaries, centroids, out,
        checked_threads(threads),
    )  # fmt: skip
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
    checked_key(signs_key, "signs")
    checked(codes, np.uint8, "codes", blocks.places * _code_bits(centroids) // 8)
    if not np.isfinite(checked(scales, np.float32, "scales", len(blocks))).all():
        raise ArgumentError("scales.value", "scales hold NaN or Inf; expected finite numbers")
    _check_decoded(blocks, base, out, [codes])
    _native.decode_codes(
        codes, blocks.starts, blocks.logs, blocks.first, signs_key, centroids, scales, base, out,
        checked_threads(threads),
    )  # fmt: skip


def rotate(x: Float32s, blocks: Blocks, signs_key: bytes, out: Float32s, *, threads: int = 0) -> None:
    """The rotation alone: out float32[blocks.places] = `reference_coding.rotate` of each block."""
    inputs = _inputs(x, None, blocks)
    checked_key(signs_key, "signs")
    _check_out(out, np.float32, blocks.places, inputs)
    _native.rotate(x, blocks.starts, blocks.logs, blocks.first, signs_key, out, checked_threads(threads))


def dither_table(offsets: Int64s) -> npt.NDArray[np.int32]:
    """`reference_coding.dither_table`, not to be written to; at most 32,767 offsets, so that sums fit."""
    checked(offsets, np.int64, "offsets")
    if len(offsets) > 2**15 - 1 or ((offsets < 0) | (offsets >= DITHER_VALUES)).any():
        raise ArgumentError("spec.offset", f"offsets must be at most {2**15 - 1}, each 0 to {DITHER_VALUES - 1}")
    return _dither_table(offsets.tobytes())


@lru_cache(maxsize=8)
def _dither_table(offsets: bytes) -> npt.NDArray[np.int32]:
    """Kept: every shard of a round asks for the same one, and it costs more than decoding a small shard."""
    table = reference_coding.dither_table(np.frombuffer(offsets, np.int64))
    table.flags.writeable = False
    return table


def _runs(n: int, size: int) -> int:
    if size < 1:
        raise ArgumentError("runs.size", f"size is {size}; expected 1 or more")
    return -(-n // size)


def absmax(x: Float32s, size: int, out: Float32s, *, threads: int = 0) -> None:
    """Largest magnitude of each run of ``size`` elements, float32[ceil(n / size)]; NaN if the run has one."""
    _check_out(out, np.float32, _runs(len(checked(x, np.float32, "x")), size), [x])
    _native.absmax(x, size, out, checked_threads(threads))


def quantise_absmax(
    x: Float32s, size: int, levels: int, scales: Float32s, out: npt.NDArray[np.int8], *, threads: int = 0
) -> None:
    """`reference_coding.quantise_absmax` into int8[n]; levels 1 ... 127; what is not finite in x gives any level."""
    checked(x, np.float32, "x")
    checked_scales(checked(scales, np.float32, "scales", _runs(len(x), size)), "scales")
    if not 1 <= levels <= 127:
        raise ArgumentError("codes.levels", f"levels is {levels}; expected 1 to 127")
    _check_out(out, np.int8, len(x), [x, scales])
    _native.quantise_absmax(x, size, levels, scales, out, checked_threads(threads))


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
    checked(q, np.int8, "q")
    checked_scales(checked(scales, np.float32, "scales", _runs(len(q), size)), "scales")
    inputs: list[Array] = [q, scales]
    if base is not None:
        inputs.append(checked(base, np.float32, "base", len(q)))
    _check_out(out, np.float32, len(q), inputs, same=base is not None)
    _native.dequantise(q, size, scales, base, out, checked_threads(threads))
