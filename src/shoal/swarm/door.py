"""The node's door for programs on the same machine: a ZeroMQ socket in the file system that only its owner can open.

Any language can take part: requests and answers are MessagePack arrays with a tag in front, over ``ipc://``.  Models
are handed over as files, not as bytes: a request names an ONNX file, an answer names the file of the certified model.

    Submit(path, samples)  -> Taken, then Ended or Failed when the round is over
    Look()                 -> Looked
    Examine(wait_s)        -> Examined, when all members were asked or the time is over
    Say(payload)           -> Taken: a signed statement to bring to the leader
"""

from __future__ import annotations

import os
import queue
import threading
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import zmq
from msgspec import Meta

from shoal.errors import InputError, MachineError, ShoalError, shown
from shoal.limits import LEDGER_ENTRY_BYTES_MAX
from shoal.model.model import load
from shoal.swarm.node import Node, Status
from shoal.swarm.shelf import MODEL_FILE
from shoal.swarm.visit import Seen

SOCKET_FILE: Final = "node.sock"
#: bytes of one request: a path and a number
REQUEST_BYTES_MAX: Final = LEDGER_ENTRY_BYTES_MAX + 8192


class Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of requests and answers."""


class Submit(Message, frozen=True, tag=1):
    path: Annotated[str, Meta(min_length=1, max_length=4096)]
    samples: Annotated[int, Meta(ge=1, lt=2**31)]


class Look(Message, frozen=True, tag=2):
    """What the node is doing."""


class Say(Message, frozen=True, tag=3):
    payload: Annotated[bytes, Meta(max_length=LEDGER_ENTRY_BYTES_MAX)]


class Examine(Message, frozen=True, tag=4):
    wait_s: Annotated[float, Meta(ge=0, le=3600)]


class Taken(Message, frozen=True, tag=11):
    """The request is on its way."""


class Ended(Message, frozen=True, tag=12):
    """The round is over.  ``path``: the certified model;  ``digest``: of it;  ``took_part``: is the update in it?"""

    path: str
    digest: bytes
    round: int
    took_part: bool


class Failed(Message, frozen=True, tag=13):
    code: str
    message: str


class Looked(Message, frozen=True, tag=14):
    status: Status | None


class Examined(Message, frozen=True, tag=15):
    """What the node sees of the others, by member."""

    seen: dict[bytes, Seen]


_REQUESTS: Final[msgspec.msgpack.Decoder[Any]] = msgspec.msgpack.Decoder(Submit | Look | Say | Examine)
_ANSWERS: Final[msgspec.msgpack.Decoder[Any]] = msgspec.msgpack.Decoder(Taken | Ended | Failed | Looked | Examined)


class Place:
    """Where the door of a site with this data folder is: ``address``, good until ``close``.

    The operating system takes short paths only for sockets; to a longer one it is led by a descriptor of its folder.

    raises  MachineError  ``door.path``: too long, and there is no such way (/proc of Linux)
    """

    def __init__(self, folder: Path) -> None:
        path, self._descriptor = folder / SOCKET_FILE, -1
        if len(os.fsencode(path)) > zmq.IPC_PATH_MAX_LEN:
            too_long = f"{path}: longer than {zmq.IPC_PATH_MAX_LEN} bytes; use a shorter folder"
            try:
                self._descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            except (OSError, AttributeError):
                raise MachineError("door.path", too_long) from None
            path = Path(f"/proc/self/fd/{self._descriptor}") / SOCKET_FILE
            if not path.parent.exists():
                self.close()
                raise MachineError("door.path", too_long)
        self.address = f"ipc://{path}"

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Door:
    """Serves a node at the door; a thread of its own.  Use as a context manager."""

    def __init__(self, node: Node, folder: Path) -> None:
        self._node = node
        self._folder = folder
        self._context: zmq.Context[Any] = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self._socket.maxmsgsize = REQUEST_BYTES_MAX
        try:
            self._place = Place(folder)
        except MachineError:
            self._socket.close()
            self._context.term()
            raise
        before = os.umask(0o177)
        try:
            self._socket.bind(self._place.address)
        except zmq.ZMQError as error:
            self._socket.close()
            self._context.term()
            self._place.close()
            raise MachineError("door.listen", f"{folder / SOCKET_FILE}: {error}") from None
        finally:
            os.umask(before)
        self._answers: queue.SimpleQueue[tuple[bytes, Message]] = queue.SimpleQueue()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._wake_lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="shoal-door", daemon=True)

    def __enter__(self) -> Door:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        with self._wake_lock:
            os.close(self._wake)
            self._wake = -1
        self._socket.close()
        self._context.term()
        self._place.close()
        (self._folder / SOCKET_FILE).unlink(missing_ok=True)

    def _serve(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._wake, zmq.POLLIN)
        while not self._stopping.is_set():
            ready = dict(poller.poll())
            if self._wake in ready:
                os.eventfd_read(self._wake)
            if self._socket in ready:
                parts = self._socket.recv_multipart()
                self._request(parts[0], parts[-1])
            while not self._answers.empty():
                caller, answer = self._answers.get()
                self._socket.send_multipart([caller, msgspec.msgpack.encode(answer)], zmq.NOBLOCK)

    def _answer(self, caller: bytes, answer: Message) -> None:
        """From any thread; late ones go nowhere."""
        self._answers.put((caller, answer))
        with self._wake_lock:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def _request(self, caller: bytes, data: bytes) -> None:
        try:
            request = _REQUESTS.decode(data)
        except (msgspec.MsgspecError, RecursionError) as error:
            self._answer(caller, Failed("door.request", f"no request: {shown(str(error))}"))
            return
        if isinstance(request, Look):
            self._answer(caller, Looked(self._node.status()))
        elif isinstance(request, Examine):
            threading.Thread(target=self._examine, args=(caller, request), name="shoal-examine", daemon=True).start()
        elif isinstance(request, Say):
            self._node.say(request.payload)
            self._answer(caller, Taken())
        else:
            threading.Thread(target=self._submit, args=(caller, request), name="shoal-submit", daemon=True).start()

    def _examine(self, caller: bytes, request: Examine) -> None:
        self._answer(caller, Examined(self._node.examine(request.wait_s)))

    def _submit(self, caller: bytes, request: Submit) -> None:
        """Read, hand in, wait; on a thread of its own, which ends with the round or the node."""
        try:
            with load(request.path) as model:
                ticket = self._node.submit({name: model[name] for name in model}, request.samples)
            self._answer(caller, Taken())
            outcome = ticket.wait()
        except ShoalError as error:
            self._answer(caller, Failed(error.code, str(error)))
            return
        if outcome.lost:
            told = f"round {outcome.round} is certified, but its model could not be written here: {outcome.lost}"
            self._answer(caller, Failed("node.kept", told))
            return
        path = str(self._folder / MODEL_FILE)
        self._answer(caller, Ended(path, outcome.digest, outcome.round, outcome.took_part))


class Caller:
    """The other side of the door.  Use as a context manager.

    raises  MachineError  ``door.closed``: no node is running there
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        if not (folder / SOCKET_FILE).exists():
            raise MachineError("door.closed", f"{folder}: no node is running here; start one with `shoal node`")
        self._place = Place(folder)
        self._context: zmq.Context[Any] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.connect(self._place.address)

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._context.term()
        self._place.close()

    def ask(self, request: Message) -> None:
        self._socket.send(msgspec.msgpack.encode(request))

    def answer(self, wait_s: float) -> Message | None:
        """The next answer, or None after ``wait_s`` seconds.

        raises  InputError  with the node's own code and words, if it failed
        """
        if not self._socket.poll(int(wait_s * 1000)):
            return None
        answer: Message = _ANSWERS.decode(self._socket.recv())
        if isinstance(answer, Failed):
            raise InputError(answer.code, answer.message)
        return answer

    def status(self, wait_s: float = 5.0) -> Status:
        """raises  MachineError  ``door.silent``"""
        self.ask(Look())
        answer = self.answer(wait_s)
        if not isinstance(answer, Looked) or answer.status is None:
            raise MachineError("door.silent", f"{self._folder}: the node does not answer")
        return answer.status

    def examine(self, wait_s: float) -> dict[bytes, Seen]:
        """What the node sees of the other members.  raises  MachineError  ``door.silent``"""
        self.ask(Examine(wait_s))
        answer = self.answer(wait_s + 5.0)
        if not isinstance(answer, Examined):
            raise MachineError("door.silent", f"{self._folder}: the node does not answer")
        return answer.seen
