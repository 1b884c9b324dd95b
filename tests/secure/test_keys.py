"""Keys: known answers by other means, what is over cannot be made again, and what cannot be a key is refused."""

from __future__ import annotations

import msgspec
import pytest
from hkdf_by_hand import expand
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import ArgumentError, InputError, PeerError
from shoal.limits import EPOCHS_KEPT_MAX, KEPT_KEYS_BYTES_MAX
from shoal.secure.keys import EpochKeys, agree, check_distinct, decode_epochs, encode_epochs, public_of


def test_the_chain_goes_forward_only() -> None:
    drawn = iter([b"R" * 32, b"S" * 32])
    keys = EpochKeys.generate(10, lambda n: next(drawn))
    batch = keys.batch(10, 5)
    assert len(set(batch)) == 5 and batch == [public_of(keys.one_time(s)) for s in range(10, 15)]
    assert keys.one_time(10) == expand(b"R" * 32, b"one-time", (10).to_bytes(8, "little"))
    root = expand(b"R" * 32, b"ratchet")
    assert keys.one_time(11) == expand(root, b"one-time", (11).to_bytes(8, "little"))
    keys.erase_before(13)
    kept = keys.state()
    assert b"R" * 32 not in kept and root not in kept
    for slot in (10, 12):
        with pytest.raises(ArgumentError, match="erased"):
            keys.one_time(slot)
    assert keys.batch(13, 2) == batch[3:]
    again = EpochKeys(*kept)
    assert again.batch(13, 2) == batch[3:] and again.share_public == keys.share_public
    with pytest.raises(ArgumentError, match="beyond"):
        keys.one_time(10 + 256)
    keys.erase()
    assert keys.state()[:2] == (bytes(32), bytes(32))


def test_bad_public_keys_agree_on_nothing() -> None:
    p = 2**255 - 19
    for bad in (bytes(32), (1).to_bytes(32, "little"), (p - 1).to_bytes(32, "little"), p.to_bytes(32, "little"),
                (p + 1).to_bytes(32, "little"), b"\xff" * 32, bytes(31), bytes(33)):  # fmt: skip
        with pytest.raises(PeerError) as raised:
            agree(b"k" * 32, bad)
        assert raised.value.code == "key.exchange"
    good = public_of(b"k" * 32)
    with pytest.raises(PeerError) as raised:
        check_distinct([good, good], "one-time key")
    assert raised.value.code == "key.repeated"


def test_agreement_is_rfc_7748s() -> None:
    """RFC 7748, section 6.1: Bob's keys, Alice's public one, and what they agree on."""
    bob = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    alice = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
    assert public_of(bob).hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    assert agree(bob, alice).hex() == "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"


def test_kept_keys_come_back_and_other_bytes_do_not() -> None:
    made = [EpochKeys(bytes([i]) * 32, bytes([i + 9]) * 32, 256 * i, 256 * i + 256 - i) for i in range(EPOCHS_KEPT_MAX)]
    kept = encode_epochs(made)
    assert len(kept) <= KEPT_KEYS_BYTES_MAX and [k.state() for k in decode_epochs(kept)] == [k.state() for k in made]
    assert decode_epochs(encode_epochs([])) == []
    with pytest.raises(ArgumentError, match="expected at most"):
        encode_epochs([*made, made[0]])
    state = made[1].state()
    for bad in (
        b"", kept[:-1], kept + b"\0", bytes(KEPT_KEYS_BYTES_MAX + 1),
        *(msgspec.msgpack.encode(value) for value in (
            [*[m.state() for m in made], state], [(state[0][:-1], *state[1:])], [(state[0], state[1] + b"x", *state[2:])],
            [(*state[:2], -1, 0)], [(*state[:2], 5, 4)], [(*state[:2], 5, 262)], [(*state[:2], 5)], [(*state, 5)],
            [(*state[:2], 2**63, 2**63)], [("a" * 32, *state[1:])], 7, None, {}, [[[[]]]],
        )),
    ):  # fmt: skip
        with pytest.raises(InputError) as raised:
            decode_epochs(bad)
        assert raised.value.code == "key.state" and repr(state[0])[2:20] not in str(raised.value)


def test_too_many_bytes_are_not_even_looked_at() -> None:
    with pytest.raises(InputError, match="expected at most"):
        decode_epochs(bytes(KEPT_KEYS_BYTES_MAX + 1))


@given(st.binary(max_size=400))
def test_any_bytes_are_kept_keys_or_an_error(data: bytes) -> None:
    try:
        decode_epochs(data)
    except InputError as error:
        assert error.code == "key.state"


def test_a_batch_is_the_keys_one_by_one_to_the_end_of_the_epoch() -> None:
    keys = EpochKeys(b"R" * 32, b"S" * 32, 100)
    assert keys.batch(100, 256)[200:] == [public_of(keys.one_time(slot)) for slot in range(300, 356)]
    for first, count in ((300, 57), (356, 1), (99, 2)):
        with pytest.raises(ArgumentError):
            keys.batch(first, count)
    keys.erase_before(10**9)
    assert keys.at == 356
    with pytest.raises(ArgumentError, match="erased"):
        keys.one_time(355)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_private_keys_of_other_lengths_are_refused(length: int) -> None:
    for call in (lambda: public_of(bytes(length)), lambda: agree(bytes(length), public_of(b"k" * 32))):
        with pytest.raises(ArgumentError) as raised:
            call()
        assert raised.value.code == "key.length"
