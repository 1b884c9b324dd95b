"""A site's private keys: the pair of files that its settings name, and the pairs that rotations made after it.

The pair after identity.pem and curve.pem is identity.2.pem and curve.2.pem, and so on.  No file is ever replaced: the
ledger says which pair is in use, whenever the node looks, and what comes after it waits to be decided.
"""

from __future__ import annotations

from pathlib import Path

from shoal.config import Site
from shoal.errors import MachineError, PeerError
from shoal.ledger.body import KeysRotated
from shoal.ledger.certificate import rotation_statement
from shoal.ledger.curve_key import CurveKey
from shoal.ledger.identity import Identity
from shoal.ledger.key_file import create_curve_file, create_key_file, read_curve_file, read_key_file
from shoal.ledger.registry import Registry

Pair = tuple[Identity, CurveKey]


def numbered(path: str, number: int) -> Path:
    """The file of the pair of this number: 1 is the one that the settings name."""
    named = Path(path)
    return named if number == 1 else named.with_name(f"{named.stem}.{number}{named.suffix}")


def read_pairs(site: Site) -> list[Pair]:
    """All pairs, oldest first.  raises  MachineError, InputError  as key_file.py does"""
    pairs: list[Pair] = []
    while not pairs or numbered(site.identity, len(pairs) + 1).exists():
        number = len(pairs) + 1
        curve = numbered(site.curve, number)
        pairs.append((read_key_file(numbered(site.identity, number)), read_curve_file(curve)))
    return pairs


def in_use(pairs: list[Pair], registry: Registry) -> tuple[Pair, Pair | None]:
    """The pair that the ledger knows, in the name of its member, and the newest one if it waits to be decided.

    raises  PeerError  ``site.member``: the ledger knows none of them
    """
    for identity, curve in pairs:
        for who, member in registry.members.items():
            if (member.signing, member.curve) == (identity.public, curve.public):
                newest = pairs[-1] if pairs[-1][0].public != identity.public else None
                return (identity.acting_as(who), curve), newest and (newest[0].acting_as(who), newest[1])
    raise PeerError("site.member", "no key of this site is a member's")


def create_pair(identity: Path, curve: Path) -> Pair:
    """Make both files, or neither.  raises  MachineError  ``key.exists``, ``key.write``"""
    for path in (identity, curve):
        if path.exists() or path.is_symlink():
            raise MachineError("key.exists", f"{path}: exists already; a key is never replaced")
    made = create_key_file(identity)
    try:
        return made, create_curve_file(curve)
    except BaseException:
        identity.unlink()
        raise


def rotation(new: Pair, member: bytes, genesis: bytes) -> KeysRotated:
    """What a member says to make a new pair its own."""
    identity, curve = new
    proof = identity.sign(rotation_statement(genesis, member, identity.public, curve.public))
    return KeysRotated(identity.public, curve.public, proof)
