"""Participants of one secure slot in one process: real keys, shares and masks, words of a small vector, no quantiser."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import numpy as np

from shoal.kernels import ring
from shoal.secure.journal import MemoryJournal
from shoal.secure.kdf import digest
from shoal.secure.keys import EpochKeys
from shoal.secure.participant import Participant, Secrets, Slot
from shoal.secure.seeds import Party, SlotName
from shoal.thresholds import thresholds


def identity(number: int) -> bytes:
    return digest("test-id", bytes([number]))


class SlotTable:
    """n participants with words each; ``deal`` and ``share`` bring them to the point where they mask."""

    def __init__(
        self, n: int, bits: int = 8, count: int = 64, seed: int = 0, slot: int = 5, before: SlotTable | None = None
    ) -> None:
        """before: the slot before this one, of the same participants: their keys and journals go on."""
        self.random = Random(seed) if before is None else before.random
        self.bits, self.count = bits, count
        self.name = SlotName(b"s" * 32, 1, slot, digest("test-rid", bytes([slot])))
        ids = sorted(identity(i) for i in range(n))
        self.keys = {i: EpochKeys.generate(slot, self.draw) for i in ids} if before is None else before.keys
        parties = tuple(Party(i, self.keys[i].batch(slot, 1)[0], self.keys[i].share_public) for i in ids)
        self.slot = Slot(self.name, parties, thresholds(n))
        self.ids = ids
        self.journals = {i: MemoryJournal() for i in ids} if before is None else before.journals
        self.people = {
            i: Participant(i, self.slot, Secrets(k.one_time(slot), k.share_private), self.journals[i], self.draw)
            for i, k in self.keys.items()
        }
        size = ring.word_bytes(count, bits)
        rng = np.random.default_rng(seed)
        self.words = {i: rng.integers(0, 256, size, np.uint8) for i in ids}
        self.messages: list[bytes] = []
        #: what clerks put together
        self.opened_keys: dict[bytes, bytes] = {}

    def draw(self, count: int) -> bytes:
        return self.random.randbytes(count)

    def restarted(self, who: bytes) -> Participant:
        """The participant in its next life: keys and journal are there, nothing else."""
        keys, slot = self.keys[who], self.name.slot
        secrets = Secrets(keys.one_time(slot), keys.share_private)
        return Participant(who, self.slot, secrets, self.journals[who], self.draw)

    def share(self, absent: Iterable[bytes] = (), torn: Iterable[bytes] = ()) -> None:
        """Everybody but the absent deals, everybody holds, V1 are those that reached all; the torn reach one other."""
        dealing = [i for i in self.ids if i not in set(absent)]
        present = [i for i in dealing if i not in set(torn)]
        dealt = {i: self.people[i].deal() for i in dealing}
        self.commitments = {i: committed for i, (committed, _) in dealt.items()}
        for dealer, (committed, sealed) in dealt.items():
            for holder in present if dealer in present else present[:1]:
                if holder != dealer:
                    self.messages.append(sealed[holder])
                    self.people[holder].hold(dealer, sealed[holder], committed)
        self.shared = present
        for i in present:
            self.people[i].begin(present)

    def upload(self, who: bytes) -> np.ndarray:
        y = np.empty_like(self.words[who])
        ring.add_streams(self.words[who], self.bits, self.people[who].upload_streams(), ring.LANE_MODEL, 0, y)
        self.people[who].commit(digest("test-upload", y.tobytes()))
        self.messages.append(y.tobytes())
        return y

    def open(self, survivors: list[bytes], vanished: Iterable[bytes] = ()) -> Participant:
        """Certificate, seeds, halves; the first survivor that is still there ends up able to unmask."""
        online = [i for i in self.shared if i not in set(vanished)]
        for i in online:
            if i in survivors:
                self.people[i].sign(survivors)
        for i in online:
            self.people[i].certify(survivors)
        clerk = self.people[next(i for i in survivors if i in online)]
        return self.opened_by(clerk.me.id, survivors, vanished)

    def opened_by(self, who: bytes, survivors: list[bytes], vanished: Iterable[bytes] = ()) -> Participant:
        """Everything that is still there is told to one participant."""
        online = [i for i in self.shared if i not in set(vanished)]
        clerk = self.people[who]
        for i in survivors:
            if i in online:
                seed = self.people[i].own_seed()
                self.messages.append(seed)
                clerk.take_seed(i, seed)
        seeds, keys = clerk.wanted()
        for subject in sorted(seeds | keys):
            for holder in online:
                secret = clerk.take_half(subject, holder, self.people[holder].half_of(subject))
                if secret is not None:
                    if subject in keys:
                        self.opened_keys[subject] = secret
                    break
        return clerk

    def unmask(self, clerk: Participant, uploads: list[np.ndarray]) -> np.ndarray:
        total = np.empty_like(uploads[0])
        ring.sum_words(uploads, self.bits, total)
        ring.add_streams(total, self.bits, clerk.removal(), ring.LANE_MODEL, 0, total)
        return total

    def plain(self, survivors: list[bytes]) -> np.ndarray:
        total = np.empty_like(self.words[survivors[0]])
        ring.sum_words([self.words[i] for i in survivors], self.bits, total)
        return total
