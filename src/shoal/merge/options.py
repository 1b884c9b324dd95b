"""What a caller may ask of a merge, checked before anything is read."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from shoal.errors import ArgumentError
from shoal.limits import CUDA_MEAN_MODELS_MAX, CUDA_ORDER_MODELS_MAX, MODELS_MAX
from shoal.merge.by_name import ByName
from shoal.merge.outer import Outer, find_outer
from shoal.merge.rules import Rule, canonical, find, shown
from shoal.model.layout import selects

Integers = Literal["require-equal", "first", "max"]
Nonfinite = Literal["refuse", "allow"]
Quantised = Literal["refuse", "merge"]
#: rules with CUDA kernels, and how many models each takes there
ON_DEVICE: Final = {
    "mean": CUDA_MEAN_MODELS_MAX,
    "median": CUDA_ORDER_MODELS_MAX,
    "trimmed-mean": CUDA_ORDER_MODELS_MAX,
}
#: (bytes read so far, bytes to read); called from any thread, never from two at once
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class MergeOptions:
    """How to merge.

    weights     one number per model, finite, >= 0, positive sum; None: all count the same
    method      name of a rule (`shoal.rules()`)
    outer       name of an outer optimiser, or None: the merged model is the result
    include     globs (fnmatch, case-sensitive) on tensors' keys; empty: all
    exclude     globs; wins over include.  An excluded tensor keeps the first model's value
    integers    whole numbers that differ: refuse, take the first model's, or the largest of each element
    nonfinite   NaN and Inf in a model that counts: refuse, or let them through
    threads     0: SHOAL_THREADS or all cores
    progress    called with (bytes read, bytes to read)
    parameters  of the rule and of the outer optimiser, by name
    quantised   weights of DequantizeLinear that differ: refuse (whole numbers: as ``integers`` says), or merge the
                numbers that they stand for, and quantise the result (docs/FORMAT.md, "Quantised weights")
    by_name     weights and parameters that depend on the tensor's name, in the place of the ones above
    device      "cpu" or "cuda"; the bits are the same.  A device works for rules that have kernels there (`ON_DEVICE`)
    """

    weights: Sequence[float] | None = None
    method: str = "mean"
    outer: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    integers: Integers = "require-equal"
    nonfinite: Nonfinite = "refuse"
    threads: int = 0
    progress: Progress | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)
    quantised: Quantised = "refuse"
    by_name: ByName | None = None
    device: str = "cpu"

    def selects(self, key: str) -> bool:
        """True if a tensor of that key is merged; False if it keeps the first model's value."""
        return selects(key, self.include, self.exclude)


@dataclass(frozen=True, slots=True)
class Plan:
    """Options that have been checked against the number of models.

    places      the models that count (weight above 0), places in the caller's list, ascending
    weights     their weights, or None if none were given
    rule, settings     the rule and its complete parameters (of those with a value for each model: models that count)
    outer              the optimiser with its complete parameters, or None
    """

    options: MergeOptions
    models: int
    places: tuple[int, ...]
    weights: tuple[float, ...] | None
    rule: Rule
    settings: Mapping[str, Any]
    outer: Outer | None

    @property
    def refuse_nonfinite(self) -> bool:
        return self.options.nonfinite == "refuse"


def plan(options: MergeOptions, models: int, has_base: bool) -> Plan:
    """Check the options for a merge of so many models.

    raises  ArgumentError  naming the option, what was found, what was expected
    """
    _check_words(options)
    _check_by_name(options)
    if not 1 <= models <= MODELS_MAX:
        raise ArgumentError("merge.models", f"{models} models given; expected 1 to {MODELS_MAX}")
    rule = find(options.method)
    outer = None if options.outer is None else find_outer(options.outer, options.parameters)
    known = {p.name for p in rule.parameters} | ({p.name for p in outer.kind.parameters} if outer else set())
    for name in options.parameters:
        if name not in known:
            raise ArgumentError(
                "rule.parameter",
                f"{shown(name)} is no parameter of {rule.name}{f' or {outer.kind.name}' if outer else ''}; expected "
                f"{', '.join(sorted(known)) or 'none'}",
            )
    weights = None if options.weights is None else check_weights(options.weights, models)
    places = tuple(i for i in range(models) if weights is None or weights[i] > 0)
    used = None if weights is None else tuple(weights[i] for i in places)
    if rule.weights == "none" and used is not None and len(set(used)) > 1:
        raise ArgumentError(
            "merge.weights",
            f"the rule {rule.name} counts all models the same; expected no weights, or only equal ones and 0",
        )
    if options.device != "cpu":
        _check_device(options.device, rule, len(places))
    low, high = rule.models
    if not low <= len(places) <= high:
        wanted = f"{low}" if low == high else f"{low} to {high}"
        raise ArgumentError(
            "rule.models", f"the rule {rule.name} got {len(places)} models that count; expected {wanted}"
        )
    if (rule.needs_base or outer) and not has_base:
        who = f"the rule {rule.name}" if rule.needs_base else f"the outer optimiser {options.outer}"
        raise ArgumentError("merge.base", f"{who} needs the base model that all were trained from; none was given")
    settings = {
        name: _of_places(name, value, models, places) if isinstance(value, tuple) else value
        for name, value in rule.settings(options.parameters).items()
    }
    return Plan(options, models, places, used, rule, settings, outer)


def _check_device(device: str, rule: Rule, count: int) -> None:
    if device != "cuda":
        raise ArgumentError("device.unknown", f"device is {shown(device)}; expected cpu or cuda")
    if rule.name not in ON_DEVICE:
        raise ArgumentError(
            "device.rule", f"the rule {rule.name} has no CUDA kernels; expected one of {', '.join(ON_DEVICE)}, or cpu"
        )
    if count > ON_DEVICE[rule.name]:
        raise ArgumentError(
            "device.models",
            f"the rule {rule.name} got {count} models; a device takes {ON_DEVICE[rule.name]}: expected fewer, or cpu",
        )


def _of_places(name: str, values: tuple[Any, ...], models: int, places: tuple[int, ...]) -> tuple[Any, ...]:
    """A parameter's values for the models that count."""
    if len(values) != models:
        raise ArgumentError(
            "rule.parameter", f"{name}: {len(values)} values given for {models} models; expected one, or one for each"
        )
    return tuple(values[place] for place in places)


def _check_by_name(options: MergeOptions) -> None:
    if options.by_name is None:
        return
    rule = find(options.method)
    if rule.scope == "model":
        raise ArgumentError(
            "merge.by_name", f"the rule {rule.name} looks at whole models; its settings cannot depend on tensors' names"
        )
    if options.quantised == "merge":
        raise ArgumentError("merge.by_name", "quantised=merge does not go with settings that depend on tensors' names")


def _check_words(options: MergeOptions) -> None:
    for name, value, words in (
        ("integers", options.integers, get_args(Integers)),
        ("nonfinite", options.nonfinite, get_args(Nonfinite)),
        ("quantised", options.quantised, get_args(Quantised)),
    ):
        if value not in words:
            raise ArgumentError("merge.option", f"{name} is {shown(value)}; expected one of {', '.join(words)}")
    for name, globs in (("include", options.include), ("exclude", options.exclude)):
        if isinstance(globs, str) or not all(isinstance(glob, str) for glob in globs):
            raise ArgumentError("merge.option", f"{name} is {shown(globs)}; expected a list of globs")
    if isinstance(options.threads, bool) or not isinstance(options.threads, int) or options.threads < 0:
        raise ArgumentError("merge.option", f"threads is {shown(options.threads)}; expected 0 or more")


def check_weights(weights: Iterable[float], models: int) -> tuple[float, ...]:
    """The weights as float64, one for each model.

    raises  ArgumentError  if the count is wrong, or one is not a finite number >= 0, or all are 0
    """
    if isinstance(weights, str | bytes):
        raise ArgumentError("merge.weights", f"weights are {shown(weights)}; expected a list of numbers")
    given = list(weights)
    if len(given) != models:
        raise ArgumentError("merge.weights", f"{len(given)} weights given for {models} models; expected one for each")
    found = []
    for i, weight in enumerate(given):
        number = _number(weight)
        if not (math.isfinite(number) and number >= 0):
            raise ArgumentError(
                "merge.weights", f"weight of model {i + 1} is {shown(weight)}; expected a finite number, 0 or more"
            )
        found.append(number)
    if not any(found):
        raise ArgumentError("merge.weights", "all weights are 0; expected at least one above 0")
    return tuple(found)


def _number(weight: object) -> float:
    """The weight as a float; NaN for what is no number."""
    item = getattr(weight, "item", None)
    value = item() if callable(item) and getattr(weight, "size", 1) == 1 else weight
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


__all__ = [
    "Integers",
    "MergeOptions",
    "Nonfinite",
    "Plan",
    "Progress",
    "Quantised",
    "canonical",
    "check_weights",
    "plan",
]
