"""Updates that grow from one round to the next: their scales are too small, and the round ends all the same."""

from __future__ import annotations

import numpy as np
import pytest
from swarm_table import SwarmTable

from shoal.errors import ArgumentError
from shoal.swarm.commit import DECODE
from shoal.swarm.ring_coder import FIRST_CLIP, check_size


def round_of(t: SwarmTable, round_: int, scales: dict[int, float]) -> int:
    """Everybody hands in, and again where an attempt made updates void, until the round is certified; ticks."""

    def done() -> bool:
        for site in t.sites:
            if site.peer.update is None and site.peer.ledger.round < round_:
                site.peer.submit(site.peer.book.diff(t.train(site, scales[site.number])), 100)
        return all(s.merged and s.merged[-1].round == round_ for s in t.sites)

    return t.until(done)


@pytest.mark.parametrize("growth", [2.0, 1000.0])
def test_a_round_with_larger_updates_is_done_again_with_wide_scales(growth: float) -> None:
    t = SwarmTable(4, True)
    for round_, scale in ((1, 0.001), (2, 0.001), (3, 0.001 * growth)):
        ticks = round_of(t, round_, dict.fromkeys(range(4), scale))
        # Two attempts take about 100; waiting until the first is given up would take 100 more.
        assert ticks < 150, (round_, ticks)
    assert all(s.merged[-1].took_part for s in t.sites)
    notes = [note for note in t.sites[1].notices if "clipped" in note]
    assert [note.split(":")[0] for note in notes] == ["fault", "warning"], notes
    assert len({s.peer.book.digest for s in t.sites}) == 1


def test_one_site_with_larger_updates_does_not_stop_the_others() -> None:
    t = SwarmTable(4, True)
    for round_ in (1, 2):
        round_of(t, round_, {0: 0.001, 1: 0.001, 2: 1.0 if round_ == 2 else 0.001, 3: 0.001})
    assert all(s.merged[-1].took_part for s in t.sites)


def test_what_not_even_the_first_scales_carry_is_refused() -> None:
    rng = np.random.default_rng(1)
    check_size((FIRST_CLIP / 3 * rng.standard_normal(5000)).astype(np.float32))
    with pytest.raises(ArgumentError) as raised:
        check_size(np.full(5000, 1e20, np.float32))
    assert raised.value.code == "diff.large"


@pytest.mark.parametrize("secure", [False, True])
def test_who_has_its_model_after_the_certificate_took_part_all_the_same(secure: bool) -> None:
    """The computation has made the model, the others have certified it, and only then its answer is heard."""
    t = SwarmTable(4, secure)
    slow, held = t.sites[3], []
    computed, turn = slow.peer.computed, slow.turn

    def answer(slot: int, name: str, result: object) -> None:
        if name == DECODE and slow.peer.ledger.round < 1:
            held.append((slot, name, result))
        else:
            computed(slot, name, result)

    def turn_and_hear() -> None:
        turn()
        if held and slow.peer.ledger.round == 1:
            computed(*held.pop())

    slow.peer.computed, slow.turn = answer, turn_and_hear
    round_of(t, 1, dict.fromkeys(range(4), 0.001))
    assert [s.merged[-1].took_part for s in t.sites] == [True] * 4
    assert not held and len({s.peer.book.digest for s in t.sites}) == 1
