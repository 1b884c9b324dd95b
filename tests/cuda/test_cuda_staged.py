"""Host arrays through a device's memory, tile by tile: the CPU's bits whatever the tiles, and no memory is an error."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from sample_arrays import NAMES, bits_of, sample

from shoal.errors import ArgumentError, MachineError
from shoal.kernels import _cuda_host, dispatch
from shoal.kernels.cuda_staged import Staged

TILE = 2**17


@pytest.fixture
def little_memory() -> Iterator[None]:
    yield
    _cuda_host.limit_memory(2**63)


@pytest.mark.parametrize("name", NAMES)
def test_staged_results_are_the_cpus(name: str) -> None:
    staged = Staged(_cuda_host, -1, TILE)
    dtype = NAMES[name]
    most = TILE // 4 // dtype.itemsize
    for length in (0, 1, most - 1, most, most + 1, 5 * most + 3):
        rng = np.random.default_rng(length)
        inputs = [sample(rng, dtype, length, "plain") for _ in range(3)]
        out, expected = np.empty_like(inputs[0]), np.empty_like(inputs[0])
        for weights in (None, [3.0, 1.0, 2.0]):
            assert staged.median(inputs, weights, out) and dispatch.median(inputs, weights, expected)
            assert np.array_equal(bits_of(out), bits_of(expected))
            assert staged.trimmed_mean(inputs, weights, 1, out)
            assert dispatch.trimmed_mean(inputs, weights, 1, expected)
            assert np.array_equal(bits_of(out), bits_of(expected))
        assert staged.weighted_mean(inputs, [3, 1, 2], out) and dispatch.weighted_mean(inputs, [3, 1, 2], expected)
        assert np.array_equal(bits_of(out), bits_of(expected))
        assert staged.weighted_mean(inputs, [3, 1, 2], inputs[1]), "over an input"
        assert np.array_equal(bits_of(inputs[1]), bits_of(expected))


def test_staged_calls_tell_what_is_not_finite() -> None:
    staged = Staged(_cuda_host, -1, TILE)
    inputs = [np.ones(100_000, np.float32) for _ in range(2)]
    out = np.empty_like(inputs[0])
    for place in (0, 70_000, 99_999):
        inputs[1][place] = np.inf
        assert not staged.weighted_mean(inputs, [1, 1], out)
        assert not staged.median(inputs, None, out)
        inputs[1][place] = 1
    assert staged.weighted_mean(inputs, [1, 1], out)


def test_little_memory_makes_smaller_tiles(little_memory: None) -> None:
    _cuda_host.limit_memory(300_000)
    staged = Staged(_cuda_host, -1, 2**24)
    inputs = [sample(np.random.default_rng(i), np.dtype(np.float32), 500_001, "plain") for i in range(4)]
    out, expected = np.empty_like(inputs[0]), np.empty_like(inputs[0])
    assert staged.weighted_mean(inputs, [1, 2, 3, 4], out)
    assert staged.pipeline.tile_bytes == 2**17, "two slots of it and their flags are below the limit, of 2**18 not"
    dispatch.weighted_mean(inputs, [1, 2, 3, 4], expected)
    assert np.array_equal(bits_of(out), bits_of(expected))


def test_no_memory_is_an_error_of_the_machine(little_memory: None) -> None:
    _cuda_host.limit_memory(1000)
    staged = Staged(_cuda_host, -1, 2**24)
    inputs = [np.ones(100, np.float32)] * 2
    out = np.full(100, 7, np.float32)
    with pytest.raises(MachineError) as raised:
        staged.weighted_mean(inputs, [1, 1], out)
    assert raised.value.code == "device.memory"
    assert (out == 7).all()
    _cuda_host.limit_memory(2**63)
    assert staged.weighted_mean(inputs, [1, 1], out) and (out == 1).all(), "the next call starts afresh"


def test_staged_arguments_are_checked() -> None:
    staged = Staged(_cuda_host, -1, TILE)
    x = np.ones(10, np.float32)
    bad = [
        (lambda: staged.median([x] * 33, None, x.copy()), "inputs.count"),
        (lambda: staged.weighted_mean([x] * 129, [1] * 129, x.copy()), "inputs.count"),
        (lambda: staged.trimmed_mean([x] * 4, None, 2, x.copy()), "trim.value"),
        (lambda: staged.weighted_mean([x, x[1:]], [1, 1], x.copy()), "array.length"),
        (lambda: staged.weighted_mean([x, x], [1, 0], x.copy()), "weights.value"),
        (lambda: staged.weighted_mean([x[:9], x[:9]], [1, 1], x[1:]), "array.overlap"),
    ]
    for call, code in bad:
        with pytest.raises(ArgumentError) as raised:
            call()
        assert raised.value.code == code
