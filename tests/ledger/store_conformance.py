"""What every store must do.  ``make`` gives an empty store; ``again`` closes one and opens what it left."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from shoal.errors import ArgumentError, InputError
from shoal.ledger.entry import GENESIS_PREV, Entry, entry_hash
from shoal.ledger.log_store import LogStore
from shoal.ledger.store import HardState, Snapshot

Make = Callable[[], LogStore]
Again = Callable[[LogStore], LogStore]
VOTER, OTHER = bytes([1]) * 32, bytes([2]) * 32


class Turn(msgspec.Struct):
    """What a core asks for in one step."""

    entries: list[Entry] = []
    hard_state: HardState | None = None
    snapshot: Snapshot | None = None
    truncate_from: int | None = None


def chain(count: int, term: int = 1, after: Entry | None = None, salt: str = "") -> list[Entry]:
    """``count`` entries that follow ``after``, or that begin a log."""
    entries: list[Entry] = []
    index, prev = (after.index, entry_hash(after)) if after else (0, GENESIS_PREV)
    for _ in range(count):
        index += 1
        entries.append(Entry(index, term, prev, f"{salt}{term}.{index}".encode() * 5, b""))
        prev = entry_hash(entries[-1])
    return entries


def snapshot_of(entry: Entry, state: bytes = b"state") -> Snapshot:
    return Snapshot(entry.index, entry.term, entry_hash(entry), state)


class StoreConformance:
    def test_empty(self, make: Make) -> None:
        hard, entries, snapshot = make().load()
        assert (hard.term, hard.vote, hard.commit, hard.generation) == (0, b"", 0, 1)
        assert entries == [] and snapshot is None

    def test_what_was_acknowledged_is_there_again(self, make: Make, again: Again) -> None:
        store, entries = make(), chain(5)
        store.append(entries[:3])
        store.append(entries[3:])
        store.save_hard_state(HardState(1, VOTER, 4, 0, 7, ((OTHER, 9),)))
        for generation in (2, 3):
            store = again(store)
            assert store.load() == (HardState(1, VOTER, 4, generation, 7, ((OTHER, 9),)), entries, None)

    def test_generation_counts_openings_whatever_the_caller_says(self, make: Make, again: Again) -> None:
        store = make()
        store.save_hard_state(HardState(3, b"", 0, 99))
        assert store.load()[0].generation == 1
        assert again(store).load()[0].generation == 2

    def test_one_turn_is_one_step(self, make: Make, again: Again) -> None:
        store, entries = make(), chain(4)
        store.persist(Turn(entries, HardState(1, VOTER, 3)))
        hard, found, _ = again(store).load()
        assert found == entries and (hard.term, hard.vote, hard.commit) == (1, VOTER, 3)

    def test_a_turn_with_one_wrong_part_changes_nothing(self, make: Make, again: Again) -> None:
        store, entries = make(), chain(4)
        store.append(entries[:2])
        before = store.load()
        with pytest.raises(ArgumentError):
            store.persist(Turn(entries[2:], HardState(1, b"", 9)))
        with pytest.raises(ArgumentError):
            store.persist(Turn(entries[3:], HardState(1, b"", 1)))
        assert store.load() == before
        hard, found, snapshot = again(store).load()
        assert (found, snapshot) == before[1:] and hard.term == before[0].term

    def test_an_empty_turn(self, make: Make) -> None:
        store = make()
        store.persist(Turn())
        store.sync()
        assert store.load()[1] == []

    @pytest.mark.parametrize("explicit", [True, False])
    def test_later_entries_replace_a_tail(self, make: Make, again: Again, explicit: bool) -> None:
        store, entries = make(), chain(6)
        store.append(entries)
        other = chain(2, term=2, after=entries[2], salt="x")
        store.append(other, truncate_from=4 if explicit else None)
        assert store.load()[1] == entries[:3] + other
        assert again(store).load()[1] == entries[:3] + other

    def test_a_tail_can_be_forgotten(self, make: Make, again: Again) -> None:
        store, entries = make(), chain(6)
        store.append(entries)
        store.append([], truncate_from=3)
        store = again(store)
        assert store.load()[1] == entries[:2]
        store.append(chain(1, term=3, after=entries[1]))

    def test_gaps_and_broken_chains_are_refused(self, make: Make) -> None:
        store, entries = make(), chain(6)
        store.append(entries[:3])
        replace = msgspec.structs.replace
        for wrong in (
            entries[4],
            replace(entries[3], prev=bytes(32)),
            replace(entries[3], index=5),
            replace(entries[3], term=0),
        ):
            with pytest.raises(ArgumentError):
                store.append([wrong])
        with pytest.raises(ArgumentError):
            store.append([entries[3], entries[5]])
        with pytest.raises(ArgumentError):
            store.append([], truncate_from=9)
        with pytest.raises(InputError):
            store.append([replace(entries[3], seal=b"short")])
        assert store.load()[1] == entries[:3]

    def test_a_log_begins_at_the_beginning(self, make: Make) -> None:
        store = make()
        with pytest.raises(ArgumentError):
            store.append(chain(2)[1:])

    def test_committed_entries_are_never_forgotten(self, make: Make) -> None:
        store, entries = make(), chain(6)
        store.append(entries)
        store.save_hard_state(HardState(1, b"", 4))
        for index in (1, 4):
            with pytest.raises(ArgumentError) as caught:
                store.append(chain(1, 2, entries[index - 2] if index > 1 else None), truncate_from=index)
            assert caught.value.code == "store.committed"
        assert store.load()[1] == entries
        store.append(chain(1, 2, entries[3]))

    def test_hard_state_does_not_go_back(self, make: Make) -> None:
        store = make()
        store.append(chain(5))
        store.save_hard_state(HardState(4, VOTER, 3))
        for wrong in (
            HardState(3, VOTER, 3),
            HardState(4, VOTER, 2),
            HardState(4, OTHER, 3),
            HardState(4, b"", 3),
            HardState(4, VOTER, 6),
            HardState(5, VOTER + b"x", 3),
        ):
            with pytest.raises(ArgumentError) as caught:
                store.save_hard_state(wrong)
            assert caught.value.code == "store.hard-state"
        store.save_hard_state(HardState(5, OTHER, 5))

    def test_snapshots_and_compaction(self, make: Make, again: Again) -> None:
        store, entries = make(), chain(10)
        store.append(entries)
        store.save_hard_state(HardState(1, b"", 8))
        with pytest.raises(ArgumentError):
            store.compact(1)
        store.save_snapshot(snapshot_of(entries[5]))
        assert store.load()[1] == entries, "a snapshot alone forgets nothing"
        with pytest.raises(ArgumentError):
            store.compact(7)
        store.compact(4)
        store = again(store)
        assert store.load()[1:] == (entries[4:], snapshot_of(entries[5]))
        with pytest.raises(ArgumentError):
            store.compact(3)
        store.compact(6)
        store.append(chain(2, after=entries[-1]))
        assert [e.index for e in again(store).load()[1]] == list(range(7, 13))

    def test_the_archive_outlives_compaction(self, make: Make, again: Again) -> None:
        store, entries = make(), chain(10)
        store.append(entries)
        store.save_hard_state(HardState(1, b"", 8))
        store.save_snapshot(snapshot_of(entries[5]))
        store.compact(6)
        assert list(again(store).history(1, 99)) == entries

    def test_a_peers_snapshot_replaces_a_shorter_log(self, make: Make, again: Again) -> None:
        store, entries = make(), chain(10)
        store.append(entries[:4])
        store.save_hard_state(HardState(1, VOTER, 3))
        store.persist(Turn(chain(1, 2, entries[7]), snapshot=snapshot_of(entries[7], b"theirs")))
        for _ in range(2):
            hard, found, snapshot = store.load()
            assert (hard.commit, hard.term, hard.vote) == (8, 1, VOTER)
            assert found == chain(1, 2, entries[7]) and snapshot == snapshot_of(entries[7], b"theirs")
            assert [e.index for e in store.history(1, 99)] == [9]
            store = again(store)
        with pytest.raises(ArgumentError):
            store.append(entries[4:5])

    def test_a_peers_snapshot_replaces_a_log_that_went_astray(self, make: Make) -> None:
        store, entries = make(), chain(6)
        store.append(entries)
        other = chain(4, 2, entries[1], "x")
        store.save_snapshot(snapshot_of(other[2]))
        assert store.load()[1] == [] and store.load()[0].commit == 5
        store.append(other[3:])

    def test_snapshots_that_contradict_are_refused(self, make: Make) -> None:
        store, entries = make(), chain(10)
        store.append(entries)
        store.save_hard_state(HardState(1, b"", 8))
        store.save_snapshot(snapshot_of(entries[5]))
        for wrong in (snapshot_of(entries[3]), snapshot_of(chain(6, salt="x")[5]), snapshot_of(chain(8, salt="x")[7])):
            with pytest.raises(ArgumentError) as caught:
                store.save_snapshot(wrong)
            assert caught.value.code == "store.snapshot"
        assert store.load()[1] == entries

    def test_history_is_read_in_order_and_within_bounds(self, make: Make) -> None:
        store, entries = make(), chain(1200)
        store.append(entries)
        assert list(store.history(1, 1200)) == entries
        assert list(store.history(510, 1030)) == entries[509:1030]
        assert list(store.history(1201, 1300)) == [] and list(store.history(5, 4)) == []
