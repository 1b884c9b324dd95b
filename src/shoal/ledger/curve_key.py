"""The private half of a member's transport key: Curve25519, as CURVE (ZeroMQ) and X25519 use it."""

from __future__ import annotations

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from shoal.errors import InputError


class CurveKey:
    """Never printed: ``repr`` shows the public half only.

    public  bytes  32
    """

    def __init__(self, key: X25519PrivateKey) -> None:
        self._key = key
        self.public = key.public_key().public_bytes_raw()

    @classmethod
    def generate(cls) -> CurveKey:
        """A new one, from the randomness of the operating system."""
        return cls(X25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, data: bytes, name: str) -> CurveKey:
        """The key in a PEM file called ``name``.

        raises  InputError  ``key.format``
        """
        try:
            key = serialization.load_pem_private_key(data, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            # The parser's own words could quote the file; a key's bytes must reach no message.
            raise InputError("key.format", f"{name}: no PEM private key without a password") from None
        if not isinstance(key, X25519PrivateKey):
            raise InputError("key.format", f"{name}: holds a key of another kind, expected X25519")
        return cls(key)

    def pem(self) -> bytes:
        """PKCS#8 in PEM, not encrypted: as other tools (openssl pkey) read it."""
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def secret(self) -> bytes:
        """32 bytes, for the transport alone."""
        return self._key.private_bytes_raw()

    def __repr__(self) -> str:
        return f"CurveKey({self.public.hex()[:16]})"
