"""The log window against a plain list."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from raft_cluster import chain

from shoal.ledger.entry import Entry, entry_hash
from shoal.ledger.log import CutCommitted, Log, chain_fault


def filled(terms: list[int]) -> Log:
    log = Log()
    for entry in chain(terms):
        log.append(entry, entry_hash(entry))
    return log


def test_terms_and_hashes_outside_the_window() -> None:
    log = filled([1, 1, 2])
    log.committed = log.applied = 2
    log.compact(2)
    assert [log.term(i) for i in range(5)] == [-1, -1, 1, 2, -1]
    assert [bool(log.hash(i)) for i in range(5)] == [False, False, True, True, False]
    assert log.entry(2) is None and log.entry(3) is not None and log.entry(4) is None


@pytest.mark.parametrize(("index", "term", "found"), [(9, 9, 5), (5, 2, 4), (5, 1, 2), (3, 2, 3), (9, 0, 0), (0, 5, 0)])
def test_last_with_term_at_most(index: int, term: int, found: int) -> None:
    assert filled([1, 1, 2, 2, 3]).last_with_term_at_most(index, term) == found


@pytest.mark.parametrize(("count", "size", "found"), [(9, 99, 3), (2, 99, 2), (9, 6, 2), (9, 1, 1), (9, 0, 1)])
def test_span_has_at_least_one(count: int, size: int, found: int) -> None:
    assert len(filled([1, 1, 1]).span(1, count, size)) == found
    assert filled([1]).span(2, 9, 9) == ()


def test_committed_entries_are_never_cut() -> None:
    log = filled([1, 1, 1])
    assert log.commit_to(9) and log.committed == 3
    with pytest.raises(CutCommitted):
        log.cut(3)


def test_chain_fault() -> None:
    entries = chain([1, 1, 2])
    assert chain_fault(entries, bytes(32)) == ([entry_hash(e) for e in entries], "")
    hashes, fault = chain_fault([entries[0], entries[2]], bytes(32))
    assert fault == "wrong-prev" and hashes == [entry_hash(entries[0])]


class LogMachine(RuleBasedStateMachine):
    """Append, cut, commit, hand to the disk, compact: the log says what a list says."""

    def __init__(self) -> None:
        super().__init__()
        self.log = Log()
        self.model: list[Entry] = []
        self.disk: list[Entry] = []
        self.term = 1

    @rule(more=st.integers(1, 4), newer=st.booleans())
    def append(self, more: int, newer: bool) -> None:
        self.term += newer
        for _ in range(more):
            prev = self.log.last_hash
            entry = Entry(len(self.model) + 1, self.term, prev, b"%d" % len(self.model), b"")
            self.log.append(entry, entry_hash(entry))
            self.model.append(entry)

    @precondition(lambda self: self.log.committed < self.log.last)
    @rule(data=st.data())
    def cut(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(self.log.committed + 1, self.log.last))
        self.log.cut(at)
        del self.model[at - 1 :]
        self.term += 1

    @rule(data=st.data())
    def commit_and_apply(self, data: st.DataObject) -> None:
        self.log.commit_to(data.draw(st.integers(0, self.log.last + 2)))
        self.log.applied = self.log.committed

    @rule()
    def hand_over(self) -> None:
        log = self.log
        if log.truncated is not None:
            del self.disk[log.truncated - 1 :]
        self.disk += self.model[log.handed :]
        log.truncated, log.handed = None, log.last

    @precondition(lambda self: self.log.floor < self.log.applied)
    @rule(data=st.data())
    def compact(self, data: st.DataObject) -> None:
        self.hand_over()
        self.log.compact(data.draw(st.integers(self.log.floor + 1, self.log.applied)))

    @invariant()
    def says_what_the_list_says(self) -> None:
        log = self.log
        assert log.last == len(self.model) and log.floor <= log.applied <= log.committed <= log.last
        assert log.stable <= log.handed <= log.last
        assert log.entries == self.model[log.floor :]
        assert log.size == sum(len(e.payload) for e in log.entries)
        for index in range(max(1, log.floor), log.last + 1):
            assert log.hash(index) == entry_hash(self.model[index - 1])
            assert log.term(index) == self.model[index - 1].term
        if log.truncated is None:
            assert self.disk[: log.handed] == self.model[: log.handed]


LogMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestLogMachine = LogMachine.TestCase
