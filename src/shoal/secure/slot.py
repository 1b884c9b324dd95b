"""What everybody knows of a secure slot, what a participant alone knows, and what it commits to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from shoal.errors import ArgumentError, PeerError
from shoal.secure import parameters
from shoal.secure.hidden import Hidden
from shoal.secure.kdf import DIGEST_BYTES
from shoal.secure.keys import check_distinct
from shoal.secure.seeds import Party, SlotName
from shoal.thresholds import Thresholds

_NUMBERS: Final = range(2**63)


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

    def check(self) -> None:
        """Whether the slot is safe to take part in.

        raises  ArgumentError  ``secure.parameters``, ``slot.name``, ``slot.parties``
                PeerError      ``key.exchange``, ``key.repeated``: somebody's public key cannot be used
        """
        parameters.check(len(self.parties), self.numbers, self.crash_only)
        name = self.name
        if len(name.swarm) != DIGEST_BYTES or len(name.rid) != DIGEST_BYTES:
            found = f"{len(name.swarm)} and {len(name.rid)} bytes"
            raise ArgumentError("slot.name", f"swarm and rid have {found}; expected {DIGEST_BYTES} each")
        if name.slot not in _NUMBERS or name.epoch not in _NUMBERS:
            raise ArgumentError("slot.name", f"slot {name.slot}, epoch {name.epoch}; expected 0 to 2**63 - 1")
        if self.ids != sorted(set(self.ids)) or any(len(who) != DIGEST_BYTES for who in self.ids):
            raise ArgumentError(
                "slot.parties", f"participants are not sorted by ids of {DIGEST_BYTES} bytes, each there once"
            )
        # Both kinds at once: a one-time key that is somebody's epoch key reflects just as well.
        check_distinct((key for party in self.parties for key in (party.one_time, party.epoch)), "exchange key")

    def party(self, who: bytes) -> Party:
        """raises  PeerError  ``slot.stranger``"""
        for party in self.parties:
            if party.id == who:
                return party
        raise PeerError("slot.stranger", f"{who.hex()[:16]} takes no part in slot {self.name.slot}")

    def position(self, who: bytes) -> int:
        """0-based among the sorted ids.  raises  PeerError  ``slot.stranger``"""
        return self.parties.index(self.party(who))

    def group(self, named: Iterable[bytes]) -> frozenset[bytes]:
        """Participants, each named once, not fewer than the floor.

        raises  PeerError  ``slot.stranger``, ``slot.floor``
        """
        listed = list(named)
        found = frozenset(listed)
        if len(found) != len(listed):
            raise PeerError("slot.stranger", "a participant is named twice")
        for who in listed:
            self.party(who)
        if len(found) < self.floor:
            raise PeerError("slot.floor", f"{len(found)} participants; no sum of fewer than {self.floor} is opened")
        return found


class Secrets(Hidden, frozen=True):
    """The private halves of this participant's keys of the slot: one-time and epoch.  Never shown."""

    one_time: bytes
    epoch: bytes


class Commitments(msgspec.Struct, frozen=True):
    """What goes into the ledger when shares are dealt: root of the shares, h_i, commitment to the nonce."""

    root: bytes
    seed: bytes
    nonce: bytes
