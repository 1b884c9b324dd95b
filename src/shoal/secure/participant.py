"""One participant of a secure slot, what has to do with keys: no socket, clock, file or thread; words are opaque.

    step        the participant                              may be done when
    DEAL        deal -> root, commitments, sealed shares      once, at the start; claims the slot for good
    HOLD        hold: takes the others' sealed shares         until the share-set
    MASK        begin(V1); upload_streams; commit(root)       with a share-set that this participant is in
    SIGN        sign(U)                                       one U for the slot, ever, across restarts
    OPEN        certify(U); own_seed; half_of(subject)        after a certificate of q votes; of each subject one half
    UNMASK      take_seed, take_half / take_key; removal      when every needed secret is there
    CHECK       nonce; vouching                               after the sums are told

A method called out of its step raises PeerError ``slot.order``.  What others ask for wrongly is refused with a
PeerError of another code, and changes nothing.

Ids are 32 bytes, positions are 0-based among the sorted ids of the plan.  Source: docs/PROTOCOL.md, "Secure
aggregation".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum
from typing import Final

import msgspec

from shoal.errors import ArgumentError, PeerError
from shoal.kernels.ring import Streams
from shoal.secure import masks, parameters
from shoal.secure.check import nonce_commitment
from shoal.secure.graph import neighbours
from shoal.secure.journal import Journal
from shoal.secure.keys import check_distinct, public_of
from shoal.secure.seeds import Party, SlotName, pair_seed, seed_commitment, self_mask, share_key
from shoal.secure.shares import (
    HALF_BYTES,
    KEY_HALF,
    SEED_HALF,
    Held,
    Opened,
    check_held,
    check_opened,
    deal,
    put_together,
    seal,
    unseal,
)
from shoal.thresholds import Thresholds


class Step(IntEnum):
    DEAL = 1
    HOLD = 2
    MASK = 3
    OPEN = 4


class Slot(msgspec.Struct, frozen=True):
    """What everybody knows of a slot.

    name        what seeds are bound to
    parties     sorted by id
    numbers     t, d_max, q, k
    crash_only  see parameters.fault
    """

    name: SlotName
    parties: tuple[Party, ...]
    numbers: Thresholds
    crash_only: bool = False

    @property
    def ids(self) -> list[bytes]:
        return [party.id for party in self.parties]

    @property
    def floor(self) -> int:
        """Fewest participants whose sum may be opened."""
        return len(self.parties) - self.numbers.d_max


class Secrets(msgspec.Struct, frozen=True):
    """The private halves of this participant's keys of the slot: one-time and epoch.  Never shown."""

    one_time: bytes
    epoch: bytes

    def __repr__(self) -> str:
        return "Secrets()"


class Commitments(msgspec.Struct, frozen=True):
    """What goes into the ledger when shares are dealt: root of the shares, h_i, commitment to the nonce."""

    root: bytes
    seed: bytes
    nonce: bytes


_KIND: Final = {KEY_HALF: "one-time key", SEED_HALF: "seed"}


class Participant:
    """See the module.  ``draw(n)`` gives n secret random bytes of the operating system.

    raises  ArgumentError  ``secure.parameters``, ``slot.me``: the slot is not safe, or not this participant's
            PeerError      ``key.exchange``, ``key.repeated``: somebody's public key cannot be used
    """

    def __init__(self, me: bytes, slot: Slot, secrets: Secrets, journal: Journal, draw: Callable[[int], bytes]) -> None:
        parameters.check(len(slot.parties), slot.numbers, slot.crash_only)
        if slot.ids != sorted(set(slot.ids)):
            raise ArgumentError("slot.parties", "participants are not sorted by id, each once")
        check_distinct((party.one_time for party in slot.parties), "one-time key")
        check_distinct((party.epoch for party in slot.parties), "epoch key")
        self.slot = slot
        self._by_id = {party.id: party for party in slot.parties}
        if me not in self._by_id:
            raise ArgumentError("slot.me", f"{me.hex()[:16]} takes no part in slot {slot.name.slot}")
        self.me = self._by_id[me]
        if (public_of(secrets.one_time), public_of(secrets.epoch)) != (self.me.one_time, self.me.epoch):
            raise ArgumentError("slot.me", f"the keys for slot {slot.name.slot} are not those that were published")
        self.step = Step.DEAL
        self._secrets = secrets
        self._journal = journal
        self._draw = draw
        self._seed = b""
        self._nonce = b""
        self._held: dict[bytes, Held] = {}
        self._dealt: dict[bytes, Commitments] = {}
        self._shared: frozenset[bytes] = frozenset()
        self._graph: dict[bytes, frozenset[bytes]] = {}
        self._survivors: frozenset[bytes] = frozenset()
        self._seeds: dict[bytes, bytes] = {}
        self._keys: dict[bytes, bytes] = {}
        self._halves: dict[tuple[bytes, int], dict[int, bytes]] = {}

    def __repr__(self) -> str:
        return f"Participant({self.me.id.hex()[:16]}, slot {self.slot.name.slot}, {self.step.name})"

    # --- deal and hold ------------------------------------------------------------------------------------------------

    def deal(self) -> tuple[Commitments, dict[bytes, bytes]]:
        """Draw seed and nonce, share the secrets: commitments for the ledger, a sealed share for everybody else.

        raises  ArgumentError  ``slot.used``: this slot, or a later one, was begun before, perhaps in another life
        """
        self._require(Step.DEAL)
        slot = self.slot.name.slot
        if not self._journal.claim(slot):
            raise ArgumentError("slot.used", f"slot {slot} was begun before; its masks must not be used twice")
        self._seed, self._nonce = self._draw(HALF_BYTES), self._draw(HALF_BYTES)
        secret = self._secrets.one_time + self._seed
        dealt = deal(slot, self.me.id, secret, self.slot.ids, self.slot.numbers.q, self._draw)
        self._held[self.me.id] = dealt.held[self.me.id]
        sealed = {
            party.id: seal(dealt.held[party.id], self._share_key(self.me, party), slot, self.me.id, party.id)
            for party in self.slot.parties
            if party.id != self.me.id
        }
        committed = Commitments(
            dealt.root, seed_commitment(slot, self.me.id, self._seed), nonce_commitment(slot, self.me.id, self._nonce)
        )
        self._dealt[self.me.id] = committed
        self.step = Step.HOLD
        return committed, sealed

    def hold(self, dealer: bytes, sealed: bytes, committed: Commitments) -> None:
        """Take a sealed share that fits what its dealer wrote into the ledger; a second one changes nothing.

        raises  PeerError  ``share.sealed``, ``share.malformed``, ``share.path``, ``slot.stranger``
        """
        self._require(Step.HOLD)
        party = self._party(dealer)
        if dealer in self._held:
            return
        held = unseal(sealed, self._share_key(party, self.me), self.slot.name.slot, dealer, self.me.id)
        check_held(held, committed.root, self.slot.name.slot, dealer, self.position(self.me.id), len(self._by_id))
        self._held[dealer] = held
        self._dealt[dealer] = committed

    @property
    def holds(self) -> frozenset[bytes]:
        """Whose shares are here."""
        return frozenset(self._held)

    # --- mask ---------------------------------------------------------------------------------------------------------

    def begin(self, shared: Iterable[bytes]) -> None:
        """The share-set V1 is in the ledger: the mask graph is made on it.

        raises  PeerError  ``slot.floor``, ``slot.stranger``, ``slot.unheld``: it names somebody whose share is not here
        """
        self._require(Step.HOLD)
        members = self._set(shared)
        missing = members - self.holds
        if self.me.id in members and missing:
            raise PeerError("slot.unheld", f"the share-set names {min(missing).hex()[:16]}, whose share is not here")
        self._shared = members
        self._graph = neighbours(members, self.slot.numbers.k, self.slot.name.rid)
        self.step = Step.MASK

    def upload_streams(self) -> Streams:
        """What masks this participant's words, in every lane."""
        self._require(Step.MASK)
        if self.me.id not in self._shared:
            raise PeerError("slot.order", "this participant is not in the share-set")
        pairs = {p: self._pair(p) for p in self._graph[self.me.id]}
        return masks.upload(self.me.id, self_mask(self.slot.name, self._seed, self.me.id), pairs)

    def commit(self, root: bytes) -> None:
        """This is the upload; before a byte of it leaves.

        raises  ArgumentError  ``slot.masked``: another one was committed to for this slot: other data under the same
                               masks would show their difference
        """
        self._require(Step.MASK)
        if not self._journal.commit(self.slot.name.slot, root):
            raise ArgumentError("slot.masked", f"slot {self.slot.name.slot} has an upload already, with another root")

    # --- survivors ----------------------------------------------------------------------------------------------------

    def sign(self, survivors: Iterable[bytes]) -> bytes:
        """May this set be signed?  Then it is the only one, for ever; its bytes, as they were kept.

        raises  PeerError  ``slot.floor``, ``slot.stranger``, ``slot.second``
        """
        self._require(Step.MASK)
        kept = b"".join(sorted(self._survivor_set(survivors)))
        if not self._journal.sign(self.slot.name.slot, kept):
            raise PeerError("slot.second", f"another survivor set was signed for slot {self.slot.name.slot}")
        return kept

    def certify(self, survivors: Iterable[bytes]) -> None:
        """A certificate of q votes for this set is in the ledger; whoever calls this has checked it.

        raises  PeerError  ``slot.floor``, ``slot.stranger``, ``slot.second``: this participant signed another set, so
                           the certificate cannot be: a quorum would have to have lied
        """
        members = self._survivor_set(survivors)
        if self.step == Step.OPEN:
            if members != self._survivors:
                raise PeerError("slot.second", f"a second survivor set for slot {self.slot.name.slot}")
            return
        self._require(Step.MASK)
        if not self._journal.sign(self.slot.name.slot, b"".join(sorted(members))):
            raise PeerError("slot.second", f"another survivor set was signed for slot {self.slot.name.slot}")
        self._survivors = members
        if self.me.id in members:
            self._seeds[self.me.id] = self._seed
        self.step = Step.OPEN

    @property
    def fallen(self) -> frozenset[bytes]:
        """Those of V1 that did not survive."""
        return self._shared - self._survivors

    # --- open ---------------------------------------------------------------------------------------------------------

    def own_seed(self) -> bytes:
        """b_i, for everybody: this participant survived.

        raises  PeerError  ``slot.order``: it did not; its seed stays closed, or its late upload could be unmasked
        """
        self._require(Step.OPEN)
        if self.me.id not in self._survivors:
            raise PeerError("slot.order", "this participant is no survivor; its seed stays closed")
        return self._seed

    def half_of(self, subject: bytes) -> Opened:
        """The half of ``subject``'s share that the certificate calls for: of a survivor the seed's, of one that fell
        out the key's.

        raises  PeerError  ``slot.stranger``, ``slot.unheld``, ``slot.half``: the other half was given before
        """
        self._require(Step.OPEN)
        self._party(subject)
        if subject not in self._shared:
            raise PeerError("slot.stranger", f"{subject.hex()[:16]} is not in the share-set: nothing of it is opened")
        held = self._held.get(subject)
        if held is None:
            raise PeerError("slot.unheld", f"no share of {subject.hex()[:16]} is here")
        which = SEED_HALF if subject in self._survivors else KEY_HALF
        if not self._journal.open_half(self.slot.name.slot, subject, which):
            raise PeerError("slot.half", f"the other half of the secret of {subject.hex()[:16]} was given away before")
        return held.half(which)

    # --- unmask -------------------------------------------------------------------------------------------------------

    def wanted(self) -> tuple[frozenset[bytes], frozenset[bytes]]:
        """(survivors whose seed, those that fell out whose key) is still missing here."""
        self._require(Step.OPEN)
        relevant = frozenset(d for _, d in masks.edges(self._survivors, self._graph, self.fallen))
        return self._survivors - self._seeds.keys(), relevant - self._keys.keys()

    def take_seed(self, who: bytes, seed: bytes) -> None:
        """A survivor's seed.  raises  PeerError  ``slot.stranger``, ``seed.wrong``: not the one it committed to"""
        self._require(Step.OPEN)
        if who not in self._survivors:
            raise PeerError("slot.stranger", f"{who.hex()[:16]} is no survivor: its seed stays closed")
        committed = self._dealt.get(who)
        if committed is None or seed_commitment(self.slot.name.slot, who, seed) != committed.seed:
            raise PeerError("seed.wrong", f"not the seed that {who.hex()[:16]} committed to")
        self._seeds[who] = seed

    def take_key(self, who: bytes, key: bytes) -> None:
        """The one-time key of one that fell out.  raises  PeerError  ``slot.stranger``, ``key.wrong``"""
        self._require(Step.OPEN)
        if who not in self.fallen:
            raise PeerError("slot.stranger", f"{who.hex()[:16]} did not fall out: its key stays closed")
        if len(key) != HALF_BYTES or public_of(key) != self._by_id[who].one_time:
            raise PeerError("key.wrong", f"not the one-time key of {who.hex()[:16]}")
        self._keys[who] = key

    def take_half(self, subject: bytes, holder: bytes, opened: Opened) -> bytes | None:
        """As clerk: a holder's half.  The secret, once q of them are here; None before.

        raises  PeerError  ``share.path``: the holder's fault;  ``share.dealer``: the dealer's: its shares do not give
                           what it committed to;  ``slot.half``: not the half that the certificate calls for
        """
        self._require(Step.OPEN)
        which = SEED_HALF if subject in self._survivors else KEY_HALF
        if opened.which != which:
            raise PeerError(
                "slot.half", f"of {subject.hex()[:16]} the {_KIND[which]} is to be opened, and nothing else"
            )
        committed = self._dealt.get(subject)
        if committed is None or subject not in self._shared:
            raise PeerError("slot.stranger", f"{subject.hex()[:16]} dealt no shares that are known here")
        position = self.position(holder)
        check_opened(opened, committed.root, self.slot.name.slot, subject, position, len(self._by_id))
        halves = self._halves.setdefault((subject, which), {})
        halves[position] = opened.half
        if len(halves) < self.slot.numbers.q:
            return None
        secret = put_together(halves, self.slot.numbers.q)
        try:
            self.take_seed(subject, secret) if which == SEED_HALF else self.take_key(subject, secret)
        except PeerError:
            raise PeerError(
                "share.dealer", f"the shares of {subject.hex()[:16]} do not give the {_KIND[which]} it committed to"
            ) from None
        return secret

    def removal(self) -> Streams:
        """What takes all masks off the sum of the survivors' uploads, in every lane.

        raises  PeerError  ``slot.secrets``: some are missing
        """
        seeds, keys = self.wanted()
        if seeds or keys:
            raise PeerError("slot.secrets", f"{len(seeds)} seeds and {len(keys)} keys are missing to unmask the sum")
        own = {i: self_mask(self.slot.name, self._seeds[i], i) for i in self._survivors}
        pairs = {(i, d): self._fallen_pair(i, d) for i, d in masks.edges(self._survivors, self._graph, self.fallen)}
        return masks.removal(own, pairs)

    # --- check --------------------------------------------------------------------------------------------------------

    @property
    def nonce(self) -> bytes:
        """To be told once every shard has a sum in the ledger."""
        self._require(Step.OPEN)
        return self._nonce

    def vouching(self, who: bytes | None = None) -> Streams:
        """What is taken off an upload before its check sums are made: this participant's own, or that of ``who``,
        whose seed is public by then."""
        self._require(Step.OPEN)
        subject = self.me.id if who is None else who
        if subject not in self._seeds:
            raise PeerError("slot.secrets", f"the seed of {subject.hex()[:16]} is not known here")
        fallen = {d: self._fallen_pair(subject, d) for d in self._graph[subject] & self.fallen}
        return masks.vouching(subject, self_mask(self.slot.name, self._seeds[subject], subject), fallen)

    # --- small things -------------------------------------------------------------------------------------------------

    def position(self, who: bytes) -> int:
        """0-based among the sorted ids.  raises  PeerError  ``slot.stranger``"""
        self._party(who)
        return self.slot.ids.index(who)

    def forget(self) -> None:
        """The slot is over: drop every secret of it."""
        self._seed = self._nonce = b""
        self._secrets = Secrets(b"", b"")
        for kept in (self._held, self._seeds, self._keys, self._halves):
            kept.clear()

    def _require(self, step: Step) -> None:
        if self.step != step:
            raise PeerError("slot.order", f"slot {self.slot.name.slot} is at {self.step.name}, not at {step.name}")

    def _party(self, who: bytes) -> Party:
        party = self._by_id.get(who)
        if party is None:
            raise PeerError("slot.stranger", f"{who.hex()[:16]} takes no part in slot {self.slot.name.slot}")
        return party

    def _set(self, members: Iterable[bytes]) -> frozenset[bytes]:
        """A set of participants, each named once, not below the floor."""
        named = list(members)
        found = frozenset(named)
        if len(found) != len(named):
            raise PeerError("slot.stranger", "a participant is named twice")
        for who in named:
            self._party(who)
        if len(found) < self.slot.floor:
            raise PeerError(
                "slot.floor", f"{len(found)} participants; no sum of fewer than {self.slot.floor} is opened"
            )
        return found

    def _survivor_set(self, survivors: Iterable[bytes]) -> frozenset[bytes]:
        found = self._set(survivors)
        if not found <= self._shared:
            raise PeerError("slot.stranger", "a survivor is not in the share-set")
        return found

    def _share_key(self, sender: Party, receiver: Party) -> bytes:
        return share_key(self.slot.name, self._secrets.epoch, sender, receiver, self.me.id)

    def _pair(self, partner: bytes) -> bytes:
        return pair_seed(self.slot.name, self._secrets.one_time, self.me, self._by_id[partner])

    def _fallen_pair(self, survivor: bytes, fallen: bytes) -> bytes:
        """s_id, from the key of d that was opened, or this participant's own half of it."""
        if survivor == self.me.id and fallen not in self._keys:
            return self._pair(fallen)
        return pair_seed(self.slot.name, self._keys[fallen], self._by_id[fallen], self._by_id[survivor])


def withheld(told: Mapping[bytes, bytes], survivors: Iterable[bytes]) -> int:
    """How many survivors did not tell their nonce."""
    return len(frozenset(survivors) - told.keys())
