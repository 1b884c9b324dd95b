"""Keys and signatures: one rule everywhere, small-order points refused, private keys kept private."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from swarm_builder import identity

from shoal.errors import InputError, MachineError
from shoal.exchange_key import exchange_key_fault
from shoal.ledger.identity import Identity, member_id, signature_holds, signing_key_fault
from shoal.ledger.key_file import create_key_file, read_key_file

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
Point = tuple[int, int]


def add(a: Point, b: Point) -> Point:
    """Edwards addition (RFC 8032 section 5.1), in affine coordinates: slow and plain."""
    (x1, y1), (x2, y2) = a, b
    k = D * x1 * x2 * y1 * y2 % P
    x = (x1 * y2 + x2 * y1) * pow(1 + k, -1, P) % P
    return x, (y1 * y2 + x1 * x2) * pow(1 - k, -1, P) % P


def times(n: int, a: Point) -> Point:
    total: Point = (0, 1)
    while n:
        if n & 1:
            total = add(total, a)
        a, n = add(a, a), n >> 1
    return total


def recover(y: int) -> Point | None:
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    return (x, y) if x * x % P == square else None


def packed(point: Point) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def small_order_points() -> set[Point]:
    """All eight, found by multiplying points with the order of the large subgroup."""
    found: set[Point] = set()
    y = 2
    while len(found) < 8:
        point = recover(y)
        y += 1
        if point is not None:
            torsion = times(L, point)
            for n in range(8):
                found.add(times(n, torsion))
    return found


def test_all_eight_points_of_small_order_are_refused() -> None:
    points = small_order_points()
    assert len(points) == 8
    for point in points:
        assert times(8, point) == (0, 1)
        assert "small order" in signing_key_fault(packed(point))
        # and with the sign bit turned, which for x = 0 is one more spelling of the same point
        other = bytearray(packed(point))
        other[31] ^= 0x80
        assert "small order" in signing_key_fault(bytes(other))


@pytest.mark.parametrize("y", [P, P + 1, P + 18, 2**255 - 1])
def test_keys_that_are_not_canonical_are_refused(y: int) -> None:
    assert "canonical" in signing_key_fault(y.to_bytes(32, "little"))
    assert "canonical" in signing_key_fault((y | 1 << 255).to_bytes(32, "little"))
    assert "canonical" in exchange_key_fault(y.to_bytes(32, "little"), "key")


def test_keys_that_are_no_points_or_have_another_length_are_refused() -> None:
    off = next(y for y in range(2, 100) if recover(y) is None)
    assert "not a point" in signing_key_fault(off.to_bytes(32, "little"))
    for length in (0, 31, 33, 64):
        assert "bytes, expected 32" in signing_key_fault(bytes(length))
        assert "bytes, expected 32" in exchange_key_fault(bytes(length), "key")


def test_good_keys_pass() -> None:
    assert [signing_key_fault(identity(n).public) for n in range(50)] == [""] * 50


def test_exchange_keys_of_small_order_are_refused() -> None:
    """With u of small order, eight times the point is the point at infinity, whatever the other's secret."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

    from shoal.exchange_key import _SMALL_ORDER_U

    mine = X25519PrivateKey.generate()
    assert len(_SMALL_ORDER_U) == 5
    for u in _SMALL_ORDER_U:
        data = u.to_bytes(32, "little")
        assert "small order" in exchange_key_fault(data, "key")
        with pytest.raises(ValueError, match="computing shared key"):
            mine.exchange(X25519PublicKey.from_public_bytes(data))
    assert exchange_key_fault(mine.public_key().public_bytes_raw(), "key") == ""


def test_a_signature_with_s_above_the_order_is_refused() -> None:
    """S + L satisfies the equation; two signatures of one message would make two payloads of one statement."""
    who = identity(0)
    signature = who.sign(b"message")
    assert signature_holds(who.public, signature, b"message")
    s = int.from_bytes(signature[32:], "little")
    assert s + L < 2**256
    again = signature[:32] + (s + L).to_bytes(32, "little")
    assert not signature_holds(who.public, again, b"message")


def test_a_signature_holds_for_its_key_and_message_only() -> None:
    who = identity(0)
    signature = who.sign(b"message")
    assert not signature_holds(identity(1).public, signature, b"message")
    assert not signature_holds(who.public, signature, b"massage")
    for length in (0, 63, 65):
        assert not signature_holds(who.public, bytes(length), b"message")
    assert not signature_holds(b"", signature, b"message")


def test_known_answer() -> None:
    """RFC 8032 section 7.1, test 2."""
    who = Identity.from_seed(bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"))
    assert who.public.hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    expected = (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    assert who.sign(b"\x72").hex() == expected
    assert who.id == member_id(who.public)


def test_key_files(tmp_path: Path) -> None:
    path = tmp_path / "identity.pem"
    old = os.umask(0)
    try:
        made = create_key_file(path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_key_file(path).public == made.public
    with pytest.raises(MachineError, match="exists already"):
        create_key_file(path)
    assert repr(made) == f"Identity({made.id.hex()[:16]})"


def test_key_files_that_others_can_read_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "identity.pem"
    create_key_file(path)
    for mode in (0o640, 0o604, 0o660, 0o666):
        path.chmod(mode)
        with pytest.raises(MachineError, match="chmod 600") as caught:
            read_key_file(path)
        assert caught.value.code == "key.exposed"


def test_what_is_no_key_file_is_refused_without_quoting_it(tmp_path: Path) -> None:
    path = tmp_path / "identity.pem"
    create_key_file(path)
    secret = path.read_bytes()
    link = tmp_path / "link.pem"
    link.symlink_to(path)
    with pytest.raises(MachineError):
        read_key_file(link)
    with pytest.raises(MachineError, match="No such file"):
        read_key_file(tmp_path / "none.pem")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    with pytest.raises(InputError, match="not a regular file"):
        read_key_file(pipe)
    for data in (b"", b"no pem", secret[: len(secret) // 2], secret.replace(b"M", b"N"), bytes(5000)):
        path.write_bytes(data)
        with pytest.raises(InputError) as caught:
            read_key_file(path)
        body = secret.splitlines()[1]
        assert body[:12].decode() not in str(caught.value)


def test_keys_of_other_kinds_are_refused(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    pem = X25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(InputError, match="another kind"):
        Identity.from_pem(pem, "file")
