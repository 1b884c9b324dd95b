"""Who a member is: an Ed25519 key, the id made of it, and the one rule by which signatures are checked everywhere.

The rule: RFC 8032 with S < L (OpenSSL refuses others) and a canonical R; the public key was checked when it entered the
ledger: canonical, and not of small order, for which anybody can make signatures that hold for many messages.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from shoal.errors import InputError

KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64

_P: Final = 2**255 - 19
_LOW_255: Final = 2**255 - 1
#: y of the eight points of small order (two of order 8 share each of the last two values, up to the sign of x)
_SMALL_ORDER_Y: Final = frozenset(
    (
        0,
        1,
        _P - 1,
        int.from_bytes(bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little"),
        int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"),
    )
)


def member_id(public_key: bytes) -> bytes:
    """The id of a member: SHA-256 of the Ed25519 public key that it first came with (32 bytes)."""
    return hashlib.sha256(public_key).digest()


def signing_key_fault(public_key: bytes) -> str:
    """Why these bytes cannot be a member's Ed25519 public key; "" if they can."""
    if len(public_key) != KEY_BYTES:
        return f"signing key has {len(public_key)} bytes, expected {KEY_BYTES}"
    y = int.from_bytes(public_key, "little") & _LOW_255
    if y >= _P:
        return "signing key is not in canonical form"
    if y in _SMALL_ORDER_Y:
        return "signing key is a point of small order"
    if not _is_on_curve(y, public_key[31] >> 7):
        return "signing key is not a point of the curve"
    return ""


def _is_on_curve(y: int, sign: int) -> bool:
    """Does -x^2 + y^2 = 1 + d x^2 y^2 have a solution with this y?  (RFC 8032 section 5.1.3)"""
    d = -121665 * pow(121666, -1, _P) % _P
    square = (y * y - 1) * pow(d * y * y + 1, -1, _P) % _P
    if square == 0:
        return sign == 0
    return pow(square, (_P - 1) // 2, _P) == 1


@lru_cache(maxsize=4096)
def _loaded(public_key: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(public_key)


def signature_holds(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """True if ``signature`` over ``message`` was made with the private half of ``public_key``.  Frees the GIL."""
    if len(public_key) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        _loaded(public_key).verify(signature, message)
    except InvalidSignature:
        return False
    return True


class Identity:
    """The private half of a member.  Never printed: ``repr`` shows the id only.

    id      bytes  32, member_id(public), or the id that the member kept through a rotation of its key
    public  bytes  32, Ed25519
    """

    def __init__(self, key: Ed25519PrivateKey, member: bytes | None = None) -> None:
        self._key = key
        self.public = key.public_key().public_bytes_raw()
        self.id = member_id(self.public) if member is None else member

    @classmethod
    def generate(cls) -> Identity:
        """A new one, from the randomness of the operating system."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> Identity:
        """The one that 32 secret bytes stand for (RFC 8032 section 5.1.5)."""
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def from_pem(cls, data: bytes, name: str) -> Identity:
        """The identity in a PEM file called ``name``.

        raises  InputError  ``key.format``
        """
        try:
            key = serialization.load_pem_private_key(data, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            # The parser's own words could quote the file; a key's bytes must reach no message.
            raise InputError("key.format", f"{name}: no PEM private key without a password") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise InputError("key.format", f"{name}: holds a key of another kind, expected Ed25519")
        return cls(key)

    def acting_as(self, member: bytes) -> Identity:
        """The same key in the name of a member that came with another one and rotated it."""
        return Identity(self._key, member)

    def pem(self) -> bytes:
        """PKCS#8 in PEM, not encrypted: as other tools (openssl pkey) read it."""
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def sign(self, message: bytes) -> bytes:
        """Ed25519 signature, 64 bytes; the same for the same message."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"Identity({self.id.hex()[:16]})"
