"""A member's keys for secure rounds over time: made in epochs, published ahead in batches, erased behind.

Private halves are on disk before their public halves are told, and a slot's are erased when the slot is over.  Two
epochs may be alive: the present one, and the next, published before the present one runs out.
"""

from __future__ import annotations

from collections.abc import Callable

from shoal.ledger.body import Body, EpochKey, KeyBatch
from shoal.ledger.state import State as LedgerState
from shoal.limits import EPOCH_SLOTS_MAX, EPOCHS_KEPT_MAX
from shoal.secure.keys import EpochKeys, decode_epochs, encode_epochs
from shoal.secure.participant import Secrets, Slot
from shoal.secure.seeds import Party, SlotName

#: one-time keys published at once, and how few may be left before the next ones are
BATCH = 64
LEFT_LEAST = 24


class Keyring:
    """See the module.

    draw  draw(n) -> n secret random bytes
    keep  writes these bytes where only this member can read them, durably, in the place of the last ones
    kept  what was written last, b"" if nothing was

    raises  InputError  ``key.state``: ``kept`` is something else
    """

    def __init__(self, draw: Callable[[int], bytes], keep: Callable[[bytes], None], kept: bytes = b"") -> None:
        self._draw = draw
        self._keep = keep
        self._epochs = decode_epochs(kept) if kept else []

    def __repr__(self) -> str:
        return f"Keyring({len(self._epochs)})"

    def wanted(self, ledger: LedgerState, me: bytes) -> list[Body]:
        """What is to be published now, in this order; the same again until the ledger has it."""
        member, next_ = ledger.registry.members[me], ledger.slot_next
        published = max([next_, *(first + len(keys) for first, keys in member.batches)])
        slots = [next_, published - 1] if published > next_ else []
        batch: list[Body] = []
        if published - next_ < LEFT_LEAST or self._of(next_) is None:
            epoch = self._of(published)
            if epoch is None or (not member.batches and epoch.first != published):
                epoch = EpochKeys.generate(published, self._draw)
                # Epochs that never came to be published pile up where a site cannot get a word in: the last ones count.
                self._epochs = [*self._epochs, epoch][-EPOCHS_KEPT_MAX:]
                self._save()
            count = min(BATCH, epoch.first + EPOCH_SLOTS_MAX - published)
            batch.append(KeyBatch(published, tuple(epoch.batch(published, count))))
            slots.append(published)
        # A batch may be in the ledger and its epoch's key not: each statement can get lost alone.
        lacking = {e.first: e for e in map(self._of, slots) if e is not None}
        keys = [
            EpochKey(max(first, next_), epoch.share_public)
            for first, epoch in sorted(lacking.items())
            if member.epoch_key(max(first, next_)) != epoch.share_public
        ]
        return [*keys, *batch]

    def secrets(self, slot: int) -> Secrets | None:
        """The private halves for a slot; None if they are erased, or were never here."""
        epoch = self._of(slot)
        return None if epoch is None else Secrets(epoch.one_time(slot), epoch.share_private)

    def erase_before(self, slot: int) -> None:
        """The slots below are over."""
        before = [epoch.state() for epoch in self._epochs]
        for epoch in self._epochs:
            epoch.erase_before(slot)
        self._epochs = [e for e in self._epochs if slot < e.first + EPOCH_SLOTS_MAX]
        if [epoch.state() for epoch in self._epochs] != before:
            self._save()

    def _of(self, slot: int) -> EpochKeys | None:
        return next((e for e in reversed(self._epochs) if max(e.first, e.at) <= slot < e.first + EPOCH_SLOTS_MAX), None)

    def _save(self) -> None:
        self._keep(encode_epochs(self._epochs))


def slot_of(ledger: LedgerState) -> Slot | None:
    """The open attempt as its participants know it; None if one of them has no keys for it."""
    attempt = ledger.attempt
    assert attempt is not None
    number = attempt.plan.slot
    parties = []
    for participant in attempt.plan.participants:
        member = ledger.registry.members.get(participant.member)
        one_time = member.one_time_key(number) if member else None
        epoch = member.epoch_key(number) if member else None
        if one_time is None or epoch is None:
            return None
        parties.append(Party(participant.member, one_time, epoch))
    name = SlotName(ledger.genesis, number // EPOCH_SLOTS_MAX, number, attempt.rid)
    numbers = attempt.plan.thresholds
    return Slot(name, tuple(parties), numbers, len(parties) == 3 and numbers.q == 2)


def has_keys(ledger: LedgerState, member: bytes, slot: int) -> bool:
    """Whether a member has published keys for a slot."""
    found = ledger.registry.members[member]
    return found.one_time_key(slot) is not None and found.epoch_key(slot) is not None
