"""One participant of a secure slot, what has to do with keys: no socket, clock, file or thread; words are opaque.

    step    what may be done in it                                           and what leads on
    DEAL                                                                     deal: claims the slot for good
    HOLD    hold: take the others' sealed shares                             begin(V1), the share-set
    MASK    upload_streams, commit(root); sign(U): one U for the slot, ever  certify(U): q votes are in the ledger
    OPEN    own_seed; half_of: of each subject one half; take_seed,          forget
            take_half, take_key; wanted; removal; nonce; vouching
    OVER    nothing: the secrets are gone

A method called out of its step raises PeerError ``slot.order``.  What others ask for wrongly is refused with a
PeerError of another code, and changes nothing.  A participant that was restarted sits the slot out: it cannot claim it
again.

Ids are 32 bytes, positions are 0-based among the sorted ids of the plan.  Source: docs/PROTOCOL.md, "Secure
aggregation".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import IntEnum

from shoal.errors import ArgumentError, PeerError
from shoal.kernels.ring import Streams
from shoal.secure import masks
from shoal.secure.check import nonce_commitment, withheld
from shoal.secure.graph import neighbours
from shoal.secure.journal import Journal
from shoal.secure.keys import public_of
from shoal.secure.opening import Opening
from shoal.secure.seeds import Party, pair_seed, seed_commitment, self_mask, share_key
from shoal.secure.shares import HALF_BYTES, Held, Opened, check_held, deal, seal, unseal
from shoal.secure.slot import Commitments, Secrets, Slot

__all__ = ["Commitments", "Participant", "Secrets", "Slot", "Step", "withheld"]


class Step(IntEnum):
    DEAL = 1
    HOLD = 2
    MASK = 3
    OPEN = 4
    OVER = 5


class Participant:
    """See the module.  ``draw(n)`` gives n secret random bytes of the operating system.

    raises  ArgumentError  ``secure.parameters``, ``slot.*``, ``key.length``: the slot is not safe, or not this
                           participant's
            PeerError      ``key.exchange``, ``key.repeated``: somebody's public key cannot be used
    """

    def __init__(self, me: bytes, slot: Slot, secrets: Secrets, journal: Journal, draw: Callable[[int], bytes]) -> None:
        slot.check()
        if me not in slot.ids:
            raise ArgumentError("slot.me", f"{me.hex()[:16]} takes no part in slot {slot.name.slot}")
        self.slot = slot
        self.me = slot.party(me)
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
        self._graph: dict[bytes, frozenset[bytes]] = {}
        self._opening: Opening | None = None

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
        sealed = {
            party.id: seal(dealt.held[party.id], self._share_key(self.me, party), slot, self.me.id, party.id)
            for party in self.slot.parties
            if party.id != self.me.id
        }
        committed = Commitments(
            dealt.root, seed_commitment(slot, self.me.id, self._seed), nonce_commitment(slot, self.me.id, self._nonce)
        )
        self._held[self.me.id] = dealt.held[self.me.id]
        self._dealt[self.me.id] = committed
        self.step = Step.HOLD
        return committed, sealed

    def hold(self, dealer: bytes, sealed: bytes, committed: Commitments) -> None:
        """Take a sealed share that fits what its dealer wrote into the ledger; a second one changes nothing.

        raises  PeerError  ``share.sealed``, ``share.malformed``, ``share.path``, ``slot.stranger``
        """
        self._require(Step.HOLD)
        party, position = self.slot.party(dealer), self.slot.position(self.me.id)
        if dealer in self._held:
            return
        slot, size = self.slot.name.slot, len(self.slot.parties)
        held = unseal(sealed, self._share_key(party, self.me), slot, dealer, self.me.id)
        check_held(held, committed.root, slot, dealer, position, size)
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
        members = self.slot.group(shared)
        missing = members - self.holds
        if self.me.id in members and missing:
            raise PeerError("slot.unheld", f"the share-set names {min(missing).hex()[:16]}, whose share is not here")
        self._graph = neighbours(members, self.slot.numbers.k, self.slot.name.rid)
        self.step = Step.MASK

    def upload_streams(self) -> Streams:
        """What masks this participant's words, in every lane.  For one upload only: `commit` before a byte leaves."""
        self._require(Step.MASK)
        if self.me.id not in self._graph:
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

        This participant may have signed another set, before its coordinator fell out: two sets cannot both get q votes,
        so the certified one is followed.

        raises  PeerError  ``slot.floor``, ``slot.stranger``, ``slot.second``: another set was certified before
        """
        if self.step != Step.OPEN:
            self._require(Step.MASK)
        members = self._survivor_set(survivors)
        kept = b"".join(sorted(members))
        if not self._journal.certify(self.slot.name.slot, kept):
            raise PeerError("slot.second", f"a second survivor set for slot {self.slot.name.slot}")
        if self.step == Step.OPEN:
            return
        self._journal.sign(self.slot.name.slot, kept)  # whoever has not signed yet signs no other set any more
        self._opening = Opening(self.slot, members, self._graph, self._dealt)
        if self.me.id in members:
            self._opening.take_seed(self.me.id, self._seed)
        self.step = Step.OPEN

    @property
    def fallen(self) -> frozenset[bytes]:
        """Those of V1 that did not survive."""
        return self._opened().fallen

    # --- open ---------------------------------------------------------------------------------------------------------

    def own_seed(self) -> bytes:
        """b_i, for everybody: this participant survived.

        raises  PeerError  ``slot.order``: it did not; its seed stays closed, or its late upload could be unmasked
        """
        if self.me.id not in self._opened().survivors:
            raise PeerError("slot.order", "this participant is no survivor; its seed stays closed")
        return self._seed

    def half_of(self, subject: bytes) -> Opened:
        """The half of ``subject``'s share that the certificate calls for: of a survivor the seed's, of one that fell
        out the key's.

        raises  PeerError  ``slot.stranger``, ``slot.unheld``, ``slot.half``: the other half was given before
        """
        which = self._opened().half(subject)
        held = self._held.get(subject)
        if held is None:
            raise PeerError("slot.unheld", f"no share of {subject.hex()[:16]} is here")
        if not self._journal.open_half(self.slot.name.slot, subject, which):
            raise PeerError("slot.half", f"the other half of the secret of {subject.hex()[:16]} was given away before")
        return held.half(which)

    # --- unmask: see Opening ------------------------------------------------------------------------------------------

    def wanted(self) -> tuple[frozenset[bytes], frozenset[bytes]]:
        """(survivors whose seed, those that fell out whose key) is still missing here."""
        return self._opened().wanted()

    def take_seed(self, who: bytes, seed: bytes) -> None:
        """A survivor's seed.  raises  PeerError  ``slot.stranger``, ``seed.wrong``: not the one it committed to"""
        self._opened().take_seed(who, seed)

    def take_key(self, who: bytes, key: bytes) -> None:
        """The one-time key of one that fell out.  raises  PeerError  ``slot.stranger``, ``key.wrong``"""
        self._opened().take_key(who, key)

    def take_half(self, subject: bytes, holder: bytes, opened: Opened) -> bytes | None:
        """As clerk: a holder's half.  The secret, once q of them are here; None before.

        raises  PeerError  ``share.path``, ``share.dealer``, ``slot.half``, ``slot.stranger``: see Opening
        """
        return self._opened().take_half(subject, holder, opened)

    def removal(self) -> Streams:
        """What takes all masks off the sum of the survivors' uploads, in every lane.

        raises  PeerError  ``slot.secrets``: some are missing
        """
        return self._opened().removal()

    # --- check --------------------------------------------------------------------------------------------------------

    @property
    def nonce(self) -> bytes:
        """To be told once every shard has a sum in the ledger."""
        self._require(Step.OPEN)
        return self._nonce

    def vouching(self, who: bytes | None = None) -> Streams:
        """What is taken off an upload before its check sums are made: this participant's own, or that of ``who``,
        whose seed is public by then.

        raises  PeerError  ``slot.secrets``
        """
        opening, me = self._opened(), self.me.id
        if who not in (None, me):
            return opening.vouching(who)
        if me not in opening.survivors:
            raise PeerError("slot.secrets", "this participant is no survivor: it vouches for nothing")
        fallen = {d: self._pair(d) for d in self._graph[me] & opening.fallen}
        return masks.vouching(me, self_mask(self.slot.name, self._seed, me), fallen)

    # --- small things -------------------------------------------------------------------------------------------------

    def position(self, who: bytes) -> int:
        """0-based among the sorted ids.  raises  PeerError  ``slot.stranger``"""
        return self.slot.position(who)

    def forget(self) -> None:
        """The slot is over: drop every secret of it."""
        self.step = Step.OVER
        self._seed = self._nonce = b""
        self._secrets = Secrets(b"", b"")
        self._held = {}
        self._opening = None

    def _require(self, step: Step) -> None:
        if self.step != step:
            raise PeerError("slot.order", f"slot {self.slot.name.slot} is at {self.step.name}, not at {step.name}")

    def _opened(self) -> Opening:
        self._require(Step.OPEN)
        assert self._opening is not None
        return self._opening

    def _survivor_set(self, survivors: Iterable[bytes]) -> frozenset[bytes]:
        found = self.slot.group(survivors)
        if not found <= self._graph.keys():
            raise PeerError("slot.stranger", "a survivor is not in the share-set")
        return found

    def _share_key(self, sender: Party, receiver: Party) -> bytes:
        return share_key(self.slot.name, self._secrets.epoch, sender, receiver, self.me.id)

    def _pair(self, partner: bytes) -> bytes:
        return pair_seed(self.slot.name, self._secrets.one_time, self.me, self.slot.party(partner))
