"""Arguments that break the contract are refused by name, and nothing is written."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from shoal.errors import ArgumentError
from shoal.kernels import _native, dispatch
from shoal.limits import MODELS_MAX

N = 10
GOOD = [np.arange(N, dtype=np.float32) + i for i in range(3)]


def bad_arrays() -> dict[str, tuple[str, list[Any], Any]]:
    """what: (code, inputs, out)"""
    x, out = GOOD[0], np.zeros(N, np.float32)
    frozen = out.copy()
    frozen.flags.writeable = False
    room = np.zeros(2 * N, np.float32)
    return {
        "no inputs": ("inputs.count", [], out),
        "too many": ("inputs.count", [x] * (MODELS_MAX + 1), out),
        "a list": ("array.type", [x, x.tolist(), x], out),
        "other dtype": ("array.dtype", [x, x.astype(np.float64), x], out),
        "integers": ("array.dtype", [x.astype(np.int32)] * 3, out),
        "foreign byte order": ("array.dtype", [x.astype(">f4")] * 3, out),
        "two dimensions": ("array.shape", [x.reshape(2, 5)] * 3, out),
        "other length": ("array.length", [x, x[:-1], x], out),
        "strides": ("array.layout", [room[::2]] * 3, out),
        "negative stride": ("array.layout", [x, x[::-1], x], out),
        "out of other dtype": ("array.dtype", GOOD, out.astype(np.float64)),
        "out too short": ("array.length", GOOD, out[:-1]),
        "out with strides": ("array.layout", GOOD, room[::2]),
        "out read-only": ("array.readonly", GOOD, frozen),
        "out overlaps": ("array.overlap", [room[:N], room[N:], x], room[3 : 3 + N]),
        "out is none": ("array.type", GOOD, None),
    }


CALLS: dict[str, Callable[[Any, Any], object]] = {
    "weighted_mean": lambda x, out: dispatch.weighted_mean(x, [1.0] * len(x), out),
    "combine": lambda x, out: dispatch.combine(None, x, [1.0] * len(x), out),
    "median": lambda x, out: dispatch.median(x, None, out),
    "trimmed_mean": lambda x, out: dispatch.trimmed_mean(x, None, 0, out),
    "mean_around_median": lambda x, out: dispatch.mean_around_median(x, 1, out),
}


@pytest.mark.parametrize("what", bad_arrays())
@pytest.mark.parametrize("name", CALLS)
def test_bad_arrays(name: str, what: str) -> None:
    code, inputs, out = bad_arrays()[what]
    before = None if out is None else out.copy()
    with pytest.raises(ArgumentError) as caught:
        CALLS[name](inputs, out)
    assert caught.value.code == code
    assert "expected" in str(caught.value)
    assert before is None or np.array_equal(before, out)


@pytest.mark.parametrize(
    ("weights", "code"),
    [
        ([1.0, 2.0], "weights.count"),
        ([[1.0, 2.0, 3.0]], "weights.count"),
        ([1.0, 0.0, 1.0], "weights.value"),
        ([1.0, -1.0, 1.0], "weights.value"),
        ([1.0, float("nan"), 1.0], "weights.value"),
        ([1.0, float("inf"), 1.0], "weights.value"),
        (["a", "b", "c"], "weights.type"),
        (None, "weights.count"),
    ],
)
def test_bad_weights(weights: Any, code: str) -> None:
    out = np.zeros(N, np.float32)
    with pytest.raises(ArgumentError) as caught:
        dispatch.weighted_mean(GOOD, weights, out)
    assert caught.value.code == code
    if weights is not None:
        with pytest.raises(ArgumentError):
            dispatch.median(GOOD, weights, out)
        with pytest.raises(ArgumentError):
            dispatch.trimmed_mean(GOOD, weights, 1, out)


def test_bad_numbers() -> None:
    out = np.zeros(N, np.float32)
    for trim in (-1, 2):
        with pytest.raises(ArgumentError, match="trim"):
            dispatch.trimmed_mean(GOOD, None, trim, out)
    for keep in (0, 4):
        with pytest.raises(ArgumentError, match="keep"):
            dispatch.mean_around_median(GOOD, keep, out)
    with pytest.raises(ArgumentError, match="scale"):
        dispatch.scaled_add(GOOD[0], float("inf"), GOOD[1], out)
    with pytest.raises(ArgumentError, match="threads"):
        dispatch.weighted_mean(GOOD, [1.0] * 3, out, threads=-1)
    with pytest.raises(ArgumentError, match="base has 9 elements"):
        dispatch.gram(GOOD, GOOD[0][:-1])
    with pytest.raises(ArgumentError, match="base"):
        dispatch.combine(GOOD[0].astype(np.float64), GOOD, [1.0] * 3, out)
    with pytest.raises(ArgumentError, match="overlaps"):
        dispatch.convert(out, out.view(np.float16)[:N])


def test_native_checks_for_itself() -> None:
    """The bindings trust nobody with sizes: a caller that goes round `dispatch` gets ValueError, no crash."""
    x, out = GOOD[0], np.zeros(N, np.float32)
    ones = np.ones(3)
    for inputs, dtype, weights, target in (
        (GOOD, 0, ones, out),
        (GOOD, 4, ones, out),
        (GOOD, -1, ones, out),
        ([x, x[:-1], x], 1, ones, out),
        (GOOD, 1, ones[:2], out),
        (GOOD, 1, ones, out[:-1]),
        ([], 1, ones[:0], out),
        (GOOD, 1, ones, np.broadcast_to(x, (N,))),
    ):
        with pytest.raises(ValueError):
            _native.weighted_mean(inputs, dtype, weights, target, 1)
    with pytest.raises(ValueError):
        _native.trimmed_mean(GOOD, 1, None, 2, out, 1)
    with pytest.raises(ValueError):
        _native.mean_around_median(GOOD, 1, 4, out, 1)


def run_with(**environment: str) -> subprocess.CompletedProcess[str]:
    code = (
        "import numpy as np\nfrom shoal.errors import MachineError\nfrom shoal.kernels import dispatch as d\n"
        "try:\n    d.median([np.zeros(3)], None, np.zeros(3)); print(d.level(), d.thread_count())\n"
        "except MachineError as error:\n    print(error.code, error)"
    )
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )


def test_environment_is_obeyed() -> None:
    for level in dispatch.levels_available():
        assert run_with(SHOAL_LEVEL=level, SHOAL_THREADS="3").stdout == f"{level} 3\n"


def test_environment_is_refused() -> None:
    assert run_with(SHOAL_LEVEL="sse9").stdout.startswith(
        "machine.level SHOAL_LEVEL: level sse9 cannot run on this machine"
    )
    for threads in ("0", "-1", "many", "1.5", "257"):
        assert run_with(SHOAL_THREADS=threads).stdout.startswith("machine.threads SHOAL_THREADS: found ")
