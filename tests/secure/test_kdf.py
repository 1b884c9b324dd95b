"""Hashing and derivation: what the standards say, computed by other means."""

from __future__ import annotations

import hashlib
import hmac

import numpy as np
from hkdf_by_hand import DOMAIN, expand, framed

from shoal.kernels import ring
from shoal.secure.kdf import derive, digest, extract


def test_derivations_are_those_of_the_standards() -> None:
    key, salt = bytes(range(32)), bytes(range(32, 64))
    assert digest("rid", b"a", b"") == hashlib.sha256(DOMAIN + b"rid\0" + framed(b"a", b"")).digest()
    assert derive(key, "dither", b"r") == expand(key, b"dither", b"r")
    assert extract(salt, b"shared") == hmac.digest(salt, b"shared", "sha256")
    assert derive(key, "ab", b"c") != derive(key, "a", b"bc") != derive(key, "a", b"b", b"c")


def test_a_known_stream() -> None:
    """The first words of the dither stream of docs/PROTOCOL.md's example: plan seed SHA-256("plan"), rid "r"."""
    out = np.zeros(8, np.uint8)
    ring.keystream(derive(hashlib.sha256(b"plan").digest(), "dither", b"r"), ring.LANE_DITHER, 0, out)
    assert out.view("<u2").tolist() == [29478, 45532, 44829, 54191]


def test_no_two_ways_of_cutting_parts_are_one() -> None:
    cuts = [(b"abc",), (b"a", b"bc"), (b"ab", b"c"), (b"a", b"b", b"c"), (b"abc", b""), (b"", b"abc"), ()]
    assert len({digest("x", *parts) for parts in cuts} | {derive(b"k" * 32, "x", *parts) for parts in cuts}) == 14
    assert digest("xa", b"bc") != digest("x", b"abc") != digest("y", b"abc")
