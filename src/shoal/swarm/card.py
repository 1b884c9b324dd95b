"""A site's public card: what it sends the others so that they can let it in.  A few lines of TOML, and no secret.

    version = 1
    name = "north"
    address = "tcp://north.example:7700"
    signing = "..."        Ed25519 public key, 64 hexadecimal digits
    curve = "..."          CURVE public key, 64 hexadecimal digits
    signature = "..."      by the signing key, over H("card", LE64(version), MessagePack of the member's card)

The signature says that one hand wrote it all: a card that was edited on its way does not hold.  It does not say whose
hand; for that people compare its fingerprint by telephone.
"""

from __future__ import annotations

import re
import tomllib
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from shoal.address import dial_fault
from shoal.config import NAME
from shoal.errors import ArgumentError, InputError, shown
from shoal.exchange_key import exchange_key_fault
from shoal.ledger.body import MemberCard
from shoal.ledger.curve_key import CurveKey
from shoal.ledger.digest import digest, le64
from shoal.ledger.identity import Identity, signature_holds, signing_key_fault
from shoal.limits import CARD_BYTES_MAX, LEDGER_ADDRESS_CHARS_MAX

VERSION: Final = 1
#: bytes of a card's digest that people compare: nobody makes another card with the same 128 bits
_FINGERPRINT_BYTES: Final = 16

Hex32 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Hex64 = Annotated[str, Meta(pattern=r"^[0-9a-f]{128}\Z")]


class WrittenCard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The fields of a card as they are written."""

    version: Literal[1]
    name: Annotated[str, Meta(pattern=NAME)]
    address: Annotated[str, Meta(max_length=LEDGER_ADDRESS_CHARS_MAX)]
    signing: Hex32
    curve: Hex32
    signature: Hex64


class SignedCard(msgspec.Struct, frozen=True):
    """A card, and the signature of the key that it names."""

    card: MemberCard
    signature: bytes

    @property
    def fingerprint(self) -> str:
        """The whole card in 8 groups of 4 hexadecimal digits, to be read over the telephone."""
        digits = card_digest(self.card)[:_FINGERPRINT_BYTES].hex()
        return " ".join(digits[at : at + 4] for at in range(0, len(digits), 4))


def make_card(name: str, address: str, identity: Identity, curve: CurveKey) -> SignedCard:
    """A site's own card.  raises  ArgumentError  ``card.name``, ``card.address``"""
    if not re.match(NAME, name):
        found = f"{shown(name)!r}, expected 1 to 64 letters, digits, '.', '_', '-', the first a letter or digit"
        raise ArgumentError("card.name", f"the name of a site is {found}")
    fault = dial_fault(address)
    if len(address) > LEDGER_ADDRESS_CHARS_MAX:
        fault = f"too long; an address has at most {LEDGER_ADDRESS_CHARS_MAX} characters"
    if fault:
        raise ArgumentError("card.address", f"{shown(address)!r} is {fault}")
    card = MemberCard(identity.public, curve.public, name, address)
    return SignedCard(card, identity.sign(card_digest(card)))


def card_digest(card: MemberCard) -> bytes:
    """What the signature on a card is over."""
    return digest("card", le64(VERSION), msgspec.msgpack.encode(card))


def card_lines(signed: SignedCard) -> list[str]:
    """The fields as TOML."""
    card = signed.card
    return [
        f"version = {VERSION}",
        f'name = "{card.name}"',
        f'address = "{card.address}"',
        f'signing = "{card.signing.hex()}"',
        f'curve = "{card.curve.hex()}"',
        f'signature = "{signed.signature.hex()}"',
    ]


def write_card(signed: SignedCard) -> str:
    """The text of a card's file."""
    head = [
        "# The public card of a site of a Shoal swarm.  It holds no secret: send it to the members.",
        f"# Its fingerprint, to be compared by telephone: {signed.fingerprint}",
    ]
    return "\n".join([*head, *card_lines(signed)]) + "\n"


def read_card(data: bytes, name: str) -> SignedCard:
    """The card in a file called ``name``.

    raises  InputError  ``card.format``: no card, or of a later version;  what `check_written` raises
    """
    if len(data) > CARD_BYTES_MAX:
        raise InputError("card.format", f"{name}: more than {CARD_BYTES_MAX} bytes; expected a site's card")
    try:
        written = msgspec.convert(tomllib.loads(data.decode()), WrittenCard)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError, msgspec.ValidationError) as error:
        raise InputError("card.format", f"{name}: no card: {shown(str(error))}") from None
    return check_written(written, name)


def check_written(written: WrittenCard, name: str) -> SignedCard:
    """The card that these fields are, in a file called ``name``.

    raises  InputError  ``card.key``: a key that cannot be one;  ``card.signature``: it was edited;  ``card.address``
    """
    card = MemberCard(bytes.fromhex(written.signing), bytes.fromhex(written.curve), written.name, written.address)
    fault = signing_key_fault(card.signing) or exchange_key_fault(card.curve, "CURVE key")
    if fault:
        raise InputError("card.key", f"{name}: {fault}")
    signature = bytes.fromhex(written.signature)
    if not signature_holds(card.signing, signature, card_digest(card)):
        raise InputError("card.signature", f"{name}: its signature does not hold: the card was changed on its way")
    fault = dial_fault(card.address)
    if fault:
        raise InputError("card.address", f"{name}: {shown(card.address)!r} is {fault}")
    return SignedCard(card, signature)
