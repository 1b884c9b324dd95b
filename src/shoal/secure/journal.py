"""What a participant must never forget: written down before it acts, so that a restart cannot make it act twice.

    claim        a slot is used once: whoever claims it again, or one below it, is refused
    sign         one survivor set for a slot, for ever
    certify      one certified survivor set for a slot, for ever
    open_half    of each participant the key half or the seed half, never both
    commit       one upload for a slot: what is sent again is the same bytes
    keep_keys    the private halves of keys that are published already

A call that returns is on the disk.  `MemoryJournal` is for simulation; `journal_file.py` has the durable one.

The keys lie beside the decisions on purpose: whoever loses the journal loses the keys of all slots that it decided on,
and can take part in none of them again.  A journal that was restored from a backup is another matter: it has old keys
and old decisions.  It is found out by `last_slot`: the ledger shows this member's share for a later slot.
"""

from __future__ import annotations

from typing import Final, Protocol

from shoal.errors import ArgumentError
from shoal.limits import JOURNAL_SLOTS_KEPT, KEPT_KEYS_BYTES_MAX

SLOT_MAX: Final = 2**63 - 1


class Journal(Protocol):
    """See the module.  What returns a bool returns False where an earlier decision forbids it, and changes nothing.

    Decisions on slots that lie JOURNAL_SLOTS_KEPT or more below the last claimed one are dropped, and new ones on them
    are refused.  One thread at a time.

    raises  ArgumentError  ``journal.slot``: no slot, 0 <= slot < 2**63;  ``journal.keys``: too many bytes
    """

    def claim(self, slot: int) -> bool:
        """This slot, and none before it, from now on."""
        ...

    def last_slot(self) -> int:
        """The slot that was claimed last; -1 before the first."""
        ...

    def sign(self, slot: int, survivors: bytes) -> bool:
        """Sign this survivor set; again and again, but no other."""
        ...

    def certify(self, slot: int, survivors: bytes) -> bool:
        """Act on a certificate of this survivor set, whichever was signed; again and again, but on no other."""
        ...

    def open_half(self, slot: int, subject: bytes, which: int) -> bool:
        """Give away this half of the secret of ``subject``; again, but never the other."""
        ...

    def commit(self, slot: int, root: bytes) -> bool:
        """Upload what has this root; again, but nothing else."""
        ...

    def keep_keys(self, state: bytes) -> None:
        """Keep these bytes (`keys.encode_epochs`) in the place of the last ones, which are overwritten."""
        ...

    def keys(self) -> bytes | None:
        """What was kept last; None if nothing ever was."""
        ...

    def close(self) -> None: ...


def checked_slot(slot: int) -> int:
    """raises  ArgumentError  ``journal.slot``"""
    if not 0 <= slot <= SLOT_MAX:
        raise ArgumentError("journal.slot", f"slot {slot}; expected 0 to 2**63 - 1")
    return slot


def checked_state(state: bytes) -> bytes:
    """raises  ArgumentError  ``journal.keys``"""
    if len(state) > KEPT_KEYS_BYTES_MAX:
        raise ArgumentError("journal.keys", f"{len(state)} bytes of keys; expected at most {KEPT_KEYS_BYTES_MAX}")
    return state


class MemoryJournal:
    """A journal that lasts as long as the object."""

    def __init__(self) -> None:
        self._last = -1
        self._keys: bytes | None = None
        self._kept: dict[tuple[str, int, bytes], bytes] = {}

    def claim(self, slot: int) -> bool:
        if checked_slot(slot) <= self._last:
            return False
        self._last = slot
        self._kept = {name: value for name, value in self._kept.items() if name[1] > slot - JOURNAL_SLOTS_KEPT}
        return True

    def last_slot(self) -> int:
        return self._last

    def sign(self, slot: int, survivors: bytes) -> bool:
        return self._keep("sign", slot, b"", survivors)

    def certify(self, slot: int, survivors: bytes) -> bool:
        return self._keep("certify", slot, b"", survivors)

    def open_half(self, slot: int, subject: bytes, which: int) -> bool:
        return self._keep("open", slot, subject, bytes([which]))

    def commit(self, slot: int, root: bytes) -> bool:
        return self._keep("commit", slot, b"", root)

    def keep_keys(self, state: bytes) -> None:
        self._keys = checked_state(bytes(state))

    def keys(self) -> bytes | None:
        return self._keys

    def _keep(self, kind: str, slot: int, subject: bytes, value: bytes) -> bool:
        if checked_slot(slot) <= self._last - JOURNAL_SLOTS_KEPT:
            return False
        return self._kept.setdefault((kind, slot, subject), value) == value

    def close(self) -> None:
        pass
