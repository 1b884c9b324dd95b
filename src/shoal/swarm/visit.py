"""An examination of the members over a transport that somebody polls: a node that runs, or a doctor before it does."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable

import msgspec

from shoal.swarm.probe import Examiner, Found, Out, Said


class Seen(msgspec.Struct):
    """What the network showed of one member.

    dialled   this site reached it, and both showed their keys
    accepted  it reached this site
    """

    dialled: bool = False
    accepted: bool = False
    found: Found = msgspec.field(default_factory=Found)


class Visit:
    """members   whom to ask
    clock_ms  gives milliseconds since 1970
    until_s   when to stop waiting, by the clock that ``now_s`` is of

    seen      what was seen so far
    """

    def __init__(self, members: Iterable[bytes], clock_ms: Callable[[], int], until_s: float) -> None:
        self.seen = {who: Seen() for who in members}
        self._examiner = Examiner(lambda: secrets.randbits(62), clock_ms)
        self._until_s = until_s

    def heard(self, peer: bytes, said: Said, now_s: float) -> None:
        self._examiner.heard(peer, said, now_s)

    def chunk(self, peer: bytes, header: bytes, now_s: float) -> None:
        self._examiner.chunk(peer, header, now_s)

    def unsent(self, peer: bytes) -> None:
        """A chunk for this member could not be handed over: it is tried again."""
        self._examiner.unsent(peer)

    def turn(self, ways: Callable[[bytes], tuple[bool, bool]], now_s: float) -> list[Out]:
        """Look which connections are up (`Transport.ways`); what is to be sent now."""
        for who, one in self.seen.items():
            dialled, accepted = ways(who)
            one.dialled, one.accepted = one.dialled or dialled, one.accepted or accepted
            if dialled or accepted:
                self._examiner.up(who)
            one.found = self._examiner.found(who)
        return self._examiner.turn(now_s)

    def over(self, now_s: float) -> bool:
        """Whether all is known, or the time is over."""
        known = all(self._examiner.done(who) and one.dialled and one.accepted for who, one in self.seen.items())
        return known or now_s >= self._until_s
