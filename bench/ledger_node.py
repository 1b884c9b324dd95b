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

import zmq

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "ledger"))
from swarm_builder import SwarmBuilder

from shoal.ledger.body import Note
from shoal.ledger.core import Options
from shoal.ledger.message import AnyMessage, decode, encode
from shoal.ledger.sqlite_store import SqliteStore
from shoal.swarm.replica import Replica, found

TICK_S = 0.05
#: bytes of a payload
PAYLOAD_BYTES = 500


def open_replica(number: int, members: int, folder: Path) -> Replica:
    """The replica of this number among the members, over a file in the folder; begun if it is new."""
    built = SwarmBuilder(members=members, admission=1)
    store = SqliteStore(folder / f"ledger-{number}.db")
    if not store.last_index:
        found(store, built.entries[0])
    # Only node 0 is to lead while nothing fails.
    options = Options(election_ticks=10 if number == 0 else 60)
    return Replica(built.people[sorted(built.people)[number]], store, Random(number).randrange, options)


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

    def send(self, message: AnyMessage) -> None:
        """Unless the peer's queue is full; a message that is lost is sent anew, but one that waits stops everything."""
        if message.to in self._out:
            with suppress(zmq.Again):
                self._out[message.to].send(encode(message), zmq.NOBLOCK)

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
    def __init__(self, replica: Replica, wire: Wire) -> None:
        self.replica, self.wire = replica, wire
        self.payload_bytes = 0
        self._tick = time.monotonic()

    def turn(self, wait_ms: int = 20) -> dict[str, Any] | None:
        """Hear, tick, work."""
        messages, said = self.wire.hear(wait_ms)
        for m in messages:
            self.replica.step(m.sender, m)
        now = time.monotonic()
        if now >= self._tick:
            self._tick = now + TICK_S
            self.replica.tick()
        self.replica.work(self.wire.send)
        return said

    def lead(self) -> None:
        self.replica.campaign()
        while not self.replica.leading or self.replica.decided < self.replica.last:
            self.turn()

    def say(self, text: str) -> int:
        """Propose a note of PAYLOAD_BYTES; its index."""
        proposal = self.replica.propose(Note(text))
        assert not proposal.refused, proposal.refused
        self.payload_bytes = len(proposal.payload)
        return proposal.index

    def latency(self, entries: int, gap_s: float) -> list[float]:
        """Seconds from the wish to say something to its being decided and applied, for one entry after the other.
        With a gap, what each leaves to do (the others hear that it is decided) does not wait in front of the next."""
        found = []
        for n in range(entries):
            text = note(n)
            started = time.perf_counter()
            index = self.say(text)
            self.replica.work(self.wire.send)
            while self.replica.decided < index:
                self.turn()
            found.append(time.perf_counter() - started)
            rest = time.perf_counter() + gap_s
            while (left := rest - time.perf_counter()) > 0:
                self.turn(int(left * 1e3))
        return found

    def pipelined(self, entries: int, waiting: int, at_once: int) -> float:
        """Seconds for so many entries, with up to ``waiting`` of them not decided."""
        started = time.perf_counter()
        first = last = self.replica.last
        ends: deque[int] = deque()
        while self.replica.decided < first + entries:
            room = min(first + entries - last, self.replica.decided + waiting - last)
            for _ in range(min(room, at_once)):
                last = self.say(note(last))
            ends.append(last)
            self.replica.work(self.wire.send)
            self.turn(0 if room > 0 else 20)
        return time.perf_counter() - started


def note(number: int) -> str:
    return f"{number:<{PAYLOAD_BYTES - NOTE_BYTES}}"


#: bytes of a payload around the text of its note, at this length and far from the first entries
NOTE_BYTES = 182


def do(node: Node, what: dict[str, Any]) -> dict[str, Any]:
    if what["do"] == "latency":
        return {"seconds": node.latency(what["entries"], what["gap_s"]), "index": node.replica.decided}
    seconds = node.pipelined(what["entries"], what["waiting"], what["at_once"])
    return {"seconds": seconds, "index": node.replica.decided, "payload": node.payload_bytes}


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
    replica = open_replica(options.number, options.of, options.folder)
    ids = replica.configuration.voters
    tell(port=wire.port)
    ports = hear_starter()["ports"]
    wire.connect({i: port for i, port in zip(ids, ports, strict=True) if i != replica.me})
    node = Node(replica, wire)
    if options.number == 0:
        node.lead()
        tell(leads=True)
    said: dict[str, Any] | None = None
    while said is None or "until" not in said:
        said = node.turn()
        if said is not None and "do" in said:
            tell(**do(node, said))
    until = said["until"]
    while replica.decided < until:
        node.turn()
    tell(
        head=replica.ledger.state.recent[until][0].hex(),
        entries_in_memory=replica.held,
        file_bytes=(options.folder / f"ledger-{options.number}.db").stat().st_size,
        refused=dict(replica.counters),
        rss=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        cpu=time.process_time(),
    )
    while said is None or "end" not in said:  # the others may still need this one
        said = node.turn()
    replica.close()
    wire.close()


if __name__ == "__main__":
    main()
