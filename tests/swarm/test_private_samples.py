"""Rounds in which nobody is told how many samples a site has: only the sum of all weights becomes known."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from swarm_table import SwarmTable

from shoal.errors import InputError
from shoal.ledger.body import RoundPlan
from shoal.swarm import messages
from shoal.swarm.founding import policy_fault
from shoal.swarm.messages import Prepared

CAP = 102


def error(t: SwarmTable, before: dict, local: dict, numbers: list[int]) -> float:
    """Of the new model to the mean of these sites' updates, each counting min(samples, CAP), in their root mean square."""
    weights = np.array([min(100.0 + n, CAP) for n in numbers])
    total, size = 0.0, 0.0
    for name in before:
        rows = np.stack([local[n][name].astype(float) - before[name] for n in numbers])
        mean = np.tensordot(weights / weights.sum(), rows, 1)
        total += ((t.sites[0].peer.book.arrays[name] - before[name] - mean) ** 2).sum()
        size += (rows**2).sum() / len(rows)
    return float(np.sqrt(total / size))


def overhear(t: SwarmTable, said: list) -> None:
    for site in t.sites:
        heard = site.peer.heard

        def hearing(peer, data, heard=heard):
            if data[:1] == messages.ROUND:
                said.append(messages.decode_control(data))
            heard(peer, data)

        site.peer.heard = hearing


@pytest.mark.parametrize("n", [3, 5])
def test_rounds_by_samples_that_nobody_tells(n: int) -> None:
    t = SwarmTable(n, True, cap=CAP)
    said: list = []
    overhear(t, said)
    plans: list[RoundPlan] = []
    for round_ in (1, 2, 3):
        before = t.sites[0].peer.book.arrays
        local = t.submit()
        t.until(lambda: t.sites[0].peer.ledger.attempt is not None)
        plans.append(t.sites[0].peer.ledger.attempt.plan)
        t.until(lambda r=round_: all(s.merged and s.merged[-1].round == r for s in t.sites))
        assert error(t, before, local, list(range(n))) < (1e-5 if round_ == 1 else 0.1)
    assert all(p.samples == 0 and plan.weights == 2 for plan in plans for p in plan.participants)
    prepared = [one for one in said if isinstance(one, Prepared)]
    assert prepared and all(one.samples == 0 for one in prepared)
    capped = {s.number for s in t.sites if any("counts as one with 102" in note for note in s.notices)}
    assert capped == {number for number in range(n) if 100 + number > CAP}


def test_others_vouch_for_private_samples_too() -> None:
    """A survivor dies: its weight is in the lane that others vouch for, and in the mean."""
    t = SwarmTable(5, True, cap=CAP)
    before = t.base
    local = t.submit()
    t.until(lambda: (a := t.sites[0].peer.ledger.attempt) is not None and len(a.receipts) > 3)
    t.sites[1].crash()
    alive = [s for s in t.sites if s.alive]
    t.until(lambda: all(s.merged for s in alive), 6000)
    assert alive[0].peer.ledger.slot_next == 1 and error(t, before, local, [0, 1, 2, 3, 4]) < 1e-5


def test_a_plan_that_tells_samples_is_refused() -> None:
    t = SwarmTable(4, True, cap=CAP)
    t.step(60)
    leader = next(s for s in t.sites if s.peer.replica.leading)
    seen: list[int] = []
    propose = leader.peer.propose

    def telling(body):
        if isinstance(body, RoundPlan) and len(seen) < 3:
            told = tuple(msgspec.structs.replace(p, samples=100) for p in body.participants)
            body = msgspec.structs.replace(body, participants=told, weights=1 if len(seen) % 2 else body.weights)
            seen.append(leader.peer.refused["proposal"])
            propose(body)
            assert leader.peer.refused["proposal"] == seen[-1] + 1
        else:
            propose(body)

    leader.peer.propose = telling
    t.submit()
    t.until(lambda: all(s.merged for s in t.sites))
    assert len(seen) == 3


def test_samples_are_private_under_masks_only() -> None:
    policy = SwarmTable(4, True, cap=CAP).policy
    assert policy_fault(policy, 4) == ""
    assert "only under masks" in policy_fault(msgspec.structs.replace(policy, secure=False), 4)
    with pytest.raises(InputError, match="only under masks"):
        SwarmTable(4, False, cap=CAP)
