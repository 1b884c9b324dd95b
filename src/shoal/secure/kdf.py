"""Hashing and key derivation of secure aggregation, each use with a label of its own.

    H(label, parts..)         SHA-256 over DOMAIN || label || 0x00 || enc(parts), see domain.py
    KDF(key, label, parts..)  HKDF-Expand (RFC 5869) with SHA-256, info as above, 32 bytes
    extract(salt, material)   HKDF-Extract

docs/PROTOCOL.md, "Secure aggregation", lists every label.
"""

from __future__ import annotations

import hmac
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from shoal.domain import DIGEST_BYTES, SECURE, hashed, labelled, le64

__all__ = ["DIGEST_BYTES", "DOMAIN", "derive", "digest", "extract", "le64"]

DOMAIN: Final = SECURE


def digest(label: str, *parts: bytes) -> bytes:
    """H(label, parts..): 32 bytes."""
    return hashed(DOMAIN, label, *parts)


def derive(key: bytes, label: str, *parts: bytes) -> bytes:
    """KDF(key, label, parts..): 32 bytes."""
    return HKDFExpand(SHA256(), DIGEST_BYTES, labelled(DOMAIN, label, *parts)).derive(key)


def extract(salt: bytes, material: bytes) -> bytes:
    """A uniform key of 32 bytes from a shared secret that is none."""
    return hmac.digest(salt, material, "sha256")
