"""The kernels on arrays of a CUDA device: arguments are checked here, `native/cuda` does the work.

The contract of each function stands in `reference`, `reference_ring` and `reference_coding`: the bits are theirs.
Differences from the CPU's door (`dispatch`, `ring`, `coding`):

arrays   of one device, 1-D, contiguous, by DLPack or ``__cuda_array_interface__`` (see `cuda_array`); addresses are
         multiples of an element's size.  ``out`` may be one of the inputs, but not overlap one in part.
stream   the caller's (an int, or an object of torch or CuPy; None: the default stream).  Work is put on it, and nothing
         here waits for the device: results are there once the stream has come so far.
finite   instead of a bool that would have to be waited for: a device array uint32[1] that is set to 1 if a number that
         is read is not finite, and left alone otherwise; or None.
limits   up to `_cuda.INPUTS_MAX` inputs of a mean, `_cuda.ORDER_MAX` of an order statistic

raises   ArgumentError  for arguments that break the contract: nothing has been started
         MachineError   ``device.cuda`` if CUDA fails, ``device.memory`` if the device has too little memory
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shoal.errors import ArgumentError, MachineError, shown
from shoal.kernels.cuda_array import View, stream_of, view_of
from shoal.kernels.device import cuda_devices
from shoal.kernels.reference import DTYPES, Float64s, scaled_weights
from shoal.kernels.reference_ring import CHECKS, WORDS
from shoal.kernels.ring import KEY_BYTES, Streams
from shoal.limits import GRAM_BLOCK

_CODES: Final = {dtype: code for code, dtype in enumerate(DTYPES)}


def available() -> tuple[bool, str]:
    """(True, "") if a device can run the kernels; else (False, why not)."""
    found, reason = cuda_devices()
    return bool(found), reason


@cache
def kernels() -> Kernels:
    """The device's kernels.

    raises  MachineError("device.cuda")  if there is no device, with the reason
    """
    there, reason = available()
    if not there:
        raise MachineError("device.cuda", f"no CUDA device: {reason}; expected a CUDA device and its driver")
    import shoal.kernels._cuda as native

    return Kernels(native)


class Call:
    """The arrays of one call: all on one device, on one stream."""

    def __init__(self, native: Any, stream: object) -> None:
        self.native, self.stream = native, stream_of(stream)
        self.device: int | None = None

    def view(self, x: object, what: str, dtype: np.dtype[Any] | None = None, length: int | None = None) -> View:
        """Checks one array.  dtype, length: what it must have; None for any."""
        view = view_of(x, what, self.native, self.stream)
        if view.length and self.device is None:
            self.device = view.device
        if view.length and view.device != self.device:
            raise ArgumentError(
                "array.device", f"{what} lies on device {view.device}; expected {self.device} as the first array"
            )
        if dtype is not None and view.dtype != dtype:
            raise ArgumentError("array.dtype", f"{what} is {view.dtype}; expected {dtype}")
        if length is not None and view.length != length:
            raise ArgumentError("array.length", f"{what} has {view.length} elements; expected {length}")
        return view

    def numbers(self, inputs: Sequence[object], most: int, what: str = "input") -> list[View]:
        """Arrays of one floating dtype and length."""
        if not 1 <= len(inputs) <= most:
            raise ArgumentError("inputs.count", f"{len(inputs)} inputs; expected 1 to {most} on a device")
        first = self.view(inputs[0], f"{what} 0")
        self.code(first, f"{what} 0")
        rest = [self.view(x, f"{what} {i}", first.dtype, first.length) for i, x in enumerate(inputs[1:], 1)]
        return [first, *rest]

    def code(self, view: View, what: str) -> int:
        code = _CODES.get(view.dtype)
        if code is None:
            raise ArgumentError(
                "array.dtype", f"{what} is {view.dtype}; expected float64, float32, float16 or bfloat16"
            )
        return code

    def out(self, x: object, dtype: np.dtype[Any], length: int, inputs: Sequence[View], same: bool = True) -> View:
        """Writable, apart from the inputs, or (`same`) one of them."""
        view = self.view(x, "out", dtype, length)
        if view.readonly:
            raise ArgumentError("array.readonly", "out is read-only; expected a writable array")
        for i, other in enumerate(inputs):
            apart = view.pointer + view.bytes <= other.pointer or other.pointer + other.bytes <= view.pointer
            equal = same and view.pointer == other.pointer and view.bytes == other.bytes
            if view.length and other.length and not apart and not equal:
                raise ArgumentError(
                    "array.overlap", f"out overlaps input {i} in part; expected the same array, or apart"
                )
        return view

    def flag(self, x: object | None) -> int:
        return 0 if x is None else self.view(x, "finite", np.dtype(np.uint32), 1).pointer

    def start(self, function: Callable[..., Any], *arguments: object) -> Any:
        """Puts the call on the stream of the arrays' device; with no element there is nothing to do."""
        try:
            return function(*arguments, -1 if self.device is None else self.device, self.stream)
        except MemoryError as error:
            raise MachineError("device.memory", f"the device is out of memory: {shown(str(error), 200)}") from error
        except RuntimeError as error:
            raise MachineError("device.cuda", f"CUDA failed: {shown(str(error), 200)}") from error


class Kernels:
    """Kernels of one native module: `_cuda`, or in tests its host twin."""

    def __init__(self, native: Any) -> None:
        self.native = native

    def weighted_mean(
        self,
        inputs: Sequence[object],
        weights: Sequence[float],
        out: object,
        *,
        finite: object | None = None,
        stream: object = None,
    ) -> None:
        call = Call(self.native, stream)
        views = call.numbers(inputs, self.native.INPUTS_MAX)
        scaled = _scaled(weights, len(views))
        self._sum(call, self.native.weighted_mean, views, scaled, out, finite)

    def _sum(
        self, call: Call, function: Callable[..., Any], views: list[View], weights: object, out: object, finite: object
    ) -> None:
        first = views[0]
        to = call.out(out, first.dtype, first.length, views)
        flag = call.flag(finite)
        if first.length:
            pointers = [v.pointer for v in views]
            call.start(function, pointers, weights, first.length, _CODES[first.dtype], to.pointer, flag)

    def combine(
        self,
        base: object | None,
        inputs: Sequence[object],
        coefficients: Sequence[float],
        out: object,
        *,
        finite: object | None = None,
        stream: object = None,
    ) -> None:
        call = Call(self.native, stream)
        views = call.numbers(inputs, self.native.INPUTS_MAX)
        first = views[0]
        start = None if base is None else call.view(base, "base", first.dtype, first.length)
        numbers = _finite_numbers(coefficients, len(views), "coefficients")
        to = call.out(out, first.dtype, first.length, [*views, *([] if start is None else [start])])
        flag = call.flag(finite)
        if first.length:
            call.start(
                self.native.combine, 0 if start is None else start.pointer, [v.pointer for v in views], numbers,
                first.length, _CODES[first.dtype], to.pointer, flag,
            )  # fmt: skip

    def scaled_add(
        self,
        y: object,
        scale: float,
        x: object,
        out: object,
        *,
        finite: object | None = None,
        stream: object = None,
    ) -> None:
        call = Call(self.native, stream)
        first, second = call.numbers([y, x], 2)
        if not math.isfinite(scale):
            raise ArgumentError("scale.value", f"scale is {scale}; expected a finite number")
        to = call.out(out, first.dtype, first.length, [first, second])
        flag = call.flag(finite)
        if first.length:
            call.start(
                self.native.scaled_add, first.pointer, second.pointer, np.array([scale], np.float64), first.length,
                _CODES[first.dtype], to.pointer, flag,
            )  # fmt: skip

    def median(
        self,
        inputs: Sequence[object],
        weights: Sequence[float] | None,
        out: object,
        *,
        finite: object | None = None,
        stream: object = None,
    ) -> None:
        self._order(inputs, weights, -1, out, finite, stream)

    def trimmed_mean(
        self,
        inputs: Sequence[object],
        weights: Sequence[float] | None,
        trim: int,
        out: object,
        *,
        finite: object | None = None,
        stream: object = None,
    ) -> None:
        if not 0 <= 2 * trim < len(inputs):
            raise ArgumentError("trim.value", f"trim is {trim}; expected 0 <= 2*trim < {len(inputs)} inputs")
        self._order(inputs, weights, trim, out, finite, stream)

    def _order(
        self,
        inputs: Sequence[object],
        weights: Sequence[float] | None,
        trim: int,
        out: object,
        finite: object | None,
        stream: object,
    ) -> None:
        call = Call(self.native, stream)
        views = call.numbers(inputs, self.native.ORDER_MAX)
        scaled = None if weights is None else _scaled(weights, len(views))

        def order(pointers: list[int], weights: Float64s | None, *rest: object) -> None:
            self.native.order(pointers, weights, trim, *rest)

        self._sum(call, order, views, scaled, out, finite)

    def convert(self, x: object, out: object, *, stream: object = None) -> None:
        call = Call(self.native, stream)
        (view,) = call.numbers([x], 1)
        seen = call.view(out, "out", length=view.length)
        code = call.code(seen, "out")
        to = call.out(seen, seen.dtype, view.length, [view], same=seen.dtype == view.dtype)
        if view.length:
            call.start(self.native.convert, view.pointer, _CODES[view.dtype], to.pointer, code, view.length)

    def stats(self, x: object, numbers: object, counts: object, *, stream: object = None) -> None:
        """numbers float64[2]: largest magnitude, sum of squares; counts int64[2]: NaN and Inf, the first one or -1."""
        call = Call(self.native, stream)
        (view,) = call.numbers([x], 1)
        found = (
            call.view(numbers, "numbers", np.dtype(np.float64), 2),
            call.view(counts, "counts", np.dtype(np.int64), 2),
        )
        call.start(self.native.stats, view.pointer, _CODES[view.dtype], view.length, *(f.pointer for f in found))

    def gram(self, inputs: Sequence[object], base: object | None, found: object, *, stream: object = None) -> None:
        """found float64[blocks * N * N]: `reference.gram`, one matrix behind the other."""
        call = Call(self.native, stream)
        views = call.numbers(inputs, self.native.INPUTS_MAX)
        first = views[0]
        start = None if base is None else call.view(base, "base", first.dtype, first.length)
        to = call.out(found, np.dtype(np.float64), -(-first.length // GRAM_BLOCK) * len(views) ** 2, views, same=False)
        if first.length:
            call.start(
                self.native.gram, 0 if start is None else start.pointer, [v.pointer for v in views], first.length,
                _CODES[first.dtype], to.pointer,
            )  # fmt: skip

    def check_sums(
        self, data: object, bits: int, key: bytes, lane: int, first: int, sums: object, *, stream: object = None
    ) -> None:
        """sums uint64[32], as `reference_ring.check_sums`."""
        call = Call(self.native, stream)
        words = _words(call, data, bits, "data")
        to = call.out(sums, np.dtype(np.uint64), CHECKS, [words], same=False)
        if len(key) != KEY_BYTES:
            raise ArgumentError("ring.key", f"a key of {len(key)} bytes; expected {KEY_BYTES}")
        _place(lane, "lane", 2**64)
        _place(first, "first", 2**60)
        call.start(
            self.native.check_sums, words.pointer, bits, words.length, np.frombuffer(key, np.uint8), lane, first,
            to.pointer,
        )  # fmt: skip

    def add_streams(
        self, data: object, bits: int, streams: Streams, lane: int, first: int, out: object, *, stream: object = None
    ) -> None:
        """Masks on, or off with `Streams.opposite`.  Keys lie in host memory and reach the device as parameters of the
        kernel: in no array, but in memory that the driver keeps and does not wipe."""
        call = Call(self.native, stream)
        words = _words(call, data, bits, "data")
        to = call.out(out, words.dtype, words.length, [words])
        _place(lane, "lane", 2**64)
        _place(first, "first", 2**60)
        if words.length:
            call.start(
                self.native.add_streams, words.pointer, bits, words.length, streams.keys, streams.signs, lane, first,
                to.pointer,
            )  # fmt: skip

    def sum_words(self, inputs: Sequence[object], bits: int, out: object, *, stream: object = None) -> None:
        call = Call(self.native, stream)
        if not 1 <= len(inputs) <= self.native.SUM_INPUTS_MAX:
            raise ArgumentError(
                "ring.inputs", f"{len(inputs)} vectors in one sum; expected 1 to {self.native.SUM_INPUTS_MAX}"
            )
        first = _words(call, inputs[0], bits, "input 0")
        views = [first, *(call.view(x, f"input {i}", first.dtype, first.length) for i, x in enumerate(inputs[1:], 1))]
        to = call.out(out, first.dtype, first.length, views)
        if first.length:
            call.start(self.native.sum_words, [v.pointer for v in views], bits, first.length, to.pointer)


def _finite_numbers(values: Sequence[float] | Float64s, count: int, what: str) -> Float64s:
    try:
        numbers: npt.NDArray[np.float64] = np.ascontiguousarray(values, np.float64)
    except (TypeError, ValueError):
        raise ArgumentError("weights.type", f"{what} are not numbers; expected {count} finite numbers") from None
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise ArgumentError("weights.value", f"{what} are not {count} finite numbers, one for each input")
    return numbers


def _scaled(weights: Sequence[float], count: int) -> Float64s:
    numbers = _finite_numbers(weights, count, "weights")
    if numbers.min() <= 0:
        raise ArgumentError("weights.value", f"a weight is {numbers.min():g}; expected more than 0")
    return scaled_weights(numbers.tolist())


def _words(call: Call, x: object, bits: int, what: str) -> View:
    if bits not in WORDS:
        raise ArgumentError("ring.bits", f"a ring of {bits} bits; expected one of {', '.join(map(str, WORDS))}")
    view = call.view(x, what, np.dtype(np.uint8))
    unit = 3 if bits == 12 else bits // 8
    if view.length % unit:
        raise ArgumentError("ring.length", f"{what} has {view.length} bytes; expected whole words of {bits} bits")
    return view


def _place(value: int, what: str, below: int) -> None:
    if not 0 <= value < below:
        raise ArgumentError("ring.place", f"{what} is {value}; expected 0 to {below - 1}")
