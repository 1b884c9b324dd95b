"""The kernels as the rest of Shoal calls them: arguments are checked here, the native code does the work.

The contract of each function stands in `reference`; here one keyword more: ``threads`` (0: as many as SHOAL_THREADS or
the machine allows; the bits do not depend on it).  Arrays are numpy's, of one dtype out of `reference.DTYPES`, in
native byte order, 1-D, contiguous, of one length; addresses need no alignment.  ``out`` may be one of the inputs, but
not overlap one in part.  The GIL is released; calls from several Python threads run side by side.

Environment: SHOAL_LEVEL (portable, avx2, avx512) forces an instruction set, SHOAL_THREADS a number of threads.

raises  ArgumentError   for arguments that break the contract: nothing has been written
        MachineError    if the native code is not built, or the environment asks for what this machine cannot do
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

from shoal.errors import ArgumentError, MachineError, shown
from shoal.kernels.reference import DTYPES, Array, Float64s
from shoal.limits import MODELS_MAX

try:
    from shoal.kernels import _native
except ImportError as error:
    raise MachineError(
        "machine.native", f"the native kernels cannot be loaded ({shown(str(error))}); expected: built by `make build`"
    ) from error

_CODES: Final = {dtype: code for code, dtype in enumerate(DTYPES)}


@cache
def level() -> str:
    """The instruction set in use: "portable", "avx2" or "avx512"."""
    try:
        return _native.level()
    except ValueError as error:
        raise MachineError("machine.level", f"SHOAL_LEVEL: {shown(str(error))}") from None


def levels_available() -> list[str]:
    """The instruction sets that this machine can run, the fastest last."""
    return _native.levels()


@cache
def thread_count() -> int:
    """How many threads a call with threads=0 gets."""
    try:
        return _native.thread_count()
    except ValueError as error:
        raise MachineError("machine.threads", f"SHOAL_THREADS: {shown(str(error))}") from None


def checked_threads(threads: int) -> int:
    """The number of threads to use; also settles the level."""
    level()
    if threads < 0:
        raise ArgumentError("threads.value", f"threads is {threads}; expected 0 (default) or more")
    return threads or thread_count()


def _code(x: Array, what: str) -> int:
    if not isinstance(x, np.ndarray):
        raise ArgumentError("array.type", f"{what} is a {type(x).__name__}; expected a numpy array")
    code = _CODES.get(x.dtype)
    if code is None:
        swapped = x.dtype.newbyteorder("=") in _CODES
        found = f"{x.dtype} in foreign byte order" if swapped else str(x.dtype)
        raise ArgumentError("array.dtype", f"{what} is {found}; expected native float64, float32, float16 or bfloat16")
    if x.ndim != 1:
        raise ArgumentError("array.shape", f"{what} has shape {x.shape}; expected one dimension")
    if not x.flags.c_contiguous:
        raise ArgumentError("array.layout", f"{what} has stride {x.strides[0]}; expected contiguous elements")
    return code


def _checked(arrays: Sequence[Array], names: Sequence[str] | None = None) -> int:
    """The dtype code of arrays that agree."""
    if not 1 <= len(arrays) <= MODELS_MAX:
        raise ArgumentError("inputs.count", f"{len(arrays)} inputs; expected 1 to {MODELS_MAX}")
    first = arrays[0]
    code = -1
    for i, x in enumerate(arrays):
        what = names[i] if names else f"input {i}"
        found = _code(x, what)
        if i == 0:
            code = found
        elif found != code:
            raise ArgumentError("array.dtype", f"{what} is {x.dtype}; expected {first.dtype} as the first array")
        elif len(x) != len(first):
            raise ArgumentError(
                "array.length", f"{what} has {len(x)} elements; expected {len(first)} as the first array"
            )
    return code


def _check_out(out: Array, arrays: Sequence[Array], same_dtype: bool = True) -> int:
    code = _code(out, "out")
    first = arrays[0]
    if same_dtype and out.dtype != first.dtype:
        raise ArgumentError("array.dtype", f"out is {out.dtype}; expected {first.dtype} as the inputs")
    if len(out) != len(first):
        raise ArgumentError("array.length", f"out has {len(out)} elements; expected {len(first)} as the inputs")
    if not out.flags.writeable:
        raise ArgumentError("array.readonly", "out is read-only; expected a writable array")
    overlapping = _native.first_overlap(out, arrays)
    if overlapping >= 0:
        raise ArgumentError(
            "array.overlap", f"out overlaps input {overlapping} in part; expected the same array, or apart"
        )
    return code


def _numbers(values: Sequence[float] | Float64s, count: int, what: str) -> Float64s:
    try:
        numbers = np.ascontiguousarray(values, np.float64)
    except (TypeError, ValueError):
        raise ArgumentError("weights.type", f"{what} are not numbers; expected {count} finite numbers") from None
    if numbers.shape != (count,):
        raise ArgumentError(
            "weights.count", f"{what} have shape {numbers.shape}; expected one for each of {count} inputs"
        )
    if not np.isfinite(numbers).all():
        raise ArgumentError("weights.value", f"{what} hold NaN or Inf; expected finite numbers")
    return numbers


def _weights(weights: Sequence[float] | Float64s, count: int) -> Float64s:
    numbers = _numbers(weights, count, "weights")
    if numbers.min() <= 0:
        raise ArgumentError("weights.value", f"a weight is {numbers.min():g}; expected more than 0")
    return numbers


def checked_call(inputs: Sequence[Array], weights: Sequence[float], out: Array) -> tuple[int, Float64s]:
    """(dtype code, weights) of a call whose arrays agree; for `custom`."""
    code = _checked(inputs)
    _check_out(out, inputs)
    return code, _weights(weights, len(inputs))


def weighted_mean(inputs: Sequence[Array], weights: Sequence[float], out: Array, *, threads: int = 0) -> bool:
    code = _checked(inputs)
    _check_out(out, inputs)
    return _native.weighted_mean(inputs, code, _weights(weights, len(inputs)), out, checked_threads(threads))


def combine(
    base: Array | None, inputs: Sequence[Array], coefficients: Sequence[float], out: Array, *, threads: int = 0
) -> bool:
    code = _checked(inputs)
    if base is not None:
        _checked([inputs[0], base], ["input 0", "base"])
    _check_out(out, [*inputs] if base is None else [*inputs, base])
    numbers = _numbers(coefficients, len(inputs), "coefficients")
    return _native.combine(base, inputs, code, numbers, out, checked_threads(threads))


def median(inputs: Sequence[Array], weights: Sequence[float] | None, out: Array, *, threads: int = 0) -> bool:
    code = _checked(inputs)
    _check_out(out, inputs)
    numbers = None if weights is None else _weights(weights, len(inputs))
    return _native.median(inputs, code, numbers, out, checked_threads(threads))


def trimmed_mean(
    inputs: Sequence[Array], weights: Sequence[float] | None, trim: int, out: Array, *, threads: int = 0
) -> bool:
    code = _checked(inputs)
    _check_out(out, inputs)
    numbers = None if weights is None else _weights(weights, len(inputs))
    if not 0 <= 2 * trim < len(inputs):
        raise ArgumentError("trim.value", f"trim is {trim}; expected 0 <= 2*trim < {len(inputs)} inputs")
    return _native.trimmed_mean(inputs, code, numbers, trim, out, checked_threads(threads))


def mean_around_median(inputs: Sequence[Array], keep: int, out: Array, *, threads: int = 0) -> bool:
    code = _checked(inputs)
    _check_out(out, inputs)
    if not 1 <= keep <= len(inputs):
        raise ArgumentError("keep.value", f"keep is {keep}; expected 1 to {len(inputs)}, the number of inputs")
    return _native.mean_around_median(inputs, code, keep, out, checked_threads(threads))


def gram(inputs: Sequence[Array], base: Array | None = None, *, threads: int = 0) -> npt.NDArray[np.float64]:
    code = _checked(inputs)
    if base is not None:
        _checked([inputs[0], base], ["input 0", "base"])
    return _native.gram(inputs, code, base, checked_threads(threads))


def stats(x: Array, *, threads: int = 0) -> tuple[float, float, int, int]:
    return _native.stats(x, _checked([x]), checked_threads(threads))


def convert(x: Array, out: Array, *, threads: int = 0) -> None:
    code = _checked([x])
    _native.convert(x, code, out, _check_out(out, [x], same_dtype=False), checked_threads(threads))


def scaled_add(y: Array, scale: float, x: Array, out: Array, *, threads: int = 0) -> bool:
    code = _checked([y, x], ["y", "x"])
    _check_out(out, [y, x])
    if not math.isfinite(scale):
        raise ArgumentError("scale.value", f"scale is {scale}; expected a finite number")
    return _native.scaled_add(y, scale, x, code, out, checked_threads(threads))


def copy(x: Array, out: Array, *, threads: int = 0) -> None:
    """out = x, bytes as they are: what memory allows, and the measure of the others."""
    _checked([x])
    _check_out(out, [x])
    _native.copy(x, out, checked_threads(threads))
