"""A short run of the fuzz target (fuzz/fuzz_ledger.py, `make fuzz`), and the proof that it can fail."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest
from forgeries import mutate
from hostile import EXPORT, MESSAGES, WALKS, walk, world

from shoal.errors import ShoalError
from shoal.ledger import certificate, verify
from shoal.ledger.guard import Guard
from shoal.ledger.validator import Ledger

TRIES = 1200


def test_hostile_bytes() -> None:
    draw = Random(20)
    tries, through = Counter[str](), Counter[str]()
    for _ in range(TRIES):
        data = mutate(draw)
        name = WALKS[data[0]][0]
        tries[name] += 1
        through[name] += walk(data)
    assert set(tries) == {name for name, _ in WALKS.values()}
    assert all(0 < through[name] < tries[name] for name in tries), "each target must take some inputs and refuse some"


def test_what_is_no_input() -> None:
    assert not walk(b"")
    for target in WALKS:
        for data in (b"", b"\xc1", b"\x93\x00\x00\x91\xc4\x01x", bytes(50)):
            walk(bytes((target,)) + data)


@pytest.mark.parametrize(
    ("target", "where", "name", "wrong"),
    [
        (MESSAGES, certificate, "signature_holds", lambda *_: True),
        (EXPORT, verify, "signature_holds", lambda *_: True),
        (MESSAGES, Ledger, "_check_seal", lambda *_: None),
        (EXPORT, Ledger, "_check_place", lambda *_: None),
        (MESSAGES, Guard, "admit", lambda *_: True),
        (MESSAGES, Guard, "admit_snapshot", lambda *_: True),
    ],
    ids=["signatures", "verification", "seals", "chain", "entries", "snapshots"],
)
def test_it_finds_a_check_that_is_off(
    monkeypatch: pytest.MonkeyPatch, target: int, where: Any, name: str, wrong: Any
) -> None:
    world()
    monkeypatch.setattr(where, name, wrong)
    draw = Random(1)
    with pytest.raises((AssertionError, LookupError, ShoalError)):
        for _ in range(2000):
            walk(mutate(draw, target))
