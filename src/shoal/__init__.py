"""Shoal: a merge engine for swarm learning.  This is the front door; everything behind it is loaded when first used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shoal.errors import ArgumentError, InputError, MachineError, PeerError, ShoalError

__version__ = "0.1.0"

_HOMES = {
    "ArgumentError": "shoal.errors",
    "InputError": "shoal.errors",
    "MachineError": "shoal.errors",
    "PeerError": "shoal.errors",
    "ShoalError": "shoal.errors",
}

__all__ = ["ArgumentError", "InputError", "MachineError", "PeerError", "ShoalError", "__version__"]


def __getattr__(name: str) -> Any:
    """Load a front-door name when it is first used: `import shoal` costs a millisecond, not numpy."""
    if name not in _HOMES:
        raise AttributeError(f"module 'shoal' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
