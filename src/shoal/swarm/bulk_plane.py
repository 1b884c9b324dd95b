"""The bulk plane: chunks, each sealed under the keys of a session that the control plane agreed on (seal.py).

    HELLO    two empty parts, sealed as a chunk is
    WELCOME  likewise
    CARRY    header and body of a chunk, sealed

The first part of each is kind || counter.  Nothing here is under CURVE: one seal is enough (docs/adr/0012).  The
gate lets in only who shows the ticket of a session, once; the first frame that does not open ends its connection.  A
session serves one connection: when that has ended or did not come about, the dialler asks for another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
import zmq

from shoal.limits import BULK_BACKLOG_BYTES_MAX, BULK_QUEUE, CHUNK_BYTES, CHUNK_HEADER_BYTES_MAX
from shoal.swarm.frames import CARRY, HELLO, WELCOME, Taken
from shoal.swarm.gate import Gate
from shoal.swarm.link import Dial, Link, Shape
from shoal.swarm.plane import Plane
from shoal.swarm.seal import HEAD_BYTES, TAG_BYTES, Session
from shoal.swarm.transport import Bulk

_SHAPE: Final = Shape(
    "bulk",
    (HEAD_BYTES, TAG_BYTES, TAG_BYTES),
    (HEAD_BYTES, CHUNK_HEADER_BYTES_MAX + TAG_BYTES, CHUNK_BYTES + TAG_BYTES),
    BULK_QUEUE,
    BULK_BACKLOG_BYTES_MAX,
    1,
    bars=False,
)
#: what is not sealed has no tags
_UNSEALED_SHAPE: Final = msgspec.structs.replace(_SHAPE, parts_min=(HEAD_BYTES, 0, 0))
#: seconds for which a connection may take nothing, while its control connection lives, until it is given up
STUCK_S: Final = 20.0


class BulkPlane(Plane[Session]):
    """``events`` is filled by ``work``; who polls takes it away.

    renew   called with a peer that this side dials, to agree with it on a new session
    sealed  False: chunks go as they are, for measurements
    """

    def __init__(
        self, context: zmq.Context[Any], gate: Gate, renew: Callable[[bytes], None], sealed: bool = True
    ) -> None:
        super().__init__(context, gate, _SHAPE if sealed else _UNSEALED_SHAPE)
        self._sealed = sealed
        self.events: list[Bulk] = []
        self._expected: dict[bytes, Session] = {}
        self._renew = renew
        self.listener.setsockopt(zmq.PLAIN_SERVER, 1)

    # --- sessions

    def session(self, values: tuple[bytes, ...], *, dialled: bool) -> Session:
        """One of this plane from what was agreed on."""
        return Session(values, dialled=dialled, sealed=self._sealed)

    def reach(self, peer: bytes, where: tuple[str, int], session: Session, now_s: float) -> None:
        """This side dialled the control connection, so it dials this one."""
        before = self._dials.get(peer)
        self.dial(peer, where, session, now_s)
        if before is not None:  # in vain so far: it may go on less and less often
            self._dials[peer].pause_s = before.pause_s

    def retry(self, dial: Dial[Session], now_s: float) -> None:
        dial.wait(now_s)
        self._renew(dial.peer)

    def expect(self, peer: bytes, session: Session) -> None:
        """The peer dialled the control connection, so it will dial this one."""
        self.shut_out(peer)
        self._expected[peer] = session
        self.gate.expect(peer, session.ticket)

    def end(self, peer: bytes, *, dialled: bool) -> None:
        """The control connection is gone, and its session with it."""
        if dialled:
            self.hang_up(peer)
        else:
            self.shut_out(peer)
            self._expected.pop(peer, None)
            self.gate.expect(peer, None)

    # --- chunks

    def send(self, peer: bytes, header: bytes, body: bytes | memoryview) -> bool:
        link = self.link(peer)
        if link is None:
            return False
        if link.key.sealer.spent or (link.full_s and self._now_s - link.full_s > STUCK_S):
            self.counters["lost.bulk"] += 1
            self.cut(link)  # the dialler comes back with a new session
            return False
        sealed = link.key.sealer.seal(CARRY, header, body)
        taken = self.push(link.routing, sealed, dialled=link.dialled, copy=False)
        link.full_s = 0.0 if taken else link.full_s or self._now_s
        return taken

    def carried(self, link: Link[Session], taken: Taken) -> None:
        opened = _open(link.key, taken) if taken.kind == CARRY else None
        if opened is None:
            self.refuse(taken, "seal")
            return
        header, body = opened
        if header and body:
            self.events.append(Bulk(link.peer, header, body))
        else:
            self.counters["refused.frame"] += 1

    # --- connections

    def identify(self, dial: Dial[Session]) -> None:
        self.dialler.setsockopt(zmq.PLAIN_USERNAME, dial.key.ticket[:16].hex().encode())
        self.dialler.setsockopt(zmq.PLAIN_PASSWORD, dial.key.ticket[16:].hex().encode())

    def greet(self, dial: Dial[Session]) -> None:
        self.push(dial.routing, dial.key.sealer.seal(HELLO, b"", b""), dialled=True)

    def greeted(self, peer: bytes, taken: Taken) -> None:
        session = self._expected.get(peer)
        if session is None or not self.is_whole(taken) or _open(session, taken) is None:
            self.refuse(taken, "seal")
            return
        self.accept(peer, taken, session)
        self.push(taken.routing, session.sealer.seal(WELCOME, b"", b""), dialled=False)

    def answered(self, dial: Dial[Session], taken: Taken) -> None:
        if not self.is_whole(taken) or _open(dial.key, taken) is None:
            self.refuse(taken, "seal")
            return
        self.settle(dial, taken, dial.key)

    def turned(self, link: Link[Session], *, up: bool) -> None:
        """Whether a peer is up is the control plane's to say."""


def _open(session: Session, taken: Taken) -> tuple[bytes, memoryview] | None:
    head, header, body = taken.parts
    return session.opener.open(head.bytes, header.buffer, body.buffer)
