"""A journal that was restored from a backup: the ledger shows it, and its site serves no slot a second time."""

from __future__ import annotations

import copy
import shutil

import pytest
from swarm_table import Site, SwarmTable
from test_secure_round import table

from shoal.ledger.body import Share
from shoal.secure.journal_file import JournalFile


def a_round(t: SwarmTable, sites: list[Site]) -> None:
    round_ = max(s.peer.ledger.round for s in sites) + 1
    t.submit([s for s in sites if s.peer.update is None])
    t.until(
        lambda: all(s.peer.ledger.round >= round_ and s.peer.book.digest == s.peer.ledger.model for s in sites), 6000
    )


def old(site: Site) -> list[str]:
    return [note for note in site.notices if "old copy" in note]


def test_restored_between_rounds(tmp_path) -> None:
    """Found out at the start, from the file: the slots it has forgotten are not served again, the next one is."""
    t = SwarmTable(4, True)
    site = t.sites[2]
    site.crash()
    site.journal = JournalFile(tmp_path / "journal.db")
    site.start()
    a_round(t, t.sites)
    site.crash()
    site.journal.close()
    shutil.copytree(tmp_path, tmp_path / "backup")
    kept = site.kept
    site.journal = JournalFile(tmp_path / "journal.db")
    site.start()
    a_round(t, t.sites)
    assert not old(site)
    last = site.journal.last_slot()
    site.crash()
    site.journal.close()
    site.journal, site.kept = JournalFile(tmp_path / "backup" / "journal.db"), kept
    assert site.journal.last_slot() < last
    site.start()
    t.step(5)
    assert len(old(site)) == 1 and f"for slot {last}" in old(site)[0]
    assert site.journal.last_slot() == last
    a_round(t, t.sites)
    assert site.merged[-1].took_part and site.journal.last_slot() == last + 1
    assert len(old(site)) == 1
    site.journal.close()


@pytest.mark.parametrize("stage", ["shares", "masked", "receipts", "survivors", "shards"])
def test_restored_in_the_middle_of_a_slot(stage: str) -> None:
    """Whatever the other life has done in it, this one does nothing in it: no share, no upload, no vote, no half."""
    t = SwarmTable(5, True)
    a_round(t, t.sites)
    site = t.sites[1]
    journal, kept = copy.deepcopy(site.journal), site.kept
    t.submit()
    t.until(
        lambda: (
            t.sites[0].peer.ledger.attempt is not None and len(getattr(t.sites[0].peer.ledger.attempt, stage) or ()) > 3
        )
    )
    slot = t.sites[0].peer.ledger.attempt.plan.slot
    assert site.peer.ledger.registry.members[site.who.id].dealt == slot
    site.crash()
    site.journal, site.kept = journal, kept
    site.start()
    site.peer.submit(site.peer.book.diff(t.train(site, 0.3)), 100)
    # If its copy of the ledger did not have its share yet it has dealt anew, and drops it when it hears of the first.
    t.until(lambda: old(site) or any("another life" in note for note in site.notices))
    round_ = site.peer.rounds.get(slot)
    assert round_ is None or round_.state.privacy is None
    assert site.journal.last_slot() == slot
    alive = [s for s in t.sites if s is not site]
    t.submit([s for s in alive if s.peer.update is None])
    t.until(lambda: all(s.peer.ledger.round >= 2 and s.peer.book.digest == s.peer.ledger.model for s in t.sites), 6000)
    assert not any(name[1] == slot for name in site.journal._kept)
    t.until(lambda: t.sites[0].peer.ledger.attempt is None, 6000)
    a_round(t, t.sites)
    assert site.merged[-1].took_part


@pytest.mark.parametrize("late", [False, True])
def test_a_share_of_another_life_makes_a_site_look_on(late: bool) -> None:
    """The ledger has, or gets, a share of the site that this life of it did not deal: it drops its secrets."""
    t = table(5)
    who = t.ids[1]
    state = t.members[who].round.state
    other = Share(t.attempt.plan.slot, *(bytes([at]) * 32 for at in (1, 2, 3)))
    if late:
        propose = state.propose
        state.propose = lambda key, body: propose(key, other if isinstance(body, Share) else body)
    else:
        t.builder.say(other, t.builder.people[who])
    t.run(4000)
    assert sorted(t.attempt.survivors) == [0, 2, 3, 4] and (state.dealt is not None) == late
    assert state.privacy is None and state.own is None
    assert sum("another life" in note for note in state.notes) == 1
