"""Memory of rounds and models: what is let go, and what is read only when it is asked for."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from swarm_table import SwarmTable
from test_shelf import arrays

from shoal.model.model import save
from shoal.swarm.book import Book, Moved, digest_of
from shoal.swarm.messages import UPLOAD
from shoal.swarm.shelf import Shelf


@pytest.mark.parametrize("secure", [False, True])
def test_a_round_that_is_over_holds_its_sums_alone_and_the_one_before_nothing(secure: bool) -> None:
    t = SwarmTable(4, secure)
    for number in (1, 2):
        t.submit()
        t.until(lambda r=number: all(s.peer.ledger.round == r and s.peer.current for s in t.sites))
    for site in t.sites:
        old, new = (site.peer.rounds[slot].state for slot in sorted(site.peer.rounds))
        for state in (old, new):
            assert state.diff is None and state.own is None and not state.results
            assert not [key for key in state.fetches if key[0] == UPLOAD]
        assert not old.sums and not old.made and not old.fetches and old._room is None
        assert not site.peer._given and site.peer.update is None
        assert len(new.sums) == len(new.view.attempt.plan.shards)


def test_a_moved_model_is_made_tensor_by_tensor() -> None:
    base = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "h": np.ones(2, np.float16), "n": np.array([3])}
    book = Book(base)
    diff = np.arange(8, dtype=np.float32) / 8
    moved = Moved(base, book._places(), diff)
    assert list(moved) == list(base) and len(moved) == 3
    assert np.array_equal(moved["w"], base["w"] + diff[2:].reshape(2, 3)) and moved["n"] is base["n"]
    assert moved["h"].dtype == np.float16 and np.array_equal(moved["h"], np.array([1, 1.125], np.float16))
    assert digest_of(moved) == book.settle(diff)[0] != book.digest


def test_files_of_models_are_closed_when_nobody_looks(tmp_path: Path) -> None:
    save(arrays(0), tmp_path / "base.onnx")
    shelf = Shelf(tmp_path, tmp_path / "base.onnx")
    book = shelf.open_book()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        digest, beside = book.settle(np.full(300, 0.5, np.float32))
        assert book.adopt(digest, beside)
        book.put(digest, shelf.keep(digest, book.arrays, book.carried))
    assert np.allclose(book.arrays["w"], arrays(0)["w"] + 2.5)
    assert len(os.listdir("/proc/self/fd")) <= before
