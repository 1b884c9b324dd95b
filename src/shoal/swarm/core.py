"""All that one round knows, in one place, with the few operations that every duty needs.

The duties themselves are functions over this state (`upload.py`, `survive.py`, `commit.py`); which phase asks for which
stands at the top of `round.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from shoal.kernels.reference_coding import Float64s
from shoal.kernels.ring import Streams
from shoal.ledger.attempt import Attempt
from shoal.ledger.body import Body, Vote
from shoal.ledger.identity import Identity
from shoal.limits import WINDOW_CHUNKS_ALL
from shoal.secure.participant import Commitments, Participant
from shoal.swarm.actions import Action, Compute, Propose, Send, SendChunk
from shoal.swarm.coder import Coder, Float32s
from shoal.swarm.fetch import Fetch, Overdue
from shoal.swarm.messages import UPLOAD, AnySaid, ChunkHead, Lacks, Offer, Opening, Want
from shoal.swarm.parcel import Bytes, Gathering, Parcel, cuts
from shoal.swarm.stock import STOCK


class Patience(msgspec.Struct, frozen=True):
    """Ticks.

    retry    after which what had no effect is said again
    grace    without progress, after which those that are missing are left out, and a backup takes over
    give_up  without progress, after which the attempt is aborted
    muster   that a round which could begin waits for members that have nothing to merge yet
    """

    retry: int = 10
    grace: int = 40
    give_up: int = 400
    muster: int = 40


class View(msgspec.Struct, frozen=True):
    """What the ledger says now.

    attempt    as in the committed state
    keys       Ed25519 keys of the members
    leader     who leads, b"" if unknown
    certified  digest of this round's certified model, once there is one
    """

    attempt: Attempt
    keys: Mapping[bytes, bytes]
    leader: bytes
    certified: bytes = b""


@dataclass
class State:
    """One attempt at a round, as one member sees it.

    me        this node
    coder     of this attempt
    diff      this node's update, None if it only looks on
    settle    merged diff and statistics -> digests of the new model, which the node keeps, and of what goes with it
    may_sign  whether this survivor set may be signed for this slot; durable before it answers True
    privacy   this node's secrets of the slot; None in the clear, and where it does not take part
    dealt     its commitments, once dealt;  sealed  its shares, by holder
    waiting   sealed shares whose dealer is not in the ledger yet;  holders  position -> whose shares it says it has
    asked     who asked for a vote, for which survivors
    made      merged shards that this node worked out itself;  sums  those, and the ones that it fetched
    streams   what masks the own upload;  removal  what unmasks the sums; made once, each costs a key agreement per edge
    early     openings that came before the survivor certificate
    nonces, check_sums   as told in the ledger: position -> nonce, (subject, part) -> author -> values
    chunk_at  when a chunk came last that was wanted;  slowest  ticks that one took, at most, from its being asked for
    lapses    how often nothing has moved for as long as patience lasts, since the start
    silent    survivors that others vouch for -> lapses when they were found silent
    notes     lines for the operator
    inbox     where what this node says to itself goes
    sits_out  why this node's own update cannot enter; it does its other duties all the same
    failure   why this node cannot go on at all, for the operator; "" if it can
    suspected  lapses when the sums were found wrong, and an audit began (blame.py); -1 while nobody lied
    hopeless  nor can any other: the failure follows from what the ledger names
    model     digest of the model that this node computed, and of what it carries; b"" before
    """

    me: Identity
    view: View
    coder: Coder
    diff: Float32s | None
    settle: Callable[[Float32s, Float64s | None], tuple[bytes, bytes]]
    may_sign: Callable[[int, bytes], bool]
    privacy: Participant | None = None
    patience: Patience = field(default_factory=Patience)
    sits_out: str = ""
    failure: str = ""
    hopeless: bool = False
    suspected: int = -1
    model: bytes = b""
    carried: bytes = b""
    own: Parcel | None = None
    sums: dict[int, Parcel] = field(default_factory=dict)
    made: dict[int, Parcel] = field(default_factory=dict)
    fetches: dict[tuple[int, int, int], Fetch] = field(default_factory=dict)
    offers: dict[tuple[int, int], bytes] = field(default_factory=dict)
    votes: dict[bytes, dict[bytes, Vote]] = field(default_factory=dict)
    dealt: Commitments | None = None
    sealed: dict[bytes, bytes] = field(default_factory=dict)
    waiting: dict[bytes, bytes] = field(default_factory=dict)
    holders: dict[int, set[int]] = field(default_factory=dict)
    streams: Streams | None = None
    removal: Streams | None = None
    asked: dict[bytes, bytes] = field(default_factory=dict)
    early: list[tuple[bytes, Opening]] = field(default_factory=list)
    nonces: dict[int, bytes] = field(default_factory=dict)
    check_sums: dict[tuple[int, int], dict[int, bytes]] = field(default_factory=dict)
    chunk_at: int = 0
    slowest: int = 0
    lapses: int = 0
    silent: dict[int, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    inbox: Callable[[bytes, AnySaid], None] = lambda _peer, _said: None
    now: int = 0
    still: int = 0
    actions: list[Action] = field(default_factory=list)
    _done_at: dict[object, int] = field(default_factory=dict)
    _room: Bytes | None = None
    _roomed: set[int] = field(default_factory=set)
    computing: set[str] = field(default_factory=set)
    results: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.cuts = cuts(self.coder.sizes)
        self.all_cuts = [cut for shard in self.cuts for cut in shard]
        self.first_chunk = [sum(len(c) for c in self.cuts[:s]) for s in range(len(self.cuts))]

    @property
    def slot(self) -> int:
        return self.view.attempt.plan.slot

    @property
    def position(self) -> int | None:
        """Where this node stands in the plan."""
        return self.view.attempt.position(self.me.id)

    @property
    def stalled(self) -> bool:
        return self.still >= self.patience.grace

    @property
    def turns(self) -> int:
        """How many times over nothing has moved: who comes next where one does not do its duty."""
        return self.still // self.patience.grace

    def peer(self, position: int) -> bytes:
        return self.view.attempt.plan.participants[position].member

    @property
    def coordinator(self) -> bytes:
        attempt = self.view.attempt
        if attempt.position(self.view.leader) is not None and not self.turns:
            return self.view.leader
        return self.peer((self.slot + self.turns) % attempt.size)

    @property
    def coordinates(self) -> bool:
        """Whether this node acts as coordinator now; the leader always may."""
        return self.me.id in (self.coordinator, self.view.leader) and self.position is not None

    def progress(self) -> None:
        self.still = 0

    def came(self, since: int | None) -> None:
        """A chunk that was wanted is here; ``since``: when it was asked for."""
        self.progress()
        self.chunk_at = self.now
        self.slowest = max(self.slowest, 1 if since is None else self.now - since)

    def due(self, key: object) -> bool:
        """Whether something is to be said (again): not said yet, or `retry` ticks ago without effect."""
        if self.now - self._done_at.get(key, -self.patience.retry) < self.patience.retry:
            return False
        self._done_at[key] = self.now
        return True

    def once(self, key: object) -> bool:
        """Whether something is to be said for the first time."""
        return key not in self._done_at and self.due(key)

    def send(self, to: bytes, said: AnySaid) -> None:
        """To a peer, or at once to this node itself."""
        if to == self.me.id:
            self.inbox(self.me.id, said)
        else:
            self.actions.append(Send(to, said))

    def tell_all(self, said: AnySaid) -> None:
        for participant in self.view.attempt.plan.participants:
            if participant.member != self.me.id:
                self.actions.append(Send(participant.member, said))

    def propose(self, key: object, body: Body) -> None:
        """Make a statement, and again when it is due."""
        if self.due(("propose", key)):
            self.actions.append(Propose(body))

    def compute(self, name: str, run: Callable[[], Any]) -> Any:
        """The result if it is there; else None, and it is being computed."""
        if name in self.results:
            return self.results[name]
        if name not in self.computing:
            self.computing.add(name)
            self.actions.append(Compute(name, run))
        return None

    def gather(self, kind: int, subject: int, shard: int, root: bytes, sources: list[bytes]) -> Bytes | None:
        """Shard ``shard`` of a parcel, whole; None while it is still coming.

        An upload's shard is part of the whole upload; a merged shard is a parcel of its own.
        """
        key = (kind, subject, shard)
        fetch = self.fetches.get(key)
        if fetch is None or fetch.gathering.root != root:
            fetch = self.fetches[key] = Fetch(kind, subject, self._gathering(kind, shard, root), sources)
        fetch.ask_from(sources)
        gathering = fetch.gathering
        if not gathering.hashes and not gathering.complete:
            # Taken, not looked at: hashes of another root are not to be hashed again at every turn.
            offered = self.offers.pop((kind, subject), None)
            if (offered is None or not gathering.name(offered)) and self.due(("hashes", key)):
                self.actions.append(Send(fetch.source, Want(self.slot, kind, subject, ())))
                if self.stalled:
                    fetch.next_source()
        return gathering.data if gathering.complete else None

    def _gathering(self, kind: int, shard: int, root: bytes) -> Gathering:
        if kind == UPLOAD:
            first = self.first_chunk[shard]
            return Gathering(root, self.all_cuts, range(first, first + len(self.cuts[shard])))
        chunks = self.merged_cuts(shard)
        return Gathering(root, chunks, range(len(chunks)), self.room(shard))

    def room(self, shard: int) -> Bytes | None:
        """Where this merged shard is to lie so that all in the clear lie one behind the other, as a model's diff does.

        None where that is of no use, or was asked for before: others may look at what lies there.
        """
        if self.view.attempt.secure or shard in self._roomed:
            return None
        self._roomed.add(shard)
        if self._room is None:
            self._room = STOCK.take(sum(self.coder.sizes))
        start = sum(self.coder.sizes[:shard])
        return self._room[start : start + self.coder.sizes[shard]]

    def beside_others(self, shard: int) -> Bytes:
        """A merged shard that is here, moved to where it is to lie: not before, as what it was made from takes as much
        room as all of them."""
        parcel, room = self.sums[shard], self.room(shard)
        if room is None:
            return parcel.data
        room[:] = parcel.data
        moved = self.sums[shard] = Parcel(room, self.merged_cuts(shard), parcel.hashes)
        if self.made.get(shard) is parcel:
            self.made[shard] = moved
            self.results.pop(f"reduce {shard}", None)
        return room

    def forget_room(self) -> None:
        """Nothing lies there any more that anybody may ask for."""
        self._room = None

    def merged_cuts(self, shard: int) -> list[tuple[int, int]]:
        """Chunks of a merged shard, as a parcel of its own."""
        start = self.cuts[shard][0][0] if self.cuts[shard] else 0
        return [(a - start, b - start) for a, b in self.cuts[shard]]

    def _overdue(self) -> Overdue:
        """As a link's own timer does it: what chunks took so far says how long one may take."""
        retry, grace = self.patience.retry, self.patience.grace
        silent = max(retry, 2 * self.slowest) if self.slowest else max(retry, min(4 * retry, grace // 4))
        return Overdue(retry, silent, max(silent, grace // 2))

    def ask(self) -> None:
        """Keep the windows of all open fetches full."""
        overdue = self._overdue()
        room = WINDOW_CHUNKS_ALL - sum(f.on_the_way() for f in self.fetches.values())
        # Each begins with another one, so that all are asked at once and nobody by all.
        first, size = self.position or 0, max(1, self.view.attempt.size)
        for (kind, subject, _), fetch in sorted(self.fetches.items(), key=lambda each: (each[0][1] - first) % size):
            if fetch.gathering.complete:
                continue
            if self.stalled and self.due(("source", kind, subject)):
                fetch.next_source()
            wanted = fetch.wants(self.now, room, self.now - self.chunk_at, overdue)
            if wanted:
                room -= len(wanted)
                self.actions.append(Send(fetch.source, Want(self.slot, kind, subject, wanted)))

    def sources(self, position: int, shard: int) -> list[bytes]:
        """Who may have what a participant uploaded of a shard, best first: itself; under masks, once it is certified
        to have survived, also owner and backup, and whoever else vouches for it."""
        attempt = self.view.attempt
        shown = attempt.secure and attempt.survivors is not None
        others = [self.peer(p) for p in self.line(shard)] if shown else []
        first = self.peer(position)
        known = [*others, first] if position in self.silent else [first, *others]
        return list(dict.fromkeys(p for p in known if p != self.me.id)) or [first]

    def told(self, subject: int, part: int) -> dict[int, bytes]:
        """Check sums of a participant in the ledger, by author: of its whole upload (part 0), or of shard part - 1."""
        return self.check_sums.get((subject, part), {})

    def line(self, shard: int) -> list[int]:
        """Positions in the order in which they answer for a shard: its owner, then the others as in the plan."""
        attempt = self.view.attempt
        owner, backup = attempt.plan.shards[shard].owner, attempt.plan.shards[shard].backup
        return list(dict.fromkeys([owner, backup, *((owner + k) % attempt.size for k in range(attempt.size))]))

    def _held(self, kind: int, subject: int) -> list[Parcel | Gathering]:
        """What this node can serve of a parcel.  Another's upload only under masks, and once it is certified that it
        survived: nobody else is to have a late one."""
        if kind == UPLOAD and subject != self.position:
            if not self.view.attempt.secure or subject not in (self.view.attempt.survivors or ()):
                return []
            return [f.gathering for (k, s, _), f in self.fetches.items() if (k, s) == (UPLOAD, subject)]
        parcel = self.own if kind == UPLOAD else self.sums.get(subject)
        return [] if parcel is None else [parcel]

    def serve(self, peer: bytes, want: Want) -> None:
        """Answer a Want: hashes if it names no chunk, else chunks."""
        held = self._held(want.kind, want.subject)
        hashes = next((part.hashes for part in held if part.hashes), None)
        chunks = [next((c for part in held if (c := _chunk(part, i)) is not None), None) for i in want.chunks]
        if hashes is None or None in chunks:
            self.actions.append(Send(peer, Lacks(self.slot, want.kind, want.subject)))
            return
        if not want.chunks:
            self.actions.append(Send(peer, Offer(self.slot, want.kind, want.subject, hashes)))
        for index, chunk in zip(want.chunks, chunks, strict=True):
            assert chunk is not None
            self.actions.append(SendChunk(peer, ChunkHead(self.slot, want.kind, want.subject, index), chunk))


def _chunk(part: Parcel | Gathering, index: int) -> memoryview | None:
    if isinstance(part, Gathering):
        return part.arrived(index)
    return part.chunk(index) if index < len(part.chunks) else None
