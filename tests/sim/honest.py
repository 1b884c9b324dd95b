"""An honest member with its real key, core and rules (ledger/guard.py), and what must hold of it while another lies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from invariants import Violation

from shoal.errors import PeerError
from shoal.ledger.body import Note
from shoal.ledger.core import Hooks, Options, Role
from shoal.ledger.entry import GENESIS_PREV, Entry, entry_hash
from shoal.ledger.guard import Guard
from shoal.ledger.identity import Identity
from shoal.ledger.memory_store import MemoryStore
from shoal.ledger.message import AnyMessage
from shoal.ledger.raft import Raft
from shoal.ledger.registry import change_of
from shoal.ledger.statement import read_statement
from shoal.ledger.store import HardState
from shoal.ledger.validator import Ledger

#: refusals that say that a history, a leader or a claim is not the one this node holds to
HALTS = frozenset(
    ("forked-chain", "contradicts-committed", "second-leader", "not-admitted", "commit-beyond-log", "barred")
)


class Said:
    """Every statement and seal that honest members have made: whatever else bears their names is forged."""

    def __init__(self, names: dict[bytes, str], guilty: bytes) -> None:
        self.names = names
        self.honest = names.keys() - {guilty}
        self.payloads: set[bytes] = set()
        self.seals: set[bytes] = set()
        self.sealed: dict[tuple[bytes, int, int], bytes] = {}

    def check(self, name: str, entry: Entry) -> None:
        author = read_statement(entry.payload)[0].author
        if author in self.honest and entry.payload not in self.payloads:
            raise Violation("forged statement", f"{name}: entry {entry.index} quotes {self.names[author]}")
        if entry.seal and entry.seal[:32] in self.honest and entry.seal not in self.seals:
            raise Violation("forged seal", f"{name}: entry {entry.index} as if sealed by {self.names[entry.seal[:32]]}")

    def seal(self, who: bytes, entry: Entry, seal: bytes) -> None:
        """An honest leader seals one entry at an index of its term, so two seals convict liars only."""
        self.seals.add(seal)
        hash_ = entry_hash(entry)
        if who not in self.honest:
            return
        if self.sealed.setdefault((who, entry.term, entry.index), hash_) != hash_:
            raise Violation("honest convicted", f"{self.names[who]} sealed two entries at {entry.index}")


class Honest:
    def __init__(
        self, me: Identity, root: Entry, ledger: Ledger, said: Said, options: Options, draw: Callable[[int], int]
    ) -> None:
        self.me, self.name, self.said = me, said.names[me.id], said
        self.genesis = ledger.state.genesis
        self.store = MemoryStore()
        self.store.append([root])
        self.store.save_hard_state(HardState(term=1, commit=1))
        self.guard = guard = Guard(ledger, me)
        hooks = Hooks(draw, change_of, self._seal, guard.admit, self._opening, guard.admit_snapshot)
        self.raft = Raft(me.id, hooks, options, self.store.load()[0], [root])
        self.decided: list[Entry] = []
        self.voted: dict[str, str] = {}
        self.strangers = Counter[str]()

    def _seal(self, hash_: bytes) -> bytes:
        seal = self.guard.seal(hash_)
        self.said.seal(self.me.id, self.raft.log.entries[-1], seal)
        return seal

    def _opening(self, term: int) -> bytes:
        payload = self.guard.opening(term)
        self.said.payloads.add(payload)
        return payload

    # --- in -----------------------------------------------------------------------------------------------------------

    def is_from(self, origin: bytes, m: AnyMessage) -> bool:
        """The transport knows by its key who has sent a message; another name in it is refused."""
        return m.sender == origin

    def hear(self, origin: bytes, m: AnyMessage) -> None:
        if not self.is_from(origin, m):
            self.strangers["another's name"] += 1
            return
        self.raft.step(m)

    def offer(self, payload: bytes) -> bool:
        """Propose somebody's statement, if this node leads and no rule is against it."""
        if self.raft.role != Role.LEADER:
            return False
        try:
            entry = self.guard.offer(payload, self.raft.term)
        except PeerError as error:
            self.strangers[error.code] += 1
            return False
        if self.raft.propose(payload).refused:
            self.guard.withdraw(entry.index)
            return False
        return True

    # --- out ----------------------------------------------------------------------------------------------------------

    def work(self) -> list[AnyMessage]:
        sent: list[AnyMessage] = []
        for _ in range(20):
            if not self.raft.has_ready():
                return sent
            ready = self.raft.ready()
            sent += ready.early
            self.store.persist(ready)
            sent += ready.messages
            self.guard.settle(ready.committed)
            self._decide(ready.committed)
            self.raft.advance()
        raise Violation("liveness", f"{self.name} asks for work without end")

    def _decide(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            last = entry_hash(self.decided[-1]) if self.decided else GENESIS_PREV
            if entry.index != len(self.decided) + 1 or entry.prev != last:
                raise Violation("chain", f"{self.name} decides {entry.index} after {len(self.decided)}")
            self.said.check(self.name, entry)
            self.decided.append(entry)
            body = read_statement(entry.payload)[1]
            if isinstance(body, Note) and " model " in body.text:
                round_, _, model = body.text.partition(" model ")
                self.voted.setdefault(round_, model)

    def check(self) -> None:
        """What this node has decided it still holds, and nobody is misquoted in its log."""
        log = self.raft.log
        if not self.decided:
            return
        if log.committed < len(self.decided) or log.hash(len(self.decided)) != entry_hash(self.decided[-1]):
            raise Violation("decided lost", f"{self.name} gave up entry {len(self.decided)}")
        for entry in log.entries[len(self.decided) :]:
            self.said.check(self.name, entry)

    def halts(self) -> bool:
        return any(self.raft.counters[name] for name in HALTS)
