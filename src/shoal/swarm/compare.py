"""Agreeing how the survivors' updates lie to each other, where the rule looks at whole models (gram_coder.py)."""

from __future__ import annotations

from functools import partial

from shoal.errors import PeerError
from shoal.ledger.attempt import Attempt
from shoal.ledger.body import Complaint, Gram
from shoal.swarm import upload
from shoal.swarm.core import State
from shoal.swarm.gram_coder import GramCoder


def told(attempt: Attempt, centre: int, alone: bool) -> list[bytes] | None:
    """The matrix of each shard around ``centre``; None if some are missing.

    alone   whether one word is enough where owner and backup should both give theirs
    raises  PeerError  ``gram.differ``: they told different ones
    """
    found = []
    for shard, who in enumerate(attempt.plan.shards):
        words = attempt.grams.get(centre, {}).get(shard, {})
        if len(set(words.values())) > 1:
            raise PeerError("gram.differ", f"owner and backup of shard {shard} tell different Gram matrices")
        if len(words) < (1 if alone else len({who.owner, who.backup})):
            return None
        found.append(next(iter(words.values())))
    return found


def measure(state: State) -> None:
    """Measure the shards that this node works on, around each centre that is needed, until all is known."""
    coder, attempt = state.coder, state.view.attempt
    if not isinstance(coder, GramCoder) or attempt.survivors is None:
        return
    centre = _wanted(state, coder)
    if centre is None:
        return
    try:
        matrices = told(attempt, centre, state.stalled)
    except PeerError as error:
        state.failure, state.hopeless = str(error), True
        state.propose("gram differs", Complaint(state.slot, state.failure))
        return
    if matrices is not None:
        coder.take(centre, matrices, attempt.survivors)
        state.progress()
        return
    for shard in upload.duties(state):
        if state.position not in attempt.grams.get(centre, {}).get(shard, {}):
            whole = upload.whole_parts(state, shard)
            if whole is None:
                continue
            found = state.compute(f"compare {shard} {centre}", partial(coder.measure, whole, centre))
            if found is not None:
                state.propose(("gram", shard, centre), Gram(state.slot, shard, centre, found))


def _wanted(state: State, coder: GramCoder) -> int | None:
    """The centre that is needed next, as far as it is known; None also while it is worked out."""
    survivors = state.view.attempt.survivors or set()
    found = state.compute(f"centre after {coder.centres}", lambda: (coder.wanted(survivors),))
    return None if found is None else found[0]


def reduce(state: State) -> None:
    """As `upload.reduce`, once it is known how shards are combined."""
    if not isinstance(state.coder, GramCoder) or state.coder.settled:
        upload.reduce(state)


def check(state: State) -> bool:
    """Whether all that should be told twice is, and is the same: then this node may vote.

    raises  PeerError  ``gram.differ``
    """
    attempt, coder = state.view.attempt, state.coder
    if isinstance(coder, GramCoder):
        for centre in attempt.grams:
            told(attempt, centre, alone=True)
    twice = all(len(attempt.shards[s]) == len({w.owner, w.backup}) for s, w in enumerate(attempt.plan.shards))
    return not coder.witnessed or state.stalled or twice
