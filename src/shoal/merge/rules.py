"""The table of rules: every way to merge, with its parameters, in one place."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from shoal.errors import ArgumentError
from shoal.errors import shown as shown_text
from shoal.limits import MODELS_MAX
from shoal.merge import average, distance, finetune
from shoal.merge.tile import Combine, Run


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a rule or of an outer optimiser.

    name      as the keyword of `shoal.merge` and of ``--set name=value``
    kind      int or float
    default   None: the rule works it out
    low, high   range, both ends allowed; above: the low end itself is not
    doc       one line for people
    each      may also be a list: one value for each model
    """

    name: str
    kind: type[int] | type[float]
    default: float | int | None
    low: float
    high: float
    doc: str
    above: bool = False
    each: bool = False

    def check(self, value: object, owner: str) -> float | int | tuple[float | int, ...]:
        """The value in its type; of a list (or text with commas), a tuple.

        raises  ArgumentError  if it is not a number of the type and range
        """
        parts = value.split(",") if isinstance(value, str) and "," in value else value
        if self.each and isinstance(parts, list | tuple) and parts:
            return tuple(self._check_one(part, owner) for part in parts)
        return self._check_one(value, owner)

    def _check_one(self, value: object, owner: str) -> float | int:
        found = self._number(value)
        inside = found is not None and math.isfinite(found) and self.low <= found <= self.high
        if found is None or not inside or (self.above and found == self.low):
            kind = "a whole number" if self.kind is int else "a number"
            low = f"{'above' if self.above else 'from'} {self.low:g}"
            high = "" if math.isinf(self.high) else f" to {self.high:.20g}"
            raise ArgumentError(
                "rule.parameter", f"{owner}: {self.name} is {shown(value)}; expected {kind} {low}{high}"
            )
        return found

    def _number(self, value: object) -> float | int | None:
        if isinstance(value, bool):
            return None
        try:
            if self.kind is int:
                whole = int(value)  # type: ignore[call-overload]
                return whole if isinstance(value, str) or whole == value else None
            return float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            return None


Weights = Literal["normalised", "as given", "none"]
Scope = Literal["coordinate", "tensor", "model"]


@dataclass(frozen=True, slots=True)
class Rule:
    """A row of the table.

    name        as in ``method=`` and ``--method``
    build       (run) -> Combine; measures what it needs, and says how to combine
    scope       what a result depends on: the values of its coordinate, its tensor (and place in it), or the whole model
    summary     one line for people
    source      the paper
    weights     "normalised": only their ratios count; "as given": they multiply; "none": all models count the same
    needs_base  cannot run without ``base=``
    models      smallest and largest number of models that count
    convex      the result lies between the smallest and the largest input, so it cannot overflow
    native      all the work is in kernels that have threads of their own
    passes      readings of all the data (for the progress bar; the geometric median and Krum may need one more)
    """

    name: str
    build: Callable[[Run], Combine]
    scope: Scope
    summary: str
    source: str
    parameters: tuple[Parameter, ...] = ()
    weights: Weights = "normalised"
    needs_base: bool = False
    models: tuple[int, int] = (1, MODELS_MAX)
    convex: bool = True
    native: bool = True
    passes: int = 1
    aliases: tuple[str, ...] = ()

    def settings(self, given: Mapping[str, object]) -> dict[str, Any]:
        """All parameters, checked, defaults filled in; names that are not this rule's are left out."""
        return checked(self.name, self.parameters, given)


def checked(owner: str, parameters: tuple[Parameter, ...], given: Mapping[str, object]) -> dict[str, Any]:
    """The values of `parameters`, from `given` or their defaults.

    raises  ArgumentError  if one is out of range
    """
    return {p.name: p.check(given[p.name], owner) if given.get(p.name) is not None else p.default for p in parameters}


_INF: Final = math.inf
_MALICIOUS: Final = Parameter("num_malicious_nodes", int, 0, 0, MODELS_MAX, "f: how many models may be bad")
_SCALING: Final = Parameter("scaling", float, 1.0, -_INF, _INF, "factor of the summed differences (lambda)")
_DENSITY: Final = Parameter(
    "density", float, 0.5, 0.0, 1.0, "share of each difference that is kept", above=True, each=True
)
_SEED: Final = Parameter("seed", int, 0, 0, 2**64 - 1, "of the random choice; the same seed gives the same bits")

TABLE: Final[tuple[Rule, ...]] = (
    Rule("mean", average.mean, "coordinate", "weighted mean", "McMahan et al. 2017", aliases=("linear", "fedavg")),
    Rule(
        "median", average.median, "coordinate", "weighted median of each coordinate", "Yin et al. 2018",
        aliases=("coordmedian",),
    ),
    Rule(
        "trimmed-mean", average.trimmed_mean, "coordinate", "mean without the extremes of each coordinate",
        "Yin et al. 2018",
        (Parameter("beta", float, 0.2, 0.0, 0.5, "share of models that is cut at each end"),),
    ),
    Rule(
        "geometric-median", distance.geometric_median, "model", "point nearest to all models", "Pillutla et al. 2022",
        (
            Parameter("max_iterations", int, 1000, 1, 10**6, "of Weiszfeld's algorithm"),
            Parameter("tolerance", float, 1e-9, 0.0, 1.0, "relative change of the coefficients that ends it"),
            Parameter("nu", float, 1e-6, 0.0, 1.0, "distances below nu * median distance count as that", above=True),
        ),
        passes=2, aliases=("geomedian", "rfa"),
    ),
    Rule(
        "krum", distance.krum, "model", "the one model nearest to its neighbours", "Blanchard et al. 2017",
        (_MALICIOUS,), weights="none", passes=2,
    ),
    Rule(
        "multi-krum", distance.multi_krum, "model", "mean of the models nearest to their neighbours",
        "Blanchard et al. 2017",
        (
            _MALICIOUS,
            Parameter("num_nodes_to_select", int, None, 1, MODELS_MAX, "how many models enter (not given: N - f)"),
        ),
        passes=2,
    ),
    Rule(
        "bulyan", distance.bulyan, "model", "Krum's choice, then a trimmed mean around the median",
        "El Mhamdi et al. 2018", (_MALICIOUS,), weights="none", models=(3, MODELS_MAX), passes=2,
    ),
    Rule(
        "slerp", finetune.slerp, "tensor", "interpolation on the sphere between two models", "Shoemake 1985",
        (Parameter("t", float, 0.5, 0.0, 1.0, "0: the first model, 1: the second"),),
        weights="none", models=(2, 2), convex=False, passes=2,
    ),
    Rule(
        "task-arithmetic", finetune.task_arithmetic, "coordinate", "base + scaled sum of differences",
        "Ilharco et al. 2023", (_SCALING,), weights="as given", needs_base=True, convex=False,
    ),
    Rule(
        "ties", finetune.ties, "tensor", "trim small differences, elect signs, merge", "Yadav et al. 2023",
        (_DENSITY, _SCALING), needs_base=True, convex=False, native=False, passes=4,
    ),
    Rule(
        "dare", finetune.dare, "tensor", "drop differences at random, rescale, add up", "Yu et al. 2024",
        (_DENSITY, _SCALING, _SEED), weights="as given", needs_base=True, convex=False, native=False,
        aliases=("dare-linear",),
    ),
    Rule(
        "dare-ties", finetune.dare_ties, "tensor", "drop differences at random, elect signs, merge", "Yu et al. 2024",
        (_DENSITY, _SCALING, _SEED), needs_base=True, convex=False, native=False,
    ),
)  # fmt: skip

_rules: dict[str, Rule] = {}


def canonical(name: str) -> str:
    """ "task_arithmetic" -> "task-arithmetic"."""
    return name.strip().lower().replace("_", "-")


def register(rule: Rule) -> None:
    """Add a rule under its name and aliases; a user's rule may be replaced, one of ours may not.

    raises  ArgumentError  if the name belongs to one of ours
    """
    for name in (rule.name, *rule.aliases):
        taken = _rules.get(name)
        if taken is not None and taken in TABLE:
            raise ArgumentError("rule.taken", f"a rule cannot be called {shown(name)}: that is one of Shoal's own")
    for name in (rule.name, *rule.aliases):
        _rules[name] = rule


for _rule in TABLE:
    register(_rule)


def rules() -> tuple[Rule, ...]:
    """All rules that ``method=`` takes, ours first, then the user's own; each with its parameters and source."""
    return (*TABLE, *(rule for rule in _rules.values() if rule not in TABLE))


def find(name: str) -> Rule:
    """The rule of that name or alias; ``_`` and ``-`` are the same.

    raises  ArgumentError  if there is none
    """
    rule = _rules.get(canonical(name)) if isinstance(name, str) else None
    if rule is None:
        known = ", ".join(rule.name for rule in rules())
        raise ArgumentError("rule.unknown", f"no rule is called {shown(name)}; expected one of {known}")
    return rule


def shown(value: object) -> str:
    """A caller's value as it may stand in a message."""
    return shown_text(repr(value))
