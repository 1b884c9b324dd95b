"""Stands between a consensus core and the ledger's rules: nothing that breaks a rule gets into a log.

The core appends before it knows what is committed, and may cut what it appended.  So a guard keeps two ledgers: one at
the last committed entry, and one ahead of it, at the end of the log.  Its methods are what ``core.Hooks`` asks for:

    Hooks(draw=..., members_of=change_of, seal=guard.seal, admit=guard.admit, opening=guard.opening,
          admit_snapshot=guard.admit_snapshot)

Each entry is decoded and its signatures are checked once, when it is admitted; when it is decided, only the rules are
followed again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from shoal.errors import InputError, PeerError
from shoal.ledger.body import Body, KeysRotated, Noop
from shoal.ledger.certificate import check_now
from shoal.ledger.entry import Entry, entry_hash
from shoal.ledger.identity import Identity
from shoal.ledger.ready import unpack_state
from shoal.ledger.state import State, decode_state
from shoal.ledger.statement import Seen, make_statement
from shoal.ledger.store import Snapshot
from shoal.ledger.validator import AUTHORS, Decoded, Ledger, make_seal


class Guard:
    """The rules for one node.

    committed  Ledger  after the last committed entry: what the node acts on
    refusal    str     why the last entry was refused, for the operator
    """

    def __init__(self, committed: Ledger, me: Identity, clock_ms: Callable[[], int] = lambda: 0) -> None:
        self.committed = committed
        self.refusal = ""
        self._me = me
        self._new: Identity | None = None
        self._clock_ms = clock_ms
        self._tail: list[Decoded] = []
        self._ahead = committed.copy()

    @property
    def seen(self) -> Seen:
        """What a statement made now says that its author has seen."""
        return Seen(self.committed.state.index, self.committed.state.head)

    def rotate_to(self, new: Identity) -> None:
        """Sign with this key of the same member from where the log says that it is the member's."""
        self._new = new

    def hash_at(self, index: int) -> bytes | None:
        """The hash of the entry at ``index``, in the log as far as it was admitted; None where that is not known."""
        at = index - self.committed.state.index - 1
        if at >= 0:
            return self._tail[at].hash if at < len(self._tail) else None
        if index == self.committed.state.index:
            return self.committed.state.head
        held = self.committed.state.recent.get(index)
        return None if held is None else held[0]

    def _signer(self, before_last: bool = False) -> Identity:
        """Whoever this node is at the end of the log, or just before its last entry."""
        member = self._ahead.state.registry.members.get(self._me.id)
        if self._new is None or member is None or member.signing != self._new.public:
            return self._me
        last = self._tail[-1] if self._tail else None
        if before_last and last and isinstance(last.body, KeysRotated) and last.statement.author == self._me.id:
            return self._me
        return self._new

    def seal(self, hash_: bytes) -> bytes:
        """This node's seal, as a leader."""
        seal = make_seal(hash_, self._signer(before_last=True))
        if self._tail and self._tail[-1].hash == hash_:
            last = self._tail[-1]
            entry = msgspec.structs.replace(last.entry, seal=seal)
            self._tail[-1] = msgspec.structs.replace(last, entry=entry)
        return seal

    def opening(self, term: int) -> bytes:
        """The no-op that opens a term which this node leads, already admitted."""
        return self.say(Noop(term), term)

    def say(self, body: Body, term: int) -> bytes:
        """This node's own statement, made and admitted as by ``offer``; its signature needs no check.

        raises  PeerError, InputError  if it breaks a rule here
        """
        payload = self.statement(body)
        self.offer(payload, term, own=True)
        return payload

    def statement(self, body: Body) -> bytes:
        """This node's own statement, not admitted anywhere.  raises  InputError  ``ledger.limit``"""
        return make_statement(body, self._signer(), self.committed.state.genesis, self.seen, self._clock_ms())

    def _check_others(self, public_key: bytes, signature: bytes, message: bytes, what: str) -> None:
        """All but the author's: this node has just made it."""
        if what != AUTHORS or public_key != self._signer().public:
            check_now(public_key, signature, message, what)

    def offer(self, payload: bytes, term: int, own: bool = False) -> Entry:
        """Admit what this node, leading in ``term``, is about to append; if the core refuses it, call ``withdraw``.

        own     this node has just made it, so its author's signature needs no check
        raises  PeerError, InputError  if it breaks a rule there: then do not propose it
        """
        state = self._ahead.state
        entry = Entry(state.index + 1, term, state.head, payload)
        self._ahead.check = self._check_others if own else check_now
        try:
            self._tail.append(self._ahead.admit(entry))
        finally:
            self._ahead.check = check_now
        return entry

    def withdraw(self, index: int) -> None:
        """The log ends before ``index``."""
        keep = max(0, index - self.committed.state.index - 1)
        if keep < len(self._tail):
            del self._tail[keep:]
            self._rebuild()

    def admit(self, entry: Entry, hash_: bytes) -> bool:
        """May this entry stand at its index?  Entries of the log that it contradicts are given up."""
        at = entry.index - self.committed.state.index - 1
        if at < 0:
            held = self.committed.state.recent.get(entry.index)
            return held is not None and held[0] == hash_
        if at < len(self._tail) and self._tail[at].hash == hash_:
            return self._is_seal_good(entry)
        self.withdraw(entry.index)
        try:
            self._tail.append(self._ahead.admit(entry, hash_))
        except (InputError, PeerError) as error:
            self.refusal = str(error)
            return False
        return True

    def settle(self, entries: Iterable[Entry]) -> list[Decoded]:
        """These entries are committed; gives those that were not yet, decoded.

        raises  PeerError, InputError  if one of them breaks a rule: most members are at fault, and this node must stop
        """
        decided: list[Decoded] = []
        for entry in entries:
            if entry.index <= self.committed.state.index:
                continue
            known = self._tail[0] if self._tail else None
            if known is not None and known.hash != entry_hash(entry):
                self._tail.clear()
                known = None
            if known is not None and known.entry.seal == entry.seal:
                self.committed.take(known)
                decided.append(known)
            else:
                decided.append(self.committed.admit(entry))
            if known is not None:
                del self._tail[0]
        if self._ahead.state.head != (self._tail[-1].hash if self._tail else self.committed.state.head):
            self._rebuild()
        return decided

    def admit_snapshot(self, snapshot: Snapshot) -> bool:
        """Is this the state of the ledger at its place, and does nothing in it contradict what is decided here?

        The rest is its leader's word: the chain has no digest of the state.  Who wants more than that word takes the
        entries from a member that holds them from the genesis on, and verifies them.
        """
        self.refusal = _snapshot_fault(snapshot, self.committed.state)
        return not self.refusal

    def restart(self, committed: Ledger) -> None:
        """A snapshot took the place of the log."""
        self.committed = committed
        self._tail.clear()
        self._rebuild()

    def _is_seal_good(self, entry: Entry) -> bool:
        """The entry is known, but perhaps without this seal: it must be good too."""
        index = entry.index - self.committed.state.index - 1
        if not entry.seal or self._tail[index].entry.seal == entry.seal:
            return True
        kept = list(self._tail)
        self.withdraw(entry.index)
        if not self.admit(entry, entry_hash(entry)):
            return False
        return all(self.admit(d.entry, d.hash) for d in kept[index + 1 :])

    def _rebuild(self) -> None:
        self._ahead = self.committed.copy()
        for decoded in self._tail:
            self._ahead.take(decoded)


def _snapshot_fault(snapshot: Snapshot, mine: State) -> str:
    """Why a snapshot cannot follow the decided state ``mine``; "" if it can."""
    content = unpack_state(snapshot.state)
    if content is None:
        return "no snapshot"
    try:
        theirs = decode_state(content.data)
    except InputError as error:
        return str(error)
    told = (snapshot.index, snapshot.term, snapshot.hash)
    if told != (theirs.index, theirs.term, theirs.head):
        return f"a snapshot of entry {snapshot.index} holds the state after entry {theirs.index}"
    members = theirs.registry.members
    now = content.configuration
    if dict.fromkeys(now.voters, True) | dict.fromkeys(now.learners, False) != {i: m.voter for i, m in members.items()}:
        return f"the snapshot of entry {snapshot.index} and its state name other members"
    if mine.index and theirs.genesis != mine.genesis:
        return f"a snapshot of another swarm: {theirs.genesis.hex()[:16]}"
    if mine.index and (theirs.policy, theirs.layout, theirs.swarm) != (mine.policy, mine.layout, mine.swarm):
        return f"the snapshot of entry {snapshot.index} says of its genesis what it does not say"
    both = theirs.recent.keys() & mine.recent.keys()
    if any(theirs.recent[i][0] != mine.recent[i][0] for i in both):
        return f"the snapshot of entry {snapshot.index} has another history than the one decided here"
    return ""
