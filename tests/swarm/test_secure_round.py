"""A secure round, from diffs to one certified model: masked all the way, exact in the end, whoever falls out."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from round_table import RoundTable

from shoal.diff.grid import Grid
from shoal.ledger.body import Abort
from shoal.swarm.core import Patience
from shoal.swarm.messages import UPLOAD, Want
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


def dies_after(t: RoundTable, victim: int, stage: str) -> None:
    """It says nothing more once the first statement of that kind is in the ledger."""
    who = t.ids[victim]
    if stage == "RoundPlan":
        t.dead.add(who)
    append = t._append

    def dying(member, action):
        append(member, action)
        if t.log and t.log[-1].startswith(stage + " "):
            t.dead.add(who)

    t._append = dying


@pytest.mark.parametrize("victim", range(4))
@pytest.mark.parametrize("stage", STAGES)
def test_one_of_four_dies_and_the_round_goes_on(victim: int, stage: str) -> None:
    t = table(4)
    dies_after(t, victim, stage)
    t.run(4000)
    assert t.ids[victim] in t.dead
    agree(t)


def adds_wrongly(t: RoundTable, position: int) -> None:
    coder = t.members[t.ids[position]].round.state.coder
    reduce = coder.reduce

    def wrong(shard, uploads, streams):
        found = reduce(shard, uploads, streams)
        found[:1] ^= 128
        return found

    coder.reduce = wrong


def test_an_owner_that_adds_wrongly_gets_no_votes() -> None:
    t = table(4)
    adds_wrongly(t, 1)
    t.run(4000)
    assert t.aborted and any(entry.startswith("Complaint") for entry in t.log)
    assert all("vouch" in m.round.state.failure for m in t.members.values())


def falls_silent(t: RoundTable, position: int, *kinds: str) -> None:
    """It makes no statement of these kinds, and does the rest."""
    state = t.members[t.ids[position]].round.state
    propose = state.propose
    state.propose = lambda key, body: None if type(body).__name__ in kinds else propose(key, body)


@pytest.mark.parametrize("n", [4, 7])
@pytest.mark.parametrize("kinds", [("Check",), ("Nonce", "Check")])
def test_others_vouch_for_a_survivor_that_is_silent(n: int, kinds: tuple[str, ...]) -> None:
    """More than t for each shard; its owner and backup first, and of its own shard the backup and the next."""
    t = table(n)
    falls_silent(t, 2, *kinds)
    t.run(4000)
    assert agree(t) == list(range(n))
    tolerated = t.attempt.plan.thresholds.t
    for shard, who in enumerate(t.attempt.plan.shards):
        authors = {a for a, subject, part in t.attempt.checks if subject == 2 and part == shard + 1}
        assert len(authors) > tolerated and 2 not in authors
        assert authors >= {who.owner, who.backup} - {2}
    assert {s for a, s, _ in t.attempt.checks if a == s} == set(range(n)) - {2}


def test_an_owner_is_found_out_though_a_survivor_is_silent() -> None:
    t = table(4)
    adds_wrongly(t, 1)
    falls_silent(t, 2, "Nonce", "Check")
    t.run(4000)
    assert t.aborted and all(m.merged is None for m in t.members.values())


def test_one_who_vouches_wrongly_for_another_counts_for_nothing() -> None:
    """t + 1 must say the same: the next in line steps in."""
    t = table(4)
    falls_silent(t, 2, "Check")
    liar = t.members[t.ids[1]].round.state.coder
    vouched = liar.vouched_shard
    liar.vouched_shard = lambda *args: bytes(b ^ 1 for b in vouched(*args))
    t.run(4000)
    assert agree(t) == [0, 1, 2, 3]


def test_a_word_that_comes_late_and_wrong_is_overruled() -> None:
    """Others have vouched for the silent one; what it says then is not asked for any more."""
    t = table(4)
    state = t.members[t.ids[2]].round.state
    held, propose, append = [], state.propose, t._append

    def later(key, body):
        if type(body).__name__ == "Check":
            held.append(body)
        else:
            propose(key, body)

    def wrong_at_last(member, action):
        append(member, action)
        shards = {part for _, s, part in t.attempt.checks if s == 2}
        if len(shards) == len(t.attempt.plan.shards) and held and (2, 2, 0) not in t.attempt.checks:
            word = msgspec.structs.replace(held[0], values=bytes(len(held[0].values)))
            t.builder.say(word, t.builder.people[t.ids[2]])
            for other in t.members.values():
                other.round.decided(t.ids[2], word)

    state.propose, t._append = later, wrong_at_last
    t.run(4000)
    assert (2, 2, 0) in t.attempt.checks and agree(t) == [0, 1, 2, 3]
    assert not t.attempt.blamed


def test_an_upload_is_shown_to_others_once_it_is_certified() -> None:
    """By whoever has it, chunk by chunk; in the clear, and before the certificate, by its author alone."""
    t = table(4)
    answers: list[tuple[bool, str]] = []
    owner = t.members[t.ids[0]].round.state

    def asked(member, action, append=t._append):
        append(member, action)
        owner.actions, before = [], owner.actions
        owner.serve(t.ids[3], Want(owner.slot, UPLOAD, 1, ()))
        answers.append((owner.view.attempt.survivors is not None, type(owner.actions[0].said).__name__))
        owner.actions = before

    t._append = asked
    t.run(600)
    agree(t)
    assert {said for certified, said in answers if not certified} == {"Lacks"}
    assert answers[-1] == (True, "Offer")


def test_what_nobody_can_vouch_for_is_given_up() -> None:
    """A survivor dies, and the one who alone has its part of its own shard gives it to nobody."""
    t = table(4)
    dies_after(t, 2, "SurvivorCertificate")
    keeper = t.members[t.ids[t.attempt.plan.shards[2].backup]].round.state
    serve = keeper.serve
    keeper.serve = lambda peer, want: None if (want.kind, want.subject) == (UPLOAD, 2) else serve(peer, want)
    keeper.coder.vouched_shard = lambda *_: b"nonsense"
    t.run(6000)
    assert t.aborted and all(m.merged is None for m in t.members.values())
    reason = next(body.reason for body in t.said if isinstance(body, Abort))
    assert "fell silent after its upload" in reason and "cannot be checked" in reason


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
    assert {author for author, _, _ in t.attempt.checks} == set(range(5))
