"""Settings that depend on a tensor's name: which value holds for which tensor, as mergekit's filters say it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from shoal.errors import ArgumentError, shown


@dataclass(frozen=True, slots=True)
class Cases:
    """The values of one setting.

    cases  (part of a name, value), in the order in which they are tried: the first part that occurs in a tensor's key
           holds for it; None occurs in every key
    """

    cases: tuple[tuple[str | None, float], ...]

    @classmethod
    def always(cls, value: float) -> Cases:
        return cls(((None, value),))

    def of(self, key: str, what: str) -> float:
        """The value for a tensor; ArgumentError ``merge.by_name`` if no case holds for it."""
        for part, value in self.cases:
            if part is None or part in key:
                return value
        raise ArgumentError(
            "merge.by_name", f"tensor {shown(key)}: no filter of {what} fits it; expected a last value without a filter"
        )


@dataclass(frozen=True, slots=True)
class Settings:
    """What holds for one tensor, or for several: weights of the models (None: as elsewhere), parameters of the rule."""

    weights: tuple[float, ...] | None
    parameters: tuple[tuple[str, float | tuple[float, ...]], ...]


@dataclass(frozen=True, slots=True)
class ByName:
    """Settings by name.

    weights     cases for each model; None: the weights do not depend on names
    parameters  of the rule: cases, or cases for each model
    """

    weights: tuple[Cases, ...] | None = None
    parameters: Mapping[str, Cases | tuple[Cases, ...]] = field(default_factory=dict)

    def of(self, key: str) -> Settings:
        """What holds for a tensor.

        raises  ArgumentError  if a setting has no value for it
        """
        weights = None if self.weights is None else tuple(cases.of(key, "weight") for cases in self.weights)
        found = (
            (name, cases.of(key, name) if isinstance(cases, Cases) else tuple(each.of(key, name) for each in cases))
            for name, cases in sorted(self.parameters.items())
        )
        return Settings(weights, tuple(found))

    def groups(self, keys: Iterable[str]) -> dict[Settings, list[str]]:
        """The keys, put together by what holds for them."""
        found: dict[Settings, list[str]] = {}
        for key in keys:
            found.setdefault(self.of(key), []).append(key)
        return found
