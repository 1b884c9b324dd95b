"""Seeds: as the protocol writes them, the same from both sides, and of one slot, plan and swarm only."""

from __future__ import annotations

import hashlib
import hmac

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from hkdf_by_hand import DOMAIN, expand, framed

from shoal.secure.keys import public_of
from shoal.secure.seeds import Party, SlotName, pair_seed, pair_sign, seed_commitment, self_mask, share_key


def parties() -> tuple[list[bytes], list[bytes], list[Party]]:
    one, two = [bytes([i]) * 32 for i in (3, 5)], [bytes([i]) * 32 for i in (7, 9)]
    return one, two, [Party(bytes([i]) * 32, public_of(one[i]), public_of(two[i])) for i in (0, 1)]


def test_pair_seeds_are_what_the_protocol_writes_and_the_same_on_both_sides() -> None:
    one, _, (a, b) = parties()
    name = SlotName(b"s" * 32, 2, 7, b"r" * 32)
    shared = X25519PrivateKey.from_private_bytes(one[0]).exchange(X25519PublicKey.from_public_bytes(b.one_time))
    salt = hashlib.sha256(DOMAIN + b"pair-salt\0" + framed(b"s" * 32, (7).to_bytes(8, "little"))).digest()
    prk = hmac.digest(salt, shared, "sha256")
    expected = expand(prk, b"pair-mask", b"r" * 32, a.id, b.id, a.one_time, b.one_time)
    assert pair_seed(name, one[0], a, b) == expected == pair_seed(name, one[1], b, a)
    assert pair_sign(a.id, b.id) == 1 == -pair_sign(b.id, a.id)


def test_every_seed_is_bound_to_the_slot() -> None:
    """No seed of one slot is that of another, or of another plan, swarm or epoch."""
    one, two, (a, b) = parties()
    names = [
        SlotName(s, e, n, r)
        for s in (b"s" * 32, b"t" * 32)
        for e in (0, 1)
        for n in (1, 2)
        for r in (b"1" * 32, b"2" * 32)
    ]
    pairs = {pair_seed(name, one[0], a, b) for name in names}
    masks = {self_mask(name, b"b" * 32, a.id) for name in names}
    shares = {share_key(name, two[0], a, b, a.id) for name in names}
    assert (len(pairs), len(masks), len(shares)) == (8, 2, 8)
    assert share_key(names[0], two[0], a, b, a.id) == share_key(names[0], two[1], a, b, b.id)
    assert share_key(names[0], two[0], a, b, a.id) != share_key(names[0], two[0], b, a, a.id)
    assert len({seed_commitment(n, w, s) for n in (1, 2) for w in (a.id, b.id) for s in (b"x" * 32, b"y" * 32)}) == 8


def test_share_keys_are_what_the_protocol_writes() -> None:
    _, two, (a, b) = parties()
    name = SlotName(b"s" * 32, 2, 7, b"r" * 32)
    shared = X25519PrivateKey.from_private_bytes(two[0]).exchange(X25519PublicKey.from_public_bytes(b.epoch))
    salt = hashlib.sha256(DOMAIN + b"share-salt\0" + framed(b"s" * 32, (2).to_bytes(8, "little"))).digest()
    prk = hmac.digest(salt, shared, "sha256")
    for i, j in ((a, b), (b, a)):
        expected = expand(prk, b"share-enc", (7).to_bytes(8, "little"), i.id, j.id, i.epoch, j.epoch)
        assert share_key(name, two[0], i, j, a.id) == expected == share_key(name, two[1], i, j, b.id)


def test_own_masks_are_what_the_protocol_writes() -> None:
    name = SlotName(b"s" * 32, 2, 7, b"r" * 32)
    assert self_mask(name, b"b" * 32, b"i" * 32) == expand(b"b" * 32, b"self-mask", b"r" * 32, b"i" * 32)
    slot = (7).to_bytes(8, "little")
    expected = hashlib.sha256(DOMAIN + b"self-commit\0" + framed(slot, b"i" * 32, b"b" * 32)).digest()
    assert seed_commitment(7, b"i" * 32, b"b" * 32) == expected
