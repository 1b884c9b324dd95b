"""A member that lies: an ordinary core whose mail is rewritten on its way out, and letters that no core would write.

It holds its own key and no other, and hears what it is sent.  Each history draws some of LIES.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec

from shoal.ledger.body import Note
from shoal.ledger.core import Role
from shoal.ledger.entry import Entry, entry_hash
from shoal.ledger.identity import Identity
from shoal.ledger.message import (
    AnyMessage,
    Append,
    Appended,
    AskVote,
    GiveVote,
    Heartbeat,
    HeartbeatReply,
    Outdated,
    TimeoutNow,
)
from shoal.ledger.statement import Statement, make_statement, read_statement
from shoal.ledger.validator import make_seal
from shoal.limits import TERM_JUMP_MAX

if TYPE_CHECKING:
    from honest import Honest

replace = msgspec.structs.replace

#: name -> what the liar does
LIES = {
    "equivocate": "leads, and tells some members another entry at an index than the others",
    "usurp": "campaigns with a log that it does not have",
    "vote-twice": "gives its vote to whoever asks",
    "acknowledge": "acknowledges what it does not store",
    "misquote": "leads, and puts words under another member's name into the log",
    "seal-as-another": "leads, and seals in another member's name",
    "commit-beyond": "leads, and calls decided what is not, beyond the end of the log too",
    "forge-terms": "speaks from terms far ahead, and asks for votes as if the leader had told it to",
    "replay": "sends again what it has sent before",
    "impersonate": "sends messages in another member's name",
    "accuse": "says of others that they are restored copies",
}
#: lies that no signature shows: they can make two histories under the seals of two leaders, and convict nobody
UNPROVEN = frozenset(("usurp", "vote-twice", "acknowledge", "commit-beyond"))


class Liar:
    """Rewrites what ``node`` sends, and sends more."""

    def __init__(self, node: Honest, lies: frozenset[str], others: list[bytes], rng: Random) -> None:
        self.node, self.lies, self.others, self.rng = node, lies, others, rng
        self.me: Identity = node.me
        self.sent: list[AnyMessage] = []
        self.victims = set(rng.sample(others, rng.randrange(1, len(others)))) if "equivocate" in lies else set()
        self.twins: dict[bytes, Entry] = {}

    # --- what leaves --------------------------------------------------------------------------------------------------

    def rewritten(self, messages: list[AnyMessage]) -> Iterator[AnyMessage]:
        for m in messages:
            found = self._rewritten(m)
            self.sent.append(found)
            yield found
        del self.sent[:-60]

    def _rewritten(self, m: Any) -> Any:
        lies, kind = self.lies, type(m)
        if kind is AskVote and "usurp" in lies:
            return replace(m, last_index=m.last_index + 50, last_term=max(m.term - 1, m.last_term))
        if self.node.raft.role != Role.LEADER or m.term != self.node.raft.term:
            return m
        if kind is Append:
            if m.to in self.victims:
                m = self._twin_append(m)
            elif m.entries and self.rng.random() < 0.5:
                m = self._forged_append(m)
        elif kind is Heartbeat and m.to in self.victims and m.commit:
            m = replace(m, commit_hash=self._twin_hash(m.commit, m.commit_hash))
        if kind in (Append, Heartbeat) and "commit-beyond" in lies and self.rng.random() < 0.5:
            m = replace(m, commit=m.commit + self.rng.choice((1, 2, 50)))
        return m

    def _twin_append(self, m: Append) -> Append:
        """The other history: in it this liar says other words."""
        before = self._twin_hash(m.prev_index, m.prev_hash)
        entries = tuple(self._twin(e) for e in m.entries)
        return replace(m, prev_hash=before, entries=entries)

    def _twin(self, entry: Entry) -> Entry:
        hash_ = entry_hash(entry)
        if hash_ not in self.twins:
            prev = self._twin_hash(entry.index - 1, entry.prev)
            twin = replace(entry, prev=prev, payload=self._other_words(entry))
            if twin != entry:
                twin = replace(twin, seal=make_seal(entry_hash(twin), self.me))
            self.twins[hash_] = twin
        return self.twins[hash_]

    def _twin_hash(self, index: int, hash_: bytes) -> bytes:
        mine = self.node.raft.log.entry(index)
        return entry_hash(self._twin(mine)) if mine is not None else hash_

    def _other_words(self, entry: Entry) -> bytes:
        statement, body = read_statement(entry.payload)
        if not isinstance(body, Note) or statement.author != self.me.id or entry.term != self.node.raft.term:
            return entry.payload
        return self._signed(replace(statement, body=msgspec.msgpack.encode(Note(body.text.replace("x", "y")))))

    def _signed(self, statement: Statement) -> bytes:
        return msgspec.msgpack.encode(replace(statement, signature=self.me.sign(statement.signed())))

    def _forged_append(self, m: Append) -> Append:
        last = m.entries[-1]
        another = self.rng.choice(self.others)
        if "misquote" in self.lies:
            statement = replace(read_statement(last.payload)[0], author=another)
            if statement.type != 2:
                last = replace(last, payload=self._signed(statement))
                last = replace(last, seal=make_seal(entry_hash(last), self.me))
        if "seal-as-another" in self.lies:
            last = replace(last, seal=another + make_seal(entry_hash(last), self.me)[32:])
        return replace(m, entries=(*m.entries[:-1], last))

    # --- what it adds -------------------------------------------------------------------------------------------------

    def hear(self, m: Any) -> list[AnyMessage]:
        """Answers that its core would not give."""
        name = (m.sender, self.me.id, m.term, self.node.raft.state.generation)
        if isinstance(m, AskVote) and "vote-twice" in self.lies:
            return [GiveVote(*name, True, m.pre)]
        if isinstance(m, Append) and "acknowledge" in self.lies:
            return [Appended(*name, False, m.prev_index + len(m.entries), 0, 0)]
        if isinstance(m, Heartbeat) and "acknowledge" in self.lies:
            return [HeartbeatReply(*name, m.beat, m.commit + 9)]
        return []

    def letter(self) -> tuple[bytes, AnyMessage] | None:
        """Something of its own accord: (whom the transport knows it to be from, the message)."""
        rng, state = self.rng, self.node.raft.state
        to = rng.choice(self.others)
        term = state.term + rng.choice((0, 1, 1, 2, TERM_JUMP_MAX, 2**31))
        name = (to, self.me.id, term, state.generation)
        lie = rng.choice(sorted(self.lies))
        if lie == "forge-terms":
            ask = AskVote(*name, 99, term, False, rng.random() < 0.5)
            beat = Heartbeat(*name, 0, bytes(32), 1)
            return self.me.id, rng.choice((ask, beat, TimeoutNow(*name), Appended(*name, True, 0, 0, 0)))
        if lie == "replay" and self.sent:
            return self.me.id, rng.choice(self.sent)
        if lie == "impersonate" and self.sent:
            return self.me.id, replace(
                rng.choice(self.sent), sender=rng.choice([o for o in self.others if o != to]), to=to
            )
        if lie == "accuse" and rng.random() < 0.1:
            return self.me.id, Outdated(*name[:2], state.term, state.generation, state.seen.get(to, 0), 99, 99)
        return None

    def words(self, round_: int) -> bytes:
        """What it proposes where it leads: a model of its own for a round."""
        guard = self.node.guard
        return make_statement(
            Note(f"round {round_} model x{self.rng.randrange(10**6)}"), self.me, self.node.genesis, guard.seen
        )
