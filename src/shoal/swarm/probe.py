"""What nodes tell each other when one of them is examined: who they are, what their clocks say, how fast bytes go.

Frames of the control plane that begin with PROBE, MessagePack behind it, and chunks whose header is PROBE and a nonce:

    Ask(nonce, chunks)  please tell, and send me so many chunks of CHUNK_BYTES with this nonce
    Told(nonce, ...)    the answer
    Got(nonce, chunks)  so many of your chunks with this nonce have come

`Host` answers, in every node; `Examiner` asks.  Neither knows a clock or a socket: both are told the time, and give
what is to be sent.  Only members get this far, and what a host sends is bounded whatever it is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from shoal import __version__
from shoal.ledger.body import Count, Digest
from shoal.ledger.state import State
from shoal.limits import CHUNK_BYTES, PROBE_CHUNKS_MAX, PROBE_PAUSE_S

PROBE: Final = b"\x03"
#: bytes of a nonce in the header of a chunk
_NONCE_BYTES: Final = 8
#: what chunks are filled with: it is sealed on its way, so its value does not matter
_CHUNK: Final = bytes(CHUNK_BYTES)

Nonce = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Chunks = Annotated[int, Meta(ge=0, le=PROBE_CHUNKS_MAX)]


class Said(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of all."""


class Ask(Said, frozen=True, tag=1):
    nonce: Nonce
    chunks: Chunks = 0


class Told(Said, frozen=True, tag=2):
    """time_ms   the sender's clock, milliseconds since 1970
    version      of its software
    genesis      of its ledger;  index, head: its last decided entry;  round, model: the last that is certified
    """

    nonce: Nonce
    time_ms: Annotated[int, Meta(ge=-(2**53), le=2**53)]
    version: Annotated[str, Meta(max_length=32)]
    genesis: Digest
    index: Count
    head: Digest
    round: Count
    model: Digest


class Got(Said, frozen=True, tag=3):
    nonce: Nonce
    chunks: Count


_DECODER: Final[msgspec.msgpack.Decoder[Any]] = msgspec.msgpack.Decoder(Ask | Told | Got)

#: (to, frame) of the control plane, or (to, header, body) of a chunk
Out = tuple[bytes, bytes] | tuple[bytes, bytes, bytes]


def encode(said: Said) -> bytes:
    return PROBE + msgspec.msgpack.encode(said)


def decode(data: bytes) -> Said | None:
    """None for what is no frame of this kind: a peer that sends such only harms its own examination."""
    try:
        said: Said = _DECODER.decode(data[len(PROBE) :])
    except (msgspec.MsgspecError, RecursionError):
        return None
    return said


def header_of(nonce: int) -> bytes:
    return PROBE + nonce.to_bytes(_NONCE_BYTES, "little")


def nonce_of(header: bytes) -> int:
    """The nonce in a chunk's header; -1 if it is none."""
    return int.from_bytes(header[len(PROBE) :], "little") if len(header) == len(PROBE) + _NONCE_BYTES else -1


class Host:
    """Answers what members ask.

    state     gives the ledger's state as decided
    clock_ms  gives milliseconds since 1970
    """

    def __init__(self, state: Callable[[], State], clock_ms: Callable[[], int]) -> None:
        self._state = state
        self._clock_ms = clock_ms
        self._sent: dict[bytes, tuple[float, int]] = {}  # peer -> since when, how many chunks
        self._came: dict[bytes, tuple[int, int]] = {}

    def heard(self, peer: bytes, said: Said, now_s: float) -> list[Out]:
        """Answer a question; nothing for anything else."""
        if not isinstance(said, Ask):
            return []
        state = self._state()
        told = Told(
            said.nonce,
            self._clock_ms(),
            __version__,
            state.genesis,
            state.index,
            state.head,
            state.round,
            state.model,
        )
        out: list[Out] = [(peer, encode(told))]
        since, sent = self._sent.get(peer, (now_s, 0))
        if now_s - since >= PROBE_PAUSE_S:
            since, sent = now_s, 0
        if sent + said.chunks <= PROBE_CHUNKS_MAX + 1:
            self._sent[peer] = (since, sent + said.chunks)
            out += [(peer, header_of(said.nonce), _CHUNK)] * said.chunks
        return out

    def chunk(self, peer: bytes, header: bytes) -> list[Out]:
        """A chunk came: say how many with its nonce have."""
        nonce = nonce_of(header)
        if nonce < 0 or nonce >= 2**63:
            return []
        before, count = self._came.get(peer, (nonce, 0))
        count = count + 1 if before == nonce else 1
        self._came[peer] = (nonce, count)
        return [(peer, encode(Got(nonce, count)))]


class Found(msgspec.Struct):
    """What was found out about a member.

    told        its answer; None if none came
    rtt_s       the shortest time to an answer
    ahead_ms    how far its clock is ahead of this one, as of that answer
    down, up    bytes per second of chunks from it and to it; 0.0 if none came
    """

    told: Told | None = None
    rtt_s: float = 0.0
    ahead_ms: float = 0.0
    down: float = 0.0
    up: float = 0.0


class _Step(msgspec.Struct, frozen=True):
    kind: str
    chunks: int = 0


#: what is asked of each member, one after the other; the larger push and pull only where the small one was quick.
#: Pushes come first: their clock begins when the bulk connection takes the chunk.
_STEPS: Final = (
    *[_Step("ask")] * 5,
    _Step("push", 1),
    _Step("push", PROBE_CHUNKS_MAX),
    _Step("pull", 1),
    _Step("pull", PROBE_CHUNKS_MAX),
)
#: seconds for one chunk beyond which more of them would keep people waiting
_SLOW_S: Final = 0.5
#: seconds after which a question is asked again, and how often; and after which a chunk is given up: 0.7 Mbit/s
_AGAIN_S: Final = 2.0
_TRIES: Final = 3
_CHUNK_S: Final = 12.0


class _Exam:
    """Of one member: where it stands in _STEPS."""

    def __init__(self) -> None:
        self.found = Found()
        self.at = 0
        self.tries = 0
        self.nonce = -1
        self.begun_s = 0.0
        self.to_send = 0
        self.missing = 0


class Examiner:
    """Asks members, each as soon as it is up.

    draw      gives a fresh nonce
    clock_ms  gives milliseconds since 1970
    """

    def __init__(self, draw: Callable[[], int], clock_ms: Callable[[], int]) -> None:
        self._draw = draw
        self._clock_ms = clock_ms
        self._exams: dict[bytes, _Exam] = {}

    def up(self, peer: bytes) -> None:
        """Begin with this member, if that has not been."""
        self._exams.setdefault(peer, _Exam())

    def found(self, peer: bytes) -> Found:
        exam = self._exams.get(peer)
        return exam.found if exam else Found()

    def done(self, peer: bytes) -> bool:
        """Whether nothing more will be found out about it."""
        exam = self._exams.get(peer)
        return exam is not None and exam.at == len(_STEPS)

    def turn(self, now_s: float) -> list[Out]:
        """What is to be sent now.  Chunks that could not be handed over go back by ``unsent``."""
        out: list[Out] = []
        for peer, exam in self._exams.items():
            if exam.at < len(_STEPS) and (exam.nonce < 0 or now_s - exam.begun_s > _patience(exam)):
                out += self._begin(peer, exam, now_s)
            if exam.to_send:
                out += [(peer, header_of(exam.nonce), _CHUNK)] * exam.to_send
                exam.to_send, exam.begun_s = 0, now_s
        return out

    def unsent(self, peer: bytes) -> None:
        """A chunk for this member could not be handed over: it is tried again."""
        exam = self._exams.get(peer)
        if exam is not None and exam.at < len(_STEPS) and _STEPS[exam.at].kind == "push":
            exam.to_send += 1

    def _begin(self, peer: bytes, exam: _Exam, now_s: float) -> list[Out]:
        exam.tries += 1
        if exam.tries > (_TRIES if _STEPS[exam.at].kind == "ask" else 1):
            self._next(exam)
            return []
        step = _STEPS[exam.at]
        exam.nonce, exam.begun_s, exam.missing = self._draw(), now_s, step.chunks
        if step.kind == "push":
            exam.to_send = step.chunks
            return []
        return [(peer, encode(Ask(exam.nonce, step.chunks)))]

    def _next(self, exam: _Exam) -> None:
        exam.at, exam.nonce, exam.tries, exam.to_send = exam.at + 1, -1, 0, 0

    def heard(self, peer: bytes, said: Said, now_s: float) -> None:
        exam = self._exams.get(peer)
        if exam is None or exam.at == len(_STEPS):
            return
        step = _STEPS[exam.at]
        if isinstance(said, Told) and said.nonce == exam.nonce and step.kind == "ask":
            took = now_s - exam.begun_s
            found = exam.found
            if found.told is None or took < found.rtt_s:
                found.rtt_s = took
                found.ahead_ms = said.time_ms - (self._clock_ms() - 500 * took)
            found.told = said
            self._next(exam)
        elif isinstance(said, Got) and said.nonce == exam.nonce and step.kind == "push" and said.chunks >= step.chunks:
            exam.found.up = self._measured(exam, step, now_s)

    def chunk(self, peer: bytes, header: bytes, now_s: float) -> None:
        exam = self._exams.get(peer)
        if exam is None or exam.at == len(_STEPS) or _STEPS[exam.at].kind != "pull" or nonce_of(header) != exam.nonce:
            return
        exam.missing -= 1
        if not exam.missing:
            exam.found.down = self._measured(exam, _STEPS[exam.at], now_s)

    def _measured(self, exam: _Exam, step: _Step, now_s: float) -> float:
        """Bytes per second of a step that ended: the way of the question or answer is taken off."""
        took = max(now_s - exam.begun_s - exam.found.rtt_s, 1e-6)
        self._next(exam)
        if step.chunks == 1 and took > _SLOW_S:
            self._next(exam)
        return step.chunks * CHUNK_BYTES / took


def _patience(exam: _Exam) -> float:
    return _AGAIN_S if _STEPS[exam.at].kind == "ask" else _CHUNK_S
