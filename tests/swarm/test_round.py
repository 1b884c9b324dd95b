"""A round in the clear, from diffs to one certified model, whoever falls out on the way."""

from __future__ import annotations

import copy
import gc
import weakref

import numpy as np
import pytest
from round_table import Member, RoundTable

from shoal.ledger import gram
from shoal.limits import CHUNK_BYTES, GRAM_BLOCK
from shoal.merge.library import merge
from shoal.merge.rules import TABLE, find
from shoal.model.dtype import DTYPES
from shoal.model.layout import Layout, Placed
from shoal.swarm.actions import Send, SendChunk
from shoal.swarm.coder import Merging
from shoal.swarm.cutting import Pieces
from shoal.swarm.messages import MERGED, UPLOAD, Lacks, Want
from shoal.swarm.plan import plain_coder


def diffs(n: int, elements: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(elements).astype(np.float32) for _ in range(n)]


def layout_of(elements: int, tensors: int = 1) -> Layout:
    sizes = np.diff(np.linspace(0, elements, tensors + 1).astype(int)).tolist()
    return Layout(tuple(Placed(f"t{i:03d}", DTYPES[1], (n,)) for i, n in enumerate(sizes)))


def samples_of(n: int) -> tuple[int, ...]:
    return tuple(100 + 7 * i for i in range(n))


def table(
    n: int, elements: int = 1000, rule: str = "mean", seed: int = 0, lose: float = 0.0, tensors: int = 1, **settings
) -> RoundTable:
    layout = layout_of(elements, tensors)
    shards = min(n, Pieces.of(layout, find(rule).scope).count)
    merging = Merging(find(rule), settings, samples_of(n))
    made = lambda _plan, _rid: plain_coder(merging, layout, shards)  # noqa: E731
    t = RoundTable(diffs(n, elements, seed), made, shards, seed, lose)
    t.layout, t.merging = layout, merging
    return t


def agree(t: RoundTable, survivors: list[int]) -> None:
    """All that live have the merge of the survivors' diffs, bit for bit, and the certificate names it."""
    rule, inputs = t.merging.rule, [t.members[t.ids[p]].round.state.diff for p in survivors]
    if rule.scope == "tensor":
        inputs = [np.split(diff, t.layout.starts[1:-1]) for diff in inputs]
    base = None
    if rule.needs_base:
        base = [np.zeros_like(part) for part in inputs[0]] if rule.scope == "tensor" else np.zeros_like(inputs[0])
    weights = t.merging.weights(survivors)
    expected = merge(inputs, weights=weights, method=rule.name, base=base, **t.merging.settings)
    expected = np.concatenate(expected) if rule.scope == "tensor" else expected
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


def test_what_is_left_of_a_round_serves_those_that_are_behind() -> None:
    t = table(4, CHUNK_BYTES)
    t.run()
    state = t.members[t.ids[0]].round.state
    sums = {shard: bytes(parcel.data) for shard, parcel in state.sums.items()}
    t.members[t.ids[0]].round.let_go()
    assert state.diff is None and state.own is None and not any(kind == UPLOAD for kind, _, _ in state.fetches)
    state.serve(t.ids[1], Want(state.slot, UPLOAD, 0, (0,)))
    for shard, parcel in state.sums.items():
        state.serve(t.ids[1], Want(state.slot, MERGED, shard, tuple(range(len(parcel.chunks)))))
    lacks, *chunks = t.members[t.ids[0]].round.take()
    assert isinstance(lacks, Send) and isinstance(lacks.said, Lacks)
    found: dict[int, bytes] = {}
    for action in chunks:
        assert isinstance(action, SendChunk)
        found[action.head.subject] = found.get(action.head.subject, b"") + bytes(action.chunk)
    assert found == sums


def test_what_a_round_holds_goes_with_it() -> None:
    """Without a search for cycles: a vector of a model's size is one object to whoever counts objects."""
    t = table(3, 1000)
    t.run()
    states = [member.round.state for member in t.members.values()]
    for state in states:  # which the table's members hold on to
        state.settle, state.may_sign = (lambda _diff, _rms: (b"", b"")), (lambda _slot, _survivors: False)
    seen = [weakref.ref(state) for state in states]
    del states, state
    gc.disable()
    try:
        t.members.clear()
        assert [found() for found in seen] == [None] * 3
    finally:
        gc.enable()


@pytest.mark.parametrize("rule", [rule.name for rule in TABLE])
def test_every_rule_gives_the_bits_of_a_merge_on_one_machine(rule: str) -> None:
    n = 2 if rule == "slerp" else 5
    t = table(n, 3 * GRAM_BLOCK + 100, rule, tensors=7)
    t.run()
    agree(t, list(range(n)))
    assert not t.refused


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


@pytest.mark.parametrize(
    ("rule", "settings"),
    [
        ("multi-krum", {"num_malicious_nodes": 1, "num_nodes_to_select": 2}),
        ("bulyan", {"num_malicious_nodes": 1}),
        ("geometric-median", {"tolerance": 1e-3}),
        ("trimmed-mean", {"beta": 0.4}),
        ("ties", {"density": 0.2, "scaling": 0.7}),
        ("dare", {"density": 0.3}),
    ],
)
def test_settings_of_a_rule(rule: str, settings: dict[str, float]) -> None:
    t = table(7, 2 * GRAM_BLOCK + 5, rule, tensors=3, **settings)
    t.run()
    agree(t, list(range(7)))
    merging = t.merging
    t.merging = Merging(merging.rule, {}, merging.samples)
    with pytest.raises(AssertionError):
        agree(t, list(range(7)))


@pytest.mark.parametrize("rule", ["krum", "geometric-median"])
def test_a_first_update_far_from_the_others_is_measured_around_again(rule: str) -> None:
    t = table(5, 1000, rule)
    t.members[t.ids[0]].round.state.diff[:] += 1e6
    t.run()
    agree(t, list(range(5)))
    assert len(t.attempt.grams) == 2


@pytest.mark.parametrize("rule", ["krum", "geometric-median"])
@pytest.mark.parametrize("victim", range(4))
@pytest.mark.parametrize("stage", ["SurvivorCertificate", "Gram", "Shard"])
def test_one_dies_while_whole_models_are_compared(victim: int, stage: str, rule: str) -> None:
    """Owner and backup both work on a shard, so nothing is lost with either."""
    t = table(4, 2 * GRAM_BLOCK, rule)
    append = t._append

    def dying(member, action):
        append(member, action)
        if t.log and t.log[-1].startswith(stage):
            t.dead.add(t.ids[victim])

    t._append = dying
    t.run(3000)
    assert t.ids[victim] in t.dead
    if not t.aborted:
        agree(t, sorted(t.attempt.survivors))
    else:
        assert stage == "SurvivorCertificate" and all(member.merged is None for member in t.members.values())


@pytest.mark.parametrize("role", ["owner", "backup"])
def test_a_false_gram_matrix_is_complained_of_and_nothing_is_certified(role: str) -> None:
    t = table(5, 100, "krum")
    liar = getattr(t.attempt.plan.shards[0], role)
    coder = t.members[t.ids[liar]].round.state.coder
    measure = coder.measure

    def lying(uploads, centre):
        (level,) = gram.unpack(measure(uploads, centre)[: 8 * 15], 5)
        return gram.pack([level + np.eye(5)])

    # One coder serves the whole table; only the liar shall lie.
    t.members[t.ids[liar]].round.state.coder = liar_coder = copy.copy(coder)
    liar_coder.measure = lying
    t.run(3000)
    assert t.aborted and any(line.startswith("Complaint") for line in t.log)
    assert "tell different Gram matrices" in t.members[t.ids[(liar + 1) % 5]].round.state.failure


def test_a_chunk_that_comes_twice_is_not_held_against_its_sender() -> None:
    t = table(3, 3000)
    deliver = t._deliver

    def twice():
        t._queue += [each for each in t._queue if isinstance(each[2], SendChunk)]
        deliver()

    t._deliver = twice
    asked = []
    for member in t.members.values():
        send = member.round.take
        member.round.take = lambda send=send: [a for a in send() if not asked.append(a)]
    t.run()
    agree(t, [0, 1, 2])
    chunks = [c for a in asked if isinstance(a, Send) and isinstance(a.said, Want) for c in a.said.chunks]
    assert len(chunks) == 12, "each of three fetches two uploads of its shard and two sums, once"
