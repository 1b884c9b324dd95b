"""A machine without a GPU, or a build without CUDA, gives a clear answer and no crash."""

from __future__ import annotations

import sys

import pytest

from shoal.errors import MachineError
from shoal.kernels import device


def test_cpu_needs_nothing() -> None:
    device.require("cpu")


def test_missing_module_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shoal.kernels._cuda", None)
    found, reason = device.cuda_devices()
    assert found == []
    assert "without CUDA" in reason


def test_cuda_is_refused_with_its_reason() -> None:
    with pytest.raises(MachineError, match="--device cuda cannot be used: ") as caught:
        device.require("cuda")
    assert caught.value.code == "device.cuda"


def test_probe_gives_devices_or_a_reason() -> None:
    pytest.importorskip("shoal.kernels._cuda", reason="built without CUDA: no nvcc at build time")
    found, reason = device.cuda_devices()
    assert bool(found) != bool(reason)
    assert all(d.memory > 0 and d.capability >= (5, 0) for d in found)
