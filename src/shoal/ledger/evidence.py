"""Proof that a leader told two histories: two runs of entries that part at one place, both under its seal in one term.

An honest leader appends one entry at each index of its term.  So two sealed runs that begin at the same index, after
the same entry, and differ, convict it; its key and the seals are all that is needed to check them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise, zip_longest
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from shoal.errors import InputError
from shoal.ledger.body import Digest, Key
from shoal.ledger.digest import DIGEST_BYTES
from shoal.ledger.entry import Entry, check_shape, entry_hash
from shoal.ledger.identity import KEY_BYTES, signature_holds
from shoal.ledger.state import State
from shoal.ledger.validator import Ledger, seal_statement

VERSION: Final = 1
_RUN_MAX: Final = 4096
Run = Annotated[tuple[Entry, ...], Meta(min_length=1, max_length=_RUN_MAX)]


class Evidence(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The proof.  ``left`` and ``right`` begin at one index with one ``prev``; each ends with an entry under a seal.

    leader, key  who sealed both, and its Ed25519 public key at the time (the ledger before the fork tells it)
    """

    version: int
    genesis: Digest
    leader: Digest
    key: Key
    left: Run
    right: Run


class Fork(msgspec.Struct, frozen=True):
    """Where two histories part.

    index     first index at which they differ
    left, right  entries from there to the first seal, or to the end
    evidence  None where no leader sealed both sides in one term: then two leaders, or a forger, wrote them
    """

    index: int
    left: tuple[Entry, ...]
    right: tuple[Entry, ...]
    evidence: Evidence | None


def make_evidence(genesis: bytes, key: bytes, left: Sequence[Entry], right: Sequence[Entry]) -> Evidence | None:
    """The proof that two runs give, each cut after its first seal; None if they prove nothing against one leader."""
    runs = [_to_first_seal(run) for run in (left, right)]
    if not all(runs):
        return None
    evidence = Evidence(VERSION, genesis, runs[0][-1].seal[:DIGEST_BYTES], key, runs[0], runs[1])
    return None if evidence_fault(evidence) else evidence


def _to_first_seal(run: Sequence[Entry]) -> tuple[Entry, ...]:
    for at, entry in enumerate(run[:_RUN_MAX]):
        if entry.seal:
            return tuple(run[: at + 1])
    return ()


def evidence_fault(evidence: Evidence) -> str:
    """Why this proves nothing; "" if it convicts ``leader``."""
    if evidence.version != VERSION:
        return f"evidence of version {evidence.version}; this version of Shoal reads {VERSION}"
    left, right = evidence.left, evidence.right
    if (left[0].index, left[0].prev) != (right[0].index, right[0].prev):
        return "the runs do not begin at the same place"
    if entry_hash(left[0]) == entry_hash(right[0]):
        return "the runs begin with the same entry"
    for run in (left, right):
        for entry in run:
            try:
                check_shape(entry)
            except InputError as error:
                return str(error)
        for before, after in pairwise(run):
            if after.index != before.index + 1 or after.prev != entry_hash(before):
                return f"entry {after.index} does not follow the one before it"
        if {e.term for e in run} != {left[0].term}:
            return "the runs are not of one term: two leaders may have made them"
        seal = run[-1].seal
        if seal[:DIGEST_BYTES] != evidence.leader:
            return "the runs do not end under the seal of one leader"
        if not signature_holds(evidence.key, seal[DIGEST_BYTES:], seal_statement(entry_hash(run[-1]))):
            return f"the seal of entry {run[-1].index} does not hold"
    return ""


def encode_evidence(evidence: Evidence) -> bytes:
    return msgspec.msgpack.encode(evidence)


def decode_evidence(data: bytes) -> Evidence:
    """Evidence that convicts.  raises  InputError  ``ledger.evidence``"""
    try:
        evidence = msgspec.msgpack.decode(data, type=Evidence)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise InputError("ledger.evidence", f"no evidence: {error}") from None
    fault = evidence_fault(evidence)
    if fault or msgspec.msgpack.encode(evidence) != data:
        raise InputError("ledger.evidence", fault or "not the one encoding of its fields")
    return evidence


def find_fork(genesis: bytes, left: Iterable[Entry], right: Iterable[Entry]) -> Fork | None:
    """Where two histories of one swarm part; None if one is the beginning of the other.  Checks what both have.

    raises  InputError, PeerError  if the common beginning breaks a rule
    """
    common = Ledger()
    pairs = zip_longest(left, right)
    for a, b in pairs:
        if a is None or b is None:
            return None
        if entry_hash(a) == entry_hash(b):
            common.apply(a)
            continue
        runs: tuple[list[Entry], list[Entry]] = ([a], [b])
        for more in pairs:
            if all(run[-1].seal or len(run) >= _RUN_MAX for run in runs):
                break
            for run, entry in zip(runs, more, strict=True):
                if entry is not None and not run[-1].seal and len(run) < _RUN_MAX:
                    run.append(entry)
        evidence = make_evidence(genesis, sealer_key(common.state, runs[0]), *runs)
        return Fork(a.index, tuple(runs[0]), tuple(runs[1]), evidence)
    return None


def sealer_key(state: State, run: Sequence[Entry]) -> bytes:
    """The key of whoever sealed the end of ``run``, as the common history knows it; zero if it knows none."""
    sealer = run[-1].seal[:DIGEST_BYTES]
    member = state.registry.members.get(sealer)
    if member is not None:
        return member.signing
    return state.leader_key if sealer == state.leader else bytes(KEY_BYTES)
