"""One member's copy of the ledger: the consensus core, the rules and the store as one.  No clock, socket or thread.

The one that drives it does, again and again:

    tick()                    as its monotonic clock says           step(sender, message)    what peers sent
    propose(body)             what this node has to say             offer(payload)           what others asked a leader
    work(send)                -> what was decided, in order

``work`` keeps the order that ledger/ready.py demands: persist, then send, then apply.  After a crash at any point a new
Replica over the same store goes on.  What the store knows to be decided is then in ``ledger`` and not told; the last
entries may be told again, because that they are decided is not worth an fsync of its own.

**A proposal can be lost** with the leader that took it.  So whoever has something to say keeps the payload and offers
*the same bytes* again, to whoever leads, until ``work`` tells it as Decided or ``standing`` says what became of it.
That is safe: a statement that stands in the log is refused a second time (``ledger.replay``), and one whose author last
saw an entry more than LEDGER_SEEN_WINDOW back is refused for good.

A replica *halts* when it cannot go on without breaking a promise: its disk failed, a decided entry breaks a rule, or a
leader is proved to have told two histories.  It then takes and sends nothing, and ``work`` raises the reason.  Only a
proof halts it, two different sealed runs of one term; what merely contradicts its log any member could send, and is
refused and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Literal

import msgspec

from shoal import failpoint
from shoal.errors import ArgumentError, InputError, PeerError, ShoalError
from shoal.ledger.body import Body
from shoal.ledger.certificate import check_now, checked_before
from shoal.ledger.core import Hooks, Options, Role
from shoal.ledger.entry import GENESIS_INDEX, Entry, entry_hash
from shoal.ledger.evidence import Evidence, make_evidence, sealer_key
from shoal.ledger.guard import Guard
from shoal.ledger.identity import Identity
from shoal.ledger.members import Configuration, PeerId
from shoal.ledger.message import AnyMessage, Heartbeat
from shoal.ledger.raft import Raft
from shoal.ledger.ready import Ready, unpack_state
from shoal.ledger.registry import Member, Registry, change_of
from shoal.ledger.statement import Statement, read_statement
from shoal.ledger.store import HardState, Snapshot, Store
from shoal.ledger.validator import Ledger
from shoal.limits import REPLICA_BYTES_MAX, REPLICA_ENTRIES_MAX

Send = Callable[[AnyMessage], None]

#: why the core does not take a proposal -> the same in words
REFUSALS: Final = {
    "not-leader": "this node does not lead",
    "handing-over": "the leader is handing over: ask again",
    "entry-too-large": "the statement is too large for an entry",
    "uncommitted-full": "too much is waiting to be decided: ask again",
    "log-full": "the log in memory is full: ask again",
    "change-pending": "another change of the members is not decided yet: ask again",
    "change-before-own-commit": "the leader is new: ask again",
    "already-founded": "the swarm has its genesis",
    "bad-founders": "the first members are none, too many, or one is there twice",
    "not-one-peer": "members change one at a time",
    "already-member": "it is a member already",
    "members-full": "the swarm is full",
    "not-a-learner": "it is no learner",
    "not-a-member": "it is no member",
    "last-voter": "the last voter cannot leave",
    "learner-behind": "the learner has not caught up with the log yet: ask again",
}
_LEADER_LEAVES: Final = "the leader hands over before it leaves: ask again"
#: ticks for which a commit index that came alone may wait for something else to be written with it
_COMMIT_TICKS: Final = 20


class Bounds(msgspec.Struct, frozen=True):
    """How much of the log a replica holds in memory: entries and bytes of payload."""

    entries: int = REPLICA_ENTRIES_MAX
    bytes: int = REPLICA_BYTES_MAX


class Decided(msgspec.Struct, frozen=True):
    """An entry is decided, and applied to ``ledger``.  ``payload``: the very bytes that somebody proposed."""

    index: int
    statement: Statement
    body: Any
    payload: bytes


class Jumped(msgspec.Struct, frozen=True):
    """A peer's snapshot took the place of the log up to ``index``: what it holds is in ``ledger``, and not told."""

    index: int


class Proposal(msgspec.Struct, frozen=True):
    """What became of a body: its signed ``payload``, and its ``index`` in the log of this node, which leads.

    Otherwise ``index`` is 0 and ``refused`` says why; a node that does not lead sends ``payload`` to the one that does.
    """

    payload: bytes
    index: int = 0
    refused: str = ""


def found(store: Store, genesis: Entry) -> Ledger:
    """Begin an empty store with a swarm's genesis, as one durable step; gives the ledger after it.

    raises  InputError, PeerError  if it is no valid genesis;  ArgumentError  ``store.gap``: the store is not empty
    """
    ledger = Ledger()
    ledger.apply(genesis)
    store.persist(Ready(entries=(genesis,), hard_state=HardState(commit=GENESIS_INDEX)))
    return ledger


def in_the_name_of(key: Identity, registry: Registry) -> Identity:
    """The key as the member to whom it belongs now: after a rotation a member keeps the id of its first key."""
    owner = next((who for who, member in registry.members.items() if member.signing == key.public), key.id)
    return key if owner == key.id else key.acting_as(owner)


class Replica:
    """See the module.

    me        Identity   this node's key
    store     Store      with the genesis in it (``found``); it belongs to the replica from now on, ``close`` closes it
    draw      Callable   draw(n) -> an integer from 0 .. n-1: the only randomness
    options   Options    of the core, times in ticks
    clock_ms  Callable   milliseconds since 1970, for people: it goes into statements and nothing follows from it
    raises    ArgumentError ``replica.empty``: the store holds no ledger;  InputError ``replica.ledger``: what it holds
              breaks a rule

    evidence  Evidence | None    the proof that made it halt
    wait      Callable           does what waits for the disk; a node's goes on living meanwhile (swarm/disk.py)
    """

    def __init__(
        self,
        me: Identity,
        store: Store,
        draw: Callable[[int], int],
        options: Options = Options(),  # noqa: B008  (frozen)
        clock_ms: Callable[[], int] = lambda: 0,
        bounds: Bounds = Bounds(),  # noqa: B008  (frozen)
    ) -> None:
        hard, entries, snapshot = store.load()
        if not entries and snapshot is None:
            raise ArgumentError("replica.empty", "the store holds no ledger; begin it with the swarm's genesis")
        ledger = _replayed(hard, entries, snapshot)
        me = in_the_name_of(me, ledger.state.registry)
        self._store = store
        self._bounds = bounds
        self._guard = guard = Guard(ledger, me, clock_ms)
        first = ledger.state.index + 1
        for entry in entries:
            if entry.index >= first and not guard.admit(entry, entry_hash(entry)):
                raise InputError("replica.ledger", f"the ledger's file: {guard.refusal}")
        above = [entry for entry in entries if snapshot is None or entry.index > snapshot.index]
        hooks = Hooks(draw, change_of, guard.seal, self._admit, self._opening, self._admit_snapshot)
        self._raft = Raft(me.id, hooks, options, hard, above, snapshot)
        self.me = me.id
        self.evidence: Evidence | None = None
        self.halted: ShoalError | None = None
        self.wait: Callable[[Callable[[], None]], None] = lambda work: work()
        self._hard: HardState | None = None  # a commit index that came alone
        self._hard_ticks = 0
        self._taken = (0, b"")  # the state that the next snapshot will hold

    # --- in -----------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """One tick of this node's monotonic clock has passed."""
        if self.halted is None:
            self._hard_ticks += 1
            self._raft.tick()

    def step(self, sender: PeerId, message: AnyMessage) -> None:
        """Take a message of the core that ``sender`` (as the transport authenticated it) sent.  Raises nothing."""
        if self.halted is not None:
            return
        if message.sender != sender:
            self._raft.state.refuse("wrong-sender")
            return
        self._raft.step(message)
        if self._raft.state.evidence:
            self._judge()

    def pulse(self, beats: Iterable[tuple[PeerId, Heartbeat]], lead: bool) -> list[AnyMessage]:
        """While ``wait`` waits for the disk: what is to be sent at once, see Raft.pulse.

        beats  heartbeats, each with its sender as the transport authenticated it
        lead   the own heartbeats are due
        """
        if self.halted is not None:
            return []
        return self._raft.pulse((beat for sender, beat in beats if beat.sender == sender), lead)

    def statement(self, body: Body) -> bytes:
        """The payload that says ``body`` in the name of this node, with the last decided entry that it knows.

        raises  InputError  ``ledger.limit``
        """
        return self._guard.statement(body)

    def propose(self, body: Body) -> Proposal:
        """Say something: append it if this node leads, else make the payload that the leader is to be sent.

        raises  InputError  ``ledger.limit``
        """
        payload = self.statement(body)
        return Proposal(payload, *self._append(payload, own=True))

    def offer(self, payload: bytes) -> tuple[int, str]:
        """Append a member's signed statement as leader: (index, "") or (0, why not).

        Costs the checking of its signatures, whatever the payload; one that breaks a rule leaves everything as it was.
        That it has an index does not mean that it is decided, nor that it will be.
        """
        return self._append(payload, own=False)

    def standing(self, payload: bytes) -> Literal["decided", "open", "expired"]:
        """What became of a statement, as far as this node knows.

        open     not decided; it can still be, so offer it again
        expired  its author last saw an entry too long ago: it will not be taken any more.  Whether it was decided is no
                 longer known; ask in time
        raises   InputError  the bytes are no statement
        """
        said, _ = read_statement(payload)
        ledger = self._guard.committed
        if ledger.holds(payload):
            return "decided"
        return "open" if said.seen_index in ledger.state.recent else "expired"

    def introduce(self, peers: Iterable[PeerId]) -> None:
        """These, and no others, are members, though this log may not say so yet: a new site's invitation does."""
        self._raft.introduce(peers)

    def rotate_to(self, key: Identity) -> None:
        """Sign with this key as soon as the log says that it is this member's (KeysRotated)."""
        self._guard.rotate_to(key.acting_as(self.me))

    def campaign(self) -> None:
        """As when the election timer fires now."""
        if self.halted is None:
            self._raft.campaign()

    def hand_over(self) -> str:
        """As leader: let the voter with the longest log lead; "" or why not."""
        state = self._raft.state
        others = [(p.match, who) for who, p in state.progress.items() if who in self.configuration.voters]
        if not others:
            return "there is no other voter"
        return self._raft.transfer(max(others)[1])

    # --- work ---------------------------------------------------------------------------------------------------------

    def work(self, send: Send) -> list[Decided | Jumped]:
        """Persist, send, apply, until nothing is left to do; what was decided, in order.

        send    must not raise, and may lose what it is given
        raises  MachineError  the disk failed;  PeerError, InputError  see the module.  The replica has halted then, and
                              raises the same from now on
        """
        if self.halted is not None:
            raise self.halted
        done: list[Decided | Jumped] = []
        try:
            while self._raft.has_ready():
                done += self._turn(self._raft.ready(), send)
            self._compact()
            if self._hard is not None and self._hard_ticks >= _COMMIT_TICKS:
                lazy = self._hard
                self.wait(lambda: self._store.save_hard_state(lazy))
                self._hard = None
        except ShoalError as error:
            self.halted = error
            raise
        return done

    def close(self) -> None:
        """Write what may still wait, and close the store."""
        if self._hard is not None and self.halted is None:
            self._store.save_hard_state(self._hard)
            self._hard = None
        self._store.close()

    # --- to look at ---------------------------------------------------------------------------------------------------

    @property
    def ledger(self) -> Ledger:
        """The rules' state after the last decided entry.  Only to be read."""
        return self._guard.committed

    @property
    def members(self) -> Mapping[PeerId, Member]:
        """As decided."""
        return self._guard.committed.state.registry.members

    @property
    def configuration(self) -> Configuration:
        """Voters and learners as the newest entry has them, decided or not."""
        return self._raft.configuration

    @property
    def leader(self) -> PeerId:
        """Who leads, as far as this node knows; b"" if it does not."""
        return self._raft.leader

    @property
    def leading(self) -> bool:
        return self._raft.role == Role.LEADER

    @property
    def term(self) -> int:
        return self._raft.term

    @property
    def decided(self) -> int:
        """Index of the last decided entry."""
        return self._guard.committed.state.index

    @property
    def last(self) -> int:
        """Index of the last entry, decided or not."""
        return self._raft.log.last

    @property
    def held(self) -> int:
        """Entries in memory."""
        return len(self._raft.log.entries)

    @property
    def barred(self) -> bool:
        """Peers said that this store is an old copy: the node has no vote until it is let in anew (ledger/life.py)."""
        return bool(self._raft.state.barred)

    @property
    def counters(self) -> Counter[str]:
        """How often what was refused."""
        return self._raft.counters

    @property
    def refusal(self) -> str:
        """Why the last entry that a leader sent was not taken, in words."""
        return self._guard.refusal

    def history(self, first: int, last: int) -> Iterator[Entry]:
        """Entries first..last that the store still holds, in order."""
        return self._store.history(first, last)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _turn(self, ready: Ready, send: Send) -> list[Decided | Jumped]:
        for message in ready.early:
            send(message)
        self._hard = ready.hard_state or self._hard
        if ready.must_sync:
            whole = msgspec.structs.replace(ready, hard_state=self._hard)
            self.wait(lambda: self._store.persist(whole))
            self._hard = None
        elif ready.hard_state is not None:
            self._hard_ticks = 0
        failpoint.reach("replica.send")
        for message in ready.messages:
            send(message)
        failpoint.reach("replica.apply")
        done: list[Decided | Jumped] = []
        if ready.snapshot is not None:
            done.append(Jumped(ready.snapshot.index))
        for entry in self._guard.settle(ready.committed):
            done.append(Decided(entry.entry.index, entry.statement, entry.body, entry.entry.payload))
        self._raft.advance()
        return done

    def _compact(self) -> None:
        """Bound what is in memory; the file keeps everything.

        At two thirds of the bounds the state is taken; when they are reached, the log before it is let go.
        """
        log, bounds = self._raft.log, self._bounds
        index, state = self._taken
        if index <= log.floor:
            state = b""
        fill = max((self.decided - log.floor) / bounds.entries, log.size / bounds.bytes)
        if state and fill >= 1:
            snapshot = self._raft.compact(index, state)
            self.wait(lambda: self._store.save_snapshot(snapshot))
            failpoint.reach("ledger.snapshot")
            self.wait(lambda: self._store.compact(index))
            self._taken = (index, b"")
        elif not state and fill >= 2 / 3 and self.decided > log.floor:
            self._taken = (self.decided, self._guard.committed.encode())

    def _append(self, payload: bytes, own: bool) -> tuple[int, str]:
        if self.halted is not None:
            return 0, f"this node has halted: {self.halted}"
        raft, guard = self._raft, self._guard
        word = raft.refusal(payload)
        if word:
            return 0, REFUSALS.get(word, word)
        change = change_of(payload)
        if change is not None and change.kind == "remove" and change.peers == (self.me,):
            # Once its removal stands in its log, the rules do not let it open another term.
            return 0, self.hand_over() or _LEADER_LEAVES
        try:
            entry = guard.offer(payload, raft.term, own)
        except (InputError, PeerError) as error:
            return 0, str(error)
        proposed = raft.propose(payload)
        if proposed.refused:
            guard.withdraw(entry.index)
        return proposed.index, REFUSALS.get(proposed.refused, proposed.refused)

    def _align(self, last: int) -> None:
        """Lead the guard to the end of the log at ``last``: what it admitted beside it, the core did not take."""
        guard, log = self._guard, self._raft.log
        if guard.hash_at(last) == log.hash(last) and guard.hash_at(last + 1) is None:
            return
        first = self.decided + 1
        guard.withdraw(first)
        for index in range(first, last + 1):
            entry = log.entry(index)
            admitted = entry is not None and guard.admit(entry, log.hash(index))
            assert admitted, guard.refusal  # it was, at this very place

    # --- what the core asks -------------------------------------------------------------------------------------------

    def _admit(self, entry: Entry, hash_: bytes) -> bool:
        """May a follower take this entry?  After a batch of which only a part was good, the guard stands elsewhere."""
        if entry.index > self.decided and self._guard.hash_at(entry.index - 1) != entry.prev:
            self._align(entry.index - 1)
        return self._guard.admit(entry, hash_)

    def _opening(self, term: int) -> bytes | None:
        """The no-op of a term, or None where the rules do not let this node say it."""
        self._align(self._raft.log.last)
        try:
            return self._guard.opening(term)
        except (InputError, PeerError) as error:
            self._guard.refusal = str(error)
            return None

    def _admit_snapshot(self, snapshot: Snapshot) -> bool:
        """May a peer's snapshot take the place of the log?  Then the rules go on from it at once: what follows it may
        come before the next turn."""
        content = unpack_state(snapshot.state)
        if content is None or not self._guard.admit_snapshot(snapshot):
            return False
        self._guard.restart(Ledger.decode(content.data))
        return True

    def _judge(self) -> None:
        """Does what contradicts this log prove that a leader told two histories?"""
        state, log = self._guard.committed.state, self._raft.log
        for mine, theirs in self._raft.state.evidence:
            run = log.entries[mine.index - log.floor - 1 :]
            sealed = next((entry for entry in run if entry.seal), None)
            if sealed is None:
                continue
            proof = make_evidence(state.genesis, sealer_key(state, [sealed]), run, theirs)
            if proof is not None:
                self.evidence = proof
                found = f"leader {proof.leader.hex()[:16]} signed two entries {mine.index} in term {mine.term}"
                self.halted = PeerError("replica.fork", f"{found}: this node stops, and keeps the proof")
        self._raft.state.evidence.clear()


def _replayed(hard: HardState, entries: Iterable[Entry], snapshot: Snapshot | None) -> Ledger:
    """The ledger after the last entry that the store knows to be decided.  Signatures were checked before they were
    stored; the store has checked its checksums and the chain.

    raises  InputError  ``replica.ledger``
    """
    try:
        ledger = Ledger()
        if snapshot is not None:
            content = unpack_state(snapshot.state)
            if content is None:
                raise InputError("ledger.snapshot", f"the snapshot of entry {snapshot.index} holds no members")
            ledger = Ledger.decode(content.data)
        ledger.check = checked_before
        for entry in entries:
            if ledger.state.index < entry.index <= hard.commit:
                ledger.apply(entry)
    except (InputError, PeerError) as error:
        raise InputError("replica.ledger", f"the ledger's file: {error}") from None
    ledger.check = check_now
    return ledger
