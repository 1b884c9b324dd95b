"""What a survivor certificate opens, and what follows from it: of each survivor its seed, of each that fell out its
one-time key, checked against what they committed to; and from these the streams that take masks away.

Nothing here is secret any more: once the certificate stands, everybody may know it, and owners must.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from shoal.errors import PeerError
from shoal.kernels.ring import Streams
from shoal.secure import masks
from shoal.secure.keys import public_of
from shoal.secure.seeds import pair_seed, seed_commitment, self_mask
from shoal.secure.shares import HALF_BYTES, KEY_HALF, SEED_HALF, Opened, check_opened, put_together
from shoal.secure.slot import Commitments, Slot

_WHAT: Final = {KEY_HALF: "one-time key", SEED_HALF: "seed"}


class Opening:
    """See the module.

    survivors  U, the certified set          fallen  V1 without U
    graph      mask partners of each in V1   dealt   dealer -> what it committed to, as far as it is known here
    """

    def __init__(
        self,
        slot: Slot,
        survivors: frozenset[bytes],
        graph: Mapping[bytes, frozenset[bytes]],
        dealt: Mapping[bytes, Commitments],
    ) -> None:
        self.survivors = survivors
        self.fallen = frozenset(graph) - survivors
        self._slot = slot
        self._graph = graph
        self._dealt = dealt
        self._seeds: dict[bytes, bytes] = {}
        self._keys: dict[bytes, bytes] = {}
        self._halves: dict[bytes, dict[int, bytes]] = {}

    def __repr__(self) -> str:
        return f"Opening({len(self._seeds)} of {len(self.survivors)} seeds, {len(self._keys)} keys)"

    def half(self, subject: bytes) -> int:
        """Which half of the secret of ``subject`` the certificate calls for.

        raises  PeerError  ``slot.stranger``: none; it is not in the share-set
        """
        if subject in self.survivors:
            return SEED_HALF
        if subject in self.fallen:
            return KEY_HALF
        raise PeerError("slot.stranger", f"{subject.hex()[:16]} is not in the share-set: nothing of it is opened")

    def wanted(self) -> tuple[frozenset[bytes], frozenset[bytes]]:
        """(survivors whose seed, those that fell out whose key) is still missing to unmask the sum."""
        relevant = frozenset(d for _, d in masks.edges(self.survivors, self._graph, self.fallen))
        return self.survivors - self._seeds.keys(), relevant - self._keys.keys()

    def take_seed(self, who: bytes, seed: bytes) -> None:
        """raises  PeerError  ``slot.stranger``, ``seed.wrong``: not the one it committed to"""
        if who not in self.survivors:
            raise PeerError("slot.stranger", f"{who.hex()[:16]} is no survivor: its seed stays closed")
        committed = self._dealt.get(who)
        fits = committed is not None and committed.seed == seed_commitment(self._slot.name.slot, who, seed)
        if len(seed) != HALF_BYTES or not fits:
            raise PeerError("seed.wrong", f"not the seed that {who.hex()[:16]} committed to")
        self._seeds[who] = seed

    def take_key(self, who: bytes, key: bytes) -> None:
        """raises  PeerError  ``slot.stranger``, ``key.wrong``: not the private half of the key that was published"""
        if who not in self.fallen:
            raise PeerError("slot.stranger", f"{who.hex()[:16]} did not fall out: its key stays closed")
        if len(key) != HALF_BYTES or public_of(key) != self._slot.party(who).one_time:
            raise PeerError("key.wrong", f"not the one-time key of {who.hex()[:16]}")
        self._keys[who] = key

    def take_half(self, subject: bytes, holder: bytes, opened: Opened) -> bytes | None:
        """As clerk: a holder's half.  The secret, once q of them are here; None before.

        raises  PeerError  ``share.path``: the holder's fault;  ``share.dealer``: the dealer's: its shares do not give
                           what it committed to;  ``slot.half``: not the half that the certificate calls for;
                           ``slot.stranger``
        """
        which, position = self.half(subject), self._slot.position(holder)
        if opened.which != which:
            raise PeerError("slot.half", f"of {subject.hex()[:16]} the {_WHAT[which]} is opened, and nothing else")
        committed = self._dealt.get(subject)
        if committed is None:
            raise PeerError("slot.stranger", f"{subject.hex()[:16]} dealt no shares that are known here")
        size, slot = len(self._slot.parties), self._slot.name.slot
        check_opened(opened, committed.root, slot, subject, position, size)
        known = (self._seeds if which == SEED_HALF else self._keys).get(subject)
        if known is not None:
            return known
        halves = self._halves.setdefault(subject, {})
        halves[position] = opened.half
        if len(halves) < self._slot.numbers.q:
            return None
        secret = put_together(halves, self._slot.numbers.q)
        try:
            (self.take_seed if which == SEED_HALF else self.take_key)(subject, secret)
        except PeerError:
            raise PeerError(
                "share.dealer", f"the shares of {subject.hex()[:16]} do not give the {_WHAT[which]} it committed to"
            ) from None
        return secret

    def removal(self) -> Streams:
        """What takes all masks off the sum of the survivors' uploads.

        raises  PeerError  ``slot.secrets``: some are missing
        """
        seeds, keys = self.wanted()
        if seeds or keys:
            raise PeerError("slot.secrets", f"{len(seeds)} seeds and {len(keys)} keys are missing to unmask the sum")
        own = {i: self._own(i) for i in self.survivors}
        pairs = {(i, d): self._pair(i, d) for i, d in masks.edges(self.survivors, self._graph, self.fallen)}
        return masks.removal(own, pairs)

    def vouching(self, who: bytes) -> Streams:
        """What is taken off the upload of ``who`` before its check sums are made.

        raises  PeerError  ``slot.secrets``
        """
        fallen = self._graph.get(who, frozenset()) & self.fallen
        if who not in self._seeds or not fallen <= self._keys.keys():
            raise PeerError("slot.secrets", f"seeds or keys are missing to vouch for {who.hex()[:16]}")
        return masks.vouching(who, self._own(who), {d: self._pair(who, d) for d in fallen})

    def _own(self, who: bytes) -> bytes:
        return self_mask(self._slot.name, self._seeds[who], who)

    def _pair(self, survivor: bytes, fallen: bytes) -> bytes:
        """s_id, from the key of d that was opened."""
        dropped, other = self._slot.party(fallen), self._slot.party(survivor)
        return pair_seed(self._slot.name, self._keys[fallen], dropped, other)
