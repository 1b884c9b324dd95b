"""Sharing a participant's two secrets of a slot, so that enough others can open either one, and never needs both.

    secret   esk (32 bytes, one-time private key) || b (32 bytes, seed of the own mask)
    share    one Shamir share of it for each participant, at x = its 1-based position among the sorted ids
    leaf     H("share", LE64(slot), dealer, x, H("key-half", key half, salt), H("seed-half", seed half, salt'))
    root     Merkle root over the leaves, in the order of the ids; it goes into the ledger

Each half has a salt of its own, so that one half can be shown with its path while the other stays hidden: of a survivor
the seed half is opened, of one that fell out the key half.

    sealed   ChaCha20-Poly1305 under K_{i->j}, nonce 0 (a key seals one message), data LE64(slot) || dealer || holder

Whose fault: a half without a valid path is its holder's; halves with valid paths that do not give the secret that the
dealer committed to are the dealer's.

Source: Shamir, CACM 1979; Bonawitz et al., CCS 2017, round 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from msgspec import Meta

from shoal.errors import ArgumentError, PeerError
from shoal.kernels import shamir
from shoal.limits import SEALED_SHARE_BYTES_MAX
from shoal.secure import merkle
from shoal.secure.hidden import Hidden
from shoal.secure.kdf import DIGEST_BYTES, digest, le64

HALF_BYTES: Final = 32
KEY_HALF: Final = 1
SEED_HALF: Final = 2
_LABELS: Final = {KEY_HALF: "key-half", SEED_HALF: "seed-half"}
_NONCE: Final = bytes(12)

Half = Annotated[bytes, Meta(min_length=HALF_BYTES, max_length=HALF_BYTES)]
Digest = Annotated[bytes, Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
Path = Annotated[tuple[Digest, ...], Meta(max_length=8)]


class Held(Hidden, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a holder has of a dealer: both halves, their salts, the path of its leaf.  Never shown."""

    key: Half
    seed: Half
    key_salt: Half
    seed_salt: Half
    path: Path

    def half(self, which: int) -> Opened:
        """What shows one half and hides the other."""
        if which == KEY_HALF:
            return Opened(which, self.key, self.key_salt, _hidden(SEED_HALF, self.seed, self.seed_salt), self.path)
        return Opened(which, self.seed, self.seed_salt, _hidden(KEY_HALF, self.key, self.key_salt), self.path)


class Opened(Hidden, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One half of a share, opened after the survivor certificate, with the proof that it is the dealer's.

    which  KEY_HALF or SEED_HALF;  other  digest of the half that stays hidden
    """

    which: Annotated[int, Meta(ge=KEY_HALF, le=SEED_HALF)]
    half: Half
    salt: Half
    other: Digest
    path: Path


class Dealt(Hidden, frozen=True):
    """root  for the ledger;  held  by holder, what each gets (also the dealer itself), not yet sealed"""

    root: bytes
    held: dict[bytes, Held]


_HELD: Final = msgspec.msgpack.Decoder(Held)
_OPENED: Final = msgspec.msgpack.Decoder(Opened)


def _hidden(which: int, half: bytes, salt: bytes) -> bytes:
    return digest(_LABELS[which], half, salt)


def _leaf(slot: int, dealer: bytes, x: int, key: bytes, seed: bytes) -> bytes:
    return digest("share", le64(slot), dealer, bytes([x]), key, seed)


def deal(
    slot: int, dealer: bytes, secret: bytes, holders: Sequence[bytes], threshold: int, draw: Callable[[int], bytes]
) -> Dealt:
    """Split ``secret`` for the sorted ``holders``; ``draw(n)`` gives n secret random bytes.

    raises  ArgumentError  ``share.secret``: not of 64 bytes;  ``shamir.*``
    """
    if len(secret) != 2 * HALF_BYTES:
        raise ArgumentError("share.secret", f"a secret of {len(secret)} bytes; expected {2 * HALF_BYTES}")
    xs = range(1, len(holders) + 1)
    shares = shamir.split(secret, threshold, xs, draw)
    salts = [(draw(HALF_BYTES), draw(HALF_BYTES)) for _ in holders]
    leaves = [
        _leaf(
            slot,
            dealer,
            x,
            _hidden(KEY_HALF, share[:HALF_BYTES], salt),
            _hidden(SEED_HALF, share[HALF_BYTES:], other),
        )
        for x, share, (salt, other) in zip(xs, shares, salts, strict=True)
    ]
    held = {
        holder: Held(share[:HALF_BYTES], share[HALF_BYTES:], salt, other, tuple(merkle.path(leaves, i)))
        for i, (holder, share, (salt, other)) in enumerate(zip(holders, shares, salts, strict=True))
    }
    return Dealt(merkle.root(leaves), held)


def _context(slot: int, dealer: bytes, holder: bytes) -> bytes:
    return le64(slot) + dealer + holder


def seal(held: Held, key: bytes, slot: int, dealer: bytes, holder: bytes) -> bytes:
    """For the wire; ``key`` is K_{dealer->holder} and seals nothing else, ever."""
    return ChaCha20Poly1305(key).encrypt(_NONCE, msgspec.msgpack.encode(held), _context(slot, dealer, holder))


def unseal(sealed: bytes, key: bytes, slot: int, dealer: bytes, holder: bytes) -> Held:
    """raises  PeerError  ``share.sealed``, ``share.malformed``: the dealer's fault, or the wire's"""
    if len(sealed) > SEALED_SHARE_BYTES_MAX:
        raise PeerError("share.sealed", f"a share of {len(sealed)} bytes; expected at most {SEALED_SHARE_BYTES_MAX}")
    try:
        plain = ChaCha20Poly1305(key).decrypt(_NONCE, sealed, _context(slot, dealer, holder))
    except InvalidTag:
        raise PeerError("share.sealed", f"the share of {dealer.hex()[:16]} cannot be unsealed") from None
    try:
        return _HELD.decode(plain)
    except (msgspec.MsgspecError, RecursionError):
        raise PeerError("share.malformed", f"the share of {dealer.hex()[:16]} is no share") from None


def encode_opened(opened: Opened) -> bytes:
    """For the wire."""
    return msgspec.msgpack.encode(opened)


def decode_opened(data: bytes) -> Opened:
    """raises  PeerError  ``share.malformed``"""
    if len(data) > SEALED_SHARE_BYTES_MAX:
        raise PeerError("share.malformed", f"{len(data)} bytes of a half; expected at most {SEALED_SHARE_BYTES_MAX}")
    try:
        return _OPENED.decode(data)
    except (msgspec.MsgspecError, RecursionError):
        raise PeerError("share.malformed", f"{len(data)} bytes are no half of a share") from None


def check_held(held: Held, root: bytes, slot: int, dealer: bytes, position: int, holders: int) -> None:
    """Whether this is the dealer's share for the holder at ``position`` (0-based).

    raises  PeerError  ``share.path``: then the dealer is at fault, since it sealed it
    """
    leaf = _leaf(
        slot,
        dealer,
        position + 1,
        _hidden(KEY_HALF, held.key, held.key_salt),
        _hidden(SEED_HALF, held.seed, held.seed_salt),
    )
    if not merkle.holds(root, leaf, position, holders, held.path):
        raise PeerError("share.path", f"the share of {dealer.hex()[:16]} is not one that it committed to")


def check_opened(opened: Opened, root: bytes, slot: int, dealer: bytes, position: int, holders: int) -> None:
    """Whether a half is what the dealer gave to the holder at ``position``.

    raises  PeerError  ``share.path``: the holder is at fault
    """
    shown = _hidden(opened.which, opened.half, opened.salt)
    halves = (shown, opened.other) if opened.which == KEY_HALF else (opened.other, shown)
    leaf = _leaf(slot, dealer, position + 1, *halves)
    if not merkle.holds(root, leaf, position, holders, opened.path):
        raise PeerError("share.path", f"participant {position} opens a share of {dealer.hex()[:16]} that it never got")


def put_together(halves: Mapping[int, bytes], threshold: int) -> bytes:
    """The secret half behind checked halves, by 0-based position of their holders; the first ``threshold`` are used.

    raises  PeerError  ``share.few``
    """
    if len(halves) < threshold:
        raise PeerError("share.few", f"{len(halves)} halves; {threshold} are needed")
    used = sorted(halves)[:threshold]
    return shamir.combine([halves[p] for p in used], [p + 1 for p in used])
