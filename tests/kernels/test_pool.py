"""The threads behind the kernels: concurrent callers, forks, and processes with another floating-point mode."""

from __future__ import annotations

import os
import threading
import traceback

import numpy as np
import pytest
from sample_arrays import bits_of

from shoal.kernels import _native, dispatch, reference
from shoal.kernels.reference import Array


def inputs_for(seed: int, length: int) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(length, dtype=np.float32) for _ in range(5)]


def expected_for(inputs: list[Array]) -> tuple[Array, Array]:
    mean, median = np.empty_like(inputs[0]), np.empty_like(inputs[0])
    reference.weighted_mean(inputs, [1.0, 2, 3, 4, 5], mean)
    reference.median(inputs, None, median)
    return bits_of(mean), bits_of(median)


def check_calls(inputs: list[Array], expected: tuple[Array, Array], threads: int) -> None:
    out = np.empty_like(inputs[0])
    dispatch.weighted_mean(inputs, [1.0, 2, 3, 4, 5], out, threads=threads)
    assert np.array_equal(bits_of(out), expected[0])
    dispatch.median(inputs, None, out, threads=threads)
    assert np.array_equal(bits_of(out), expected[1])


def test_four_python_threads_at_once() -> None:
    work = [inputs_for(seed, 200_000 + seed) for seed in range(4)]
    expected = [expected_for(inputs) for inputs in work]
    failures: list[str] = []

    def run(i: int) -> None:
        try:
            for threads in (2, 1, 4, 3, 2):
                check_calls(work[i], expected[i], threads)
        except BaseException:
            failures.append(traceback.format_exc())

    callers = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not failures, failures[0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_child_of_a_fork_has_threads_of_its_own() -> None:
    inputs = inputs_for(1, 300_000)
    expected = expected_for(inputs)
    check_calls(inputs, expected, 3)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            check_calls(inputs, expected, 3)
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    check_calls(inputs, expected, 3)


@pytest.fixture
def flush_to_zero() -> object:
    """A process in which some library has switched denormals off (as -ffast-math libraries do)."""
    ctypes = pytest.importorskip("ctypes")
    libc = ctypes.CDLL(None)
    environment = (ctypes.c_uint32 * 8)()
    if os.uname().machine != "x86_64" or libc.fegetenv(environment) != 0:
        pytest.skip("the layout of fenv_t is known here for x86-64 glibc only")
    before = environment[7]
    environment[7] = before | 0x8040  # MXCSR: flush to zero, denormals are zero
    libc.fesetenv(environment)
    yield environment
    environment[7] = before
    libc.fesetenv(environment)


@pytest.mark.parametrize("threads", [1, 3])
def test_denormals_are_kept(flush_to_zero: object, threads: int) -> None:
    tiny = np.full(300_000, 3, np.uint64).view(np.float64)
    assert (tiny[:4] * 1.0 == 0).all()  # the mode is on: numpy sees zeros
    for level in dispatch.levels_available():
        _native.use_level(level)
        out = np.zeros_like(tiny)
        dispatch.weighted_mean([tiny, tiny], [1.0, 2.0], out, threads=threads)
        assert (out.view(np.uint64) == 3).all()
    assert (tiny[:4] * 1.0 == 0).all()  # and left as it was
