"""The arrays that are hard to get right are those of the CPU's kernels; every test of bits runs on host and device."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "kernels"))


@pytest.fixture(params=["host", "device"])
def target(request: pytest.FixtureRequest) -> None:
    """Chooses who computes for `device_kernels.KERNELS` and `CODING`."""
    import device_kernels

    from shoal.kernels.cuda import available

    if request.param == "host":
        device_kernels.use_host()
        return
    there, reason = available()
    if not there:
        pytest.skip(f"no CUDA device: {reason}")
    device_kernels.use_device()
