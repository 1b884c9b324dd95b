"""One node of a ledger as a process: the real core, rules, store and signatures, joined to others over ZeroMQ.

    python bench/ledger_node.py --number 0 --of 3 --folder DIR --seconds-max 60

Talks to the one that started it by lines of JSON.  It prints {"port"}; is told {"ports"}; node 0 leads, does what it is
told by {"do"} lines and answers each by one line; {"until": n} makes every node print what it has decided up to entry n, and
end.  It also ends when its stdin closes and after ``--seconds-max``, whatever happens.  Only 127.0.0.1, plain sockets.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import zmq

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "ledger"))
from swarm_builder import SwarmBuilder

from shoal.ledger.body import Note
from shoal.ledger.core import Hooks, Options, Role
from shoal.ledger.entry import entry_hash
from shoal.ledger.guard import Guard
from shoal.ledger.message import AnyMessage, decode, encode
from shoal.ledger.raft import Raft
from shoal.ledger.ready import unpack_state
from shoal.ledger.registry import change_of
from shoal.ledger.sqlite_store import SqliteStore
from shoal.ledger.store import HardState
from shoal.ledger.validator import Ledger

TICK_S = 0.05
#: a snapshot of the state is taken every so many entries; the log before it is let go so many later, when slower nodes
#: have it too and need no snapshot
SNAPSHOT_EVERY = 10_000
KEPT = 5_000
#: bytes of a payload
PAYLOAD_BYTES = 500


class Keeper:
    """A core, its store and its rules, and the order in which they work (ledger/ready.py).

    The commit index alone is worth no fsync: it is written with the next entries, or by ``close``.
    """

    def __init__(self, number: int, members: int, folder: Path) -> None:
        built = SwarmBuilder(members=members, admission=1)
        self.ids = sorted(built.people)
        self.me = built.people[self.ids[number]]
        self.store = SqliteStore(folder / f"ledger-{number}.db")
        if not self.store.last_index:
            self.store.append([built.entries[0]])
            self.store.save_hard_state(msgspec.structs.replace(self.store.load()[0], commit=1))
        hard, entries, _ = self.store.load()
        ledger = Ledger()
        for entry in entries[: hard.commit]:
            ledger.apply(entry)
        self.guard = guard = Guard(ledger, self.me)
        assert all(guard.admit(e, entry_hash(e)) for e in entries[hard.commit :])
        hooks = Hooks(Random(number).randrange, change_of, guard.seal, guard.admit, guard.opening, guard.admit_snapshot)
        # Only node 0 is to lead while nothing fails.
        self.raft = Raft(self.me.id, hooks, Options(election_ticks=10 if number == 0 else 60), hard, entries)
        self._hard: HardState | None = None
        self._taken = (hard.commit, b"")

    @property
    def decided(self) -> int:
        return self.guard.committed.state.index

    def work(self, send: Any) -> None:
        while self.raft.has_ready():
            ready = self.raft.ready()
            send(ready.early)
            self._hard = ready.hard_state or self._hard
            if ready.must_sync:
                self.store.persist(msgspec.structs.replace(ready, hard_state=self._hard))
                self._hard = None
            send(ready.messages)
            if ready.snapshot is not None:
                content = unpack_state(ready.snapshot.state)
                assert content is not None
                self.guard.restart(Ledger.decode(content.data))
                self._taken = (ready.snapshot.index, b"")
            self.guard.settle(ready.committed)
            self.raft.advance()
        self._compact()

    def _compact(self) -> None:
        """Bound what is in memory; the file keeps everything."""
        index, state = self._taken
        if state and self.decided >= index + KEPT:
            snapshot = self.raft.compact(index, state)
            self.store.save_snapshot(snapshot)
            self.store.compact(index)
            self._taken = (index, b"")
        elif not state and self.decided >= index + SNAPSHOT_EVERY:
            self._taken = (self.decided, self.guard.committed.encode())

    def say(self, text: str) -> int:
        """Propose a note of PAYLOAD_BYTES."""
        proposed = self.raft.propose(self.guard.say(Note(text), self.raft.term))
        assert not proposed.refused, proposed.refused
        return proposed.index

    def close(self) -> None:
        if self._hard is not None:
            self.store.save_hard_state(self._hard)
        self.store.close()


class Wire:
    """One ROUTER to hear on, one DEALER to each peer, and the pipe to the one that started this process."""

    def __init__(self, end: float) -> None:
        self.end = end
        self._context = zmq.Context()
        self._in = self._context.socket(zmq.ROUTER)
        self.port = self._in.bind_to_random_port("tcp://127.0.0.1")
        self._out: dict[bytes, zmq.Socket[bytes]] = {}
        self._poller = zmq.Poller()
        self._poller.register(self._in, zmq.POLLIN)
        self._poller.register(0, zmq.POLLIN)

    def connect(self, peers: dict[bytes, int]) -> None:
        for peer, port in peers.items():
            socket = self._out[peer] = self._context.socket(zmq.DEALER)
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(f"tcp://127.0.0.1:{port}")

    def send(self, messages: Any) -> None:
        """To peers whose queue is not full; a message that is lost is sent anew, but one that waits stops everything."""
        for m in messages:
            if m.to in self._out:
                with suppress(zmq.Again):
                    self._out[m.to].send(encode(m), zmq.NOBLOCK)

    def hear(self, wait_ms: int) -> tuple[list[AnyMessage], dict[str, Any] | None]:
        """Messages, and what the starter says.  raises  SystemExit  if it is gone or time is up"""
        if time.monotonic() > self.end:
            raise SystemExit("time is up")
        said = None
        if any(found == 0 for found, _ in self._poller.poll(wait_ms)):
            said = hear_starter()
        found = []
        while True:
            try:
                found.append(decode(self._in.recv_multipart(zmq.NOBLOCK)[-1]))
            except zmq.Again:
                return found, said

    def close(self) -> None:
        self._context.destroy(linger=500)


def hear_starter() -> dict[str, Any]:
    line = sys.stdin.readline()
    if not line:
        raise SystemExit("the starter is gone")
    heard: dict[str, Any] = json.loads(line)
    return heard


def tell(**what: Any) -> None:
    print(json.dumps(what), flush=True)


class Node:
    def __init__(self, keeper: Keeper, wire: Wire) -> None:
        self.keeper, self.wire = keeper, wire
        self._tick = time.monotonic()

    def turn(self, wait_ms: int = 20) -> dict[str, Any] | None:
        """Hear, tick, work."""
        messages, said = self.wire.hear(wait_ms)
        for m in messages:
            self.keeper.raft.step(m)
        now = time.monotonic()
        if now >= self._tick:
            self._tick = now + TICK_S
            self.keeper.raft.tick()
        self.keeper.work(self.wire.send)
        return said

    def lead(self) -> None:
        self.keeper.raft.campaign()
        while self.keeper.raft.role != Role.LEADER or self.keeper.decided < self.keeper.raft.log.last:
            self.turn()

    def latency(self, entries: int, gap_s: float) -> list[float]:
        """Seconds from the wish to say something to its being decided and applied, for one entry after the other.
        With a gap, what each leaves to do (the others hear that it is decided) does not wait in front of the next."""
        found = []
        for n in range(entries):
            text = note(n)
            started = time.perf_counter()
            index = self.keeper.say(text)
            self.keeper.work(self.wire.send)
            while self.keeper.decided < index:
                self.turn()
            found.append(time.perf_counter() - started)
            rest = time.perf_counter() + gap_s
            while (left := rest - time.perf_counter()) > 0:
                self.turn(int(left * 1e3))
        return found

    def pipelined(self, entries: int, waiting: int, at_once: int) -> float:
        """Seconds for so many entries, with up to ``waiting`` of them not decided."""
        started = time.perf_counter()
        first = last = self.keeper.raft.log.last
        ends: deque[int] = deque()
        while self.keeper.decided < first + entries:
            room = min(first + entries - last, self.keeper.decided + waiting - last)
            for _ in range(min(room, at_once)):
                last = self.keeper.say(note(last))
            ends.append(last)
            self.keeper.work(self.wire.send)
            self.turn(0 if room > 0 else 20)
        return time.perf_counter() - started


def note(number: int) -> str:
    return f"{number:<{PAYLOAD_BYTES - NOTE_BYTES}}"


#: bytes of a payload around the text of its note, at this length and far from the first entries
NOTE_BYTES = 182


def do(node: Node, what: dict[str, Any]) -> dict[str, Any]:
    if what["do"] == "latency":
        return {"seconds": node.latency(what["entries"], what["gap_s"]), "index": node.keeper.decided}
    seconds = node.pipelined(what["entries"], what["waiting"], what["at_once"])
    log = node.keeper.raft.log
    return {"seconds": seconds, "index": node.keeper.decided, "payload": len(log.entries[-1].payload)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--number", type=int, required=True)
    parser.add_argument("--of", type=int, default=3)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--core", type=int, help="stay on this core of those that are allowed (modulo their number)")
    parser.add_argument("--seconds-max", type=float, default=60.0)
    options = parser.parse_args()
    if options.core is not None:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[options.core % len(cores)]})
    resource.setrlimit(resource.RLIMIT_CPU, (int(options.seconds_max) + 5,) * 2)
    wire = Wire(time.monotonic() + options.seconds_max)
    keeper = Keeper(options.number, options.of, options.folder)
    tell(port=wire.port)
    ports = hear_starter()["ports"]
    wire.connect({i: port for i, port in zip(keeper.ids, ports, strict=True) if i != keeper.me.id})
    node = Node(keeper, wire)
    if options.number == 0:
        node.lead()
        tell(leads=True)
    said: dict[str, Any] | None = None
    while said is None or "until" not in said:
        said = node.turn()
        if said is not None and "do" in said:
            tell(**do(node, said))
    while keeper.decided < said["until"]:
        node.turn()
    log, heads = keeper.raft.log, keeper.guard.committed.state.recent
    tell(
        head=heads[said["until"]][0].hex(),
        entries_in_memory=len(log.entries),
        file_bytes=keeper.store.path.stat().st_size,
        refused=dict(keeper.raft.counters),
        rss=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        cpu=time.process_time(),
    )
    while hear_starter().get("end") is None:
        pass
    keeper.close()
    wire.close()


if __name__ == "__main__":
    main()
