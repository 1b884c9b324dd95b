"""Stands between a consensus core and the ledger's rules: nothing that breaks a rule gets into a log.

The core appends before it knows what is committed, and may cut what it appended.  So a guard keeps two ledgers: one at
the last committed entry, and one ahead of it, at the end of the log.  Its methods are what ``core.Hooks`` asks for:

    Hooks(draw=..., members_of=change_of, seal=guard.seal, admit=guard.admit, opening=guard.opening)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from shoal.errors import InputError, PeerError
from shoal.ledger.body import Noop
from shoal.ledger.certificate import check_now
from shoal.ledger.entry import Entry, entry_hash
from shoal.ledger.identity import Identity
from shoal.ledger.statement import Seen, make_statement
from shoal.ledger.validator import Ledger, make_seal


def _checked_before(public_key: bytes, signature: bytes, message: bytes, what: str) -> None:
    """For entries whose signatures this guard has checked."""


class Guard:
    """The rules for one node.

    committed  Ledger  after the last committed entry: what the node acts on
    refusal    str     why the last entry was refused, for the operator
    """

    def __init__(self, committed: Ledger, me: Identity, clock_ms: Callable[[], int] = lambda: 0) -> None:
        self.committed = committed
        self.refusal = ""
        self._me = me
        self._clock_ms = clock_ms
        self._tail: list[tuple[Entry, bytes]] = []
        self._ahead = committed.copy()

    @property
    def seen(self) -> Seen:
        """What a statement made now says that its author has seen."""
        return Seen(self.committed.state.index, self.committed.state.head)

    def seal(self, hash_: bytes) -> bytes:
        """This node's seal, as a leader."""
        return make_seal(hash_, self._me)

    def opening(self, term: int) -> bytes:
        """The no-op that opens a term which this node leads, already admitted."""
        genesis = self.committed.state.genesis
        payload = make_statement(Noop(term), self._me, genesis, self.seen, self._clock_ms())
        self.offer(payload, term)
        return payload

    def offer(self, payload: bytes, term: int) -> Entry:
        """Admit what this node, leading in ``term``, is about to append; if the core refuses it, call ``withdraw``.

        raises  PeerError, InputError  if it breaks a rule there: then do not propose it
        """
        state = self._ahead.state
        entry = Entry(state.index + 1, term, state.head, payload)
        self._ahead.apply(entry)
        self._tail.append((entry, self._ahead.state.head))
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
        if at < len(self._tail) and self._tail[at][1] == hash_:
            return self._is_seal_good(entry)
        self.withdraw(entry.index)
        try:
            self._ahead.apply(entry)
        except (InputError, PeerError) as error:
            self.refusal = str(error)
            return False
        self._tail.append((entry, hash_))
        return True

    def settle(self, entries: Iterable[Entry]) -> None:
        """These entries are committed.

        raises  PeerError, InputError  if one of them breaks a rule: most members are at fault, and this node must stop
        """
        for entry in entries:
            if entry.index <= self.committed.state.index:
                continue
            known = bool(self._tail) and self._tail[0][1] == entry_hash(entry)
            check = _checked_before if known and not entry.seal else check_now
            self.committed.check = check
            self.committed.apply(entry)
            if known:
                del self._tail[0]
            else:
                self._tail.clear()
        if self._ahead.state.head != (self._tail[-1][1] if self._tail else self.committed.state.head):
            self._rebuild()

    def restart(self, committed: Ledger) -> None:
        """A snapshot took the place of the log."""
        self.committed = committed
        self._tail.clear()
        self._rebuild()

    def _is_seal_good(self, entry: Entry) -> bool:
        """The entry is known, but perhaps without this seal: it must be good too."""
        index = entry.index - self.committed.state.index - 1
        if not entry.seal or self._tail[index][0].seal == entry.seal:
            return True
        kept = [e for e, _ in self._tail]
        self.withdraw(entry.index)
        if not self.admit(entry, entry_hash(entry)):
            return False
        return all(self.admit(e, entry_hash(e)) for e in kept[index + 1 :])

    def _rebuild(self) -> None:
        self._ahead = self.committed.copy()
        self._ahead.check = _checked_before
        for entry, _ in self._tail:
            self._ahead.apply(entry)
        self._ahead.check = check_now
