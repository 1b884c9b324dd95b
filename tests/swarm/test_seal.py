"""Sealed chunks: what opens, and everything that must not."""

from __future__ import annotations

import pytest

from shoal.swarm.seal import COUNTER_BYTES, SEALS_MAX, TAG_BYTES, Exchange, Opener, Sealer, Session

KEY = bytes(range(32))


def agreed() -> tuple[Session, Session]:
    dialler, listener = Exchange(), Exchange()
    one, two = (b"d" * 32, dialler.public), (b"l" * 32, listener.public)
    return (
        Session(dialler.agree(listener.public, one, two), dialled=True),
        Session(listener.agree(dialler.public, one, two), dialled=False),
    )


def parts(sealer: Sealer, header: bytes = b"head", body: bytes = b"body" * 100) -> tuple[bytes, memoryview, memoryview]:
    head, sealed, data = sealer.seal(b"\x03", header, body)
    return head, memoryview(sealed), data


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 2**20])
def test_both_directions_open_and_hide(size: int) -> None:
    here, there = agreed()
    body = bytes(i % 251 for i in range(size))
    for sender, receiver in ((here, there), (there, here)):
        for _ in range(3):
            head, header, data = parts(sender.sealer, b"header", body)
            assert b"header" not in bytes(header) and len(data) == size + TAG_BYTES
            opened = receiver.opener.open(head, header, data)
            assert opened is not None and opened[0] == b"header" and opened[1] == body and opened[1].readonly
    assert here.ticket == there.ticket


def test_every_flipped_bit_is_refused_and_does_no_harm() -> None:
    sealer, opener = Sealer(KEY), Opener(KEY)
    good = parts(sealer, b"h", b"body")
    for which in range(3):
        for bit in range(8 * len(good[which])):
            bad = [bytearray(p) for p in good]
            bad[which][bit // 8] ^= 1 << bit % 8
            assert opener.open(bytes(bad[0]), memoryview(bad[1]), memoryview(bad[2])) is None
    assert opener.open(*good) is not None


def test_replayed_and_reordered_chunks_are_refused() -> None:
    sealer, opener = Sealer(KEY), Opener(KEY)
    first, second, third = (parts(sealer) for _ in range(3))
    assert opener.open(*first) is not None
    assert opener.open(*first) is None
    assert opener.open(*third) is not None  # one may be lost
    assert opener.open(*second) is None
    assert opener.open(*third) is None


def test_parts_of_two_chunks_do_not_mix() -> None:
    sealer = Sealer(KEY)
    one, two = parts(sealer, b"one"), parts(sealer, b"two")
    for mixed in ((one[0], one[1], two[2]), (one[0], two[1], one[2]), (two[0], one[1], one[2])):
        assert Opener(KEY).open(*mixed) is None
    # Header and body have nonces of their own, so neither stands for the other.
    assert Opener(KEY).open(one[0], one[2], one[1]) is None


def test_foreign_chunks_are_refused() -> None:
    (here, there), (_, elsewhere) = agreed(), agreed()
    chunk = parts(here.sealer)
    assert elsewhere.opener.open(*chunk) is None  # another session
    assert here.opener.open(*chunk) is None  # sent back to its sender
    assert there.opener.open(*chunk) is not None


def test_a_session_belongs_to_its_two_keys() -> None:
    one, two = Exchange(), Exchange()
    real = one.agree(two.public, (b"a" * 32, one.public), (b"b" * 32, two.public))
    assert len(set(real)) == 3 and all(len(value) == 32 for value in real)
    other = two.agree(one.public, (b"c" * 32, one.public), (b"b" * 32, two.public))
    assert not set(real) & set(other)


@pytest.mark.parametrize("point", [bytes(32), (1).to_bytes(32, "little"), b"short"])
def test_keys_that_make_the_secret_known_are_refused(point: bytes) -> None:
    mine = Exchange()
    with pytest.raises(ValueError):
        mine.agree(point, (b"a" * 32, mine.public), (b"b" * 32, point))


def test_a_key_seals_each_nonce_once_and_not_too_many() -> None:
    sealer = Sealer(KEY, seals_max=4)
    heads = [sealer.seal(b"\x03", b"h", b"b")[0] for _ in range(2)]
    assert [int.from_bytes(h[1:], "little") for h in heads] == [0, 2] and sealer.spent
    with pytest.raises(AssertionError):
        sealer.seal(b"\x03", b"h", b"b")


@pytest.mark.parametrize(
    "head", [b"", b"\x03", b"\x03" + bytes(COUNTER_BYTES - 1), b"\x03" + SEALS_MAX.to_bytes(8, "little")]
)
def test_heads_that_are_none(head: bytes) -> None:
    _, header, body = parts(Sealer(KEY))
    assert Opener(KEY).open(head, header, body) is None


def test_what_is_not_sealed_is_taken_only_by_who_seals_nothing() -> None:
    here, there = agreed()
    values = (b"d" * 32, b"l" * 32, b"t" * 32)
    bare = Session(values, dialled=True, sealed=False), Session(values, dialled=False, sealed=False)
    head, header, body = bare[0].sealer.seal(b"\x03", b"header", memoryview(b"body"))
    frame = head, memoryview(header), memoryview(body)
    opened = bare[1].opener.open(*frame)
    assert opened == (b"header", b"body") and opened[1].readonly
    assert there.opener.open(*frame) is None
    assert bare[1].opener.open(*parts(here.sealer)) is None
