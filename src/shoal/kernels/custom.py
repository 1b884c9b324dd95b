"""Merge rules that users write as Python functions of one coordinate, compiled by numba, run by the native threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from shoal.errors import ArgumentError, MachineError, shown
from shoal.kernels import _native, dispatch
from shoal.kernels.reference import Array

#: f(values: float64[N], weights: float64[N]) -> float
UserRule = Callable[[Any, Any], float]

REASON_SHOWN_MAX: Final = 300


@dataclass(frozen=True)
class CompiledRule:
    """A rule that runs at native speed, without the GIL.

    name  of the function, for messages
    """

    name: str
    _block: Any = field(repr=False)  # keeps the machine code alive

    def apply(self, inputs: Sequence[Array], weights: Sequence[float], out: Array, *, threads: int = 0) -> bool:
        """out[k] = f(values of coordinate k, weights), rounded once to the dtype of out.

        inputs   N arrays as in `reference`; the rule sees their numbers as float64, in the order of the inputs
        weights  N finite numbers > 0, as they are given (not scaled)
        returns  True if every number read was finite
        raises   ArgumentError("rule.failed") if the rule raised an exception for some coordinate: out is then unusable
        """
        code, numbers = dispatch.checked_call(inputs, weights, out)
        count = dispatch.checked_threads(threads)
        failed, finite = _native.run_rule(self._block.address, inputs, code, numbers, out, count)
        if failed:
            raise ArgumentError("rule.failed", f"rule {self.name} raised an exception; expected a number always")
        return finite


def _numba() -> Any:
    try:
        import numba
    except ImportError:
        raise MachineError(
            "machine.numba", "numba is not installed; rules written in Python need it: pip install 'shoal[rules]'"
        ) from None
    return numba


def _short(error: Exception) -> str:
    """The line of a numba error that says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    wanted = [line for line in lines if not line.startswith(("Failed in", "File ", "During:", "^", "<source"))]
    return shown((wanted or lines or [type(error).__name__])[0], REASON_SHOWN_MAX)


def compile_rule(function: UserRule) -> CompiledRule:
    """Compile f(values, weights) -> float.

    function  takes float64[N] twice; may change `values` (it is a copy), not `weights`; must not use Python objects.
              An index outside of them is an error.  Division by zero gives Inf or NaN, as in numpy.  The same function
              gives the same bits for any number of threads; bits may differ between machines if it calls exp, log and
              their like.
    raises    ArgumentError("rule.compile") with numba's reason if it cannot be compiled
              MachineError("machine.numba") if numba is not installed
    """
    if not callable(function):
        raise ArgumentError("rule.type", f"a rule is a {type(function).__name__}; expected a function")
    numba = _numba()
    name = shown(getattr(function, "__name__", repr(function)))
    types, carray = numba.types, numba.carray
    plain = getattr(function, "py_func", function)
    one = types.float64(types.Array(types.float64, 1, "C"), types.Array(types.float64, 1, "C", readonly=True))
    pointer = types.CPointer(types.float64)
    try:
        rule = numba.njit(one, error_model="numpy", nogil=True, boundscheck=True)(plain)

        @numba.cfunc(  # type: ignore[untyped-decorator]
            types.int32(pointer, pointer, types.int64, types.int64, pointer), error_model="numpy"
        )
        def block(values: Any, weights: Any, count: int, length: int, out: Any) -> int:
            columns = carray(values, (length, count))
            given = carray(weights, (count,))
            results = carray(out, (length,))
            for k in range(length):
                try:
                    results[k] = rule(columns[k], given)
                except Exception:
                    return 1
            return 0
    except (numba.core.errors.NumbaError, TypeError, NotImplementedError, AttributeError) as error:
        raise ArgumentError("rule.compile", f"rule {name} cannot be compiled: {_short(error)}") from error
    return CompiledRule(name, block)
