"""What a swarm's policy says about merging: the rule, the outer optimiser, and the settings of both."""

from __future__ import annotations

from collections.abc import Mapping

from shoal.errors import ArgumentError, shown
from shoal.ledger.body import Policy, Setting
from shoal.merge.outer import Outer, find_outer
from shoal.merge.rules import Parameter, Rule, find


def rule_of(policy: Policy) -> tuple[Rule, dict[str, int | float]]:
    """The rule, and those of its parameters that are not the defaults.

    raises  ArgumentError  ``rule.unknown``, ``rule.parameter``
    """
    rule = find(policy.rule)
    checked = _checked(policy.rule, policy.outer, policy.parameters)
    own = {parameter.name for parameter in rule.parameters}
    return rule, {name: value for name, value in checked.items() if name in own}


def outer_of(policy: Policy) -> Outer | None:
    """The optimiser with its complete parameters; None if there is none.

    raises  ArgumentError  ``outer.unknown``, ``rule.parameter``
    """
    checked = _checked(policy.rule, policy.outer, policy.parameters)
    return find_outer(policy.outer, checked) if policy.outer else None


def settings_of(rule: str, outer: str, given: Mapping[str, object]) -> tuple[Setting, ...]:
    """Parameters as a policy holds them.

    raises  ArgumentError  ``rule.parameter``: one is not the rule's or the optimiser's, is out of range, or is a list
                           with a value for each model: who takes part is not known
    """
    return tuple(Setting(name, value) for name, value in sorted(_checked(rule, outer, given).items()))


def _checked(rule: str, outer: str, given: Mapping[str, object]) -> dict[str, int | float]:
    known: dict[str, tuple[str, Parameter]] = {p.name: (rule, p) for p in find(rule).parameters}
    if outer:
        known |= {p.name: (outer, p) for p in find_outer(outer, {}).kind.parameters}
    who = f"{rule} or {outer}" if outer else rule
    found: dict[str, int | float] = {}
    for name, value in given.items():
        if name not in known:
            expected = ", ".join(sorted(known)) or "none"
            raise ArgumentError("rule.parameter", f"{shown(name)} is no parameter of {who}; expected {expected}")
        owner, parameter = known[name]
        number = parameter.check(value, owner)
        if isinstance(number, tuple):
            raise ArgumentError("rule.parameter", f"{owner}: {name} is a list; expected one value for all members")
        found[name] = number
    return found
