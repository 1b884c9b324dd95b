"""Shares: any q halves give the secret and fewer say nothing; one half can be shown alone; any bytes are a share or an
error of the one who sent them."""

from __future__ import annotations

import os
from itertools import combinations
from random import Random

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import ArgumentError, PeerError
from shoal.limits import SEALED_SHARE_BYTES_MAX
from shoal.secure import merkle
from shoal.secure.kdf import digest, le64
from shoal.secure.shares import (
    KEY_HALF,
    SEED_HALF,
    Held,
    Opened,
    check_held,
    check_opened,
    deal,
    decode_opened,
    encode_opened,
    put_together,
    seal,
    unseal,
)

SLOT = 7
DEALER = b"d" * 32
HOLDERS = [bytes([i]) * 32 for i in range(1, 8)]
SECRETS = [bytes(64), b"\xff" * 64, b"\x20" * 64, b"\x00 " * 32, bytes(range(64)), b"\x80" + b"\n" * 63]


def dealt(secret: bytes = SECRETS[4], q: int = 5, seed: int = 0):
    return deal(SLOT, DEALER, secret, HOLDERS, q, Random(seed).randbytes)


def refused(call, code: str) -> None:
    with pytest.raises(PeerError) as raised:
        call()
    assert raised.value.code == code


@pytest.mark.parametrize("secret", SECRETS)
def test_any_q_halves_give_the_secret_whatever_its_bytes(secret: bytes) -> None:
    found = dealt(secret, 3)
    held = list(found.held.values())
    for some in combinations(range(7), 3):
        assert put_together({p: held[p].key for p in some}, 3) == secret[:32]
        assert put_together({p: held[p].seed for p in some}, 3) == secret[32:]
    refused(lambda: put_together({p: held[p].key for p in (0, 6)}, 3), "share.few")
    assert put_together({p: h.key for p, h in enumerate(held)}, 3) == secret[:32]


@pytest.mark.parametrize("length", [0, 32, 63, 65])
def test_secrets_of_other_lengths_are_refused(length: int) -> None:
    with pytest.raises(ArgumentError) as raised:
        dealt(bytes(length))
    assert raised.value.code == "share.secret"


def test_fewer_than_q_shares_say_nothing() -> None:
    """Two shares of threshold 3, for two very different secrets, over 4096 deals: each of the 2 x 2 bytes looks uniform
    (chi-square of 255 degrees beyond 400 comes once in 10**8), and so do their pairs' differences."""
    for secret in (bytes(64), b"\xff" * 64):
        draw = Random(1).randbytes
        rows = np.array([
            list(held.key[:1] + held.seed[:1] + other.key[:1])
            for held, other in (list(deal(SLOT, DEALER, secret, HOLDERS[:4], 3, draw).held.values())[:2] for _ in range(4096))
        ])  # fmt: skip
        for column in (rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 0] ^ rows[:, 2]):
            counts = np.bincount(column, minlength=256)
            assert ((counts - 16.0) ** 2 / 16).sum() < 400


def test_the_leaf_is_what_is_written_down() -> None:
    found = dealt()
    leaves = []
    for x, held in enumerate(found.held.values(), 1):
        key, seed = digest("key-half", held.key, held.key_salt), digest("seed-half", held.seed, held.seed_salt)
        leaves.append(digest("share", le64(SLOT), DEALER, bytes([x]), key, seed))
    assert merkle.root(leaves) == found.root


def test_every_salt_is_drawn_anew() -> None:
    salts = [salt for held in dealt().held.values() for salt in (held.key_salt, held.seed_salt)]
    assert len(set(salts)) == 14


@pytest.mark.parametrize("which", [KEY_HALF, SEED_HALF])
def test_a_half_shows_itself_and_nothing_of_the_other(which: int) -> None:
    found = dealt()
    for position, held in enumerate(found.held.values()):
        check_held(held, found.root, SLOT, DEALER, position, 7)
        opened = held.half(which)
        check_opened(opened, found.root, SLOT, DEALER, position, 7)
        half, other = (held.key, held.seed) if which == KEY_HALF else (held.seed, held.key)
        wire = encode_opened(opened)
        assert half in wire and other not in wire
        assert (held.seed_salt if which == KEY_HALF else held.key_salt) not in wire
        assert decode_opened(wire) == opened and len(wire) <= SEALED_SHARE_BYTES_MAX


def test_a_half_is_good_in_its_place_only() -> None:
    """Another half, salt, holder, dealer, slot, size or root, and one half passed off as the other."""
    found = dealt()
    opened = found.held[HOLDERS[2]].half(KEY_HALF)
    where = (found.root, SLOT, DEALER, 2, 7)
    check_opened(opened, *where)
    for change in ({"half": bytes(32)}, {"salt": bytes(32)}, {"other": bytes(32)}, {"which": SEED_HALF}, {"path": ()},
                   {"path": opened.path[::-1]}):  # fmt: skip
        refused(lambda c=change: check_opened(msgspec.structs.replace(opened, **c), *where), "share.path")
    for place in ((bytes(32), *where[1:]), (found.root, 8, *where[2:]), (*where[:2], b"e" * 32, 2, 7), (*where[:3], 3, 7),
                  (*where[:4], 3), (*where[:3], -1, 7)):  # fmt: skip
        refused(lambda p=place: check_opened(opened, *p), "share.path")
    held = found.held[HOLDERS[2]]
    for change in ({"key": bytes(32)}, {"seed": bytes(32)}, {"key_salt": bytes(32)}, {"seed_salt": bytes(32)},
                   {"key": held.seed, "seed": held.key, "key_salt": held.seed_salt, "seed_salt": held.key_salt}):  # fmt: skip
        refused(lambda c=change: check_held(msgspec.structs.replace(held, **c), *where), "share.path")


def test_a_share_is_for_one_holder_of_one_dealer_in_one_slot() -> None:
    held, key = dealt().held[HOLDERS[0]], b"k" * 32
    sealed = seal(held, key, SLOT, DEALER, HOLDERS[0])
    assert unseal(sealed, key, SLOT, DEALER, HOLDERS[0]) == held and len(sealed) <= SEALED_SHARE_BYTES_MAX
    for place in ((b"l" * 32, SLOT, DEALER, HOLDERS[0]), (key, 8, DEALER, HOLDERS[0]), (key, SLOT, b"e" * 32, HOLDERS[0]),
                  (key, SLOT, DEALER, HOLDERS[1])):  # fmt: skip
        refused(lambda p=place: unseal(sealed, *p), "share.sealed")
    for at in range(0, len(sealed), 7):
        flipped = bytearray(sealed)
        flipped[at] ^= 0x10
        refused(lambda f=bytes(flipped): unseal(f, key, SLOT, DEALER, HOLDERS[0]), "share.sealed")
    for cut in (b"", sealed[:15], sealed[:16], sealed[:-1], sealed + b"\0", bytes(SEALED_SHARE_BYTES_MAX + 1)):
        refused(lambda c=cut: unseal(c, key, SLOT, DEALER, HOLDERS[0]), "share.sealed")


def test_the_largest_share_fits() -> None:
    holders = [digest("holder", bytes([i])) for i in range(255)]
    found = deal(SLOT, DEALER, bytes(64), holders, 170, os.urandom)
    assert len(seal(found.held[holders[0]], b"k" * 32, SLOT, DEALER, holders[0])) <= SEALED_SHARE_BYTES_MAX


# --- any bytes -------------------------------------------------------------------------------------------------------

LEAVES = st.one_of(
    st.binary(max_size=40), st.binary(min_size=32, max_size=32), st.integers(-1, 2**64 - 1), st.text(max_size=4),
    st.none(), st.booleans(), st.floats(),
)  # fmt: skip
VALUES = st.recursive(
    LEAVES, lambda inner: st.one_of(st.lists(inner, max_size=10), st.dictionaries(st.integers(0, 9), inner))
)
PLAIN = st.one_of(
    st.binary(max_size=SEALED_SHARE_BYTES_MAX),
    VALUES.map(msgspec.msgpack.encode),
    st.integers(1, 900).map(lambda n: b"\x91" * n),
    st.integers(1, 300).map(lambda n: b"\xdd\xff\xff\xff\xff" * n),
)


@given(PLAIN)
def test_any_bytes_are_an_opened_half_or_an_error(data: bytes) -> None:
    """With lengths that hashing and Shamir can rely on; and what is one, is not one of the dealer's."""
    try:
        opened = decode_opened(data)
    except PeerError as error:
        assert error.code == "share.malformed"
        return
    assert {len(opened.half), len(opened.salt), len(opened.other), *map(len, opened.path)} == {32}
    refused(lambda: check_opened(opened, dealt().root, SLOT, DEALER, 0, 7), "share.path")


@given(PLAIN)
def test_any_plaintext_of_a_dealer_is_a_share_or_an_error(plain: bytes) -> None:
    """A dealer seals what it likes, with the right key."""
    key = b"k" * 32
    sealed = ChaCha20Poly1305(key).encrypt(bytes(12), plain, le64(SLOT) + DEALER + HOLDERS[0])
    try:
        held = unseal(sealed, key, SLOT, DEALER, HOLDERS[0])
    except PeerError as error:
        assert error.code in ("share.malformed", "share.sealed")
        return
    assert {len(half) for half in (held.key, held.seed, held.key_salt, held.seed_salt, *held.path)} == {32}


@given(st.binary(max_size=600))
def test_any_bytes_are_a_sealed_share_or_an_error(data: bytes) -> None:
    refused(lambda: unseal(data, b"k" * 32, SLOT, DEALER, HOLDERS[0]), "share.sealed")


@given(st.data())
def test_an_altered_half_is_refused(data: st.DataObject) -> None:
    """One byte of the wire form: no half any more, or not the dealer's."""
    found = dealt()
    wire = bytearray(encode_opened(found.held[HOLDERS[3]].half(data.draw(st.sampled_from([KEY_HALF, SEED_HALF])))))
    wire[data.draw(st.integers(0, len(wire) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(PeerError) as raised:
        check_opened(decode_opened(bytes(wire)), found.root, SLOT, DEALER, 3, 7)
    assert raised.value.code in ("share.malformed", "share.path")


def test_lengths_and_kinds_are_strict() -> None:
    good = list(msgspec.msgpack.decode(encode_opened(dealt().held[HOLDERS[0]].half(KEY_HALF))))
    assert isinstance(msgspec.convert(good, Opened), Opened)
    for place, value in ((0, 0), (0, 3), (0, True), (1, bytes(31)), (2, bytes(33)), (3, "a" * 32), (4, [bytes(31)]),
                         (4, [bytes(32)] * 9), (1, None)):  # fmt: skip
        bad = [*good]
        bad[place] = value
        refused(lambda b=bad: decode_opened(msgspec.msgpack.encode(b)), "share.malformed")
    refused(lambda: decode_opened(msgspec.msgpack.encode([*good, 1])), "share.malformed")
    refused(lambda: decode_opened(msgspec.msgpack.encode(good[:-1])), "share.malformed")
    with pytest.raises(PeerError, match="expected at most"):
        decode_opened(bytes(SEALED_SHARE_BYTES_MAX + 1))
    assert Held.__struct_fields__ == ("key", "seed", "key_salt", "seed_salt", "path")
