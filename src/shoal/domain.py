"""Domain-separated SHA-256: no two things that are hashed can be confused.

    enc(parts)         = for each part: LE64(length) || part
    H(label, parts..)  = SHA-256(domain || label || 0x00 || enc(parts))

Each part of Shoal has a domain of its own (the ledger, secure aggregation), and in it a label for each use.
docs/PROTOCOL.md lists them all.
"""

from __future__ import annotations

import hashlib
from typing import Final

DIGEST_BYTES: Final = 32
#: domains of the ledger, and of secure aggregation
LEDGER: Final = b"shoal-ledger/v1/"
SECURE: Final = b"swarm-secagg/v1/"


def le64(number: int) -> bytes:
    """0 <= number < 2**64 as eight bytes, least first."""
    return number.to_bytes(8, "little")


def labelled(domain: bytes, label: str, *parts: bytes) -> bytes:
    """domain || label || 0x00 || enc(parts).  The label has no NUL byte, so it ends where the first NUL stands."""
    pieces = [domain, label.encode(), b"\x00"]
    for part in parts:
        pieces.append(le64(len(part)))
        pieces.append(part)
    return b"".join(pieces)


def hashed(domain: bytes, label: str, *parts: bytes) -> bytes:
    """H(label, parts..) in ``domain``: 32 bytes."""
    return hashlib.sha256(labelled(domain, label, *parts)).digest()
