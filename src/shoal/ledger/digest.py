"""The hashes of the ledger: H(label, parts..) in the domain "shoal-ledger/v1/".

docs/PROTOCOL.md, "What is hashed and signed", lists every label.
"""

from __future__ import annotations

from typing import Final

from shoal.domain import DIGEST_BYTES, LEDGER, hashed, le64

__all__ = ["DIGEST_BYTES", "DOMAIN", "ZERO_DIGEST", "digest", "le64"]

ZERO_DIGEST: Final = bytes(DIGEST_BYTES)
DOMAIN: Final = LEDGER


def digest(label: str, *parts: bytes) -> bytes:
    """H(label, parts..): 32 bytes."""
    return hashed(DOMAIN, label, *parts)
