"""Whole peers in virtual time: round after round, the same model everywhere, whoever fails on the way."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from swarm_table import SwarmTable

from shoal.errors import InputError
from shoal.ledger.body import RoundPlan, Setting
from shoal.merge.library import merge
from shoal.swarm.book import Book
from shoal.swarm.memory import Weather
from shoal.swarm.policy import outer_of


def same(t: SwarmTable) -> None:
    alive = [s for s in t.sites if s.alive]
    digests = {s.peer.book.digest for s in alive}
    assert len(digests) == 1 and digests == {s.peer.ledger.model for s in alive}


def mean_error(t: SwarmTable, before: dict[str, np.ndarray], local: dict[int, dict[str, np.ndarray]]) -> float:
    """Of the new model to the weighted mean of what all submitted, in root mean squares of their updates."""
    weights = np.array([100.0 + n for n in sorted(local)])
    total, size = 0.0, 0.0
    for name in before:
        rows = np.stack([local[n][name].astype(float) - before[name] for n in sorted(local)])
        mean = np.tensordot(weights / weights.sum(), rows, 1)
        total += ((t.sites[0].peer.book.arrays[name] - before[name] - mean) ** 2).sum()
        size += (rows**2).sum() / len(rows)
    return float(np.sqrt(total / size))


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("n", [3, 5])
def test_rounds_follow_each_other(n: int, secure: bool) -> None:
    t = SwarmTable(n, secure)
    for round_ in range(1, 5):
        before = t.sites[0].peer.book.arrays
        local = t.submit()
        t.until(
            lambda r=round_: all(
                s.peer.ledger.round == r and s.merged[-1:] and s.merged[-1].round == r for s in t.sites
            )
        )
        same(t)
        assert all(s.merged[-1].took_part for s in t.sites)
        # The first secure round is as fine as float32; the next ones are as coarse as 8 bits for n peers.
        assert mean_error(t, before, local) < (1e-5 if not secure or round_ == 1 else 0.08), round_
    assert all(not [note for note in s.notices if note.startswith("fault")] for s in t.sites)


def test_median_in_the_clear() -> None:
    t = SwarmTable(5, False, "median")
    before = t.base
    local = t.submit()
    t.until(lambda: all(s.merged for s in t.sites))
    for name, base in before.items():
        diffs = np.stack([local[n][name] - base for n in sorted(local)])
        weights = np.array([100.0 + n for n in sorted(local)])
        order = np.argsort(diffs, 0)
        sums = np.cumsum(weights[order], 0)
        at = (sums < weights.sum() / 2).sum(0)
        expected = np.take_along_axis(np.take_along_axis(diffs, order, 0), at[None], 0)[0]
        assert np.allclose(t.sites[0].peer.book.arrays[name], base + expected, atol=1e-6)


@pytest.mark.parametrize("secure", [False, True])
def test_a_federation_has_one_owner_and_one_voter(secure: bool) -> None:
    t = SwarmTable(4, secure, topology=2)
    coordinator = t.sites[0].who.id
    for round_ in (1, 2):
        before = t.sites[0].peer.book.arrays
        local = t.submit()
        t.until(lambda: t.sites[1].peer.ledger.attempt is not None)
        plan = t.sites[1].peer.ledger.attempt.plan
        assert {plan.participants[s.owner].member for s in plan.shards} == {coordinator}
        assert len(plan.shards) == 1 + secure
        t.until(lambda r=round_: all(s.peer.ledger.round == r and len(s.merged) == r for s in t.sites))
        same(t)
        assert mean_error(t, before, local) < (1e-5 if not secure or round_ == 1 else 0.08)
    assert list(t.sites[2].peer.ledger.registry.voter_keys) == [coordinator]
    t.sites[3].crash()
    t.submit(t.sites[:3])
    t.until(lambda: all(s.peer.ledger.round == 3 for s in t.sites[:3]))
    t.submit(t.sites[1:3])
    t.step(200)
    assert t.sites[1].peer.ledger.round == 3 and t.sites[1].peer.ledger.attempt is None, "not without the coordinator"


def followed(t: SwarmTable, base: dict[str, np.ndarray], diffs: list[np.ndarray], state: dict) -> dict[str, np.ndarray]:
    """What the swarm's optimiser makes of the mean of these diffs, on one machine."""
    weights = [100.0 + n for n in range(len(diffs))]
    mean = merge(diffs, weights=weights)
    book = Book(base)
    merged = {}
    for tensor, start, stop in zip(book.layout.tensors, book.layout.starts, book.layout.starts[1:], strict=False):
        old = base[tensor.key]
        merged[tensor.key] = old + mean[start:stop].reshape(old.shape)
    outer = outer_of(t.policy)
    return merge([merged], base=base, outer=outer.kind.name, outer_state=state, **outer.settings)


@pytest.mark.parametrize("outer", ["momentum", "adam", "yogi"])
def test_an_outer_optimiser_steps_alike_at_all_and_keeps_its_memory(outer: str) -> None:
    """Over a restart of everybody, a member that was away, and a new copy of the base."""
    t = SwarmTable(4, False, outer=outer, settings=(Setting("eta", 0.5),))
    now, state = t.base, {}
    for round_ in range(1, 6):
        if round_ == 3:
            t.sites[3].crash()
        alive = [s for s in t.sites if s.alive]
        local = t.submit(alive)
        diffs = [Book(now).diff(local[n]) for n in sorted(local)]
        t.until(lambda r=round_, a=alive: all(s.peer.ledger.round == r and s.peer.current for s in a))
        now = followed(t, now, diffs, state)
        for site in alive:
            assert all(np.array_equal(site.peer.book.arrays[key], now[key]) for key in now)
        if round_ == 2:
            for site in t.sites:
                site.crash()
            for site in t.sites:
                site.start()
        if round_ == 4:
            t.sites[3].arrays, t.sites[3].carried = t.base, None
            t.sites[3].start()
            t.until(lambda: t.sites[3].peer.current)
    same(t)


def test_a_false_memory_of_the_optimiser_is_not_taken() -> None:
    t = SwarmTable(3, False, outer="adam")
    t.sites[2].crash()
    t.submit(t.sites[:2])
    t.until(lambda: all(s.peer.ledger.round == 1 and s.peer.current for s in t.sites[:2]))
    book, ledger = Book(t.base, outer=outer_of(t.policy)), t.sites[0].peer.ledger
    state = t.sites[0].peer.book.state()
    for place in (-1, len(state) - book._form.nbytes + 8 * 5):
        wrong = state.copy()
        wrong[place] ^= 1
        with pytest.raises(InputError, match=r"not what was certified|no root mean squares"):
            book.restore(wrong, ledger.model, ledger.carried)
    book.restore(state, ledger.model, ledger.carried)
    assert book.holds(ledger.model, ledger.carried)


def test_an_optimiser_after_masked_sums() -> None:
    t = SwarmTable(4, True, outer="momentum")
    for round_ in (1, 2, 3):
        t.submit()
        t.until(lambda r=round_: all(s.peer.ledger.round == r and s.peer.current for s in t.sites))
        same(t)


@pytest.mark.parametrize("rule", ["krum", "geometric-median", "ties"])
def test_rules_that_look_at_more_than_coordinates(rule: str) -> None:
    t = SwarmTable(4, False, rule)
    for round_ in (1, 2):
        t.submit()
        t.until(lambda r=round_: all(s.peer.ledger.round == r and len(s.merged) == r for s in t.sites))
        same(t)
    assert all(not [note for note in s.notices if note.startswith("fault")] for s in t.sites)


@pytest.mark.parametrize("secure", [False, True])
def test_a_member_without_an_update_follows(secure: bool) -> None:
    t = SwarmTable(5, secure)
    t.submit(t.sites[:4])
    t.until(lambda: all(s.peer.ledger.round == 1 and s.peer.book.digest == s.peer.ledger.model for s in t.sites))
    same(t)
    assert not t.sites[4].merged[-1].took_part


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_bad_weather(seed: int, secure: bool) -> None:
    t = SwarmTable(5, secure, seed_=seed, weather=Weather(drop=0.15))
    for round_ in range(1, 4):
        t.submit()
        t.until(lambda r=round_: all(s.peer.ledger.round >= r for s in t.sites), 6000)
        t.until(lambda: len({s.peer.book.digest for s in t.sites}) == 1, 6000)
    same(t)


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("victim", range(5))
@pytest.mark.parametrize("moment", [0, 1, 2, 4])
def test_one_dies_in_mid_round_and_comes_back(moment: int, victim: int, secure: bool) -> None:
    """Whoever dies, at some moment of a round: the others go on, and it catches up."""
    t = SwarmTable(5, secure, seed_=victim)
    t.submit()
    t.until(lambda: t.sites[0].peer.ledger.attempt is not None)
    t.step(moment)
    t.sites[victim].crash()
    alive = [s for s in t.sites if s.alive]
    t.submit([s for s in alive if s.peer.update is None])
    t.until(lambda: all(s.peer.ledger.round >= 1 for s in alive), 6000)
    t.sites[victim].start()
    t.until(lambda: len({s.peer.book.digest for s in t.sites}) == 1, 6000)
    same(t)
    round_ = t.sites[0].peer.ledger.round
    t.submit()
    t.until(lambda: all(s.peer.ledger.round > round_ for s in t.sites), 6000)
    t.until(lambda: len({s.peer.book.digest for s in t.sites}) == 1, 6000)
    same(t)


def test_a_seed_that_nobody_tells_is_put_together() -> None:
    """A survivor dies before it tells its seed: holders give a clerk their halves, and the attempt ends well."""
    t = SwarmTable(5, True)
    t.submit()
    t.until(lambda: t.sites[0].peer.ledger.attempt is not None and len(t.sites[0].peer.ledger.attempt.receipts) > 3)
    t.sites[1].crash()
    alive = [s for s in t.sites if s.alive]
    t.until(lambda: all(s.peer.ledger.round == 1 and s.merged for s in alive), 6000)
    same(t)
    assert all(s.merged[0].took_part for s in alive) and not any("given up" in n for s in alive for n in s.notices)
    assert alive[0].peer.ledger.attempt_next == 0 and alive[0].peer.ledger.slot_next == 1


def test_everybody_stops_and_starts_again() -> None:
    t = SwarmTable(4, True)
    for round_ in (1, 2):
        t.submit()
        t.until(
            lambda r=round_: all(
                s.peer.ledger.round == r and s.peer.book.digest == s.peer.ledger.model for s in t.sites
            )
        )
        for site in t.sites:
            site.crash()
        for site in t.sites:
            site.start()
        t.until(lambda r=round_: all(s.peer.ledger.round == r for s in t.sites))
        same(t)


def test_a_site_with_another_model_holds_up_nobody() -> None:
    t = SwarmTable(4, False)
    odd = t.sites[3]
    odd.crash()
    odd.arrays = {**t.base, "b": np.zeros(31, np.float32)}
    odd.start()
    t.submit(t.sites[:3])
    t.until(lambda: all(s.peer.ledger.round == 1 for s in t.sites[:3]))
    assert odd.peer.book.digest != odd.peer.ledger.model


def test_an_update_whose_sum_may_have_been_opened_is_void() -> None:
    """The attempt is given up after the survivors were certified: nobody uses its update again."""
    t = SwarmTable(5, True)
    t.submit()
    t.until(lambda: (a := t.sites[0].peer.ledger.attempt) is not None and a.survivors is not None)
    for lost in t.sites[2:4]:
        lost.crash()  # two: fewer than q are left to open, or to certify a model
    alive = [s for s in t.sites if s.alive]
    t.until(lambda: all(s.peer.ledger.attempt is None for s in alive))
    t.step(5)
    for site in alive:
        assert site.peer.update is None and site.peer.ledger.round == 0
        assert [m.took_part for m in site.merged] == [False]
        assert any("is void" in note for note in site.notices)
    t.submit(alive)
    t.until(lambda: all(s.peer.ledger.round == 1 and s.merged[-1].took_part for s in alive))


@pytest.mark.parametrize("victim", range(5))
def test_who_is_restarted_among_the_checks_accuses_nobody(victim: int) -> None:
    """It looks on, and knows the nonces that were told before.  (The sum that it had told may be lost with it.)"""
    t = SwarmTable(5, True, seed_=victim)
    t.submit()
    t.until(lambda: (a := t.sites[victim].peer.ledger.attempt) is not None and bool(a.nonces))
    t.sites[victim].crash()
    t.sites[victim].start()
    t.until(lambda: all(s.peer.ledger.attempt is None for s in t.sites))
    t.until(lambda: len({(s.peer.book.digest, s.peer.ledger.model) for s in t.sites}) == 1)
    same(t)
    assert not [note for s in t.sites for note in s.notices if note.startswith("fault")]


def test_a_site_that_sits_a_slot_out_says_so_once_and_keeps_its_next_update() -> None:
    t = SwarmTable(4, False)
    broken = t.sites[1]
    t.submit()
    broken.peer.update.diff[3] = np.nan
    t.until(lambda: broken.peer.update is None and broken.peer.ledger.attempt is not None)
    t.submit([broken])
    t.until(lambda: broken.peer.ledger.round == 1)
    assert sum("sits slot 0 out" in note for note in broken.notices) == 1
    assert any("came too late" in note for note in broken.notices), "its second update still waited"


def test_sums_that_nobody_has_any_more_are_not_waited_for() -> None:
    """A member follows the ledger in the middle of a round whose owners are restarted: it fetches the model whole."""
    t = SwarmTable(4, False)
    late = t.sites[3]
    t.submit(t.sites[:3])
    t.until(lambda: (a := t.sites[0].peer.ledger.attempt) is not None and a.survivors is not None)
    t.network.blocked = {(s.who.id, late.who.id) for s in t.sites}
    t.until(lambda: all(s.peer.ledger.round == 1 and s.merged for s in t.sites[:3]))
    assert late.peer.ledger.attempt is not None and late.peer.rounds
    for site in t.sites[:3]:
        site.crash()
        site.start()
    t.network.blocked = set()
    t.until(lambda: late.peer.ledger.round == 1 and late.peer.book.digest == late.peer.ledger.model)
    same(t)
    assert not any("of round 0" in note for s in t.sites for note in s.notices), "nobody goes back to an older model"


def test_a_plan_that_nobody_follows_is_ended() -> None:
    """Nobody opens a round for it, so nobody could give one up."""
    t = SwarmTable(4, False)
    t.until(lambda: any(s.peer.replica.leading for s in t.sites))
    leader = next(s for s in t.sites if s.peer.replica.leading)
    make = leader.peer.propose

    def false_plan(body):
        if isinstance(body, RoundPlan):
            leader.peer.propose = make
            body = msgspec.structs.replace(body, shards=body.shards[::-1])
        make(body)

    leader.peer.propose = false_plan
    t.submit()
    t.until(lambda: all(s.peer.ledger.round == 1 and s.merged for s in t.sites))
    same(t)
    assert t.sites[0].peer.ledger.slot_next == 2
    assert all(s.merged[-1].took_part for s in t.sites), "their updates were kept"
