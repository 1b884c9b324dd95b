"""A member as it runs: clock -> tick, frames -> peer, what the peer wants -> disk, network, worker, waiting callers.

One thread owns transport and peer and never computes; one worker encodes, sums and decodes.  Training is not blocked:
`merge` may be called from any thread and waits for the round's end, not for the node.

Files in the folder of a site's data, all its owner's alone: ledger.db, the ledger; journal.db, what must not be
forgotten, and keys of slots to come; and those of `shelf.py`, models and their statistics.
"""

from __future__ import annotations

import contextlib
import queue
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import msgspec

from shoal import failpoint
from shoal.errors import ArgumentError, InputError, MachineError, ShoalError, shown
from shoal.ledger.core import Options
from shoal.ledger.identity import Identity
from shoal.ledger.scores import Mean, Scores
from shoal.limits import SCORES_ENTRIES_MAX
from shoal.secure.journal import Journal
from shoal.swarm.book import Book
from shoal.swarm.coder import first_nonfinite
from shoal.swarm.core import Patience
from shoal.swarm.disk import Disk, PatientJournal
from shoal.swarm.keyring import Keyring
from shoal.swarm.parcel import Bytes
from shoal.swarm.peer import ABORTED, Compute, Merged, Notice, Outgoing, Peer, SendBulk, SendControl
from shoal.swarm.policy import outer_of
from shoal.swarm.probe import PROBE, Host, Out, decode
from shoal.swarm.pulse import Pulse
from shoal.swarm.referee import Referee
from shoal.swarm.replica import Replica
from shoal.swarm.ring_coder import check_size
from shoal.swarm.shelf import MODEL_FILE, Shelf
from shoal.swarm.stages import Stages
from shoal.swarm.stock import TRIMMED_MIN, trim
from shoal.swarm.transport import Back, Bulk, Endpoint, Lost, Received, Transport
from shoal.swarm.visit import Seen, Visit

#: ticks that one turn catches up at most: after a stopped process time does not count
_TICKS_AT_ONCE: Final = 3
#: code of the notice that a member is connected
CONNECTED: Final = "member.connected"
#: seconds after which an evaluation that is not decided is said again
_SAY_AGAIN_S: Final = 1.0
#: notices kept for `shoal status`
_NOTICES: Final = 50
#: heartbeats that must fail to come before a leader counts as gone
_BEATS: Final = 5


class Times(msgspec.Struct, frozen=True):
    """How time goes at a node; the defaults suit one machine or a LAN.

    tick_s      seconds of one tick
    election_s  without a leader, after which another is elected
    progress_s  without progress, after which a peer is left out of a round
    muster_s    that a round which could begin waits for members that are still training
    """

    tick_s: float = 0.05
    election_s: float = 0.5
    progress_s: float = 10.0
    muster_s: float = 5.0

    def options(self) -> Options:
        """For the consensus core, in ticks."""
        election = max(3, round(self.election_s / self.tick_s))
        return Options(election_ticks=election, heartbeat_ticks=max(1, election // _BEATS))

    def patience(self) -> Patience:
        """For rounds, in ticks."""
        grace = max(2, round(self.progress_s / self.tick_s))
        retry = max(1, min(round(1.0 / self.tick_s), grace // 4))
        return Patience(retry, grace, 6 * grace, round(self.muster_s / self.tick_s))


class Outcome(msgspec.Struct, frozen=True):
    """How a submitted update ended.

    arrays     the certified model after the round, read from its file where they are asked for
    took_part  whether the update is in it
    lost       why it could not be written to this node's folder, "" if it was
    """

    round: int
    digest: bytes
    took_part: bool
    arrays: Mapping[str, Any]
    lost: str = ""


class Ticket:
    """An update on its way."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._outcome: Outcome | ShoalError | None = None

    def end(self, outcome: Outcome | ShoalError) -> None:
        self._outcome = outcome
        self._ended.set()

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def wait(self, seconds: float | None = None) -> Outcome:
        """The outcome.

        raises  MachineError  ``node.waited``: not yet;  ShoalError  why the update cannot be merged
        """
        if not self._ended.wait(seconds):
            raise MachineError("node.waited", f"no merged model after {seconds:g} s; the update still waits")
        if isinstance(self._outcome, ShoalError):
            raise self._outcome
        assert self._outcome is not None
        return self._outcome


class MemberStatus(msgspec.Struct, frozen=True):
    """One member as this node sees it."""

    name: str
    id: str
    voter: bool
    connected: bool
    leads: bool


class Status(msgspec.Struct, frozen=True):
    """What `shoal status` shows.  phase: of the open attempt, "" if none is;  model: digest of the one in force;
    phase_s: seconds that the phase lasts;  takes_part: this site is in the plan of the open attempt.

    Since the node started: seconds by phase (stages.py), rounds by result, notices by level.  Means over sites of the
    last round that was measured, and the best round.
    """

    id: str
    swarm: str
    round: int
    term: int
    decided: int
    slot: int
    phase: str
    behind: bool
    waiting: bool
    model: str
    sent_bytes: int
    received_bytes: int
    members: list[MemberStatus]
    notices: list[str]
    refused: dict[str, int]
    seconds: dict[str, float] = {}
    results: dict[str, int] = {}
    told: dict[str, int] = {}
    phase_s: float = 0.0
    takes_part: bool = False
    measured: list[Mean] = []
    best: Mean | None = None


class Node:
    """A running member.  Use as a context manager, or call `start` and `stop`.

    me, replica  this node's key, and its copy of the ledger, made with ``times.options()``; closed with the node
    model_path  the swarm's base model; what an earlier life of this node left in ``folder`` goes before it
    referee     measures certified models here, and keeps the best; closed with the node
    exclude     globs of tensors that stay at this site
    raises      InputError  ``node.layout``: the model is not this swarm's
    """

    def __init__(
        self,
        me: Identity,
        replica: Replica,
        journal: Journal,
        transport: Transport,
        model_path: Path,
        folder: Path,
        times: Times = Times(),  # noqa: B008  (frozen)
        referee: Referee | None = None,
        exclude: Sequence[str] = (),
    ) -> None:
        self._times = times
        self._transport = transport
        self._journal = journal
        self._replica = replica
        self._referee = referee
        self._to_say: list[bytes] = []  # evaluations on their way into the ledger
        self._said_s = 0.0
        self._means: tuple[list[Mean], Mean | None] = ([], None)
        self._means_of = 0  # changes of the scores that they are of
        self._scored = (0, 0)  # rounds, and evaluations on their way, when models were let go of
        self._folder = folder
        self._model_path = model_path
        self._shelf = Shelf(folder, model_path, exclude)
        book = self._book()
        tick_s = times.tick_s
        self._pulse = Pulse(transport, replica, tick_s / 2, tick_s * times.options().heartbeat_ticks)
        self._disk = Disk(self._pulse.meanwhile)
        replica.wait = self._disk.wait
        patient = PatientJournal(journal, self._disk)
        keyring = Keyring(secrets.token_bytes, patient.keep_keys, patient.keys() or b"")
        self._peer = Peer(me, self._replica, book, patient, keyring, secrets.token_bytes, times.patience())
        self._host = Host(lambda: self._peer.ledger, lambda: time.time_ns() // 1_000_000)
        self._visits: list[tuple[Visit, threading.Event]] = []
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._worker = ThreadPoolExecutor(1, "shoal-worker")
        self._stopping = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None
        self._ticket: Ticket | None = None
        self._connected: set[bytes] = set()
        self._allowed: dict[bytes, Endpoint] = {}
        self._changes = -1  # of the membership, when `_allowed` was made
        self._notices: deque[str] = deque(maxlen=_NOTICES)
        self._sent = self._received = 0
        self._stages = Stages()
        self._results: Counter[str] = Counter()
        self._counted = 0  # the last round in it
        self._told: Counter[str] = Counter()
        self._snapshot: Status | None = None
        self.on_notice: Callable[[Notice], None] = lambda _notice: None
        self.failed: ShoalError | None = None

    # --- for callers, from any thread ---------------------------------------------------------------------------------

    def __enter__(self) -> Node:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="shoal-node", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End cleanly: hand leadership over, close everything."""
        self._stopping.set()
        self._transport.wake()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._close()

    def leave(self, wait_s: float) -> None:
        """Go without holding the others up: nothing of this site enters another round, the open one may end, ``stop``.

        wait_s  how long the open round is waited for
        """
        self._do(self._withdraw)
        until = time.monotonic() + wait_s
        while self.failed is None and time.monotonic() < until:
            status = self.status()
            if status is None or not status.takes_part:
                break
            time.sleep(self._times.tick_s)
        self.stop()

    def _withdraw(self) -> None:
        if self._peer.ledger.attempt is None:
            self._peer.update = None

    def submit(self, local: Mapping[str, Any], samples: int) -> Ticket:
        """Hand in what was trained from the model in force; the ticket tells how it ends.

        raises  ArgumentError  ``diff.model``, ``diff.samples``, ``diff.nonfinite``, ``diff.large``: it is not of this
                               swarm's model, or cannot be merged; at once
                MachineError   there is no room for another model here
        """
        if not 1 <= samples < 2**31:
            raise ArgumentError("diff.samples", f"{samples} samples; expected 1 to {2**31 - 1}")
        ticket = Ticket()
        if self.failed is not None:
            raise self.failed
        diff = self._peer.book.diff(local)
        place = first_nonfinite(diff)
        if place >= 0:
            tensor, first = self._peer.book.layout.locate(place)
            found = f"tensor {shown(tensor.key)}, element {first}"
            raise ArgumentError("diff.nonfinite", f"{found}: the update is NaN or Inf; this site sits the round out")
        policy = self._peer.ledger.policy
        if policy is not None and policy.secure:
            check_size(diff)
        self._shelf.check_room()
        base = self._peer.book.digest

        def take() -> None:
            if self._peer.book.digest != base:
                ticket.end(ArgumentError("diff.base", "the model in force changed meanwhile; train from the new one"))
                return
            if self._ticket is not None:
                self._ticket.end(ArgumentError("diff.replaced", "a newer update of this site took its place"))
            self._ticket = ticket
            self._peer.submit(diff, samples)

        self._do(take)
        return ticket

    def merge(self, local: Mapping[str, Any], samples: int, wait_s: float | None = None) -> dict[str, Any]:
        """`submit`, and wait: the certified model after the round, name -> array."""
        return dict(self.submit(local, samples).wait(wait_s).arrays)

    @property
    def arrays(self) -> Mapping[str, Any]:
        """The model in force, read from its file where they are asked for; not to be written to."""
        return self._peer.book.arrays

    @property
    def local(self) -> frozenset[str]:
        """Names of the tensors that stay at this site; `arrays` has the base's values of them."""
        return self._peer.book.local

    def status(self) -> Status | None:
        """As of the last tick, merge or notice; None before the first."""
        return self._snapshot

    def examine(self, wait_s: float) -> dict[bytes, Seen]:
        """Ask the other members who they are, and how fast bytes go; waits until all is known, ``wait_s`` at most."""
        members = [i for i in self._peer.ledger.registry.members if i != self._peer.me.id]
        visit, over = Visit(members, lambda: time.time_ns() // 1_000_000, time.monotonic() + wait_s), threading.Event()
        self._do(lambda: self._visits.append((visit, over)))
        over.wait(wait_s + 1.0)
        return visit.seen

    def say(self, payload: bytes) -> None:
        """Bring a statement that somebody made (an approved change of membership) to the leader."""
        self._do(lambda: self._peer.forward(payload))

    def warn(self, text: str) -> None:
        """Put a warning among the notices."""
        self._do(lambda: self._tell(Notice("warning", text)))

    def _do(self, command: Callable[[], None]) -> None:
        self._commands.put(command)
        self._transport.wake()

    # --- the loop -----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._loop()
        except ShoalError as error:
            self._fail(error)
        except Exception as error:  # a fault of ours, or of the machine where nobody expects one: never a dead thread
            self._fail(MachineError("node.internal", f"{type(error).__name__}: {error}"))
        finally:
            if self._ticket is not None:
                self._ticket.end(self.failed or MachineError("node.stopped", "the node was stopped"))
            self._close()

    def _close(self) -> None:
        """Let everything go, once; also what a node holds that was never started: sockets would keep the process."""
        if self._closed:
            return
        self._closed = True
        self._worker.shutdown(wait=True, cancel_futures=True)
        self._disk.close()
        if self._referee is not None:
            self._referee.close()
        with contextlib.suppress(ShoalError):
            self._replica.close()
        self._journal.close()
        self._transport.close()

    def _fail(self, error: ShoalError) -> None:
        self.failed = error
        self._tell(Notice("fault", f"this node stops: {error}", error.code))

    def _loop(self) -> None:
        tick_s, next_tick = self._times.tick_s, time.monotonic()
        self._allow()
        self._counted = self._peer.ledger.round
        self._remember()
        while not self._stopping.is_set():
            for event in self._pulse.events(next_tick - time.monotonic()):
                self._heard(event)
            while not self._commands.empty():
                self._commands.get()()
            now = time.monotonic()
            # A process that was stopped for a while must not see all that time at once as silence of others.
            next_tick = max(next_tick, now - _TICKS_AT_ONCE * tick_s)
            news = next_tick <= now
            while next_tick <= now:
                self._peer.tick()
                next_tick += tick_s
            for out in self._peer.turn():
                self._act(out)
                news = news or isinstance(out, Merged | Notice)
            self._stages.at(self._phase(), time.monotonic())
            if self._visits:
                self._visit()
            if self._referee is not None and news:
                self._evaluate(self._referee)
            self._allow()
            if news or self._snapshot is None:
                self._snapshot = self._look()
        if self._replica.leading:
            failpoint.reach("handover")
            self._replica.hand_over()
            for out in self._peer.turn():
                self._act(out)
            for event in self._transport.poll(tick_s):
                self._heard(event)

    def _heard(self, event: object) -> None:
        if isinstance(event, Received):
            self._received += len(event.data)
            if event.data[:1] == PROBE:
                said, now_s = decode(event.data), time.monotonic()
                if said is not None:
                    self._answer(self._host.heard(event.peer, said, now_s))
                    for visit, _ in self._visits:
                        visit.heard(event.peer, said, now_s)
            else:
                self._peer.heard(event.peer, event.data)
        elif isinstance(event, Bulk):
            self._received += len(event.body)
            if event.header[:1] == PROBE:
                self._answer(self._host.chunk(event.peer, event.header))
                for visit, _ in self._visits:
                    visit.chunk(event.peer, event.header, time.monotonic())
            else:
                self._peer.bulk(event.peer, event.header, event.body)
        elif isinstance(event, Back):
            self._connected.add(event.peer)
            self._tell(Notice("info", f"{self._name(event.peer)} is connected", CONNECTED, peer=event.peer))
        elif isinstance(event, Lost):
            self._connected.discard(event.peer)
            told = f"the connection with {self._name(event.peer)} is lost"
            self._tell(Notice("warning", told, "member.lost", peer=event.peer))

    def _name(self, who: bytes) -> str:
        member = self._peer.ledger.registry.members.get(who)
        return shown(member.name) if member is not None else who.hex()[:16]

    def _answer(self, answers: list[Out], visit: Visit | None = None) -> None:
        """Send what a member that examines this one asked for (probe.py), or what this one asks for on a ``visit``."""
        for out in answers:
            if len(out) == 2:
                self._transport.send(*out)
            elif not self._transport.send_bulk(*out) and visit is not None:
                visit.unsent(out[0])

    def _visit(self) -> None:
        """Go on with the examinations of the others."""
        now_s = time.monotonic()
        for visit, over in self._visits:
            self._answer(visit.turn(self._transport.ways, now_s), visit)
            if visit.over(now_s):
                over.set()
        self._visits = [(visit, over) for visit, over in self._visits if not over.is_set()]

    def _act(self, out: Outgoing) -> None:
        if isinstance(out, SendControl):
            failpoint.reach("send.control")
            if self._transport.send(out.to, out.data):
                self._sent += len(out.data)
        elif isinstance(out, SendBulk):
            failpoint.reach("send.bulk")
            if self._transport.send_bulk(out.to, out.header, out.chunk):
                self._sent += len(out.chunk)
        elif isinstance(out, Compute):
            self._worker.submit(self._compute, out)
        elif isinstance(out, Merged):
            self._merged(out)
        else:
            self._tell(out)

    def _compute(self, out: Compute) -> None:
        result: Any
        try:
            result = out.run()
        except ShoalError as error:
            result = error
        except Exception as error:  # a fault of ours must not hang the round
            result = MachineError("node.internal", f"{out.name}: {type(error).__name__}: {error}")
        if self._peer.book.state_bytes >= TRIMMED_MIN:
            trim()
        self._do(lambda: self._peer.computed(out.slot, out.name, result))

    def _merged(self, out: Merged) -> None:
        if out.round > self._counted:  # the model in force is told of again where an update became void
            self._counted = out.round
            self._results["merged" if out.took_part else "missed"] += 1
        arrays, carried = self._peer.book.arrays, self._peer.book.carried
        ticket, self._ticket = self._ticket, None
        self._worker.submit(self._keep, Outcome(out.round, out.digest, out.took_part, arrays), carried, ticket)

    def _keep(self, outcome: Outcome, carried: Bytes, ticket: Ticket | None) -> None:
        """Write the certified model where it survives, then answer whoever waits."""
        try:
            arrays = self._shelf.keep(outcome.digest, outcome.arrays, carried)
            outcome = msgspec.structs.replace(outcome, arrays=arrays)
            self._do(lambda: self._peer.book.put(outcome.digest, arrays))
        except Exception as error:  # whatever it is: whoever waits must hear of it
            outcome = msgspec.structs.replace(outcome, lost=str(error) or type(error).__name__)
            code = error.code if isinstance(error, ShoalError) else "node.internal"
            notice = Notice("fault", f"the certified model is not kept: {error}", code)
            self._do(lambda: self._tell(notice))
        if ticket is not None:
            ticket.end(outcome)
        if self._referee is not None and not outcome.lost and outcome.round:
            try:
                self._referee.take(outcome.round, outcome.digest, self._folder / MODEL_FILE)
            except ShoalError as error:
                told = Notice("warning", f"round {outcome.round} is not measured: {error}", error.code)
                self._do(lambda: self._tell(told))

    def _remember(self) -> None:
        """What members measured before this node started; and the model in force, if it was not measured yet."""
        peer, referee = self._peer, self._referee
        first = max(1, self._replica.decided - SCORES_ENTRIES_MAX)
        peer.scores = Scores.of(self._replica.history(first, self._replica.decided))
        ledger = peer.ledger
        if referee is None or not ledger.round or peer.book.digest != ledger.model:
            return
        try:
            if peer.scores.by(peer.me.id, ledger.round) is None:
                referee.take(ledger.round, ledger.model, self._folder / MODEL_FILE)
            else:
                referee.keep(ledger.round, self._folder / MODEL_FILE)
        except ShoalError as error:
            self._tell(Notice("warning", f"round {ledger.round} is not measured: {error}", error.code))

    def _evaluate(self, referee: Referee) -> None:
        """Bring what was measured into the ledger, until it is decided; let go of models that are not the best."""
        for found in referee.news():
            if isinstance(found, ShoalError):
                self._tell(Notice("warning", str(found), found.code))
            else:
                self._to_say.append(self._replica.statement(found))
        self._to_say = [payload for payload in self._to_say if self._replica.standing(payload) == "open"]
        if self._to_say and time.monotonic() - self._said_s >= _SAY_AGAIN_S:
            self._said_s = time.monotonic()
            for payload in self._to_say:
                self._peer.forward(payload)
        rounds = sum(self._results.values())
        if (rounds, len(self._to_say)) != self._scored:
            self._scored = (rounds, len(self._to_say))
            referee.prune(self._peer.scores)

    def _tell(self, notice: Notice) -> None:
        if notice.code != CONNECTED:  # what goes well would drown the rest
            self._notices.append(f"{notice.level}: {notice.text}")
        self._told[notice.level] += 1
        if notice.code == ABORTED:
            self._results["aborted"] += 1
        self.on_notice(notice)

    def _allow(self) -> None:
        """Those may connect that the ledger names, with the keys that it names."""
        registry = self._peer.ledger.registry
        if registry.changes == self._changes:
            return
        self._changes, members = registry.changes, registry.members
        mine = members.get(self._peer.me.id)
        if mine is not None and mine.signing != self._peer.me.public:
            told = "new keys of this site are decided; start the node again, and it takes them"
            raise MachineError("node.keys", told)
        wanted = {i: Endpoint(m.curve, m.address) for i, m in members.items() if i != self._peer.me.id}
        if wanted != self._allowed:
            self._allowed = wanted
            self._transport.allow(wanted)

    def _phase(self) -> str:
        """Of the open attempt, as far as this node follows it; "" if there is none."""
        attempt = self._peer.ledger.attempt
        round_ = self._peer.rounds.get(attempt.plan.slot) if attempt is not None else None
        return "" if round_ is None else round_.phase.name

    def _look(self) -> Status:
        ledger, peer = self._peer.ledger, self._peer
        attempt = ledger.attempt
        members = [
            MemberStatus(
                m.name,
                i.hex(),
                m.voter,
                i == peer.me.id or i in self._connected,
                i == self._replica.leader,
            )
            for i, m in sorted(ledger.registry.members.items())
        ]
        return Status(
            peer.me.id.hex(),
            ledger.swarm,
            ledger.round,
            self._replica.term,
            self._replica.decided,
            -1 if attempt is None else attempt.plan.slot,
            self._phase(),
            not peer.current,
            peer.update is not None,
            peer.book.digest.hex(),
            self._sent,
            self._received,
            members,
            list(self._notices),
            dict(peer.refused + self._replica.counters + self._transport.counters),
            dict(self._stages.seconds),
            dict(self._results),
            dict(self._told),
            self._stages.lasted(time.monotonic()),
            attempt is not None and attempt.position(peer.me.id) is not None,
            *self._measured(),
        )

    def _measured(self) -> tuple[list[Mean], Mean | None]:
        """Means of the last round that was measured, and the best round; worked out when there is something new."""
        scores = self._peer.scores
        if scores.changes != self._means_of:
            self._means_of = scores.changes
            best = scores.best("" if self._referee is None else self._referee.best)
            self._means = (_last_means(scores), best)
        return self._means

    def _book(self) -> Book:
        """raises  InputError  ``node.layout``"""
        ledger = self._replica.ledger.state
        book = self._shelf.open_book(None if ledger.policy is None else outer_of(ledger.policy))
        if book.layout.digest != ledger.layout:
            raise InputError(
                "node.layout",
                f"{shown(str(self._model_path))}: layout {book.layout.digest.hex()[:16]}; the swarm's is "
                f"{ledger.layout.hex()[:16]}: expected its base model",
            )
        return book


def _last_means(scores: Scores) -> list[Mean]:
    last = scores.rounds[-1:]
    means = [scores.mean(round_, metric) for round_ in last for metric in scores.metrics()]
    return [mean for mean in means if mean is not None]
