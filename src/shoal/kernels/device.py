"""Which devices can run kernels on this machine, and why not."""

from __future__ import annotations

from dataclasses import dataclass

from shoal.errors import MachineError


@dataclass(frozen=True)
class Device:
    """One CUDA device.

    capability  (major, minor)
    memory      bytes
    """

    index: int
    name: str
    capability: tuple[int, int]
    memory: int


def cuda_devices() -> tuple[list[Device], str]:
    """The CUDA devices of this machine, and if there are none, why (one clause for people)."""
    try:
        import shoal.kernels._cuda as native
    except ImportError:
        return [], "Shoal was built without CUDA (no nvcc was found; SHOAL_CUDA=1 makes the build insist)"
    found, error = native.devices()
    reason = f"the CUDA runtime answers {error}" if error else "the CUDA runtime finds no device"
    return [Device(*row) for row in found], "" if found else reason


def require(device: str) -> None:
    """Check that `device` ("cpu" or "cuda") can merge here.

    raises  MachineError("device.cuda") if it cannot, with the reason
    """
    if device == "cpu":
        return
    found, reason = cuda_devices()
    if not found:
        message = f"--device cuda cannot be used: {reason}; expected a CUDA device and its driver"
        raise MachineError("device.cuda", message)
