"""The codecs of update files: float32 differences to bytes and back, one tile at a time, all in one table.

Such bytes cannot be summed (the sum of two codes means nothing); secure aggregation has a quantiser of its own.

| codec      | bytes of a tile, in this order                                                           |
|------------|------------------------------------------------------------------------------------------|
| eden-b     | float32 scale of each rotation block; codes of b bits, least bit first                   |
| int8       | float32 scale of each run of 256; int8, in [-127, 127]                                   |
| int4       | bfloat16 scale of each run of 64; two numbers in a byte, [-7, 7], the first one low      |
| float16    | int8 exponent e of each run of 1024; float16 of x / 2**e, as two planes of bytes         |
| bfloat16   | two planes of bytes                                                                      |
| float32    | four planes of bytes                                                                     |

Little-endian throughout.  Planes: first the lowest bytes of all elements, then the next: exponents lie together, and
compress.  Runs are counted from the beginning of the tile.

source  Vargaftik et al., ICML 2022 (EDEN); Dettmers et al., ICLR 2022 (runs with their own scale)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import ml_dtypes
import numpy as np
import numpy.typing as npt

from shoal.diff.centroids import BOUNDARIES, CENTROIDS
from shoal.errors import ArgumentError, InputError, shown
from shoal.kernels import coding, dispatch
from shoal.kernels.coding import Blocks

Bytes = npt.NDArray[np.uint8]
Float32s = npt.NDArray[np.float32]

INT8_RUN: Final = 256
INT4_RUN: Final = 64
FLOAT16_RUN: Final = 1024
#: exponents that a run of the codec float16 may have: 2**-e stays a normal float32
_EXPONENTS: Final = (-126, 113)
#: magnitudes of such a run stay below 2**15, and rounding must not lift them there: 2**15 * 2**113 is infinite
_FLOAT16_TOP: Final = 15
_FLOAT16_MAX: Final = np.float32(2**15 - 16)
#: the largest float32 of which 127 times is finite
_INT8_TOP: Final = np.nextafter(np.finfo(np.float32).max / np.float32(127), np.float32(0))
#: bits of the largest bfloat16 of which 7 times is a finite float32
_INT4_TOP: Final = np.uint32(0x7E12)
#: a byte -> the two numbers of -8 to 7 in its halves, the low one first, as two int8 seen as one uint16
_NIBBLES: Final = (((np.arange(256)[:, None] >> np.array([0, 4])) + 8) % 16 - 8).astype(np.int8).view(np.uint16)[:, 0]
_BFLOAT16: Final = np.dtype(ml_dtypes.bfloat16)
_BFLOAT16_MAX: Final = np.float32(2.0**128 - 2.0**120)


@dataclass(frozen=True, slots=True)
class Tile:
    """Neighbouring elements of the flat vector that are coded together.

    count      elements
    blocks     rotation blocks of just these elements
    signs_key  32 bytes, of the rotation; unused by codecs without one
    """

    count: int
    blocks: Blocks
    signs_key: bytes


@dataclass(frozen=True, slots=True)
class Codec:
    """One way to write differences.

    name     as in the file
    bits     of one element, scales not counted
    rotates  whether it needs the tile's blocks and key
    size     size(tile) -> bytes that the tile takes
    encode   encode(x, base, tile, out): the bytes of x - base (one float32 subtraction) into ``out``, uint8[size];
             x, base float32[count], base None for zeros.  ArgumentError "diff.nonfinite", "diff.overflow"
    decode   decode(raw, tile, out): float32[count] from uint8[size] that somebody else wrote; InputError "update.codes"
             names what no encoder writes.  Finite unless a sum of the inverse rotation overflows
    """

    name: str
    bits: int
    rotates: bool
    size: Callable[[Tile], int]
    encode: Callable[[Float32s, Float32s | None, Tile, Bytes], None]
    decode: Callable[[Bytes, Tile, Float32s], None]


def find(name: str) -> Codec:
    """The codec of that name; ArgumentError ``codec.unknown``."""
    found = CODECS.get(name)
    if found is None:
        raise ArgumentError("codec.unknown", f"codec '{shown(name)}' is unknown; expected one of {', '.join(CODECS)}")
    return found


def of_bits(bits: int) -> Codec:
    """The codec that a number of bits stands for; ArgumentError ``codec.bits``."""
    if bits not in BY_BITS:
        raise ArgumentError("codec.bits", f"bits is {bits}; expected one of {', '.join(map(str, BY_BITS))}")
    return CODECS[BY_BITS[bits]]


def _difference(x: Float32s, base: Float32s | None) -> Float32s:
    """x - base, all finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        found = x if base is None else x - base
    if not np.isfinite(found).all():
        at = int(np.argmin(np.isfinite(found)))
        raise ArgumentError("diff.nonfinite", f"element {at} is {found[at]}; expected finite numbers")
    return found


def _runs(count: int, size: int) -> int:
    return -(-count // size)


def _bad(message: str) -> InputError:
    return InputError("update.codes", message)


def _checked_scales(scales: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Scales as they may be: finite and not below 0 (nor -0)."""
    wrong = ~np.isfinite(scales) | np.signbit(scales)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise _bad(f"scale {at} is {scales[at]}; expected a finite number, 0 or more")
    return scales


# --- eden-b: rotated, then the nearest centroid ---


def _eden_size(bits: int, tile: Tile) -> int:
    return 4 * len(tile.blocks) + tile.blocks.places * bits // 8


def _eden_encode(bits: int, x: Float32s, base: Float32s | None, tile: Tile, out: Bytes) -> None:
    head = 4 * len(tile.blocks)
    scales = coding.encode_codes(
        x, tile.blocks, tile.signs_key, BOUNDARIES[bits], CENTROIDS[bits], out[head:], base=base, threads=1
    )
    out[:head] = scales.astype("<f4", copy=False).view(np.uint8)


def _eden_decode(bits: int, raw: Bytes, tile: Tile, out: Float32s) -> None:
    head = 4 * len(tile.blocks)
    scales = _checked_scales(raw[:head].view("<f4")).astype(np.float32)
    coding.decode_codes(raw[head:], tile.blocks, tile.signs_key, CENTROIDS[bits], scales, None, out, threads=1)


# --- int8 and int4: runs with a scale each ---


def _int8_size(tile: Tile) -> int:
    return 4 * _runs(tile.count, INT8_RUN) + tile.count


def _int8_encode(x: Float32s, base: Float32s | None, tile: Tile, out: Bytes) -> None:
    given, head = _difference(x, base), 4 * _runs(tile.count, INT8_RUN)
    scales = np.empty(_runs(tile.count, INT8_RUN), np.float32)
    coding.absmax(given, INT8_RUN, scales, threads=1)
    np.minimum(scales / np.float32(127), _INT8_TOP, out=scales)
    coding.quantise_absmax(given, INT8_RUN, 127, scales, out[head:].view(np.int8), threads=1)
    out[:head] = scales.astype("<f4", copy=False).view(np.uint8)


def _int8_decode(raw: Bytes, tile: Tile, out: Float32s) -> None:
    head = 4 * _runs(tile.count, INT8_RUN)
    q = raw[head:].view(np.int8)
    if len(q) and int(q.min()) == -128:
        raise _bad(f"number {int(np.argmin(q))} is -128; expected -127 to 127")
    scales = _checked_scales(raw[:head].view("<f4")).astype(np.float32)
    coding.dequantise(q, INT8_RUN, scales, None, out, threads=1)


def _int4_size(tile: Tile) -> int:
    return 2 * _runs(tile.count, INT4_RUN) + _runs(tile.count, 2)


def _int4_encode(x: Float32s, base: Float32s | None, tile: Tile, out: Bytes) -> None:
    given, runs = _difference(x, base), _runs(tile.count, INT4_RUN)
    scales = np.empty(runs, np.float32)
    coding.absmax(given, INT4_RUN, scales, threads=1)
    scales /= np.float32(7)
    # bfloat16, rounded up: bits of numbers >= 0 count upwards.  (float16 cannot hold the scales of small differences.)
    short = np.minimum((scales.view(np.uint32) + np.uint32(0xFFFF)) >> np.uint32(16), _INT4_TOP)
    q = np.zeros(2 * _runs(tile.count, 2), np.int8)
    coding.quantise_absmax(given, INT4_RUN, 7, (short << np.uint32(16)).view(np.float32), q[: tile.count], threads=1)
    nibbles = q.view(np.uint8) & np.uint8(15)
    out[: 2 * runs] = short.astype("<u2").view(np.uint8)
    np.bitwise_or(nibbles[::2], nibbles[1::2] << np.uint8(4), out=out[2 * runs :])


def _int4_decode(raw: Bytes, tile: Tile, out: Float32s) -> None:
    runs = _runs(tile.count, INT4_RUN)
    short = raw[: 2 * runs].view("<u2").astype(np.uint32)
    scales = _checked_scales((short << np.uint32(16)).view(np.float32))
    packed = raw[2 * runs :]
    q = np.take(_NIBBLES, packed).view(np.int8)
    if len(q) and int(q.min()) == -8:
        raise _bad(f"number {int(np.argmin(q))} is -8; expected -7 to 7")
    if len(q) > tile.count and q[-1]:
        raise _bad(f"the half byte behind the last number is {q[-1]}; expected 0")
    coding.dequantise(q[: tile.count], INT4_RUN, scales, None, out, threads=1)


# --- floats ---


def _to_planes(values: npt.NDArray[Any], out: Bytes) -> None:
    width = values.dtype.itemsize
    raw, planes = values.view(np.uint8), out.reshape(width, -1)
    for number in range(width):
        planes[number] = raw[number::width]


def _from_planes(raw: Bytes, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    values = np.empty(len(raw) // np.dtype(dtype).itemsize, dtype)
    width = values.dtype.itemsize
    whole, planes = values.view(np.uint8), raw.reshape(width, -1)
    for number in range(width):
        whole[number::width] = planes[number]
    return values


def _converted(values: npt.NDArray[Any], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Between floating types, rounded once, to nearest even."""
    found = np.empty(len(values), dtype)
    dispatch.convert(values, found, threads=1)
    return found


def _checked_numbers(values: Float32s, out: Float32s) -> None:
    if not np.isfinite(values).all():
        at = int(np.argmin(np.isfinite(values)))
        raise _bad(f"number {at} is {values[at]}; expected a finite number")
    out[:] = values


def _float32_encode(x: Float32s, base: Float32s | None, _tile: Tile, out: Bytes) -> None:
    _to_planes(_difference(x, base).astype("<f4", copy=False), out)


def _float32_decode(raw: Bytes, _tile: Tile, out: Float32s) -> None:
    _checked_numbers(_from_planes(raw, "<f4"), out)


def _bfloat16_encode(x: Float32s, base: Float32s | None, _tile: Tile, out: Bytes) -> None:
    given = np.clip(_difference(x, base), -_BFLOAT16_MAX, _BFLOAT16_MAX)
    _to_planes(_converted(given, _BFLOAT16), out)


def _bfloat16_decode(raw: Bytes, _tile: Tile, out: Float32s) -> None:
    _checked_numbers(_converted(_from_planes(raw, _BFLOAT16), np.float32), out)


def _float16_size(tile: Tile) -> int:
    return _runs(tile.count, FLOAT16_RUN) + 2 * tile.count


def _float16_encode(x: Float32s, base: Float32s | None, tile: Tile, out: Bytes) -> None:
    given, runs = _difference(x, base), _runs(tile.count, FLOAT16_RUN)
    largest = np.empty(runs, np.float32)
    coding.absmax(given, FLOAT16_RUN, largest, threads=1)
    exponents = np.clip(np.frexp(largest)[1] - _FLOAT16_TOP, *_EXPONENTS).astype(np.int8)
    out[:runs] = exponents.view(np.uint8)
    scaled = np.clip(given * _powers(-exponents.astype(np.int32), tile.count), -_FLOAT16_MAX, _FLOAT16_MAX)
    _to_planes(_converted(scaled, np.float16), out[runs:])


def _float16_decode(raw: Bytes, tile: Tile, out: Float32s) -> None:
    runs = _runs(tile.count, FLOAT16_RUN)
    exponents = raw[:runs].view(np.int8)
    low, high = _EXPONENTS
    if runs and not low <= int(exponents.min()) <= int(exponents.max()) <= high:
        raise _bad(f"exponents are {exponents.min()} to {exponents.max()}; expected {low} to {high}")
    with np.errstate(over="ignore", invalid="ignore"):
        values = _converted(_from_planes(raw[runs:], np.float16), np.float32)
        values *= _powers(exponents.astype(np.int32), tile.count)
    _checked_numbers(values, out)


def _powers(exponents: npt.NDArray[np.int32], count: int) -> Float32s:
    """2**e of each element of runs with these exponents."""
    return np.repeat(np.ldexp(np.float32(1), exponents), FLOAT16_RUN)[:count]


#: name -> codec: the only list there is
CODECS: Final[dict[str, Codec]] = {
    codec.name: codec
    for codec in (
        *(
            Codec(
                f"eden-{bits}",
                bits,
                True,
                partial(_eden_size, bits),
                partial(_eden_encode, bits),
                partial(_eden_decode, bits),
            )
            for bits in CENTROIDS
        ),
        Codec("int4", 4, False, _int4_size, _int4_encode, _int4_decode),
        Codec("int8", 8, False, _int8_size, _int8_encode, _int8_decode),
        Codec("float16", 16, False, _float16_size, _float16_encode, _float16_decode),
        Codec("bfloat16", 16, False, lambda tile: 2 * tile.count, _bfloat16_encode, _bfloat16_decode),
        Codec("float32", 32, False, lambda tile: 4 * tile.count, _float32_encode, _float32_decode),
    )
}
#: what `--bits` means: with so few bits a rotation pays, with 16 rounding alone is finer than anybody needs
BY_BITS: Final = {1: "eden-1", 2: "eden-2", 3: "eden-3", 4: "eden-4", 8: "eden-8", 16: "float16", 32: "float32"}
