"""HKDF and framed parts again, written from the standard and the protocol, to compare with."""

from __future__ import annotations

import hmac

DOMAIN = b"swarm-secagg/v1/"


def framed(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(8, "little") + part for part in parts)


def expand(key: bytes, label: bytes, *parts: bytes) -> bytes:
    """HKDF-Expand by hand (RFC 5869, 2.3): one block of output."""
    info = DOMAIN + label + b"\0" + framed(*parts)
    return hmac.digest(key, info + b"\x01", "sha256")
