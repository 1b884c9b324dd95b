"""What a participant must never forget: written down before it acts, so that a restart cannot make it act twice.

    claim        a slot is used once: whoever claims it again, or one below it, is refused
    sign         one survivor set for a slot, for ever
    open_half    of each participant the key half or the seed half, never both
    commit       one upload for a slot: what is sent again is the same bytes

A call that returns True is on the disk.  `MemoryJournal` is for simulation; `journal_file.py` has the durable one.
"""

from __future__ import annotations

from typing import Protocol


class Journal(Protocol):
    """See the module.  All methods return False where an earlier decision forbids it, and change nothing then."""

    def claim(self, slot: int) -> bool:
        """This slot, and none before it, from now on."""
        ...

    def sign(self, slot: int, survivors: bytes) -> bool:
        """Sign this survivor set; again and again, but no other."""
        ...

    def open_half(self, slot: int, subject: bytes, which: int) -> bool:
        """Give away this half of the secret of ``subject``; again, but never the other."""
        ...

    def commit(self, slot: int, root: bytes) -> bool:
        """Upload what has this root; again, but nothing else."""
        ...

    def keep_keys(self, state: bytes) -> None:
        """Keep the state of the keys of slots to come, in the place of the last one, which is overwritten."""
        ...

    def keys(self) -> bytes | None:
        """What `keep_keys` was given last."""
        ...

    def close(self) -> None: ...


class MemoryJournal:
    """A journal that lasts as long as the object."""

    def __init__(self) -> None:
        self._last = -1
        self._kept: dict[tuple[str, int, bytes], bytes] = {}
        self._keys: bytes | None = None

    def claim(self, slot: int) -> bool:
        if slot <= self._last:
            return False
        self._last = slot
        return True

    def sign(self, slot: int, survivors: bytes) -> bool:
        return self._keep("sign", slot, b"", survivors)

    def open_half(self, slot: int, subject: bytes, which: int) -> bool:
        return self._keep("open", slot, subject, bytes([which]))

    def commit(self, slot: int, root: bytes) -> bool:
        return self._keep("commit", slot, b"", root)

    def _keep(self, kind: str, slot: int, subject: bytes, value: bytes) -> bool:
        return self._kept.setdefault((kind, slot, subject), value) == value

    def keep_keys(self, state: bytes) -> None:
        self._keys = state

    def keys(self) -> bytes | None:
        return self._keys

    def close(self) -> None:
        pass
