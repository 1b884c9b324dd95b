"""One slot in any order: members deal, vanish, come back, upload, vote; a liar votes for anything and tells all it has."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from slot_table import SlotTable

from shoal.errors import ArgumentError, PeerError
from shoal.secure.participant import Participant, Step
from shoal.secure.shares import KEY_HALF, SEED_HALF

WHO = st.integers(0, 4)
SETS = st.sets(WHO, min_size=3, max_size=5)


class SlotMachine(RuleBasedStateMachine):
    """Five participants, one may lie, one may fall out: t = d_max = 1, q = 4.

    Never both halves of an honest secret in one hand; never a sum of fewer than four; every sum is exact, or refused.
    What an outsider holds is all that honest participants ever gave, and all shares of the liar.
    """

    @initialize(liar=WHO, shared_already=st.booleans())
    def begin_slot(self, liar: int, shared_already: bool) -> None:
        self.t = SlotTable(5, 16, 16)
        self.liar = self.t.ids[liar]
        self.honest = [i for i in self.t.ids if i != self.liar]
        self.dealt: dict[bytes, tuple] = {}
        self.uploads: dict[bytes, np.ndarray] = {}
        self.votes: dict[frozenset[bytes], set[bytes]] = {}
        self.shared: frozenset[bytes] = frozenset()
        self.certified: frozenset[bytes] = frozenset()
        #: (subject, half) -> holders of whom the outsider has it
        self.shown: dict[tuple[bytes, int], set[bytes]] = {}
        self.told: set[bytes] = set()
        self.restarts = 0
        if shared_already:  # half of the runs: most orders of steps go nowhere
            self.everybody_deals_and_holds()
            self.share_set(set(), True)
            self.everybody_uploads()

    def named(self, positions: Iterable[int]) -> frozenset[bytes]:
        return frozenset(self.t.ids[p] for p in positions)

    def person(self, who: int) -> Participant:
        return self.t.people[self.t.ids[who]]

    # --- what happens -------------------------------------------------------------------------------------------------

    @rule(who=WHO)
    def deals(self, who: int) -> None:
        person = self.person(who)
        if person.step == Step.DEAL:
            try:
                self.dealt[person.me.id] = person.deal()
            except ArgumentError as error:
                assert error.code == "slot.used" and person.me.id in self.dealt

    @rule(dealers=SETS, holders=SETS)
    def hold(self, dealers: set[int], holders: set[int]) -> None:
        for dealer in self.named(dealers) & self.dealt.keys():
            committed, sealed = self.dealt[dealer]
            for holder in self.named(holders) - {dealer}:
                if self.t.people[holder].step == Step.HOLD:
                    self.t.people[holder].hold(dealer, sealed[holder], committed)

    @rule()
    def everybody_deals_and_holds(self) -> None:
        for who in range(5):
            self.deals(who)
        self.hold(set(range(5)), set(range(5)))

    @precondition(lambda self: self.dealt)
    @rule(members=SETS, all_of_them=st.booleans())
    def share_set(self, members: set[int], all_of_them: bool) -> None:
        """The ledger has one; who does not hold all shares of it stays out."""
        if not self.shared:
            proposed = frozenset(self.dealt) if all_of_them else self.named(members) & self.dealt.keys()
            if len(proposed) < 4:
                return
            self.shared = proposed
        for person in self.t.people.values():
            if person.step == Step.HOLD:
                try:
                    person.begin(self.shared)
                except PeerError as error:
                    assert error.code == "slot.unheld" and not self.shared <= person.holds
                else:
                    assert person.me.id not in self.shared or self.shared <= person.holds

    @rule(who=WHO)
    def uploads_words(self, who: int) -> None:
        person = self.person(who)
        if person.step == Step.MASK and person.me.id in self.shared:
            self.uploads[person.me.id] = self.t.upload(person.me.id)

    @rule()
    def everybody_uploads(self) -> None:
        for who in range(5):
            self.uploads_words(who)

    @precondition(lambda self: self.restarts < 2)
    @rule(who=WHO)
    def comes_back(self, who: int) -> None:
        """A restart: keys and journal are there, the rest is lost."""
        self.restarts += 1
        lost = self.t.ids[who]
        self.t.people[lost] = self.t.restarted(lost)

    @rule(who=WHO, survivors=SETS, those_that_uploaded=st.booleans())
    def asked_for_its_vote(self, who: int, survivors: set[int], those_that_uploaded: bool) -> None:
        """By a coordinator that may ask for anything.  (That uploads have receipts is the ledger's to see to.)"""
        asked, person = self.named(survivors), self.person(who)
        if those_that_uploaded:
            asked = frozenset(self.uploads)
        if not asked <= self.uploads.keys():
            return
        try:
            person.sign(asked)
        except PeerError as error:
            assert error.code in ("slot.order", "slot.floor", "slot.stranger", "slot.second")
        else:
            assert len(asked) >= 4 and asked <= self.shared
            self.votes.setdefault(asked, {self.liar}).add(person.me.id)

    @rule(survivors=SETS, those_that_uploaded=st.booleans())
    def everybody_is_asked(self, survivors: set[int], those_that_uploaded: bool) -> None:
        for who in range(5):
            self.asked_for_its_vote(who, survivors, those_that_uploaded)

    @precondition(lambda self: any(len(v) >= 4 for v in self.votes.values()))
    @rule(whom=SETS)
    def certificate(self, whom: set[int]) -> None:
        sets = [u for u, voters in self.votes.items() if len(voters) >= 4]
        assert len(sets) == 1, "two certificates"
        self.certified = sets[0]
        for who in whom:
            person = self.person(who)
            if person.step in (Step.MASK, Step.OPEN):
                person.certify(self.certified)

    @rule(who=WHO, subject=WHO)
    def asked_for_a_half(self, who: int, subject: int) -> None:
        person, about = self.person(who), self.t.ids[subject]
        try:
            half = person.half_of(about)
        except PeerError as error:
            assert error.code in ("slot.order", "slot.stranger", "slot.unheld")
        else:
            assert self.certified and half.which == (SEED_HALF if about in self.certified else KEY_HALF)
            self.shown.setdefault((about, half.which), set()).add(person.me.id)

    @rule(who=WHO)
    def asked_for_its_seed(self, who: int) -> None:
        person = self.person(who)
        try:
            person.own_seed()
        except PeerError as error:
            assert error.code == "slot.order"
        else:
            assert person.me.id in self.certified
            self.told.add(person.me.id)

    @precondition(lambda self: self.certified)
    @rule(clerk=WHO)
    def unmask(self, clerk: int) -> None:
        """Everybody that is there tells what it may; the sum is exact, or somebody is missing."""
        t, person = self.t, self.person(clerk)
        if person.step != Step.OPEN:
            return
        online = [p for p in t.people.values() if p.step == Step.OPEN]
        for other in online:
            if other.me.id in self.certified:
                person.take_seed(other.me.id, other.own_seed())
                self.told.add(other.me.id)
        for subject in sorted(frozenset().union(*person.wanted())):
            for other in online:
                half = other.half_of(subject)
                self.shown.setdefault((subject, half.which), set()).add(other.me.id)
                person.take_half(subject, other.me.id, half)
        try:
            total = t.unmask(person, [self.uploads[i] for i in sorted(self.certified)])
        except PeerError as error:
            assert error.code == "slot.secrets" and len(online) < 4
        else:
            assert len(self.certified) >= 4 and np.array_equal(total, t.plain(sorted(self.certified)))

    # --- what never happens -------------------------------------------------------------------------------------------

    @invariant()
    def never_both_halves(self) -> None:
        for subject in self.honest:
            found = {}
            for which in (KEY_HALF, SEED_HALF):
                given = self.shown.get((subject, which), set()) - {self.liar}
                found[which] = len(given) + 1 >= 4 or (which == SEED_HALF and subject in self.told)
            assert not all(found.values()), subject
            both = self.shown.get((subject, KEY_HALF), set()) & self.shown.get((subject, SEED_HALF), set())
            assert both - {self.liar} == set(), "one holder gave both"


SlotMachine.TestCase.settings = settings(max_examples=120, stateful_step_count=50, deadline=None)
TestSlot = SlotMachine.TestCase
