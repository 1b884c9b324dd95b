"""The consensus core: payloads and messages in, an agreed chain of entries out.  No clock, socket, file or thread.

What a message does, by role ("-": counted as unexpected and dropped).  Before this table come, in this order: the
message alone (`message.fault`), its sender (a member, or introduced), the lives it comes from and is meant for
(`life.py`), its term (`admission.py`).

    message         follower             pre-candidate        candidate            leader
    AskVote         vote                 vote                 vote                 vote
    GiveVote        -                    count                count                -
    Append          check, store         follow, then store   follow, then store   second leader: refused
    Heartbeat       commit, answer       follow, then answer  follow, then answer  second leader: refused
    SnapshotChunk   collect, install     follow, collect      follow, collect      second leader: refused
    Appended        -                    -                    -                    match, commit, send
    HeartbeatReply  -                    -                    -                    confirm, send
    SnapshotReply   -                    -                    -                    send
    TimeoutNow      campaign             -                    -                    -
    Hello           compare              compare              compare              compare, probe
    Outdated        barred               barred               barred               barred, follow

    term above ours  AskVote while a leader is heard: ignored.  Pre-votes: term stays.  Else follow in that term, or, if
                     it is absurdly far, in one that is nearer to it, and drop the message.
    term below ours  AskVote: refused with our term.  From a leader: told our term.  Else dropped.
    Hello, Outdated  carry a term and never change ours.

    role            leaves by
    follower        timer -> pre-candidate (or candidate, without pre-vote or when told to)
    pre-candidate   majority would vote -> candidate; majority would not, a leader, a higher term -> follower
    candidate       majority votes -> leader; majority refuses, a leader, a higher term -> follower
    leader          higher term, no quorum heard for a timeout, own removal decided, barred -> follower

Source: Ongaro and Ousterhout, ATC 2014 (figure 2), Ongaro's dissertation (2014); the shape is etcd-io/raft's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec

from shoal.errors import ArgumentError
from shoal.ledger import admission, election, following, install, life, membership, reading, replication
from shoal.ledger.core import Hooks, Options, Role, State
from shoal.ledger.entry import GENESIS_PREV, Entry
from shoal.ledger.log import Log, chain_fault
from shoal.ledger.members import NOBODY, Configuration, PeerId, Roster
from shoal.ledger.message import (
    FROM_LEADER,
    AnyMessage,
    Append,
    Appended,
    AskVote,
    GiveVote,
    Heartbeat,
    HeartbeatReply,
    Hello,
    Outdated,
    SnapshotChunk,
    SnapshotReply,
    TimeoutNow,
)
from shoal.ledger.ready import Proposed, Ready, unpack_state
from shoal.ledger.store import HardState, Snapshot
from shoal.limits import LEDGER_ENTRY_BYTES_MAX

Handler = Callable[[State, Any], None]

_ANY: Final[dict[type, Handler]] = {
    AskVote: election.on_ask_vote,
    Hello: life.on_hello,
    Outdated: life.on_outdated,
}
_FOLLOW: Final[dict[type, Handler]] = {
    Append: following.on_append,
    Heartbeat: following.on_heartbeat,
    SnapshotChunk: install.on_snapshot_chunk,
}
TABLE: Final[dict[Role, dict[type, Handler]]] = {
    Role.FOLLOWER: {**_ANY, **_FOLLOW, TimeoutNow: election.on_timeout_now},
    Role.PRECANDIDATE: {**_ANY, **_FOLLOW, GiveVote: election.on_give_vote},
    Role.CANDIDATE: {**_ANY, **_FOLLOW, GiveVote: election.on_give_vote},
    Role.LEADER: {
        **_ANY,
        Appended: replication.on_appended,
        HeartbeatReply: replication.on_heartbeat_reply,
        SnapshotReply: install.on_snapshot_reply,
    },
}


class Raft:
    """One node's core.  Feed it `tick`, `step`, `propose`; do what `ready` says; call `advance`; repeat.

    me             this node's id
    hooks, options  see `core.py`
    hard_state     what the store held, its generation already raised for this life (`life.py`)
    entries        the log above the snapshot, in order, as the store held it
    snapshot       what the log rests on, or None
    configuration  the members where neither snapshot nor entries say who they are
    raises         ArgumentError "ledger.log" if entries or snapshot are not one chain: the store checks that at open
    """

    def __init__(
        self,
        me: PeerId,
        hooks: Hooks,
        options: Options = Options(),  # noqa: B008  (frozen)
        hard_state: HardState = HardState(generation=1),  # noqa: B008  (frozen)
        entries: Sequence[Entry] = (),
        snapshot: Snapshot | None = None,
        configuration: Configuration = Configuration(),  # noqa: B008  (frozen)
    ) -> None:
        log, configuration = _start(snapshot, configuration)
        self.state = state = State(me, options, hooks, log, Roster(configuration, log.floor))
        if snapshot is not None:
            install.hold(state, snapshot)
        _load(state, entries)
        log.handed = log.stable = log.last
        log.commit_to(hard_state.commit)
        state.removals = [removal for removal in state.removals if removal[0] > log.committed]
        state.term, state.vote = max(hard_state.term, log.last_term), hard_state.vote
        if state.term > hard_state.term:
            state.vote = NOBODY
        state.barred, state.seen_pairs, state.seen = hard_state.barred, hard_state.seen, dict(hard_state.seen)
        state.handed_hard = hard_state
        self._outstanding: Ready | None = None
        self._promising = False  # a disk works on what must be there before anything else is said
        state.reset_clock()
        life.begin(state, hard_state.generation)

    # --- in -----------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """One tick of this node's monotonic clock has passed."""
        election.tick(self.state)

    def campaign(self) -> None:
        """As when the election timer fires now."""
        election.campaign(self.state)

    def introduce(self, peers: Iterable[PeerId]) -> None:
        """These peers, and no others, are members elsewhere although this log may not say so yet: a node that lags
        behind hears of them from its invitation or from another member, outside of the log, and may be led by them."""
        self.state.introduced = set(peers)

    def refusal(self, payload: bytes) -> str:
        """Why `propose` would not take this payload now; "" if it would."""
        return _proposal_fault(self.state, payload)

    def propose(self, payload: bytes) -> Proposed:
        """Append a payload if this node leads; the answer says where it stands, not that it is decided."""
        state = self.state
        fault = _proposal_fault(state, payload)
        if fault:
            state.refuse(fault)
            return Proposed(refused=fault)
        entry = replication.append_own(state, payload)
        return Proposed(entry.index, entry.term)

    def read(self, context: bytes) -> str:
        """Ask for a linearizable read; "" and later a ReadState with this context, or why not."""
        return reading.ask(self.state, context)

    def transfer(self, peer: PeerId) -> str:
        """Hand leadership to `peer`; "" or why not."""
        return election.transfer(self.state, peer)

    def compact(self, index: int, data: bytes) -> Snapshot:
        """Forget the entries up to `index` (applied); the snapshot to save stands for them from now on.

        raises  ArgumentError "ledger.compact"
        """
        fault = install.compact_fault(self.state, index, data)
        if fault:
            raise ArgumentError("ledger.compact", f"cannot compact the log up to index {index}: {fault}")
        return install.compact(self.state, index, data)

    def step(self, m: AnyMessage) -> None:
        """Take one message.  Whatever it is, it raises nothing: what cannot be used is counted in `counters`."""
        state = self.state
        fault = admission.envelope_fault(state, m)
        if fault:
            state.refuse(fault)
            return
        if not life.is_newest(state, m) or not life.is_for_this_life(state, m) or admission.is_too_far(state, m):
            return
        kind = type(m)
        if m.term != state.term and not admission.settle_term(state, m, kind):
            return
        if kind in FROM_LEADER and not admission.follow(state, m):
            return
        handler = TABLE[state.role].get(kind)
        if handler is None:
            state.refuse("unexpected")
            return
        handler(state, m)

    # --- out ----------------------------------------------------------------------------------------------------------

    def has_ready(self) -> bool:
        """Whether `ready` would ask for anything."""
        state, log = self.state, self.state.log
        return bool(
            state.outbox
            or state.flush
            or log.handed < log.last
            or log.applied < log.committed
            or state.installed
            or state.read_states
            or log.truncated is not None
            or state.hard_state() != state.handed_hard
        )

    def ready(self) -> Ready:
        """All that is to be done now, in the order that `ready.py` gives; then call `advance`.

        raises  ArgumentError "ledger.ready" if the last one was not advanced
        """
        if self._outstanding is not None:
            raise ArgumentError("ledger.ready", "the last Ready was not advanced yet")
        state = self.state
        if state.role == Role.LEADER:
            _seal_batch(state)
            if state.flush:
                replication.send_news(state)
        membership.settle(state)
        self._promising = _promised(state.hard_state()) != _promised(state.handed_hard)
        self._outstanding = ready = _collect(state, self._promising)
        return ready

    def advance(self) -> None:
        """The last Ready is persisted, sent and applied."""
        ready, state = self._outstanding, self.state
        if ready is None:
            raise ArgumentError("ledger.ready", "there is no Ready to advance")
        self._outstanding = None
        self._promising = False
        log = state.log
        if ready.entries:
            log.stable = max(log.stable, min(ready.entries[-1].index, log.handed))
        if ready.committed:
            log.applied = max(log.applied, ready.committed[-1].index)
        if state.role == Role.LEADER and ready.entries:
            replication.advance_commit(state)

    def pulse(self, beats: Iterable[Heartbeat], lead: bool) -> list[AnyMessage]:
        """While a disk works on the last Ready: what shows that this node lives, to be sent at once.

        Heartbeats if it leads and ``lead`` says that they are due; answers to those ``beats`` that are its leader's.
        They promise nothing that the disk has not confirmed: an answer says only that the leader is heard.  Nothing
        where term, vote or the lives of peers are what the disk works on.
        """
        state = self.state
        if self._promising or _promised(state.hard_state()) != _promised(state.handed_hard):
            return []
        kept, state.outbox = state.outbox, []
        if lead and state.role == Role.LEADER:
            replication.beat(state)
        for beat in beats:
            if state.role == Role.FOLLOWER and (beat.term, beat.sender) == (state.term, state.leader):
                self.step(beat)
        made, state.outbox = state.outbox, kept
        if _promised(state.hard_state()) != _promised(state.handed_hard):  # a beat told of a later life
            state.outbox = kept + made
            return []
        return made

    # --- to look at ---------------------------------------------------------------------------------------------------

    @property
    def counters(self) -> Counter[str]:
        """How often what was refused."""
        return self.state.counters

    @property
    def role(self) -> Role:
        return self.state.role

    @property
    def leader(self) -> PeerId:
        """Who leads, as far as this node knows; NOBODY if it does not."""
        return self.state.leader

    @property
    def term(self) -> int:
        return self.state.term

    @property
    def log(self) -> Log:
        return self.state.log

    @property
    def configuration(self) -> Configuration:
        """The one in force: the newest in the log, decided or not."""
        return self.state.roster.current


def _start(snapshot: Snapshot | None, configuration: Configuration) -> tuple[Log, Configuration]:
    if snapshot is None:
        return Log(0, 0, GENESIS_PREV), configuration
    content = unpack_state(snapshot.state)
    if content is None:
        raise ArgumentError("ledger.log", f"the snapshot of index {snapshot.index} holds no configuration")
    return Log(snapshot.index, snapshot.term, snapshot.hash), content.configuration


def _load(state: State, entries: Sequence[Entry]) -> None:
    """Put the store's entries above the floor, with their hashes and the changes they make."""
    log = state.log
    hashes, fault = chain_fault(entries, log.floor_hash)
    if fault:
        place = log.floor + len(hashes) + 1
        raise ArgumentError("ledger.log", f"entry {place} does not follow the one before: {fault}")
    for entry, digest in zip(entries, hashes, strict=True):
        if entry.index != log.last + 1 or entry.term < log.last_term:
            raise ArgumentError("ledger.log", f"entry {entry.index}, term {entry.term} cannot follow index {log.last}")
        log.append(entry, digest)
        membership.note(state, entry)


def _proposal_fault(state: State, payload: bytes) -> str:
    """Why a leader does not take this payload; "" if it does."""
    if state.role != Role.LEADER:
        return "not-leader"
    if state.transferee != NOBODY:
        return "handing-over"
    if len(payload) > LEDGER_ENTRY_BYTES_MAX:
        return "entry-too-large"
    options, log = state.options, state.log
    if state.uncommitted and state.uncommitted + len(payload) > options.uncommitted_bytes:
        return "uncommitted-full"
    if len(log.entries) >= options.log_entries or log.size + len(payload) > options.log_bytes:
        return "log-full"
    change = state.hooks.members_of(payload)
    return "" if change is None else membership.change_fault(state, change)


def _seal_batch(state: State) -> None:
    """Seal the last entry that no disk has seen; one seal covers the chain before it."""
    log = state.log
    if log.handed < log.last and log.entries[-1].term == state.term:
        seal = state.hooks.seal(log.last_hash)
        if seal:
            log.entries[-1] = msgspec.structs.replace(log.entries[-1], seal=seal)


def _promised(hard: HardState) -> tuple[object, ...]:
    """What a node must have on its disk before it says anything else: all but the commit index."""
    return hard.term, hard.vote, hard.generation, hard.barred, hard.seen


def _collect(state: State, durable_changed: bool) -> Ready:
    log = state.log
    hard, before = state.hard_state(), state.handed_hard
    early: list[AnyMessage] = []
    late = state.outbox
    if state.role == Role.LEADER and not durable_changed:
        early = [m for m in late if type(m) in FROM_LEADER]
        late = [m for m in late if type(m) not in FROM_LEADER]
    entries = log.entries[log.handed - log.floor :]
    committed = log.entries[log.applied - log.floor : log.committed - log.floor]
    ready = Ready(
        early=early,
        snapshot=state.installed,
        truncate_from=log.truncated,
        entries=entries,
        hard_state=hard if hard != before else None,
        must_sync=durable_changed or bool(entries) or state.installed is not None or log.truncated is not None,
        messages=late,
        committed=committed,
        reads=state.read_states,
    )
    state.outbox, state.read_states, state.installed = [], [], None
    state.handed_hard, log.handed, log.truncated = hard, log.last, None
    return ready


__all__ = ["Hooks", "Options", "Raft", "Role"]
