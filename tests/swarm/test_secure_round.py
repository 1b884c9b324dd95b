"""A secure round, from diffs to one certified model: masked all the way, exact in the end, whoever falls out."""

from __future__ import annotations

import numpy as np
import pytest
from round_table import RoundTable

from shoal.diff.grid import Grid
from shoal.swarm.core import Patience
from shoal.swarm.ring_coder import RingCoder, first_scales

ELEMENTS = 5000


def table(n: int, elements: int = ELEMENTS, seed: int = 0, lose: float = 0.0) -> RoundTable:
    rng = np.random.default_rng(seed)
    diffs = [rng.standard_normal(elements).astype(np.float32) for _ in range(n)]
    scales = first_scales(Grid.of(elements))
    return RoundTable(diffs, lambda plan, rid: RingCoder(plan, rid, scales), n + 1, seed, lose, secure=True)


def agree(t: RoundTable) -> list[int]:
    """All that live have the same model, the certified one: the weighted mean of the survivors, to the coding's step."""
    survivors = sorted(t.attempt.survivors)
    weights = np.array([t.attempt.plan.participants[p].samples for p in survivors], float)
    diffs = np.stack([t.members[t.ids[p]].round.state.diff for p in survivors]).astype(float)
    mean = (weights[:, None] * diffs).sum(0) / weights.sum()
    alive = [m for who, m in t.members.items() if who not in t.dead]
    for member in alive:
        assert member.merged is not None and np.array_equal(member.merged, alive[0].merged)
        assert member.round.state.model == t.certified
    step = 16.0 / ((2**15 - 1) // len(t.ids))
    assert np.abs(alive[0].merged - mean).max() < 6 * step
    return survivors


@pytest.mark.parametrize("n", [3, 4, 7])
def test_everybody_gets_the_weighted_mean(n: int) -> None:
    t = table(n)
    t.run(600)
    assert agree(t) == list(range(n))
    assert not any(m.round.state.unchecked for m in t.members.values())
    assert len(t.attempt.checks) == n and len(t.attempt.nonces) == n
    assert t.refused == []


def test_no_upload_shows_what_is_in_it() -> None:
    """Words of an upload are uniform, and no chunk holds 16 bytes of the diff."""
    t = table(4, 2**16)
    t.run(600)
    agree(t)
    own = t.members[t.ids[0]].round.state.own
    counts = np.bincount(own.data, minlength=256)
    assert ((counts - own.data.size / 256) ** 2 / (own.data.size / 256)).sum() < 350
    plain = t.members[t.ids[0]].round.state.diff.tobytes()
    assert not any(plain[i : i + 16] in own.data.tobytes() for i in range(0, 4096, 16))


@pytest.mark.parametrize("seed", range(6))
def test_lost_messages_cost_time_only(seed: int) -> None:
    t = table(5, seed=seed, lose=0.25)
    t.run(3000)
    agree(t)


STAGES = ["RoundPlan", "Share", "ShareSet", "Masked", "Receipt", "SurvivorCertificate", "Shard", "Nonce", "Check"]


@pytest.mark.parametrize("victim", range(4))
@pytest.mark.parametrize("stage", STAGES)
def test_one_of_four_dies_and_the_round_goes_on(victim: int, stage: str) -> None:
    t = table(4)
    who = t.ids[victim]
    if stage == "RoundPlan":
        t.dead.add(who)
    append = t._append

    def dying(member, action):
        append(member, action)
        if t.log and t.log[-1].startswith(stage + " "):
            t.dead.add(who)

    t._append = dying
    t.run(4000)
    assert who in t.dead
    if t.aborted:
        # What it uploaded of the shards that it owns went nowhere.
        assert victim in (t.attempt.survivors or ()) or len(t.attempt.shares) < 3
        assert all(member.merged is None for member in t.members.values())
    else:
        agree(t)


def test_an_owner_that_adds_wrongly_gets_no_votes() -> None:
    t = table(4)
    liar = t.members[t.ids[1]].round.state
    reduce = liar.coder.reduce

    def wrong(shard, uploads, streams):
        found = reduce(shard, uploads, streams)
        if shard < 4:
            found[10] ^= 128
        return found

    liar.coder.reduce = wrong
    t.run(4000)
    assert t.aborted and any(entry.startswith("Complaint") for entry in t.log)
    assert all("vouch" in m.round.state.failure for m in t.members.values())


def test_sums_that_could_not_be_checked_are_said() -> None:
    """A survivor does not vouch: the round ends, and everybody knows what was not checked."""
    t = table(4)
    silent = t.members[t.ids[2]].round.state
    propose = silent.propose
    silent.propose = lambda key, body: None if key[0] == "check" else propose(key, body)
    t.run(4000)
    agree(t)
    for member in t.members.values():
        assert member.round.state.unchecked
        assert sum("are not checked" in note for note in member.round.state.notes) == 1


def test_a_participant_with_nan_sits_the_round_out() -> None:
    t = table(4)
    t.members[t.ids[1]].round.state.diff[7] = np.nan
    t.run(4000)
    assert agree(t) == [0, 2, 3]
    assert t.members[t.ids[1]].round.state.sits_out


@pytest.mark.parametrize("silent", [None, 0, 3])
def test_nodes_of_different_patience_have_one_challenge(silent: int | None) -> None:
    """Some wait for nonces long, some hardly: the first check in the ledger says which count."""
    t = table(5)
    for at, member in enumerate(t.members.values()):
        state = member.round.state
        state.patience = Patience(retry=1 + at % 3, grace=(2, 40, 9, 25, 3)[at], give_up=900)
    if silent is not None:
        state = t.members[t.ids[silent]].round.state
        propose = state.propose
        state.propose = lambda key, body: None if key == "nonce" else propose(key, body)
    t.run(4000)
    agree(t)
    assert t.attempt.nonces <= set(range(5)) - {silent} and len(t.attempt.nonces) > 1
    assert t.attempt.checks
