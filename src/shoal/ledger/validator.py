"""The rules of the chain: ``Ledger.apply`` takes the entries in order.

An entry that breaks a rule changes nothing and is refused with its index and the reason; a chain with such an entry is
not valid from there on.  A leader applies what it is asked to append to a copy first, so an honest leader never appends
such an entry.

Nothing here touches clocks, files or keys; signatures go through one function, so that a verifier can check them in
parallel.
"""

from __future__ import annotations

from math import isfinite
from typing import Any, Final

import msgspec

from shoal.errors import InputError, PeerError, shown
from shoal.ledger.body import Body, Genesis, Noop
from shoal.ledger.certificate import SignatureCheck, check_now, checked_before
from shoal.ledger.digest import DIGEST_BYTES, ZERO_DIGEST, digest
from shoal.ledger.entry import GENESIS_INDEX, GENESIS_TERM, Entry, check_shape, entry_hash
from shoal.ledger.identity import Identity, member_id
from shoal.ledger.registry import Registry
from shoal.ledger.rules import Said, follow
from shoal.ledger.state import State, decode_state, encode_state
from shoal.ledger.statement import Statement, read_statement, type_name
from shoal.limits import LEDGER_SEEN_WINDOW

#: bytes of a payload's digest that tell a replay
_REPLAY_BYTES: Final = 16
#: how a ``SignatureCheck`` is told that the signature is the one under a statement
AUTHORS: Final = "the author's signature"


def seal_statement(hash_: bytes) -> bytes:
    """What a leader's seal signs: H("seal", entry hash)."""
    return digest("seal", hash_)


def make_seal(hash_: bytes, leader: Identity) -> bytes:
    """The seal of the entry with this hash: the leader's id and its signature."""
    return leader.id + leader.sign(seal_statement(hash_))


class Decoded(msgspec.Struct, frozen=True, gc=False):
    """An entry, and what its bytes alone say: no rule was asked.

    hash   entry hash
    start  first bytes of the payload's digest
    """

    entry: Entry
    hash: bytes
    statement: Statement
    body: Any
    start: bytes


def decode(entry: Entry, hash_: bytes | None = None) -> Decoded:
    """``hash_``: its entry hash, where it is known already.

    raises  InputError  ``ledger.statement``, ``ledger.type``, ``ledger.version``
    """
    statement, body = read_statement(entry.payload)
    start = digest("payload", entry.payload)[:_REPLAY_BYTES]
    return Decoded(entry, entry_hash(entry) if hash_ is None else hash_, statement, body, start)


class Ledger:
    """The state, and ``apply``.

    check  what is called for each signature; certificate.check_now raises where one does not hold
    """

    def __init__(self, state: State | None = None, check: SignatureCheck = check_now) -> None:
        self.state = state or State()
        self.check = check
        self._payloads = {start for _, start in self.state.recent.values()}

    # --- copies and snapshots -----------------------------------------------------------------------------------------

    def encode(self) -> bytes:
        """Deterministic bytes of the state, for a snapshot."""
        return encode_state(self.state)

    @classmethod
    def decode(cls, data: bytes) -> Ledger:
        """raises  InputError  ``ledger.snapshot``"""
        return cls(decode_state(data))

    def copy(self) -> Ledger:
        """An independent one, to try entries on."""
        return Ledger(decode_state(self.encode()), self.check)

    def holds(self, payload: bytes) -> bool:
        """Whether this very statement is one of the last LEDGER_SEEN_WINDOW entries."""
        return digest("payload", payload)[:_REPLAY_BYTES] in self._payloads

    # --- the next entry -----------------------------------------------------------------------------------------------

    def apply(self, entry: Entry) -> tuple[Statement, Body]:
        """Take the next entry.

        raises  InputError  the bytes or the chain are wrong: ``ledger.entry``, ``ledger.chain``, ``ledger.version``
                PeerError   a member or leader broke a rule: ``ledger.signature``, ``ledger.author``, ``ledger.order``
                            Nothing has changed then, and ``str`` begins with index and type of the entry.
        """
        decoded = self.admit(entry)
        return decoded.statement, decoded.body

    def admit(self, entry: Entry, hash_: bytes | None = None) -> Decoded:
        """As ``apply``; gives what ``take`` needs to do the same elsewhere without decoding and checking it again."""
        try:
            self._check_place(entry)
            decoded = decode(entry, hash_)
            self._follow(decoded)
        except (InputError, PeerError) as error:
            reason = str(error).removeprefix(f"entry {entry.index}: ")
            raise type(error)(error.code, f"entry {entry.index} ({type_name(entry.payload)}): {reason}") from None
        return decoded

    def take(self, decoded: Decoded) -> None:
        """Take an entry that a copy of this ledger admitted at this place: its signatures are not checked again."""
        check, self.check = self.check, checked_before
        try:
            self._check_place(decoded.entry)
            self._follow(decoded)
        finally:
            self.check = check

    def _check_place(self, entry: Entry) -> None:
        state = self.state
        check_shape(entry)
        if entry.index != state.index + 1:
            raise InputError("ledger.chain", f"follows entry {state.index}: an index is missing or there twice")
        if entry.prev != state.head:
            raise InputError("ledger.chain", "does not name the hash of the entry before it")

    def _follow(self, decoded: Decoded) -> None:
        state, entry, hash_, start = self.state, decoded.entry, decoded.hash, decoded.start
        statement, body = decoded.statement, decoded.body
        if entry.index == GENESIS_INDEX:
            self._found(entry, statement, body, hash_)
        else:
            self._check_author(statement)
            self._check_seen(statement, start)
            leader = self._check_term(entry, statement, body)
            self._check_seal(entry, leader, hash_)
            follow(state, Said(entry.index, statement, body, self.check))
            state.leader, state.leader_key = leader
        state.index, state.term, state.head = entry.index, entry.term, hash_
        state.sealed = entry.index if entry.seal or entry.index == GENESIS_INDEX else state.sealed
        state.recent[entry.index] = (hash_, start)
        self._payloads.add(start)
        past = state.recent.pop(entry.index - LEDGER_SEEN_WINDOW, None)
        if past is not None:
            self._payloads.discard(past[1])

    def _found(self, entry: Entry, statement: Statement, body: Body, hash_: bytes) -> None:
        """The genesis: signed by one of the first members, under no seal."""
        state = self.state
        if not isinstance(body, Genesis):
            raise InputError("ledger.genesis", "the first entry is not a genesis")
        if (entry.term, entry.seal, statement.genesis, statement.seen_index, statement.seen) != (
            GENESIS_TERM,
            b"",
            ZERO_DIGEST,
            0,
            ZERO_DIGEST,
        ):
            raise InputError("ledger.genesis", "a genesis has term 0, no seal, and sees nothing before it")
        policy = body.policy
        if policy.secure and (policy.rule != "mean" or policy.peers_min < 3):
            found = f"rule {shown(policy.rule)!r}, at least {policy.peers_min} peers"
            raise InputError("ledger.genesis", f"secure aggregation gives the mean of 3 or more; found {found}")
        names = [setting.name for setting in policy.settings]
        if names != sorted(set(names)) or not all(isfinite(setting.value) for setting in policy.settings):
            raise InputError("ledger.genesis", "settings must be sorted by name, each once, each a finite number")
        if policy.cap and not policy.secure:
            raise InputError("ledger.genesis", "samples are private only under masks: in the clear they are told")
        registry = Registry()
        registry.found(body, statement.author)
        founder = next((c for c in body.members if member_id(c.signing) == statement.author), None)
        if founder is None:
            raise PeerError("ledger.author", "the genesis is not signed by one of its members")
        self.check(founder.signing, statement.signature, statement.signed(), AUTHORS)
        state.genesis, state.swarm, state.policy, state.layout = hash_, body.swarm, policy, body.layout
        state.model, state.registry = body.base, registry

    def _check_author(self, statement: Statement) -> None:
        state = self.state
        if statement.genesis != state.genesis:
            raise PeerError("ledger.genesis", f"belongs to another swarm: {statement.genesis.hex()[:16]}")
        author = state.registry.members.get(statement.author)
        if author is None:
            raise PeerError("ledger.author", f"{statement.author.hex()[:16]} is no member here")
        if self.check is checked_before:
            return  # without the hashing for it
        self.check(author.signing, statement.signature, statement.signed(), AUTHORS)

    def _check_seen(self, statement: Statement, start: bytes) -> None:
        recent = self.state.recent.get(statement.seen_index)
        if recent is None:
            raise PeerError(
                "ledger.seen", f"its author last saw entry {statement.seen_index}: too long ago, or not yet"
            )
        if recent[0] != statement.seen:
            found = f"its author saw another entry {statement.seen_index} than the one here: two histories"
            raise PeerError("ledger.seen", found)
        if start in self._payloads:
            raise PeerError("ledger.replay", "the same statement stands in the log already")

    def _check_term(self, entry: Entry, statement: Statement, body: Body) -> tuple[bytes, bytes]:
        """Leader of the entry's term, and its key.  The first entry of a term is a no-op by its leader."""
        state = self.state
        if entry.term < state.term:
            raise InputError("ledger.chain", f"term {entry.term} after term {state.term}")
        if entry.term > state.term:
            if not isinstance(body, Noop):
                raise PeerError("ledger.term", f"term {entry.term} does not begin with its leader's no-op")
            if body.term != entry.term:
                raise PeerError("ledger.term", f"no-op of term {body.term} in term {entry.term}")
            member = state.registry.members[statement.author]
            if not member.voter:
                raise PeerError("ledger.author", "a learner cannot lead")
            return statement.author, member.signing
        if isinstance(body, Noop):
            raise PeerError("ledger.term", f"a second no-op in term {entry.term}")
        member_now = state.registry.members.get(state.leader)
        return state.leader, member_now.signing if member_now else state.leader_key

    def _check_seal(self, entry: Entry, leader: tuple[bytes, bytes], hash_: bytes) -> None:
        if not entry.seal:
            return
        sealer, signature = entry.seal[:DIGEST_BYTES], entry.seal[DIGEST_BYTES:]
        if sealer != leader[0]:
            found = f"sealed by {sealer.hex()[:16]}, the leader of term {entry.term} is {leader[0].hex()[:16]}"
            raise PeerError("ledger.seal", found)
        self.check(leader[1], signature, seal_statement(hash_), "the leader's seal")
