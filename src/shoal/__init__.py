"""Shoal: a merge engine for swarm learning.  This is the front door; everything behind it is loaded when first used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shoal.errors import ArgumentError, InputError, MachineError, PeerError, ShoalError
    from shoal.interval import Interval
    from shoal.merge.custom import load_rule_file, rule
    from shoal.merge.files import merge_files
    from shoal.merge.library import merge
    from shoal.merge.options import MergeOptions
    from shoal.merge.report import Report
    from shoal.merge.rules import rules
    from shoal.model.model import Model, load, save
    from shoal.swarm.site import join

__version__ = "0.1.0"

#: name -> module that has it.  `merge` is the package itself, which can be called (see there).
_HOMES = {
    "ArgumentError": "shoal.errors",
    "InputError": "shoal.errors",
    "Interval": "shoal.interval",
    "MachineError": "shoal.errors",
    "MergeOptions": "shoal.merge.options",
    "Model": "shoal.model.model",
    "PeerError": "shoal.errors",
    "Report": "shoal.merge.report",
    "ShoalError": "shoal.errors",
    "join": "shoal.swarm.site",
    "load": "shoal.model.model",
    "load_rule_file": "shoal.merge.custom",
    "merge_files": "shoal.merge.files",
    "rule": "shoal.merge.custom",
    "rules": "shoal.merge.rules",
    "save": "shoal.model.model",
}

__all__ = [
    "ArgumentError",
    "InputError",
    "Interval",
    "MachineError",
    "MergeOptions",
    "Model",
    "PeerError",
    "Report",
    "ShoalError",
    "__version__",
    "join",
    "load",
    "load_rule_file",
    "merge",
    "merge_files",
    "rule",
    "rules",
    "save",
]


def __getattr__(name: str) -> Any:
    """Load a front-door name when it is first used: `import shoal` costs a millisecond, not numpy."""
    import importlib

    if name == "merge":
        return importlib.import_module("shoal.merge")
    if name not in _HOMES:
        raise AttributeError(f"module 'shoal' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
