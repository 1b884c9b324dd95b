"""The seeds of one slot: those that pairs agree on, each participant's own, and the keys that shares are sealed under.

Every seed is bound to the rid, and so to the whole plan: participants that were shown different plans make masks that
have nothing to do with each other.
"""

from __future__ import annotations

import msgspec

from shoal.secure.kdf import derive, digest, extract, le64
from shoal.secure.keys import agree


class SlotName(msgspec.Struct, frozen=True):
    """What the seeds of a slot are bound to.

    swarm  digest of the genesis;  epoch, slot  numbers;  rid  32 bytes, stands for the whole plan
    """

    swarm: bytes
    epoch: int
    slot: int
    rid: bytes


class Party(msgspec.Struct, frozen=True):
    """A participant as the others know it: id and public keys of the slot, 32 bytes each.

    one_time  its masks with others come from it;  epoch  shares for it are sealed with it
    """

    id: bytes
    one_time: bytes
    epoch: bytes


def pair_seed(name: SlotName, private: bytes, mine: Party, theirs: Party) -> bytes:
    """s_ij: the same from either side.  ``private``: one-time key of ``mine``.

    raises  PeerError  ``key.exchange``
    """
    low, high = sorted((mine, theirs), key=lambda party: party.id)
    shared = extract(digest("pair-salt", name.swarm, le64(name.slot)), agree(private, theirs.one_time))
    return derive(shared, "pair-mask", name.rid, low.id, high.id, low.one_time, high.one_time)


def pair_sign(mine: bytes, theirs: bytes) -> int:
    """+1 for the lower id, -1 for the higher: what one adds the other takes away."""
    return 1 if mine < theirs else -1


def self_mask(name: SlotName, seed: bytes, who: bytes) -> bytes:
    """m_i: key of a participant's own mask, from its seed b_i."""
    return derive(seed, "self-mask", name.rid, who)


def seed_commitment(slot: int, who: bytes, seed: bytes) -> bytes:
    """h_i: binds a participant to its seed, and says nothing about it."""
    return digest("self-commit", le64(slot), who, seed)


def share_key(name: SlotName, private: bytes, sender: Party, receiver: Party, me: bytes) -> bytes:
    """K_{i->j}: key that i's share for j is sealed under.  ``private``: epoch key of ``me``, one of the two.

    raises  PeerError  ``key.exchange``
    """
    other = receiver if sender.id == me else sender
    shared = extract(digest("share-salt", name.swarm, le64(name.epoch)), agree(private, other.epoch))
    return derive(shared, "share-enc", le64(name.slot), sender.id, receiver.id, sender.epoch, receiver.epoch)
