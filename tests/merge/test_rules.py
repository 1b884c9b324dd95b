"""The table of rules, its parameters, and the options of a merge."""

from __future__ import annotations

import math

import pytest

from shoal.errors import ArgumentError
from shoal.limits import MODELS_MAX
from shoal.merge import rules
from shoal.merge.options import MergeOptions, check_weights, plan
from shoal.merge.outer import OUTERS, find_outer


def test_every_rule_is_found_by_its_name_and_aliases() -> None:
    for rule in rules.TABLE:
        for name in (rule.name, *rule.aliases, rule.name.replace("-", "_"), rule.name.upper()):
            assert rules.find(name) is rule


def test_names_that_users_of_others_know() -> None:
    for theirs, ours in {
        "coordmedian": "median",
        "geomedian": "geometric-median",
        "linear": "mean",
        "task_arithmetic": "task-arithmetic",
        "dare_linear": "dare",
        "dare_ties": "dare-ties",
    }.items():
        assert rules.find(theirs).name == ours


def test_every_rule_says_what_it_is() -> None:
    for rule in rules.TABLE:
        assert rule.summary and rule.source and rule.build.__doc__
        assert "source" in rule.build.__doc__


def test_a_parameter_of_a_rule_and_of_an_optimiser_never_share_a_name() -> None:
    of_rules = {p.name for rule in rules.TABLE for p in rule.parameters}
    of_outers = {p.name for kind in OUTERS for p in kind.parameters}
    assert not of_rules & of_outers


def test_defaults_are_in_their_own_range() -> None:
    for owner in (*rules.TABLE, *OUTERS):
        for p in owner.parameters:
            if p.default is not None:
                assert p.check(p.default, owner.name) == p.default


@pytest.mark.parametrize("value", ["x", None.__class__, True, math.nan, math.inf, -0.1, 0.6, [0.2]])
def test_bad_parameters_are_refused_by_name(value: object) -> None:
    with pytest.raises(ArgumentError, match="beta") as caught:
        plan(MergeOptions(method="trimmed-mean", parameters={"beta": value}), 5, False)
    assert caught.value.code == "rule.parameter"


def test_a_whole_number_must_be_whole() -> None:
    seed = rules.find("dare").parameters[2]
    assert seed.check("7", "dare") == 7
    assert seed.check(7.0, "dare") == 7
    with pytest.raises(ArgumentError):
        seed.check(7.5, "dare")


def test_density_zero_is_refused() -> None:
    with pytest.raises(ArgumentError, match="above 0"):
        plan(MergeOptions(method="ties", parameters={"density": 0.0}), 2, True)


def test_parameters_of_another_rule_are_refused() -> None:
    with pytest.raises(ArgumentError, match="'density' is no parameter of mean"):
        plan(MergeOptions(parameters={"density": 0.5}), 2, False)


def test_unknown_names() -> None:
    with pytest.raises(ArgumentError, match="no rule is called 'nonsense'"):
        rules.find("nonsense")
    with pytest.raises(ArgumentError, match="no outer optimiser is called"):
        find_outer("nonsense", {})
    assert find_outer("FedAdam", {}).kind.name == "adam"


@pytest.mark.parametrize(
    "weights",
    [[1.0], [1.0, 2.0, 3.0], [1.0, -1.0], [0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0], ["1", 2.0], [True, 1.0], "12"],
)
def test_weights_that_cannot_be(weights: list[float]) -> None:
    with pytest.raises(ArgumentError) as caught:
        check_weights(weights, 2)
    assert caught.value.code == "merge.weights"


def test_weights_of_any_size_are_taken() -> None:
    assert check_weights([1e-320, 1e308], 2) == (1e-320, 1e308)
    checked = plan(MergeOptions(weights=[0, 3, 0, 5]), 4, False)
    assert checked.places == (1, 3)
    assert checked.weights == (3.0, 5.0)


def test_rules_that_need_more_say_so() -> None:
    for options, models, base, words in [
        (MergeOptions(method="ties"), 3, False, "needs the base model"),
        (MergeOptions(outer="adam"), 3, False, "needs the base model"),
        (MergeOptions(method="slerp"), 3, False, "3 models that count; expected 2"),
        (MergeOptions(method="bulyan"), 2, False, "2 models that count"),
        (MergeOptions(method="krum", weights=[1, 2]), 2, False, "counts all models the same"),
        (MergeOptions(), 0, False, "0 models"),
        (MergeOptions(), MODELS_MAX + 1, False, "models given"),
        (MergeOptions(integers="min"), 1, False, "integers is 'min'"),  # type: ignore[arg-type]
        (MergeOptions(nonfinite="no"), 1, False, "nonfinite is 'no'"),  # type: ignore[arg-type]
        (MergeOptions(threads=-1), 1, False, "threads is -1"),
    ]:
        with pytest.raises(ArgumentError, match=words):
            plan(options, models, base)


def test_exclude_wins_over_include() -> None:
    options = MergeOptions(include=("head.*",), exclude=("*.bias",))
    assert options.selects("head.weight")
    assert not options.selects("head.bias")
    assert not options.selects("body.weight")
