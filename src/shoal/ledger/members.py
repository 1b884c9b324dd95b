"""Who is a member: the configuration, the one change an entry can make to it, and its history along a log.

A configuration is in force as soon as the entry that makes it is appended, committed or not (Ongaro, dissertation 2014,
4.1); when that entry is cut off again, so is the configuration.  Two configurations that follow each other differ in at
most one voter, so any majority of the one meets any majority of the other.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from shoal.limits import LEDGER_MEMBERS_MAX

#: a peer's name: opaque bytes (in a swarm the SHA-256 of its public key), compared and sorted as bytes
PeerId = bytes
NOBODY: Final = b""


class Change(msgspec.Struct, frozen=True, array_like=True):
    """What one entry does to the membership.

    kind   found    the first voters (the genesis entry)
           add      one new learner: it receives the log and counts for nothing
           promote  a learner becomes a voter
           remove   a voter or learner leaves
    peers  one peer, or for "found" any number
    alone  of "found": the only one of them that votes; NOBODY where all do
    """

    kind: Literal["found", "add", "promote", "remove"]
    peers: tuple[PeerId, ...]
    alone: PeerId = NOBODY


class Configuration(msgspec.Struct, frozen=True, array_like=True):
    """Voters and learners, each sorted; a peer is never in both."""

    voters: tuple[PeerId, ...] = ()
    learners: tuple[PeerId, ...] = ()

    def __contains__(self, peer: PeerId) -> bool:
        return peer in self.voters or peer in self.learners

    def fault(self, change: Change) -> str:
        """Why this change cannot follow this configuration; "" if it can."""
        if change.kind == "found":
            if self.voters or self.learners:
                return "already-founded"
            fits = 0 < len(set(change.peers)) == len(change.peers) <= LEDGER_MEMBERS_MAX
            return "" if fits and change.alone in (NOBODY, *change.peers) else "bad-founders"
        if len(change.peers) != 1 or change.peers[0] == NOBODY:
            return "not-one-peer"
        peer = change.peers[0]
        if change.kind == "add":
            if peer in self:
                return "already-member"
            return "" if len(self.voters) + len(self.learners) < LEDGER_MEMBERS_MAX else "members-full"
        if change.kind == "promote":
            return "" if peer in self.learners else "not-a-learner"
        if peer not in self:
            return "not-a-member"
        return "last-voter" if self.voters == (peer,) else ""

    def after(self, change: Change) -> Configuration:
        """The configuration that follows.  A change that cannot follow changes nothing, at every node alike."""
        if self.fault(change):
            return self
        if change.kind == "found":
            voters = {change.alone} if change.alone else set(change.peers)
            return Configuration(tuple(sorted(voters)), tuple(sorted(set(change.peers) - voters)))
        peer = change.peers[0]
        voters, learners = set(self.voters) - {peer}, set(self.learners) - {peer}
        if change.kind == "add":
            learners.add(peer)
        elif change.kind == "promote":
            voters.add(peer)
        return Configuration(tuple(sorted(voters)), tuple(sorted(learners)))


class Roster:
    """The configurations along a log: one at its floor, one more for each later entry that changed it."""

    __slots__ = ("current", "history")

    def __init__(self, base: Configuration, floor: int) -> None:
        self.history: list[tuple[int, Configuration]] = [(floor, base)]
        self.current = base

    def push(self, index: int, change: Change) -> None:
        """The entry at `index` was appended and makes this change."""
        self.current = self.current.after(change)
        self.history.append((index, self.current))

    def cut(self, index: int) -> None:
        """The entries from `index` on were removed."""
        while len(self.history) > 1 and self.history[-1][0] >= index:
            self.history.pop()
        self.current = self.history[-1][1]

    def at(self, index: int) -> Configuration:
        """The configuration in force at `index` (which must not lie below the floor)."""
        for start, configuration in reversed(self.history):
            if start <= index:
                return configuration
        return self.history[0][1]

    def raise_floor(self, index: int) -> None:
        """Forget what lies below `index`, keeping the configuration in force there."""
        base = self.at(index)
        self.history = [(index, base)] + [pair for pair in self.history if pair[0] > index]

    @property
    def last_change(self) -> int:
        """Index of the newest entry that changed the membership (the floor if none since)."""
        return self.history[-1][0]
