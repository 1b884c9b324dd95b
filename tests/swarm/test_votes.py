"""Votes for who survived: for what the ledger bears out and nothing else, whoever asks for them."""

from __future__ import annotations

import numpy as np
import pytest
from round_table import RoundTable

from shoal.diff.grid import Grid
from shoal.ledger.body import bitmap
from shoal.merge.rules import find
from shoal.model.dtype import DTYPES
from shoal.model.layout import Layout, Placed
from shoal.swarm import survive
from shoal.swarm.actions import Send
from shoal.swarm.coder import Merging
from shoal.swarm.messages import AskVote, SurvivorVote
from shoal.swarm.plan import plain_coder
from shoal.swarm.ring_coder import RingCoder, first_scales

ELEMENTS = 2000


def uploaded_by_three(secure: bool, monkeypatch: pytest.MonkeyPatch) -> RoundTable:
    """Four members of whom at least three must survive; the last one dealt its shares and then fell silent.  All else
    has arrived and has its receipts, and nobody has asked for a vote."""
    monkeypatch.setattr(survive, "ask", lambda state: None)
    rng = np.random.default_rng(1)
    diffs = [rng.standard_normal(ELEMENTS).astype(np.float32) for _ in range(4)]
    if secure:
        scales = first_scales(Grid.of(ELEMENTS))
        t = RoundTable(diffs, lambda plan, rid: RingCoder(plan, rid, scales), 5, secure=True)
    else:
        layout, merging = Layout((Placed("t", DTYPES[1], (ELEMENTS,)),)), Merging(find("mean"), {}, (1, 1, 1, 1))
        t = RoundTable(diffs, lambda _plan, _rid: plain_coder(merging, layout, 4), 4)
        t.dead.add(t.ids[3])
    for _ in range(100):
        if survive.arrived_everywhere(t.attempt) == {0, 1, 2}:
            break
        if t.attempt.shared and all(person.round.state.privacy.holds for person in t.members.values()):
            t.dead.add(t.ids[3])
        for who, member in t.members.items():
            if who not in t.dead:
                member.round.tick()
                t._turn(member)
        t._deliver()
    assert survive.arrived_everywhere(t.attempt) == {0, 1, 2} and t.attempt.floor == 3
    return t


def votes(t: RoundTable, survivors: set[int]) -> list[int]:
    """Who answers when it is asked to vote for this set."""
    found = []
    for position in range(3):
        member = t.members[t.ids[position]]
        t._queue.clear()
        member.round.said(t.ids[(position + 1) % 3], AskVote(t.attempt.plan.slot, bitmap(survivors, 4)))
        t._turn(member)
        said = [action.said for _, _, action in t._queue if isinstance(action, Send)]
        found += [position for vote in said if isinstance(vote, SurvivorVote)]
    return found


@pytest.mark.parametrize("secure", [False, True])
def test_nobody_votes_for_too_few_or_for_what_did_not_arrive(secure: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    t = uploaded_by_three(secure, monkeypatch)
    for wrong in (set(), {0}, {0, 1}, {1, 3}, {0, 1, 3}, {0, 1, 2, 3}):
        assert votes(t, wrong) == [], wrong
    assert votes(t, {0, 1, 2}) == [0, 1, 2]
