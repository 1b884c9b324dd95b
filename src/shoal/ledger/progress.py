"""What a leader knows of one peer's log, and how fast it may send to it.

state       sends                                        leaves
PROBE       one append, then waits for an answer         to REPLICATE when one is accepted
REPLICATE   ahead of the answers, up to a window          to PROBE when one is rejected
INSTALL     one chunk of a snapshot, then waits           to PROBE when the snapshot is in
"""

from __future__ import annotations

from collections import deque
from typing import Final

PROBE: Final = 0
REPLICATE: Final = 1
INSTALL: Final = 2
NAMES: Final = ("probe", "replicate", "install")


class Progress:
    """match: highest index known to be on the peer's disk; next: the first index to send; beat: the newest round of
    heartbeats it answered; active: heard since the last check of the quorum."""

    __slots__ = (
        "active",
        "beat",
        "commit_sent",
        "generation",
        "in_flight",
        "installs",
        "match",
        "next",
        "offset",
        "sent_at",
        "state",
        "waiting",
        "window",
    )

    def __init__(self, next_index: int, window: int, match: int = 0) -> None:
        self.match = match
        self.next = next_index
        self.window = window
        self.state = PROBE
        self.waiting = False  # PROBE, INSTALL: something was sent and not answered
        self.sent_at = 0  # PROBE, INSTALL: the round of heartbeats it was sent in
        self.in_flight: deque[int] = deque()  # REPLICATE: last index of each append without an answer
        self.offset = 0  # INSTALL: bytes the peer has
        self.installs = 0  # INSTALL: index of the snapshot that `offset` counts in
        self.beat = 0
        self.commit_sent = 0
        self.active = False
        self.generation = 0  # the life of the peer that acknowledged `match`

    @property
    def paused(self) -> bool:
        if self.state == REPLICATE:
            return len(self.in_flight) >= self.window
        return self.waiting

    @property
    def installing(self) -> bool:
        return self.state == INSTALL

    def probe(self, next_index: int) -> None:
        self.state = PROBE
        self.waiting = False
        self.in_flight.clear()
        self.next = max(next_index, self.match + 1)

    def install(self) -> None:
        self.state = INSTALL
        self.waiting = False
        self.in_flight.clear()
        self.offset = 0

    def accepted(self, index: int) -> bool:
        """The peer has everything up to `index`; True if that is news."""
        news = index > self.match
        if news:
            self.match = index
            self.next = max(self.next, index + 1)
        while self.in_flight and self.in_flight[0] <= index:
            self.in_flight.popleft()
        if self.state == PROBE:
            self.state = REPLICATE
            self.waiting = False
            self.next = self.match + 1
        return news

    def rejected(self, index: int, next_index: int) -> bool:
        """The peer refused an append after `index`; False if the answer is an old one that says nothing now."""
        if self.state == REPLICATE:
            if index <= self.match:
                return False
            self.probe(self.match + 1 if next_index <= self.match else next_index)
            return True
        if self.state == INSTALL or self.next - 1 != index:
            return False
        self.probe(max(1, min(next_index, index)))
        return True
