"""One machine of a simulated swarm: what lasts (ledger, journal, files), and a real peer over it while it has power.

It does what swarm/node.py does around a `Peer`: clock -> tick, frames -> peer, what the peer wants -> network, worker
and files; and it can lose its power between any two of these, and at any write.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.errors import ShoalError
from shoal.ledger.core import Options
from shoal.ledger.identity import Identity
from shoal.ledger.memory_store import MemoryStore
from shoal.secure.journal import MemoryJournal
from shoal.swarm.book import Book, digest_of
from shoal.swarm.core import Patience
from shoal.swarm.keyring import Keyring
from shoal.swarm.peer import Compute, Merged, Notice, Outgoing, Peer, SendBulk, SendControl
from shoal.swarm.replica import Decided, Replica, Send, found
from shoal.swarm.transport import Bulk, Received

if TYPE_CHECKING:
    from history import History

PATIENCE = Patience(retry=4, grace=10, give_up=50, muster=8)
OPTIONS = Options(election_ticks=6, heartbeat_ticks=2)


class PowerCut(Exception):
    """The machine stops here."""


class Fuse:
    """Burns at every write and at every message that leaves; power is gone when it has burnt down."""

    def __init__(self) -> None:
        self.left: int | None = None
        self.place = ""

    def burn(self, place: str) -> None:
        if self.left is None:
            return
        self.left -= 1
        if self.left < 0:
            self.left, self.place = None, place
            raise PowerCut(place)


class SimStore(MemoryStore):
    """A ledger's file; power may go before or after each of its writes, which are whole or not there."""

    fuse = Fuse()

    def _write(self, step: Any, after: Any) -> None:
        self.fuse.burn("before a write of the ledger")
        super()._write(step, after)
        self._extent = after
        self.fuse.burn("after a write of the ledger")

    def again(self, fuse: Fuse) -> SimStore:
        """What a restart finds."""
        made = SimStore(self._extent, list(self._entries.values()))
        made.fuse = fuse
        return made


class SimJournal(MemoryJournal):
    """The journal's file, likewise."""

    fuse = Fuse()

    def claim(self, slot: int) -> bool:
        self.fuse.burn("before a claim")
        done = super().claim(slot)
        self.fuse.burn("after a claim")
        return done

    def keep_keys(self, state: bytes) -> None:
        self.fuse.burn("before keys are kept")
        super().keep_keys(state)
        self.fuse.burn("after keys are kept")

    def _keep(self, kind: str, slot: int, subject: bytes, value: bytes) -> bool:
        self.fuse.burn(f"before a decision to {kind}")
        done = super()._keep(kind, slot, subject, value)
        self.fuse.burn(f"after a decision to {kind}")
        return done


class WatchedReplica(Replica):
    """Tells the laws what was decided here."""

    told: Callable[[Decided], None]

    def work(self, send: Send) -> list[Any]:
        done = super().work(send)
        for each in done:
            if isinstance(each, Decided):
                self.told(each)
        return done


class Machine:
    """See the module.

    up        it has power              paused  ticks for which its process stands still
    serial    number of the update that was handed in last;  serials  slot -> the one that its round was begun with
    training  ticks until the next update is ready; None: not training
    """

    def __init__(self, history: History, who: Identity, number: int, base: dict[str, np.ndarray]) -> None:
        self.history, self.who, self.number = history, who, number
        self.name = "abcdefgh"[number] if number < 8 else f"m{number}"
        self.rng = Random(f"{history.seed} machine {number}")
        self.fuse = Fuse()
        self.store, self.journal = SimStore(), SimJournal()
        found(self.store, history.genesis)
        self.store.fuse = self.journal.fuse = self.fuse
        self.files: dict[str, tuple[bytes, Any]] = {"model": (b"", base)}
        self.renames: deque[tuple[int, str, Any]] = deque()
        self.computing: deque[tuple[int, int, str, Any]] = deque()
        self.up = False
        self.paused = 0
        self.lives = self.serial = self.merges = 0
        self.training: int | None = None
        self.diff: np.ndarray | None = None
        self.peer: Peer

    def start(self) -> None:
        history = self.history
        self.lives, self.started = self.lives + 1, history.now
        self.store = self.store.again(self.fuse)
        replica = WatchedReplica(self.who, self.store, self.rng.randrange, OPTIONS)
        replica.told = lambda decided: history.laws.decided(self, decided)
        book = self._open_book()
        keyring = Keyring(self.rng.randbytes, self.journal.keep_keys, self.journal.keys() or b"")
        self.peer = Peer(self.who, replica, book, self.journal, keyring, self.rng.randbytes, PATIENCE)
        self.transport = history.network.transport(self.who.id, history.endpoints[self.who.id])
        self.transport.allow({i: e for i, e in history.endpoints.items() if i != self.who.id})
        self.serials: dict[int, int] = {}
        self.up = True
        self.begin_training()

    def _open_book(self) -> Book:
        """As swarm/shelf.py: the model in force, and what this machine was about to vote for."""
        book = Book(self.files["model"][1], self.history.layout)
        empty = book.carried
        book.carry(self._carried(book.digest, empty))
        if "next model" in self.files:
            digest, made = self.files["next model"]
            book.wait(made, self._carried(digest, empty))
        book.keep = self._keep_next
        return book

    def _carried(self, digest: bytes, empty: Any) -> Any:
        found = (self.files.get(name, (b"", empty)) for name in ("carried", "next carried"))
        return next((beside for known, beside in found if known == digest), empty)

    def _keep_next(self, arrays: Mapping[str, Any], carried: Any) -> tuple[bytes, dict[str, Any]]:
        made = dict(arrays)
        digest = digest_of(made)
        self._write("next model", (digest, made))
        self._write("next carried", (digest, np.array(carried)))
        return digest, made

    def _write(self, name: str, value: tuple[bytes, Any]) -> None:
        self.fuse.burn(f"before the {name} is written")
        self.files[name] = value
        self.fuse.burn(f"after the {name} is written")

    def lose_power(self, place: str) -> None:
        """What was not written is gone, and so is everything in memory."""
        self.up = False
        self.fuse.left = None
        self.renames.clear()
        self.computing.clear()
        self.training = None
        self.paused = 0
        self.transport.close()
        self.history.note(f"{self.name} loses its power {place}")

    # --- the loop -----------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """One tick, and all that follows from it."""
        if self.paused:
            self.paused -= 1
            return
        try:
            self._rename_files()
            self._train()
            self.peer.tick()
            self.listen()
        except PowerCut as cut:
            self.history.laws.looked(self)
            self.lose_power(str(cut))

    def listen(self) -> None:
        """Take what has arrived and what was computed, do what the peer wants."""
        for event in self.transport.poll(0):
            if isinstance(event, Received):
                self.peer.heard(event.peer, event.data)
            elif isinstance(event, Bulk):
                self.peer.bulk(event.peer, event.header, event.body)
        while True:
            while self.computing and self.computing[0][0] <= self.history.now:
                _, slot, name, result = self.computing.popleft()
                self.peer.computed(slot, name, result)
            wanted = self.peer.turn()
            self.history.laws.looked(self)
            for out in wanted:
                self.act(out)
            if not (self.computing and self.computing[0][0] <= self.history.now):
                return

    def act(self, out: Outgoing) -> None:
        history = self.history
        if isinstance(out, SendControl):
            self.fuse.burn("before a message leaves")
            history.laws.says(self, out.to, out.data)
            history.post(self, out.to, out.data)
        elif isinstance(out, SendBulk):
            self.fuse.burn("before a chunk leaves")
            history.post_chunk(self, out)
        elif isinstance(out, Compute):
            try:
                result = out.run()
            except ShoalError as error:
                result = error
            due = history.now + self.rng.randrange(history.faults.compute_ticks + 1)
            self.computing.append((due, out.slot, out.name, result))
        elif isinstance(out, Merged):
            self._merged(out)
        else:
            self._noticed(out)

    def _merged(self, out: Merged) -> None:
        book, faults = self.peer.book, self.history.faults
        self.merges += 1
        self.history.note(f"{self.name} has model {out.digest.hex()[:8]} of round {out.round}")
        for kind, value in (("carried", (book.digest, book.carried)), ("model", (book.digest, book.arrays))):
            self.renames.append((self.history.now + self.rng.randrange(faults.disk_ticks + 1), kind, value))
        self.begin_training()

    def _noticed(self, out: Notice) -> None:
        self.history.note(f"{self.name}: {out.level}: {out.text}")
        self.history.laws.noticed(self, out)

    def _rename_files(self) -> None:
        while self.renames and self.renames[0][0] <= self.history.now:
            _, name, value = self.renames.popleft()
            self._write(name, value)
            if self.files.get(f"next {name}", (b"",))[0] == value[0]:
                del self.files[f"next {name}"]  # it has taken the place of the last one

    # --- training -----------------------------------------------------------------------------------------------------

    def begin_training(self) -> None:
        low, high = self.history.faults.training(self.number)
        self.training = None if low < 0 else self.history.now + self.rng.randint(low, high)
        self.trained = self.peer.book.digest

    def _train(self) -> None:
        if self.training is None and self.peer.update is None:
            self.begin_training()  # its last update came to nothing
        if self.training is None or self.history.now < self.training:
            return
        book = self.peer.book
        if self.trained != book.digest:
            self.begin_training()
            return
        self.training = None
        self.serial += 1
        draw = np.random.default_rng((self.history.seed, self.number, self.serial))
        scale = self.history.faults.scale
        local = {k: (v + scale * draw.standard_normal(v.shape)).astype(v.dtype) for k, v in book.arrays.items()}
        self.diff = book.diff(local)
        if self.number in self.history.faults.broken:
            self.diff[0] = np.nan
        self.peer.submit(self.diff, self.rng.randint(1, 500))
