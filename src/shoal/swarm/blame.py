"""Who lied, when the sums of a secure round are not what the survivors vouch for: an audit from the uploads themselves.

What a survivor uploaded fits its root in the ledger, chunk by chunk, and what takes its masks off is public after the
opening, but for the masks that it has with other survivors, which stay on.  So everybody can do again what a suspect
did, and compare:

    a sum     owner or backup of a shard told a root: the uploads of that shard, added and unmasked, give it, or not
    a word    a survivor told check sums: its upload gives them, or not

Each suspect has a jury: the t + 1 participants behind it in the plan, one more at each time that nothing moves.  Who
finds it wrong blames it in the ledger, with what was told and what came out.  Blamed by more than t, one of whom at
least is honest, it is found out: the attempt is given up, and the ledger sets it aside (registry.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from shoal.errors import PeerError
from shoal.kernels.ring import Streams
from shoal.ledger.body import Complaint
from shoal.secure.participant import Step
from shoal.swarm import upload, vouching
from shoal.swarm.commit import shard_roots
from shoal.swarm.core import State
from shoal.swarm.messages import UPLOAD
from shoal.swarm.parcel import Bytes


def audit(state: State) -> None:
    """Judge the suspects in whose jury this node sits: sums first, then words; t + 1 at the same time, so that no t
    that keep their uploads to themselves hold it up, and what is fetched for it stays bounded."""
    privacy, attempt, me = state.privacy, state.view.attempt, state.position
    if privacy is None or privacy.step != Step.OPEN or me is None or any(privacy.wanted()):
        return
    open_ = 0
    for judged in _cases(state, me):
        open_ += not judged
        if open_ > attempt.plan.thresholds.t:
            return


def _cases(state: State, me: int) -> Iterator[bool]:
    """For each case of this node, in order, whether it is judged."""
    attempt = state.view.attempt
    for shard in range(len(attempt.plan.shards)):
        tellers = [p for p in attempt.shards.get(shard, {}) if me in _jury(state, p)]
        if tellers:
            yield _judge_sum(state, shard, tellers)
    try:
        found = vouching.challenge(state, shard_roots(attempt))
    except PeerError:
        return  # owner and backup differ: one of them told a wrong sum, and there is no challenge
    for suspect in sorted(attempt.survivors or ()):
        if found is not None and (suspect, suspect, 0) in attempt.checks and me in _jury(state, suspect):
            yield _judge_word(state, suspect, *found)


def found_out(state: State) -> str:
    """Who was blamed by more than t, for the reason of the abort; "" if nobody."""
    attempt = state.view.attempt
    named = [p for p, by in sorted(attempt.blamed.items()) if len(by) > attempt.plan.thresholds.t]
    return "; ".join(f"participant {p} ({state.peer(p).hex()[:16]}) was found out" for p in named)


def _jury(state: State, suspect: int) -> list[int]:
    size = state.view.attempt.size
    count = state.view.attempt.plan.thresholds.t + 1 + state.lapses - state.suspected
    return [(suspect + k) % size for k in range(1, size)][:count]


def _judge_sum(state: State, shard: int, tellers: list[int]) -> bool:
    root: bytes | None = state.results.get(f"audit {shard}")
    if root is None:
        parts = upload.whole_parts(state, shard)
        if parts is None:
            return False
        if state.removal is None:
            assert state.privacy is not None
            state.removal = state.privacy.removal()
        root = state.compute(f"audit {shard}", partial(_root, state, shard, parts, state.removal))
        if root is None:
            return False
        _let_go(state, lambda _subject, part: part == shard)
    for teller in tellers:
        told = state.view.attempt.shards[shard][teller]
        if told != root:
            _blame(
                state,
                teller,
                f"told {told.hex()[:16]} as root of the sum of shard {shard}; its uploads give {root.hex()[:16]}",
            )
    return True


def _root(state: State, shard: int, parts: dict[int, Bytes], streams: Streams) -> bytes:
    return upload.summed(state, shard, parts, streams).root


def _judge_word(state: State, suspect: int, beta: bytes, count: int) -> bool:
    again: bytes | None = state.results.get(f"audit of {suspect}")
    if again is None:
        parts = [upload.part(state, shard, suspect) for shard in range(len(state.cuts))]
        whole = [data for data in parts if data is not None]
        if len(whole) < len(parts):
            return False
        again = state.compute(f"audit of {suspect}", partial(_word, state, suspect, whole, beta, count))
        if again is None:
            return False
        _let_go(state, lambda subject, _part: subject == suspect)
    if again != state.told(suspect, 0).get(suspect):
        _blame(state, suspect, "vouches for other words than it uploaded")
    return True


def _let_go(state: State, judged: Callable[[int, int], bool]) -> None:
    """Forget what was fetched for a case alone: uploads of shards that this node neither owns nor backs up."""
    kept = {s for s, who in enumerate(state.view.attempt.plan.shards) if state.position in (who.owner, who.backup)}
    for key in [k for k in state.fetches if k[0] == UPLOAD and k[2] not in kept and judged(k[1], k[2])]:
        del state.fetches[key]


def _word(state: State, suspect: int, parts: list[Bytes], beta: bytes, count: int) -> bytes:
    told = [vouching.vouched_shard(state, suspect, shard, data, beta, count) for shard, data in enumerate(parts)]
    return vouching.ring_coder(state).joined(told, count)


def _blame(state: State, suspect: int, evidence: str) -> None:
    me = state.position
    if suspect != me and me not in state.view.attempt.blamed.get(suspect, ()):
        state.propose(("blame", suspect), Complaint(state.slot, f"participant {suspect} {evidence}", suspect))
