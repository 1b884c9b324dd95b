"""Arrays of the host, merged on a CUDA device: tile by tile through pinned memory, copies beside the work.

The functions and their bits are those of `dispatch`; here one object holds a device's two slots of memory (pinned and
its own), so calls from several threads take turns.  A tile is as large as the device's free memory allows: where there
is too little, half of it is tried, and so on.

raises   ArgumentError  as `dispatch`; more than `_cuda.INPUTS_MAX` inputs of a mean, `_cuda.ORDER_MAX` of an order
                        statistic
         MachineError   ``device.memory``, ``device.cuda``; then ``out`` must not be used
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

from shoal.errors import ArgumentError, MachineError, shown
from shoal.kernels import dispatch
from shoal.kernels.cuda import kernels
from shoal.kernels.reference import Array, Float64s, scaled_weights
from shoal.limits import CUDA_TILE_BYTES

#: rules have kernels for these; what else a merge needs runs on the CPU
FUNCTIONS: Final = ("weighted_mean", "median", "trimmed_mean")


class Staged:
    """One device as `dispatch` is called."""

    def __init__(self, native: Any, device: int = 0, tile_bytes: int = CUDA_TILE_BYTES) -> None:
        self.native = native
        self.pipeline = native.Pipeline(device, tile_bytes)

    def weighted_mean(self, inputs: Sequence[Array], weights: Sequence[float], out: Array, *, threads: int = 0) -> bool:
        code, numbers = dispatch.checked_call(inputs, weights, out)
        self._check_count(inputs, self.native.INPUTS_MAX)
        scaled = scaled_weights(numbers.tolist())
        return self._run(self.pipeline.weighted_mean, inputs, code, scaled, out, dispatch.checked_threads(threads))

    def median(self, inputs: Sequence[Array], weights: Sequence[float] | None, out: Array, *, threads: int = 0) -> bool:
        return self._order(inputs, weights, -1, out, threads)

    def trimmed_mean(
        self, inputs: Sequence[Array], weights: Sequence[float] | None, trim: int, out: Array, *, threads: int = 0
    ) -> bool:
        if not 0 <= 2 * trim < len(inputs):
            raise ArgumentError("trim.value", f"trim is {trim}; expected 0 <= 2*trim < {len(inputs)} inputs")
        return self._order(inputs, weights, trim, out, threads)

    def _order(
        self, inputs: Sequence[Array], weights: Sequence[float] | None, trim: int, out: Array, threads: int
    ) -> bool:
        code, numbers = dispatch.checked_call(inputs, [1.0] * len(inputs) if weights is None else weights, out)
        self._check_count(inputs, self.native.ORDER_MAX)
        scaled: Float64s | None = None if weights is None else scaled_weights(numbers.tolist())
        return self._run(self.pipeline.order, inputs, code, scaled, trim, out, dispatch.checked_threads(threads))

    def _check_count(self, inputs: Sequence[Array], most: int) -> None:
        if len(inputs) > most:
            raise ArgumentError("inputs.count", f"{len(inputs)} inputs; expected 1 to {most} on a device")

    def _run(self, function: Callable[..., bool], *arguments: object) -> bool:
        try:
            return function(*arguments)
        except MemoryError as error:
            raise MachineError("device.memory", f"out of memory: {shown(str(error), 200)}") from error
        except RuntimeError as error:
            raise MachineError("device.cuda", f"CUDA failed: {shown(str(error), 200)}") from error


@cache
def staged() -> Staged:
    """The first device.

    raises  MachineError("device.cuda")  if there is none, with the reason
    """
    return Staged(kernels().native)
