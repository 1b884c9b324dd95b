"""Policies that can be kept: a rule, its parameters, and how many members it needs."""

from __future__ import annotations

import pytest

from shoal.errors import ArgumentError
from shoal.ledger.body import Policy, Setting
from shoal.merge.rules import TABLE
from shoal.swarm.founding import policy_fault
from shoal.swarm.policy import outer_of, settings_of


def policy(rule: str, peers_min: int = 2, secure: bool = False, **given: object) -> Policy:
    return Policy(secure, rule, 1, peers_min, 1, settings_of(rule, "", given))


def test_every_rule_can_be_a_swarms() -> None:
    for rule in TABLE:
        assert (
            policy_fault(policy(rule.name, 3 if rule.name == "bulyan" else 2), 2 if rule.name == "slerp" else 5) == ""
        )


def test_settings_are_sorted_and_in_their_type() -> None:
    assert settings_of("ties", "", {"scaling": "0.5", "density": "0.25"}) == (
        Setting("density", 0.25),
        Setting("scaling", 0.5),
    )
    assert settings_of("multi_krum", "", {"num_nodes_to_select": "2"}) == (Setting("num_nodes_to_select", 2),)


@pytest.mark.parametrize(
    ("rule", "given", "said"),
    [
        ("krum", {"beta": 1}, "no parameter of krum"),
        ("dare", {"density": "0.1,0.2,0.3"}, "one value for all members"),
        ("trimmed-mean", {"beta": "0.9"}, "expected a number from 0 to 0.5"),
        ("nonsense", {}, "no rule is called"),
    ],
)
def test_settings_that_no_rule_has(rule: str, given: dict[str, object], said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        settings_of(rule, "", given)


@pytest.mark.parametrize(
    ("made", "members", "said"),
    [
        (policy("krum", 4, num_malicious_nodes=1), 5, "at least 5 models that count, found 3"),
        (policy("bulyan", 4), 7, ""),
        (policy("bulyan", 3, num_malicious_nodes=1), 7, "needs at least 7 models"),
        (policy("slerp"), 3, "got 3 models"),
        (policy("krum"), 101, "at most 100 members"),
        (policy("mean", 2, secure=True), 3, "expected at least 3"),
        (policy("median", 3, secure=True), 3, "in the clear"),
        (policy("mean", 6), 5, "5 first members"),
        (
            Policy(False, "mean", 1, 2, 1, (Setting("threads", 4),)),
            3,
            "'threads' is no parameter|threads is no parameter",
        ),
    ],
)
def test_policies_that_no_round_could_keep(made: Policy, members: int, said: str) -> None:
    found = policy_fault(made, members)
    assert any(part in found for part in said.split("|")) if said else found == ""


def test_an_outer_optimiser_with_its_settings() -> None:
    settings = settings_of("trimmed-mean", "adam", {"beta": 0.1, "eta": "0.5", "beta_1": 0.8})
    made = Policy(False, "trimmed-mean", 1, 2, 1, settings, outer="adam")
    assert policy_fault(made, 3) == ""
    outer = outer_of(made)
    assert outer.kind.name == "adam"
    assert outer.settings == {"eta": 0.5, "beta_1": 0.8, "beta_2": 0.99, "tau": 1e-3}
    assert outer_of(policy("mean")) is None
    with pytest.raises(ArgumentError, match="momentum is no parameter of mean or adam"):
        settings_of("mean", "adam", {"momentum": 0.5})
    assert "no outer optimiser is called" in policy_fault(Policy(False, "mean", 1, 2, 1, (), outer="sgdd"), 3)
