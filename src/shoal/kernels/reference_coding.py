"""The kernels that turn a diff into small integers and back, in plain numpy.  This file *defines* what is right.

Blocks.  A vector x of n float32 is cut into blocks, each of 2**6, 2**8, 2**10, 2**12 or 2**14 elements:

    starts  int64[m]   where each block begins in x, ascending; blocks do not overlap; a block may reach beyond n: what
                       is not there is 0 on the way in, and is dropped on the way out
    logs    uint8[m]   log2 of each block's size: 6, 8, 10, 12 or 14

Coded elements are counted block after block, without the gaps: block j covers *places* first + (sum of the sizes
before it) and on.  Places, not positions in x, say which bits of a stream an element takes.

Rotation.  z = 2**(-s) H (D o x) for a block of 2**(2s) elements.  D: signs from the stream of ``signs_key`` in
LANE_SIGNS, at place e bit e % 8 of byte e // 8, -1 where it is set.  H: the Hadamard matrix in Sylvester's order,
applied by butterflies of span 1, 2, 4, ... in this order, (a, b) -> (a + b, a - b), each rounded to float32; the power
of two is exact.  It is its own inverse but for the side of D.

Arithmetic.  float32, to nearest even, no fused multiply-add, denormals kept.  Sums over a block (``squares``, ``dot``)
are in float64: 16 partial sums, the i-th over elements i, i + 16, ... in order, then folded in halves (0 + 8, 1 + 9,
...; 0 + 4, ...).

Source: docs/PROTOCOL.md; Suresh et al., ICML 2017 (rotation) and 2022 (correlated quantisation); Vargaftik et al.,
ICML 2022 (EDEN: centroids and the unbiased scale).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from shoal.kernels.reference_ring import LANE_DITHER, LANE_SIGNS, Bytes, keystream, lift, pack, stream_words

Float32s = npt.NDArray[np.float32]
Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]

BLOCK_LOGS: Final = (6, 8, 10, 12, 14)
#: values of the dither, and what decoding multiplies by to stay with whole numbers
DITHER_VALUES: Final = 65_536
#: below this root mean square a block counts as zero in `encode_codes`
TINY_RMS: Final = 2.0**-120


def places(logs: npt.NDArray[np.uint8]) -> Iterator[tuple[int, int, int]]:
    """(block, its first place relative to that of block 0, its size)."""
    at = 0
    for j, log in enumerate(logs):
        size = 1 << int(log)
        yield j, at, size
        at += size


def butterflies(x: Float32s) -> Float32s:
    """H x, unscaled."""
    x = x.copy()
    span = 1
    while span < len(x):
        pairs = x.reshape(-1, 2, span)
        a, b = pairs[:, 0].copy(), pairs[:, 1].copy()
        pairs[:, 0], pairs[:, 1] = a + b, a - b
        span *= 2
    return x


def signs(key: bytes, place: int, size: int) -> Float32s:
    """+1 or -1 for each element of the block at ``place``, a multiple of 64."""
    bits = np.unpackbits(keystream(key, LANE_SIGNS, place // 8, size // 8), bitorder="little")
    return np.where(bits, np.float32(-1), np.float32(1))


def rotate(block: Float32s, key: bytes, place: int) -> Float32s:
    scale = np.float32(2.0 ** -(len(block).bit_length() // 2))
    return butterflies(block * signs(key, place, len(block))) * scale


def unrotate(block: Float32s, key: bytes, place: int) -> Float32s:
    scale = np.float32(2.0 ** -(len(block).bit_length() // 2))
    return (butterflies(block) * scale) * signs(key, place, len(block))


def folded(terms: Float64s) -> float:
    """Sum of one block in the order that the module describes."""
    partial = np.zeros(16)
    for row in terms.reshape(-1, 16):
        partial = partial + row
    while len(partial) > 1:
        half = len(partial) // 2
        partial = partial[:half] + partial[half:]
    return float(partial[0])


def _block(x: Float32s, start: int, size: int) -> Float32s:
    block = np.zeros(size, np.float32)
    there = x[start : start + size]
    block[: len(there)] = there
    return block


def float_bound(bound: int) -> np.float32:
    """The largest float32 that is not above ``bound``."""
    near = np.float32(bound)
    return near if int(near) <= bound else np.nextafter(near, np.float32(0))


def dither(key: bytes, place: int, size: int, offset: int) -> npt.NDArray[np.int64]:
    """k in 0 ... 65535 for each element: the public stream shifted by ``offset``."""
    return (stream_words(key, LANE_DITHER, place, size, 16).astype(np.int64) + offset) % DITHER_VALUES


def encode(
    x: Float32s,
    starts: Int64s,
    logs: npt.NDArray[np.uint8],
    first: int,
    signs_key: bytes,
    dither_key: bytes,
    offset: int,
    alpha: float,
    inverse_steps: Float32s,
    bound: int,
    bits: int,
    out: Bytes,
) -> tuple[Float64s, Int64s, Int64s]:
    """Rotate, scale, round with subtractive dither, clamp: words of Z_{2^bits}, not yet masked.

    first          multiple of 64: the place of the first element
    offset         0 ... 65535, of the dither
    alpha          float32 in (0, 1], the weight
    inverse_steps  float32[m], 1 / Delta of each block, finite, >= 0
    bound          1 ... 2**(bits-1) - 1: words are integers in [-bound, bound]
    bits           8, 12, 16 or 32
    out            uint8[places * bits / 8]
    returns        squares  float64[m]  sum of (alpha * z)**2 over each block; not finite if x is not finite there
                   clipped  int64[m]    elements of each block whose |u| is above the bound
                   totals   int64[m]    sum of the integers of each block
    """
    squares, clipped = np.empty(len(logs)), np.empty(len(logs), np.int64)
    totals = np.empty(len(logs), np.int64)
    limit = float_bound(bound)
    for j, at, size in places(logs):
        with np.errstate(over="ignore", invalid="ignore"):
            y = np.float32(alpha) * rotate(_block(x, int(starts[j]), size), signs_key, first + at)
            squares[j] = folded(y.astype(np.float64) ** 2)
            u = y * inverse_steps[j]
        clipped[j] = np.count_nonzero(np.abs(u) > limit)
        u = np.minimum(np.maximum(np.where(np.isnan(u), np.float32(0), u), -limit), limit)
        xi = (dither(dither_key, first + at, size, offset).astype(np.float32) + np.float32(0.5)) / np.float32(65536)
        floor = np.floor(u)
        v = floor.astype(np.int64) + ((u - floor) + xi >= np.float32(1))
        totals[j] = v.sum()
        out[at * bits // 8 : (at + size) * bits // 8] = pack(
            (v % 2**bits).astype(np.uint64).astype(f"<u{_wide(bits)}"), bits
        )
    return squares, clipped, totals


def _wide(bits: int) -> int:
    return 2 if bits == 12 else bits // 8


def dither_table(offsets: Int64s) -> npt.NDArray[np.int32]:
    """What the survivors' dithers add up to, for each value w of the public stream: int32[65536],
    sum over i of 2 * ((w + offsets[i]) mod 65536) + 1 - 65536."""
    w = np.arange(DITHER_VALUES, dtype=np.int64)
    total = np.zeros(DITHER_VALUES, np.int64)
    for offset in offsets:
        total += 2 * ((w + int(offset)) % DITHER_VALUES) + 1 - DITHER_VALUES
    return total.astype(np.int32)


def decode(
    words: Bytes,
    bits: int,
    starts: Int64s,
    logs: npt.NDArray[np.uint8],
    first: int,
    signs_key: bytes,
    dither_key: bytes,
    table: npt.NDArray[np.int32],
    scales: Float64s,
    base: Float32s | None,
    out: Float32s,
) -> None:
    """A sum of words back to numbers: lift, take the known dither off, scale, rotate back, add to the base.

    words   unmasked sum, wire bytes of all places
    table   int32[65536] of `dither_table`; all zero for private rounding
    scales  float64[m]: Delta_j / (131072 * A), A = sum of the survivors' alphas
    base    float32[n] or None for zeros
    out     float32[n], may be ``base``.  Only elements inside blocks are written.
    Per element: r = float32((S * 131072 - table[u0]) * scale_j): whole numbers exact in float64, one product, rounded
    once more.
    """
    for j, at, size in places(logs):
        s = lift(words[at * bits // 8 : (at + size) * bits // 8], bits).astype(np.float64)
        u0 = stream_words(dither_key, LANE_DITHER, first + at, size, 16)
        with np.errstate(over="ignore", invalid="ignore"):
            r = ((s * 131072.0 - table[u0].astype(np.float64)) * scales[j]).astype(np.float32)
            _write(unrotate(r, signs_key, first + at), int(starts[j]), base, out)


def _write(block: Float32s, start: int, base: Float32s | None, out: Float32s) -> None:
    to = out[start : start + len(block)]
    to[:] = block[: len(to)] if base is None else base[start : start + len(to)] + block[: len(to)]


def encode_codes(
    x: Float32s,
    starts: Int64s,
    logs: npt.NDArray[np.uint8],
    first: int,
    signs_key: bytes,
    boundaries: Float32s,
    centroids: Float32s,
    out: Bytes,
) -> Float32s:
    """Rotate, then the nearest centroid of each element: codes of log2(len(centroids)) bits, least bit first.

    boundaries  float32[2**bits - 1], ascending; bits is 1, 2, 3, 4 or 8
    centroids   float32[2**bits], for unit variance
    out         uint8[places * bits / 8]; such codes cannot be summed
    returns     float32[m], the scale of each block: |z|^2 / <z, centroids of z>, which makes the decoded block
                unbiased (EDEN, section 3); 0 for a block below TINY_RMS; not finite if x is not finite there

    Code of z: the number of boundaries below z * float32(1 / rms), rms = sqrt(squares / size) in float64.
    """
    bits = len(centroids).bit_length() - 1
    scales = np.empty(len(logs), np.float32)
    for j, at, size in places(logs):
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            z = rotate(_block(x, int(starts[j]), size), signs_key, first + at)
            squares = folded(z.astype(np.float64) ** 2)
            rms = float(np.sqrt(squares / size))
            inverse = (
                np.float32(1 / rms) if rms >= TINY_RMS else np.float32(0) if rms < TINY_RMS else np.float32(np.nan)
            )
            codes = np.searchsorted(boundaries, np.where(np.isnan(z), np.float32(0), z * inverse), side="left")
            dot = np.float64(folded(z.astype(np.float64) * centroids[codes].astype(np.float64)))
            scales[j] = np.float32(squares / dot) if rms >= TINY_RMS else np.float32(0) if rms < TINY_RMS else np.nan
        wide = (codes[:, None] >> np.arange(bits)) & 1
        out[at * bits // 8 : (at + size) * bits // 8] = np.packbits(
            wide.astype(np.uint8).reshape(-1), bitorder="little"
        )
    return scales


def decode_codes(
    codes: Bytes,
    starts: Int64s,
    logs: npt.NDArray[np.uint8],
    first: int,
    signs_key: bytes,
    centroids: Float32s,
    scales: Float32s,
    base: Float32s | None,
    out: Float32s,
) -> None:
    """The inverse of `encode_codes`: float32 scale * centroid, rotated back, added to the base (see `decode`)."""
    bits = len(centroids).bit_length() - 1
    for j, at, size in places(logs):
        raw = np.unpackbits(codes[at * bits // 8 : (at + size) * bits // 8], bitorder="little").reshape(-1, bits)
        index = (raw.astype(np.int64) << np.arange(bits)).sum(axis=1)
        with np.errstate(over="ignore", invalid="ignore"):
            _write(unrotate(centroids[index] * scales[j], signs_key, first + at), int(starts[j]), base, out)


def quantise_absmax(x: Float32s, size: int, levels: int, scales: Float32s) -> npt.NDArray[np.int8]:
    """Without rotation: int8[n], x / scale of its run of ``size`` elements to nearest even, within [-levels, levels].

    scales  float32[ceil(n / size)], finite, >= 0; a run with scale 0 gives 0
    The quotient is float32 division, rounded once.
    """
    each = np.repeat(scales, size)[: len(x)]
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        q = np.where(each > 0, x / np.where(each > 0, each, np.float32(1)), np.float32(0))
    return np.clip(np.rint(q), -levels, levels).astype(np.int8)


def absmax(x: Float32s, size: int) -> Float32s:
    """Largest magnitude of each run of ``size`` elements; NaN if the run has one."""
    runs = np.zeros((-(-len(x) // size)) * size, np.float32)
    runs[: len(x)] = np.abs(x)
    largest: Float32s = runs.reshape(-1, size).max(axis=1)
    return largest


def dequantise(q: npt.NDArray[np.int8], size: int, scales: Float32s, base: Float32s | None, out: Float32s) -> None:
    """The inverse of `quantise_absmax`: float32 q * scale, added to the base float32[n], or to nothing."""
    with np.errstate(over="ignore", invalid="ignore"):
        _write(q.astype(np.float32) * np.repeat(scales, size)[: len(q)], 0, base, out)
