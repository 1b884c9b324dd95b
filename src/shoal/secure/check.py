"""Detecting a wrong merged shard: 32 random subsets of its words must add up to what the survivors say they gave.

    beta        H("challenge", rid, H("shards", roots..), nonces in the order of the ids..); each nonce was committed to
                before anybody knew the sums, so no owner could choose a wrong sum that passes
    w_i         y_i less i's own mask and its masks with those that fell out: what i vouches for; what is left in it are
                masks with other survivors, which cancel in the sum
    T_i[r]      sum of the words of w_i that check r selects, modulo 2**bits
    accept      sum over the survivors of T_i[r] = sum of the selected words of S, for every r

A wrong word escapes one check with probability 1/2 at most, all 32 with 2**-32.  Told are sums of what owners hold
anyway: nothing leaks.

Source: docs/PROTOCOL.md, "Checking the sums".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from shoal.domain import LEDGER, hashed
from shoal.errors import PeerError
from shoal.kernels import ring
from shoal.kernels.ring import Bytes, Streams
from shoal.secure.kdf import DIGEST_BYTES, digest, le64

Sums = npt.NDArray[np.uint64]

#: checks if every participant tells its nonce, and if some do not: they chose by staying silent
CHECKS: Final = 32
CHECKS_MORE: Final = 64
#: words whose masks are taken off at once: the copy is small beside the upload, and large enough for all threads
_PIECE_WORDS: Final = 2**22
_LANES: Final = (ring.LANE_CHECK, ring.LANE_CHECK_MORE)


def nonce_commitment(slot: int, who: bytes, nonce: bytes) -> bytes:
    """What a participant commits to before it knows any sum; in the ledger's domain, whose rules check it."""
    return hashed(LEDGER, "nonce", le64(slot), who, nonce)


def challenge(rid: bytes, roots: Sequence[bytes], nonces: Mapping[bytes, bytes]) -> bytes:
    """beta, the key of the check words, from the roots of all sums and the nonces that were told, by id."""
    return digest("challenge", rid, digest("shards", *roots), *(nonces[who] for who in sorted(nonces)))


def checks_for(withheld: int) -> int:
    """How many checks are made: more if nonces were withheld.

    Those that withhold choose among 2**withheld challenges, so a wrong sum passes with 2**-(64 - withheld) at most.
    """
    return CHECKS if withheld == 0 else CHECKS_MORE


def withheld(told: Mapping[bytes, bytes], survivors: Iterable[bytes]) -> int:
    """How many survivors did not tell their nonce."""
    return len(frozenset(survivors) - told.keys())


def check_sums(words: Bytes, bits: int, beta: bytes, first: int, checks: int, threads: int = 0) -> Sums:
    """The selected sums of some words, of which the first is element ``first``: uint64[checks], modulo 2**bits."""
    lanes = _LANES[: checks // ring.CHECKS]
    return np.concatenate([ring.check_sums(words, bits, beta, lane, first, threads=threads) for lane in lanes])


def vouched(upload: Bytes, bits: int, own: Streams, beta: bytes, first: int, checks: int, threads: int = 0) -> Sums:
    """T_i of a stretch of i's upload.

    own  what takes i's own mask and its masks with those that fell out away (`masks.vouching`)
    """
    piece = ring.word_bytes(_PIECE_WORDS, bits)
    bare = np.empty(min(piece, len(upload)), np.uint8)
    total = np.zeros(checks, np.uint64)
    for start in range(0, len(upload), piece):
        words = upload[start : start + piece]
        place = first + start // piece * _PIECE_WORDS
        ring.add_streams(words, bits, own, ring.LANE_MODEL, place, bare[: len(words)], threads=threads)
        total += check_sums(bare[: len(words)], bits, beta, place, checks, threads)
    return total & np.uint64(2**bits - 1)


def encode_sums(sums: Sums, bits: int) -> bytes:
    """For the ledger: each in ceil(bits / 8) bytes, least first."""
    width = -(-bits // 8)
    return b"".join(int(value).to_bytes(width, "little") for value in sums)


def decode_sums(data: bytes, bits: int, checks: int) -> Sums:
    """raises  PeerError  ``check.malformed``"""
    width = -(-bits // 8)
    if len(data) != width * checks:
        raise PeerError("check.malformed", f"{len(data)} bytes of check sums; expected {width * checks}")
    values = [int.from_bytes(data[i : i + width], "little") for i in range(0, len(data), width)]
    if any(value >> bits for value in values):
        raise PeerError("check.malformed", f"a check sum is not below 2**{bits}")
    return np.array(values, np.uint64)


def agree(told: Sequence[Sums], found: Sums, bits: int) -> bool:
    """Whether what all survivors vouch for adds up to what is in the sum."""
    total = np.zeros_like(found)
    for sums in told:
        total = total + sums
    return bool((((total - found) & np.uint64(2**bits - 1)) == 0).all())


def blame(uploads: Mapping[int, Bytes], told: Mapping[int, Sums], bits: int, masks: Mapping[int, Streams],
          beta: bytes, first: int, checks: int) -> set[int]:  # fmt: skip
    """Positions of survivors that vouched for something else than they uploaded.

    uploads  what the owner has of each, shown to fit the roots in the ledger
    told     T_i of the same stretch
    masks    what takes each one's own mask and its masks with those that fell out away; all public after the opening
    returns  empty: everybody vouched for its upload, so the owner's sum is what is wrong
    """
    liars = set()
    for position, upload in uploads.items():
        if not np.array_equal(vouched(upload, bits, masks[position], beta, first, checks), told[position]):
            liars.add(position)
    return liars


assert DIGEST_BYTES == ring.KEY_BYTES
