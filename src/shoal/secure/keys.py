"""A member's keys for secure rounds: one epoch key that shares are sealed for, and a one-time key for each slot.

One-time keys hang on a chain that only goes forward:

    esk[slot]    = KDF(root[slot], "one-time", LE64(slot))
    root[slot+1] = KDF(root[slot], "ratchet")

Whoever gets hold of the chain at a slot can follow it forward, not back: once a slot is over its key cannot be made
again, by anybody.  Their public halves are published beforehand, in signed batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from msgspec import Meta

from shoal.errors import ArgumentError, InputError, PeerError
from shoal.exchange_key import exchange_key_fault
from shoal.limits import EPOCH_SLOTS_MAX, EPOCHS_KEPT_MAX, KEPT_KEYS_BYTES_MAX
from shoal.secure.kdf import derive, le64

KEY_BYTES: Final = 32


def public_of(private: bytes) -> bytes:
    """X25519(private, 9): the public half.

    raises  ArgumentError  ``key.length``
    """
    if len(private) != KEY_BYTES:
        raise ArgumentError("key.length", f"a private key of {len(private)} bytes; expected {KEY_BYTES}")
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def agree(private: bytes, public: bytes) -> bytes:
    """X25519(private, public), never all zero.

    raises  PeerError      ``key.exchange``: not canonical, or of small order (RFC 7748, section 6.1)
            ArgumentError  ``key.length``: of the private key
    """
    if len(private) != KEY_BYTES:
        raise ArgumentError("key.length", f"a private key of {len(private)} bytes; expected {KEY_BYTES}")
    fault = exchange_key_fault(public, "an exchange key")
    if fault:
        raise PeerError("key.exchange", fault)
    try:
        return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise PeerError("key.exchange", "an exchange key agrees on nothing but zero") from None


def check_distinct(keys: Iterable[bytes], what: str) -> None:
    """raises  PeerError  ``key.exchange``, ``key.repeated``: a key cannot be one, or comes twice"""
    seen: set[bytes] = set()
    for key in keys:
        fault = exchange_key_fault(key, what)
        if fault:
            raise PeerError("key.exchange", fault)
        if key in seen:
            raise PeerError("key.repeated", f"two participants have the same {what}; one reflects the other's")
        seen.add(key)


class EpochKeys:
    """The private halves of one epoch.  Never shown.

    first   the slot that it began with
    """

    def __init__(self, root: bytes, share_key: bytes, first: int, at: int | None = None) -> None:
        """``root`` is that of slot ``at`` (default: first).  Use `generate` for a new epoch.

        raises  ArgumentError  ``key.length``;  ``key.epoch``: ``at`` is not in the epoch, nor right behind it
        """
        if len(root) != KEY_BYTES or len(share_key) != KEY_BYTES:
            raise ArgumentError("key.length", f"keys of {len(root)} and {len(share_key)} bytes; expected {KEY_BYTES}")
        self.first = first
        self._at = first if at is None else at
        if not 0 <= first <= self._at <= first + EPOCH_SLOTS_MAX:
            raise ArgumentError("key.epoch", f"slot {at} is not of the epoch that began with slot {first}")
        self._root = bytearray(root)
        self._share_key = bytearray(share_key)
        self.share_public = public_of(bytes(share_key))

    @classmethod
    def generate(cls, first: int, draw: Callable[[int], bytes]) -> EpochKeys:
        """``draw(n)``: n secret random bytes of the operating system."""
        return cls(draw(KEY_BYTES), draw(KEY_BYTES), first)

    def one_time(self, slot: int) -> bytes:
        """The private key of a slot.

        raises  ArgumentError  ``key.erased``: the slot is over;  ``key.epoch``: beyond the epoch
        """
        return self._one_times(slot, 1)[0]

    def batch(self, first: int, count: int) -> list[bytes]:
        """Public one-time keys of slots first ... first + count - 1.  raises  as `one_time`"""
        return [public_of(key) for key in self._one_times(first, count)]

    def _one_times(self, first: int, count: int) -> list[bytes]:
        if first < self._at:
            raise ArgumentError("key.erased", f"the one-time key of slot {first} was erased; slot {self._at} is next")
        if first + count > self.first + EPOCH_SLOTS_MAX:
            beyond = f"slot {first + count - 1} is beyond the epoch that began with slot {self.first}"
            raise ArgumentError("key.epoch", beyond)
        root = bytes(self._root)
        found = []
        for slot in range(self._at, first + count):
            if slot >= first:
                found.append(derive(root, "one-time", le64(slot)))
            root = derive(root, "ratchet")
        return found

    @property
    def at(self) -> int:
        """The first slot whose key can still be made."""
        return self._at

    @property
    def share_private(self) -> bytes:
        return bytes(self._share_key)

    def erase_before(self, slot: int) -> None:
        """Make the keys of all slots below ``slot`` impossible to make again."""
        while self._at < min(slot, self.first + EPOCH_SLOTS_MAX):
            self._root[:] = derive(bytes(self._root), "ratchet")
            self._at += 1

    def erase(self) -> None:
        """The epoch is over."""
        self._root[:] = bytes(KEY_BYTES)
        self._share_key[:] = bytes(KEY_BYTES)
        self._at = self.first + EPOCH_SLOTS_MAX

    def state(self) -> tuple[bytes, bytes, int, int]:
        """(root, share key, first, at), to be kept where only this member can read it."""
        return bytes(self._root), bytes(self._share_key), self.first, self._at

    def __repr__(self) -> str:
        return f"EpochKeys(first={self.first}, at={self._at})"


Key = Annotated[bytes, Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_States = Annotated[tuple[tuple[Key, Key, Number, Number], ...], Meta(max_length=EPOCHS_KEPT_MAX)]
_STATES: Final = msgspec.msgpack.Decoder(_States)


def encode_epochs(epochs: Sequence[EpochKeys]) -> bytes:
    """For `Journal.keep_keys`: at most EPOCHS_KEPT_MAX epochs, private halves and all.

    raises  ArgumentError  ``key.epochs``: more than that
    """
    if len(epochs) > EPOCHS_KEPT_MAX:
        raise ArgumentError("key.epochs", f"{len(epochs)} epochs; expected at most {EPOCHS_KEPT_MAX}")
    return msgspec.msgpack.encode([epoch.state() for epoch in epochs])


def decode_epochs(data: bytes) -> list[EpochKeys]:
    """What `encode_epochs` made.  raises  InputError  ``key.state``; no part of the bytes is in the message"""
    if len(data) > KEPT_KEYS_BYTES_MAX:
        raise InputError("key.state", f"{len(data)} bytes of kept keys; expected at most {KEPT_KEYS_BYTES_MAX}")
    try:
        return [EpochKeys(*state) for state in _STATES.decode(data)]
    except (msgspec.MsgspecError, RecursionError, ArgumentError):
        raise InputError("key.state", f"{len(data)} bytes are not keys of epochs as they were kept") from None
