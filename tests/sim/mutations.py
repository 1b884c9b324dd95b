"""Switch off one rule of the core at a time: the proof that the simulation can fail.

Each mutation replaces one small function of the production code, which itself has no switches.  `search` runs seeds
until an invariant breaks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from cluster import Cluster, history
from honest import Honest
from invariants import Violation
from trial import trial

from shoal.errors import ShoalError
from shoal.ledger import (
    admission,
    certificate,
    core,
    election,
    following,
    install,
    life,
    log,
    membership,
    quorum,
    reading,
    replication,
)
from shoal.ledger.guard import Guard
from shoal.ledger.message import Append
from shoal.ledger.validator import Ledger

# --- wrong rules ------------------------------------------------------------------------------------------------------


def learners_count(state: core.State) -> int:
    """Learners' acknowledgements fill the majority."""
    now = state.roster.current
    matches = sorted(
        (state.log.stable if p == state.me else state.progress[p].match for p in (*now.voters, *now.learners)),
        reverse=True,
    )
    return matches[quorum.majority(len(now.voters)) - 1]


def unsynced_counts(state: core.State) -> int:
    """The leader counts its own entries before they are on its disk."""
    values = [state.log.last if p == state.me else state.progress[p].match for p in state.roster.current.voters]
    return quorum.reached_by_majority(values)


def forgetful_hard_state(state: core.State) -> Any:
    return msgspec.structs.replace(TRUE_HARD_STATE(state), vote=b"")


def forgetful_term(state: core.State) -> Any:
    hard = TRUE_HARD_STATE(state)
    return msgspec.structs.replace(hard, term=state.log.last_term, vote=b"")


def always_cut(state: core.State, m: Append) -> tuple[int, str]:
    """Every append cuts what follows its start, also an old one that holds nothing new."""
    return (0, "") if m.prev_index >= state.log.committed else TRUE_FIRST_NEW(state, m)


def index_only(state: core.State, last_index: int, last_term: int) -> bool:
    """The longer log wins, whatever its terms."""
    return last_index >= state.log.last


def short_append_match(log_: log.Log, m: Append) -> str:
    return "" if m.prev_index <= log_.last else "no-match"


def any_index(state: core.State, index: int, data: bytes) -> str:
    return "" if state.log.floor < index <= state.log.last else "not-applied"


def no_hint(log_: log.Log, index: int, term: int) -> int:
    """Back up to the very start: slow and right, and it makes short appends to long logs frequent."""
    return log_.floor


def no_rollback(state: core.State, index: int) -> None:
    """The configuration stays when its entry is cut off."""


def keep_leading(state: core.State) -> None:
    """A leader that is removed goes on."""


def skip_prevote(state: core.State) -> None:
    election.become_candidate(state)


def same_term(log_: log.Log, m: Append) -> str:
    """As in plain Raft: index and term, and not the chain."""
    return "" if log_.term(m.prev_index) == m.prev_term else "no-match"


def other_term(state: core.State, m: Append) -> tuple[int, str]:
    """As in plain Raft: entries of one index and term are the same."""
    terms = (state.log.term(e.index) == e.term for e in m.entries)
    return next((n for n, same in enumerate(terms) if not same), len(m.entries)), ""


def deaf_to_far(state: core.State, m: Any) -> bool:
    """A term that is too far is refused, and nothing else."""
    return bool(m.term > state.term + admission.TERM_JUMP_MAX)


TRUE_HARD_STATE = core.State.hard_state
TRUE_FIRST_NEW = following.first_new
TRUE_HAS_COMMITTED = membership.has_committed_in_term

Patch = tuple[object, str, object]
#: name -> (the rule that is off, what is replaced for it)
MUTATIONS: dict[str, tuple[str, Patch, ...]] = {
    "vote-twice": ("one vote per term", (election, "is_free", lambda s, c: True)),
    "vote-forgotten": (
        "the vote survives a restart",
        (core.State, "hard_state", forgetful_hard_state),
        (life, "is_for_this_life", lambda s, m: True),  # which would mostly hide it
    ),
    "term-forgotten": ("the term survives a restart", (core.State, "hard_state", forgetful_term)),
    "any-log-wins": ("votes only for complete logs", (election, "is_up_to_date", lambda s, i, t: True)),
    "longest-log-wins": ("completeness goes by term, then length", (election, "is_up_to_date", index_only)),
    "commit-any-term": ("only own-term entries are counted", (replication, "is_own_term", lambda s, i: True)),
    "send-before-sync": ("durable before sent", (Cluster, "syncs_before_sending", False)),
    "count-unsynced": ("a leader's own disk must answer too", (replication, "decidable", unsynced_counts)),
    "always-cut": ("cut only what contradicts", (following, "first_new", always_cut)),
    "no-previous-check": ("an append fits on our last entry", (following, "previous_fault", short_append_match)),
    "commit-unchecked": (
        "followers commit what they checked",
        (following, "safe_commit", lambda m, n: m.commit),
        (log.Log, "last_with_term_at_most", no_hint),
    ),
    "half-is-majority": ("two majorities share a member", (quorum, "majority", lambda n: max(1, n // 2))),
    "learner-counts": ("learners count for nothing", (replication, "decidable", learners_count)),
    "two-changes": ("one change of membership at a time", (membership, "is_pending", lambda s: False)),
    "early-change": (
        "no change before an own-term commit",
        (membership, "has_committed_in_term", lambda s: True),
        (reading, "knows_decided", TRUE_HAS_COMMITTED),  # reads keep theirs
    ),
    "keep-cut-members": ("a cut entry takes its members along", (membership, "cut", no_rollback)),
    "removed-leads-on": ("a leader stops when it is removed", (membership, "after_commit", keep_leading)),
    "compact-undecided": ("snapshots hold what is decided", (install, "compact_fault", any_index)),
    "read-unconfirmed": ("a read waits for a majority", (reading, "confirmed", lambda s: s.beat)),
    "read-before-own": ("no read before an own-term commit", (reading, "knows_decided", lambda s: True)),
    "no-lease": ("no vote while a leader is heard", (election, "in_lease", lambda s, m: False)),
    "no-check-quorum": ("a leader nobody answers stops", (election, "hears_quorum", lambda s: True)),
    "no-pre-vote": ("no term unless a majority would vote", (election, "become_precandidate", skip_prevote)),
}

#: the same for histories in which a member lies (trial.py)
LIAR_MUTATIONS: dict[str, tuple[str, Patch, ...]] = {
    "words-unsigned": ("statements carry their author's signature", (certificate, "signature_holds", lambda *_: True)),
    "seals-unchecked": ("seals are the leader's of the term", (Ledger, "_check_seal", lambda *_: None)),
    "any-sender": ("the transport knows who sends", (Honest, "is_from", lambda *_: True)),
    "index-and-term": (
        "one index and term is one entry only if the chain says so",
        (following, "previous_fault", same_term),
        (following, "first_new", other_term),
    ),
    "deaf-to-far-terms": ("absurd terms are caught up with", (admission, "is_too_far", deaf_to_far)),
    "decided-unguarded": ("rules hold at followers too", (Guard, "admit", lambda *_: True)),
}
ALL = MUTATIONS | LIAR_MUTATIONS


@contextmanager
def mutated(name: str) -> Iterator[None]:
    """Within, the rule of that name is off."""
    patches: list[Patch] = list(ALL[name][1:])  # type: ignore[arg-type]
    right = [where.__dict__[attribute] for where, attribute, _ in patches]  # type: ignore[attr-defined]
    for where, attribute, wrong in patches:
        setattr(where, attribute, wrong)
    try:
        yield
    finally:
        for (where, attribute, _), value in zip(patches, right, strict=True):
            setattr(where, attribute, value)


def search(
    name: str, seeds: int, steps: int, first: int = 0, progress: Callable[[int], None] | None = None
) -> tuple[int, str]:
    """(seeds run, invariant that broke) with the rule off; ("", all seeds) if none did."""
    with mutated(name):
        for n in range(seeds):
            try:
                (trial if name in LIAR_MUTATIONS else history)(first + n, steps)
            except Violation as found:
                return n + 1, found.name
            except (AssertionError, IndexError, KeyError, ShoalError) as found:
                return n + 1, f"the core's own check: {type(found).__name__}"
            if progress:
                progress(n)
    return seeds, ""
