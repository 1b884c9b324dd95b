"""Both stores keep the same promises; a random walk of both gives the same log."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from store_conformance import Again, Make, StoreConformance, chain, snapshot_of

from shoal.errors import ArgumentError
from shoal.ledger.log_store import LogStore
from shoal.ledger.memory_store import MemoryStore
from shoal.ledger.sqlite_store import SqliteStore
from shoal.ledger.store import HardState


class TestMemoryStore(StoreConformance):
    @pytest.fixture
    def make(self) -> Make:
        return MemoryStore

    @pytest.fixture
    def again(self) -> Again:
        def reopen(store: LogStore) -> LogStore:
            assert isinstance(store, MemoryStore)
            return store.reopened()

        return reopen


class TestSqliteStore(StoreConformance):
    @pytest.fixture
    def make(self, tmp_path: Path, request: pytest.FixtureRequest) -> Make:
        def make() -> LogStore:
            store = SqliteStore(tmp_path / "ledger.db")
            request.addfinalizer(store.close)
            return store

        return make

    @pytest.fixture
    def again(self, request: pytest.FixtureRequest) -> Again:
        def reopen(store: LogStore) -> LogStore:
            assert isinstance(store, SqliteStore)
            store.close()
            opened = SqliteStore(store.path)
            request.addfinalizer(opened.close)
            return opened

        return reopen


class Walk(RuleBasedStateMachine):
    """Appends, cuts, commits, snapshots, reopens: the file and the twin in memory always hold the same."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.disk: SqliteStore = SqliteStore(self.folder / "ledger.db")
        self.twin = MemoryStore()
        self.term = 1

    def both(self, act: Callable[[LogStore], None]) -> None:
        results: list[str] = []
        for store in (self.disk, self.twin):
            try:
                act(store)
                results.append("")
            except ArgumentError as error:
                results.append(error.code)
        assert results[0] == results[1]

    @rule(count=st.integers(1, 4), back=st.integers(0, 3), later=st.booleans())
    def append(self, count: int, back: int, later: bool) -> None:
        held = self.twin.load()[1]
        self.term += later
        if back >= len(held):
            back = 0
        after = held[-1 - back] if held else None
        if after is None and self.twin.last_index:
            return
        self.both(lambda store: store.append(chain(count, self.term, after, str(back))))

    @rule(commit=st.integers(0, 30), vote=st.sampled_from([b"", bytes([1]) * 32, bytes([2]) * 32]))
    def hard_state(self, commit: int, vote: bytes) -> None:
        self.both(lambda store: store.save_hard_state(HardState(self.term, vote, commit)))

    @rule(at=st.integers(0, 30))
    def snapshot(self, at: int) -> None:
        hard, held, _ = self.twin.load()
        committed = [e for e in held if e.index <= hard.commit]
        if committed:
            self.both(lambda store: store.save_snapshot(snapshot_of(committed[at % len(committed)])))

    @rule(up_to=st.integers(0, 30))
    def compact(self, up_to: int) -> None:
        self.both(lambda store: store.compact(up_to))

    @rule()
    def reopen(self) -> None:
        self.disk.close()
        self.disk, self.twin = SqliteStore(self.disk.path), self.twin.reopened()

    @precondition(lambda self: hasattr(self, "disk"))
    @invariant()
    def same(self) -> None:
        assert self.disk.load() == self.twin.load()
        assert list(self.disk.history(1, 10**9)) == list(self.twin.history(1, 10**9))

    def teardown(self) -> None:
        if hasattr(self, "disk"):
            self.disk.close()
            shutil.rmtree(self.folder)


TestWalk = Walk.TestCase
TestWalk.settings = settings(max_examples=12, stateful_step_count=15, deadline=None)
