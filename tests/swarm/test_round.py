"""A round in the clear, from diffs to one certified model, whoever falls out on the way."""

from __future__ import annotations

import numpy as np
import pytest
from round_table import Member, RoundTable

from shoal.limits import CHUNK_BYTES
from shoal.merge.library import merge
from shoal.swarm.coder import ExactCoder


def diffs(n: int, elements: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(elements).astype(np.float32) for _ in range(n)]


def table(n: int, elements: int = 1000, rule: str = "mean", seed: int = 0, lose: float = 0.0, **settings) -> RoundTable:
    weights = [100 + 7 * i for i in range(n)]
    coder = ExactCoder(elements, n, weights, rule, settings)
    return RoundTable(diffs(n, elements, seed), lambda _plan, _rid: coder, n, seed, lose)


def agree(t: RoundTable, survivors: list[int], rule: str = "mean") -> None:
    """All that live have the merge of the survivors' diffs, bit for bit, and the certificate names it."""
    inputs = [t.members[t.ids[p]].round.state.diff for p in survivors]
    expected = merge(inputs, weights=[100 + 7 * p for p in survivors], method=rule)
    for who, member in t.members.items():
        if who not in t.dead:
            assert member.merged is not None and np.array_equal(member.merged, expected)
            assert member.round.state.model == t.certified


@pytest.mark.parametrize("n", [2, 3, 5, 8])
@pytest.mark.parametrize("elements", [1, 63, 1000, CHUNK_BYTES])
def test_everybody_gets_the_mean(n: int, elements: int) -> None:
    t = table(n, elements)
    t.run()
    agree(t, list(range(n)))
    assert not t.refused


@pytest.mark.parametrize("rule", ["median", "trimmed-mean"])
def test_any_rule_that_looks_at_coordinates(rule: str) -> None:
    t = table(5, 777, rule)
    t.run()
    agree(t, list(range(5)), rule)


@pytest.mark.parametrize("seed", range(10))
def test_lost_messages_cost_time_only(seed: int) -> None:
    t = table(5, CHUNK_BYTES // 2, seed=seed, lose=0.3)
    t.run(1000)
    assert set(t.log) >= {"ModelCertificate by " + t.log[-1][-1]}
    survivors = sorted(t.attempt.survivors)
    assert len(survivors) >= t.attempt.floor
    agree(t, survivors)


@pytest.mark.parametrize("victim", range(4))
@pytest.mark.parametrize("stage", ["Masked", "Receipt", "SurvivorCertificate", "Shard"])
def test_one_of_four_dies_and_the_round_goes_on(victim: int, stage: str) -> None:
    """At any stage, the leader (who coordinates) and owners too."""
    t = table(4, 5000)
    who = t.ids[victim]
    append = t._append

    def dying(member, action):
        append(member, action)
        if t.log and t.log[-1].startswith(stage):
            t.dead.add(who)

    t._append = dying
    t.run(2000)
    assert who in t.dead
    if t.aborted:
        # What it uploaded of its own shard went nowhere: nobody can sum it now, and nobody does.
        assert victim in t.attempt.survivors
        assert all(member.merged is None for member in t.members.values())
    else:
        agree(t, sorted(t.attempt.survivors))


def test_too_few_uploads_end_in_an_abort_that_keeps_the_updates() -> None:
    t = table(5, 100)
    t.dead |= set(t.ids[:2])
    t.builder.elect(t.builder.people[t.ids[4]])
    t.run(2000)
    assert t.aborted and all(m.merged is None for m in t.members.values())


def test_a_participant_with_nan_sits_the_round_out() -> None:
    t = table(4, 100)
    t.members[t.ids[1]].round.state.diff[7] = np.nan
    t.run(2000)
    assert "element 7" in t.members[t.ids[1]].round.state.sits_out
    assert sorted(t.attempt.survivors) == [0, 2, 3]


def test_an_owner_that_comes_back_with_another_update_does_not_mix_the_two() -> None:
    """Its first upload counts for the other shards; of its own shard that one is lost, and the other must not enter."""
    t = table(4, 5000)
    who = t.ids[1]
    append = t._append

    def restarting(member, action):
        append(member, action)
        if t.log[-1].startswith("SurvivorCertificate"):
            state = t.members[who].round.state
            t.members[who] = Member(t, who, state.coder, diffs(4, 5000, 99)[0], None)

    t._append = restarting
    t.run(2000)
    assert t.aborted and all(member.merged is None for member in t.members.values())
