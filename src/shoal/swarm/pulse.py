"""What a node hears and says while it waits for its disk: heartbeats go on, everything else is kept for later."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator

from shoal.errors import PeerError
from shoal.ledger.message import Heartbeat
from shoal.limits import POLL_BYTES_MAX
from shoal.swarm import messages
from shoal.swarm.replica import Replica
from shoal.swarm.transport import Bulk, Event, Received, Transport


class Pulse:
    """The events of a transport, in order, whoever polled for them.

    turn_s  seconds that one turn of waiting takes at most
    beat_s  seconds between two heartbeats of a leader
    """

    def __init__(self, transport: Transport, replica: Replica, turn_s: float, beat_s: float) -> None:
        self._transport = transport
        self._replica = replica
        self._turn_s = turn_s
        self._beat_s = beat_s
        self._kept: deque[Event] = deque()
        self._bytes = 0
        self._said_s = 0.0
        self._owner = 0

    def events(self, wait_s: float) -> Iterator[Event]:
        """What was kept, then what comes within ``wait_s``; with something kept nothing is waited for."""
        self._owner = threading.get_ident()
        if self._kept:
            kept, self._kept, self._bytes = self._kept, deque(), 0
            yield from kept
            wait_s = 0.0
        yield from self._transport.poll(max(0.0, wait_s))

    def meanwhile(self) -> None:
        """One turn of waiting.  Where much is kept already, or in another thread than that of ``events``, only time."""
        if threading.get_ident() != self._owner or self._bytes > POLL_BYTES_MAX:
            time.sleep(self._turn_s)
            return
        beats = []
        for event in self._transport.poll(self._turn_s):
            beat = _heartbeat(event)
            if beat is not None:
                beats.append(beat)
            else:
                self._kept.append(event)
                self._bytes += _size(event)
        due = time.monotonic() - self._said_s >= self._beat_s
        if due:
            self._said_s = time.monotonic()
        for message in self._replica.pulse(beats, due):
            self._transport.send(message.to, messages.encode_ledger(message))


def _heartbeat(event: Event) -> tuple[bytes, Heartbeat] | None:
    if not isinstance(event, Received) or event.data[:1] != messages.LEDGER:
        return None
    try:
        message = messages.decode_control(event.data)
    except PeerError:
        return None  # whoever takes it later counts it
    return (event.peer, message) if isinstance(message, Heartbeat) else None


def _size(event: Event) -> int:
    if isinstance(event, Received):
        return len(event.data)
    return len(event.body) if isinstance(event, Bulk) else 0
