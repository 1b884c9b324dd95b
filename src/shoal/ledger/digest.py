"""The hashes of the ledger: domain separated, with lengths, so that no two things that are hashed can be confused.

    enc(parts) = for each part: LE64(length) || part
    H(label, parts..) = SHA-256("shoal-ledger/v1/" || label || 0x00 || enc(parts))

docs/PROTOCOL.md, "What is hashed and signed", lists every label.
"""

from __future__ import annotations

import hashlib
from typing import Final

DIGEST_BYTES: Final = 32
ZERO_DIGEST: Final = bytes(DIGEST_BYTES)
DOMAIN: Final = b"shoal-ledger/v1/"


def le64(number: int) -> bytes:
    """0 <= number < 2**64 as eight bytes, least first."""
    return number.to_bytes(8, "little")


def digest(label: str, *parts: bytes) -> bytes:
    """H(label, parts..): 32 bytes.  The label has no NUL byte, so it ends where the first NUL stands."""
    pieces = [DOMAIN, label.encode(), b"\x00"]
    for part in parts:
        pieces.append(len(part).to_bytes(8, "little"))
        pieces.append(part)
    return hashlib.sha256(b"".join(pieces)).digest()
