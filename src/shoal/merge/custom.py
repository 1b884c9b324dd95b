"""Rules that users write: one Python function of one coordinate, compiled to native code when it is first used."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any, TypeVar, overload

from shoal.errors import ArgumentError, MachineError, shown
from shoal.merge.rules import Rule, canonical, register
from shoal.merge.tile import Combine, Run, Tile

Function = TypeVar("Function", bound=Callable[..., float])


@overload
def rule(function: Function) -> Function: ...
@overload
def rule(function: None = None, *, name: str | None = None) -> Callable[[Function], Function]: ...
def rule(function: Any = None, *, name: str | None = None) -> Any:
    """Make a function of one coordinate a rule: ``method="trim-one"`` for a function called ``trim_one``.

    function  (values, weights) -> number, in the subset of Python that numba compiles.  ``values`` is float64[N], one
              number from each model that counts, in the caller's order; it may be changed.  ``weights`` is float64[N],
              as given, or ones; it must not be changed.
    name      another name than the function's
    returns   the function, unchanged
    raises    ArgumentError  if one of Shoal's own rules has the name

    It is compiled when it is first used (about a second), and then runs in native threads without the GIL.

        @shoal.rule
        def midrange(values, weights):
            return 0.5 * (values.min() + values.max())

        shoal.merge(models, method="midrange")
    """
    if function is None:
        return lambda found: rule(found, name=name)
    if not callable(function):
        raise ArgumentError("rule.function", f"a rule is a function, found {shown(type(function).__name__)}")
    text = (function.__doc__ or "").strip()
    summary = text.splitlines()[0] if text else "a rule of your own"
    called = canonical(name or function.__name__)
    register(Rule(called, _builder(function), "coordinate", summary, "user", convex=False))
    return function


def _builder(function: Callable[..., float]) -> Callable[[Run], Combine]:
    compiled: list[Any] = []

    def build(run: Run) -> Combine:
        if not compiled:
            # Here, not at the top: numba takes a quarter of a second to load, and most merges need none.
            from shoal.kernels.custom import compile_rule

            compiled.append(compile_rule(function))
        weights = run.weights or (1.0,) * run.count

        def apply(tile: Tile) -> bool:
            return bool(compiled[0].apply(tile.inputs, weights, tile.out, threads=tile.threads))

        return Combine(apply)

    return build


class _Fresh(SourceFileLoader):
    """Runs what the file says now: no compiled copy is read or left beside it."""

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002
        return self.source_to_code(self.get_data(self.path), self.path)


def load_rule_file(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Run a Python file of the user's own, and return the names of the rules that it registered with `@shoal.rule`.

    This runs the file's code, with all that it does.  Only ever pass files that the user has written or read.

    raises  MachineError   if the file cannot be read
            ArgumentError  if it fails, or registers no rule
    """
    from shoal.merge import rules

    place = Path(path)
    before = dict(rules._rules)
    name = f"shoal_rules_{place.stem}"
    loader = _Fresh(name, str(place))
    spec = importlib.util.spec_from_file_location(name, place, loader=loader)
    assert spec is not None
    try:
        loader.exec_module(importlib.util.module_from_spec(spec))
    except OSError as error:
        raise MachineError("rule.file", f"{shown(str(place))}: {error.strerror or error}") from error
    except (Exception, SystemExit) as error:
        raise ArgumentError("rule.file", f"{shown(str(place))}: {type(error).__name__}: {shown(str(error))}") from error
    found = tuple(rule.name for name, rule in rules._rules.items() if before.get(name) is not rule)
    if not found:
        raise ArgumentError("rule.file", f"{shown(str(place))}: no function in it is marked with @shoal.rule")
    return found
