"""The kernels in plain numpy: this file *defines* what is right, and every native level must give the same bits.

Common to all functions below:

inputs     sequence of N >= 1 arrays, 1-D, C-contiguous, one length n, one dtype out of float64, float32, float16 and
           bfloat16
weights    N float64, finite, > 0 (the caller leaves out models of weight 0); scaled to their sum by `scaled_weights`
out        array of the same length and dtype, may be one of the inputs
returns    bool: True if every number read was finite

Arithmetic.  Inputs are widened to float64 (exact), sums start with the first term and run in the order of ``inputs``,
products and sums are rounded separately (no fused multiply-add), and the result is rounded once, to nearest even, into
the dtype of ``out``; denormals are kept.  For float64 the sum is carried in double-double (Dekker 1971; Knuth TAOCP 2,
4.2.2), so that it too is wider than its inputs.

Order.  The order statistics sort by IEEE 754-2019 section 5.10 totalOrder: -NaN < -inf < ... < -0 < +0 < ... < +inf
< NaN.  So a NaN is an outlier like any other, and results do not depend on the order of the inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import ml_dtypes
import numpy as np
import numpy.typing as npt

from shoal.limits import GRAM_BLOCK

Array = npt.NDArray[Any]
Float64s = npt.NDArray[np.float64]

BFLOAT16: Final = np.dtype(ml_dtypes.bfloat16)
DTYPES: Final = (np.dtype(np.float64), np.dtype(np.float32), np.dtype(np.float16), BFLOAT16)
GRAM_LANES: Final = 8


def scaled_weights(weights: Sequence[float]) -> Float64s:
    """The weights times the power of two that brings their sum into [0.5, 1): exact, whatever their size.

    (A weight more than 2**1022 times below the sum may lose bits; it cannot change any result.)
    """
    values = np.asarray(weights, np.float64)
    _, top = np.frexp(values.max())
    values = np.ldexp(values, -int(top))
    total = 0.0
    for value in values:
        total += float(value)
    _, exponent = np.frexp(total)
    return np.ldexp(values, -int(exponent))


def narrow(values: Float64s, dtype: np.dtype[Any]) -> Array:
    """float64 -> dtype with one rounding, to nearest even; overflow gives infinity; every NaN becomes the one quiet NaN
    with positive sign and no payload (x86 and ARM disagree about the sign of inf - inf)."""
    values = np.where(np.isnan(values), np.nan, values)
    if dtype == np.float64 or dtype == np.float32 or dtype == np.float16:
        with np.errstate(over="ignore", invalid="ignore"):
            return values.astype(dtype)
    # bfloat16: numpy would go through float32 and round twice, so the first step is to odd (Boldo & Melquiond 2008).
    with np.errstate(over="ignore", invalid="ignore"):
        near = values.astype(np.float32)
    bits = near.view(np.uint32).copy()
    wide = near.astype(np.float64)
    away = np.abs(wide) > np.abs(values)
    inexact = (wide != values) & ~np.isnan(values)
    bits[away] -= 1
    bits[inexact] |= 1
    quiet = np.isnan(values)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    rounded[quiet] = (bits[quiet] >> 16) | 0x40
    return rounded.astype(np.uint16).view(dtype)


def _two_sum(a: Float64s, b: Float64s) -> tuple[Float64s, Float64s]:
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def _two_product(a: Float64s, b: Float64s | np.float64) -> tuple[Float64s, Float64s]:
    """p = a*b rounded, and e = a*b - p rounded: what a fused multiply-add gives, for any numbers.

    Veltkamp's splitting works on the fractions, where it is exact; the exponents follow.
    """
    p = a * b
    (x, x_exponent), (y, y_exponent) = np.frexp(a), np.frexp(np.broadcast_to(b, a.shape))
    split = 134217729.0
    product = x * y
    t = split * x
    xh = t - (t - x)
    xl = x - xh
    u = split * y
    yh = u - (u - y)
    yl = y - yh
    e = np.ldexp(((xh * yh - product) + xh * yl + xl * yh) + xl * yl, x_exponent + y_exponent)
    e = np.where(np.abs(p) < np.finfo(np.float64).tiny, 0.0, e)
    infinite = np.where(np.isinf(a) | np.isinf(b), np.nan, -p)
    return p, np.where(np.isinf(p), infinite, e)


#: float64 rows are multiplied by 2**-600 if the largest magnitude of the coordinate is >= 2**400, by 2**600 if it is
#: below 2**-400, and back at the end, so that products and their errors do not overflow, nor underflow where it counts.
_HUGE, _TINY, _SHIFT = 2.0**400, 2.0**-400, 600


def _row_shift(rows: Float64s) -> npt.NDArray[np.int64]:
    largest = np.abs(rows).max(axis=0)
    return np.where(largest >= _HUGE, -_SHIFT, np.where(largest < _TINY, _SHIFT, 0))


def _wide(x: Array) -> Float64s:
    with np.errstate(invalid="ignore"):  # a signalling NaN becomes a quiet one
        wide: Float64s = x.astype(np.float64)
        return wide


def _rows(inputs: Sequence[Array]) -> Float64s:
    return np.stack([_wide(x) for x in inputs])


def _finite(inputs: Sequence[Array]) -> bool:
    return all(bool(np.isfinite(_wide(x)).all()) for x in inputs)


def _plain_sum(rows: Float64s, weights: Float64s) -> Float64s:
    total: Float64s = weights[0] * rows[0]
    for row, weight in zip(rows[1:], weights[1:], strict=True):
        total = total + weight * row
    return total


def _mean_rows(rows: Float64s, weights: Float64s, wide: bool) -> Float64s:
    """sum_i weights[i] * rows[i] / sum_i weights[i], coordinate by coordinate, sums in row order.

    weights  float64[N] or float64[N, n], scaled as by `scaled_weights` (any exact power of two gives the same result)
    wide     carry both sums in double-double (for float64 data); a coordinate that has a NaN or Inf, or is
             all zeros (-0 must stay), takes the plain sum
    """
    weights = np.broadcast_to(weights.reshape(len(rows), -1), rows.shape)
    total, rest = np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
    for weight in weights:
        total, t = _two_sum(total, weight)
        rest = rest + t
    with np.errstate(all="ignore"):
        plain = _plain_sum(rows, weights) / total
        if not wide:
            return plain
        shift = _row_shift(rows)
        scaled = np.ldexp(rows, shift)
        hi, lo = _two_product(scaled[0], weights[0])
        for row, weight in zip(scaled[1:], weights[1:], strict=True):
            p, e = _two_product(row, weight)
            hi, t = _two_sum(hi, p)
            lo = lo + (t + e)
        hi, lo = _two_sum(hi, lo)
        quotient = hi / total
        p, e = _two_product(quotient, total)
        result = np.ldexp(quotient + ((((hi - p) - e) + lo) - quotient * rest) / total, -shift)
        return np.where(np.isfinite(rows).all(axis=0) & (rows != 0).any(axis=0), result, plain)


def weighted_mean(inputs: Sequence[Array], weights: Sequence[float], out: Array) -> bool:
    """out = sum_i w_i x_i / sum_i w_i.  Equal inputs give the same bits back."""
    finite = _finite(inputs)
    wide = out.dtype == np.float64
    out[...] = narrow(_mean_rows(_rows(inputs), scaled_weights(weights), wide), out.dtype)
    return finite


def combine(base: Array | None, inputs: Sequence[Array], coefficients: Sequence[float], out: Array) -> bool:
    """out = base + sum_i c_i (x_i - base), or sum_i c_i x_i without a base.  Coefficients are any finite numbers.

    Inputs equal to the base give the base back, bit for bit.  For float64 the differences, products and the sum are
    double-double (with no shift: values beyond 2**900 may overflow to Inf, which the caller must refuse).
    """
    finite = _finite([*inputs, *([] if base is None else [base])])
    start = np.zeros(len(out)) if base is None else _wide(base)
    hi = lo = np.zeros(len(out))
    with np.errstate(all="ignore"):
        for i, (x, c) in enumerate(zip(inputs, coefficients, strict=True)):
            coefficient = np.float64(c)
            wide = _wide(x)
            if out.dtype != np.float64:
                term = coefficient * (wide if base is None else wide - start)
                hi = term if i == 0 else hi + term
                continue
            dh, dl = (wide, np.zeros(len(out))) if base is None else _two_sum(wide, -start)
            p, e = _two_product(dh, coefficient)
            rest = e + coefficient * dl
            if i == 0:
                hi, lo = p, rest
            else:
                hi, t = _two_sum(hi, p)
                lo = lo + (t + rest)
        s, t = _two_sum(start, hi)
        moved = start + hi if out.dtype != np.float64 else s + (t + lo)
        unmoved = (hi == 0) & (lo == 0)
        result = (hi + lo if out.dtype == np.float64 else hi) if base is None else np.where(unmoved, start, moved)
    out[...] = narrow(result, out.dtype)
    return finite


def total_order(x: Array) -> npt.NDArray[Any]:
    """Signed integers that sort as IEEE 754 totalOrder sorts x.  Its own inverse on the bits."""
    bits = x.view(f"i{x.dtype.itemsize}")
    return np.where(bits < 0, bits ^ np.iinfo(bits.dtype).max, bits)


def _sorted(inputs: Sequence[Array]) -> tuple[Float64s, npt.NDArray[np.intp]]:
    """Rows in ascending totalOrder per coordinate, and which input each came from (ties: first input first)."""
    keys = np.stack([total_order(x) for x in inputs])
    order = np.argsort(keys, axis=0, kind="stable")
    return np.take_along_axis(_rows(inputs), order, axis=0), order


def median(inputs: Sequence[Array], weights: Sequence[float] | None, out: Array) -> bool:
    """Coordinate-wise (weighted) median.

    Values v_1 <= v_2 <= ... in totalOrder with weights w_1, w_2 ...: the first v_k whose cumulated weight reaches half
    of the total; if it hits the half exactly, the mean of v_k and v_(k+1).  Sums of weights run in sorted order; "half"
    is tested as 2*cumulated >= total with the total summed in the order of the inputs.
    Without weights: the middle value, or the mean of the two middle ones.
    source: Yin et al., ICML 2018, definition 1.
    """
    finite = _finite(inputs)
    rows, order = _sorted(inputs)
    count = len(rows)
    if weights is None:
        low = np.full(rows.shape[1], (count - 1) // 2)
        high = np.full(rows.shape[1], count // 2)
    else:
        scaled = scaled_weights(weights)
        total = 0.0
        for weight in scaled:
            total += float(weight)
        cumulated = np.cumsum(scaled[order], axis=0)
        reached = 2 * cumulated >= total
        low = np.argmax(reached, axis=0)
        low = np.where(reached.any(axis=0), low, count - 1)
        exact = np.take_along_axis(2 * cumulated, low[None], axis=0)[0] == total
        high = np.where(exact, np.minimum(low + 1, count - 1), low)
    a = np.take_along_axis(rows, low[None], axis=0)[0]
    b = np.take_along_axis(rows, high[None], axis=0)[0]
    middle = _mean_rows(np.stack([a, b]), np.array([0.5, 0.5]), out.dtype == np.float64)
    out[...] = narrow(np.where(low == high, a, middle), out.dtype)
    return finite


def trimmed_mean(inputs: Sequence[Array], weights: Sequence[float] | None, trim: int, out: Array) -> bool:
    """Mean of what is left when the `trim` lowest and highest values of a coordinate are dropped (0 <= 2*trim < N).

    With weights, the values that are left keep their own.  Sums run in ascending order of value.
    source: Yin et al., ICML 2018, definition 2.
    """
    finite = _finite(inputs)
    rows, order = _sorted(inputs)
    keep = slice(trim, len(rows) - trim)
    kept = np.ones(len(rows)) if weights is None else scaled_weights(weights)
    per_row = kept[order][keep]
    out[...] = narrow(_mean_rows(rows[keep], per_row, out.dtype == np.float64), out.dtype)
    return finite


def mean_around_median(inputs: Sequence[Array], keep: int, out: Array) -> bool:
    """Mean of the `keep` values of a coordinate that lie closest to its median (1 <= keep <= N).

    In ascending order these are neighbours: the window starts at the lowest value and moves up while the next value
    above it is strictly closer to the median than its lowest.  Distances are float64; sums run in ascending order.
    source: El Mhamdi et al., ICML 2018 (Bulyan), section 4.
    """
    finite = _finite(inputs)
    rows, _ = _sorted(inputs)
    count = len(rows)
    with np.errstate(all="ignore"):
        middle = rows[(count - 1) // 2] * 0.5 + rows[count // 2] * 0.5
        start = np.zeros(rows.shape[1], np.intp)
        for first in range(count - keep):
            nearer = rows[first + keep] - middle < middle - rows[first]
            start = np.where((start == first) & nearer, first + 1, start)
    window = np.stack([np.take_along_axis(rows, (start + k)[None], axis=0)[0] for k in range(keep)])
    out[...] = narrow(_mean_rows(window, np.ones(keep), out.dtype == np.float64), out.dtype)
    return finite


def _lane_sum(products: Float64s) -> float:
    """Sum in GRAM_LANES running sums from +0, element e into lane e % 8, then ((0+4)+(2+6)) + ((1+5)+(3+7)).

    A NaN is the quiet one, as in `narrow`.
    """
    padded = np.zeros((1 + -(-len(products) // GRAM_LANES)) * GRAM_LANES)
    padded[GRAM_LANES : GRAM_LANES + len(products)] = products
    lanes = np.cumsum(padded.reshape(-1, GRAM_LANES), axis=0)[-1]
    total = ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]))
    return np.nan if np.isnan(total) else float(total)


def gram(inputs: Sequence[Array], base: Array | None = None) -> npt.NDArray[np.float64]:
    """Inner products of all pairs, block by block.

    base     array or None: subtracted first (in float64), which keeps the digits of near-equal models
    returns  float64[B, N, N], one symmetric matrix for each block of GRAM_BLOCK elements (the last may be shorter);
             the sum over all data is the sum over blocks, in order
    """
    rows = _rows(inputs)
    with np.errstate(all="ignore"):
        if base is not None:
            rows = rows - _wide(base)
        blocks = -(-rows.shape[1] // GRAM_BLOCK)
        found = np.zeros((blocks, len(rows), len(rows)))
        for block in range(blocks):
            part = rows[:, block * GRAM_BLOCK : (block + 1) * GRAM_BLOCK]
            for i in range(len(rows)):
                for j in range(i, len(rows)):
                    found[block, i, j] = found[block, j, i] = _lane_sum(part[i] * part[j])
    return found


def stats(x: Array) -> tuple[float, float, int, int]:
    """(largest magnitude, sum of squares, number of NaN and Inf, index of the first of them or -1).

    The first two leave NaN and Inf out; the sum of squares runs as in `gram`, blocks added in order.
    """
    wide = _wide(x)
    good = np.isfinite(wide)
    bad = int(len(wide) - np.count_nonzero(good))
    wide = np.where(good, wide, 0.0)
    squares = 0.0
    with np.errstate(over="ignore"):
        for start in range(0, len(wide), GRAM_BLOCK):
            part = wide[start : start + GRAM_BLOCK]
            squares += _lane_sum(part * part)
    largest = float(np.abs(wide).max(initial=0.0))
    return largest, squares, bad, int(np.argmin(good)) if bad else -1


def convert(x: Array, out: Array) -> None:
    """out = x in the dtype of out, rounded once to nearest even."""
    out[...] = narrow(_wide(x), out.dtype)


def scaled_add(y: Array, scale: float, x: Array, out: Array) -> bool:
    """out = y + scale*x, in float64, rounded once more into the dtype of out."""
    with np.errstate(all="ignore"):
        out[...] = narrow(_wide(y) + np.float64(scale) * _wide(x), out.dtype)
    return _finite([y, x])
