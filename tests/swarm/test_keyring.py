"""A member's keys over time: what is published when, whatever gets lost on its way into the ledger."""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "ledger"))
from swarm_builder import SwarmBuilder

from shoal.ledger.body import EpochKey, KeyBatch
from shoal.swarm.keyring import BATCH, Keyring, has_keys


def kinds(bodies: list) -> list[type]:
    return [type(body) for body in bodies]


@pytest.mark.parametrize("first", [EpochKey, KeyBatch])
def test_what_is_lost_of_epoch_key_and_batch_is_published_again(first: type) -> None:
    builder = SwarmBuilder(members=3)
    me = min(builder.people)
    ring = Keyring(Random(1).randbytes, lambda _state: None)
    bodies = ring.wanted(builder.ledger.state, me)
    assert kinds(bodies) == [EpochKey, KeyBatch]
    arrived = next(body for body in bodies if type(body) is first)
    builder.say(arrived, builder.people[me])
    again = ring.wanted(builder.ledger.state, me)
    assert again == [body for body in bodies if body is not arrived]
    assert not has_keys(builder.ledger.state, me, 0)
    builder.say(again[0], builder.people[me])
    assert ring.wanted(builder.ledger.state, me) == []
    assert has_keys(builder.ledger.state, me, BATCH - 1) and not has_keys(builder.ledger.state, me, BATCH)
