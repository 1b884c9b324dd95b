"""A network that drops, duplicates, delays, reorders and partitions, one way or both, as its dice say."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from shoal.ledger.message import AnyMessage

FLIGHT_MAX = 120  # messages on their way; of more the oldest are lost


class Network:
    """drop, twice: probability per message.  window: how many of the oldest messages may overtake each other."""

    __slots__ = ("blocked", "drop", "flight", "rng", "twice", "window")

    def __init__(self, rng: Random, drop: float, twice: float, window: int) -> None:
        self.rng = rng
        self.drop = drop
        self.twice = twice
        self.window = window
        self.flight: list[AnyMessage] = []
        self.blocked: set[tuple[bytes, bytes]] = set()

    def send(self, messages: Iterable[AnyMessage]) -> None:
        self.flight += messages
        if len(self.flight) > FLIGHT_MAX:
            del self.flight[: len(self.flight) - FLIGHT_MAX]

    def next(self) -> AnyMessage | None:
        """The next message to arrive; None if this turn's was lost."""
        flight = self.flight
        random = self.rng.random
        window = min(self.window, len(flight))
        m = flight.pop(int(random() * window) if window > 1 else 0)
        if self.drop and random() < self.drop:
            return None
        if (m.sender, m.to) in self.blocked:
            return None
        if self.twice and random() < self.twice:
            flight.append(m)
        return m

    def partition(self, ids: list[bytes]) -> str:
        """Cut some links; says which kind."""
        rng = self.rng
        kind = rng.choice(("halves", "deaf", "mute", "link", "bridge"))
        one = rng.choice(ids)
        self.blocked = set()
        if kind == "halves":
            side = {p for p in ids if rng.random() < 0.5}
            self.blocked = {(a, b) for a in ids for b in ids if (a in side) != (b in side)}
        elif kind == "deaf":
            self.blocked = {(a, one) for a in ids}
        elif kind == "mute":
            self.blocked = {(one, b) for b in ids}
        elif kind == "link":
            self.blocked = {(one, rng.choice(ids))}
        else:  # two halves that only one node joins
            side = {p for p in ids if rng.random() < 0.5}
            self.blocked = {(a, b) for a in ids for b in ids if one not in (a, b) and (a in side) != (b in side)}
        return kind

    def heal(self) -> None:
        self.blocked = set()
