"""Whether the merged shards are what the survivors uploaded: the duties of the check (secure/check.py).

tell_nonce   every survivor, once every shard has a sum
challenge    the first check in the ledger fixes it: with the nonces that stand before it, the same for everybody,
             however patient a node is
vouch        every survivor tells the check sums of its upload
passes       whether they add up to what is in the sums; a sum that does not pass is not voted for
"""

from __future__ import annotations

from functools import partial

from shoal import failpoint
from shoal.errors import PeerError
from shoal.ledger.body import Check, Nonce, bitmap
from shoal.secure import check as checks
from shoal.secure.participant import Step
from shoal.swarm.core import State
from shoal.swarm.ring_coder import RingCoder


def tell_nonce(state: State) -> None:
    """The nonce that was committed to before anybody knew a sum."""
    privacy, attempt, me = state.privacy, state.view.attempt, state.position
    if privacy is None or privacy.step != Step.OPEN or me not in (attempt.survivors or ()):
        return
    if me in attempt.nonces or attempt.checks or state.dealt is None:
        return
    if len(attempt.shards) == len(attempt.plan.shards):
        failpoint.reach("check.nonce")
        state.propose("nonce", Nonce(state.slot, privacy.nonce))


def challenge(state: State, roots: list[bytes]) -> tuple[bytes, int] | None:
    """(beta, number of checks); None while survivors that may tell their nonce yet are waited for.

    With a check in the ledger the nonces are those that stand before it.  Before, they are those that are told so far,
    once nobody is waited for any more: if one more comes first, the ledger refuses the check, and it is made anew.
    """
    attempt = state.view.attempt
    survivors, told = attempt.survivors or set(), attempt.nonces
    if not attempt.checks and told != survivors and not state.stalled:
        return None
    if len(told) <= attempt.plan.thresholds.t or not told <= state.nonces.keys():
        return None
    by_id = {state.peer(p): state.nonces[p] for p in told}
    return checks.challenge(attempt.rid, roots, by_id), checks.checks_for(len(survivors - told))


def vouch(state: State, roots: list[bytes]) -> None:
    """Tell the check sums of this participant's own upload."""
    privacy, attempt, me = state.privacy, state.view.attempt, state.position
    if privacy is None or privacy.step != Step.OPEN or me is None or me not in (attempt.survivors or ()):
        return
    if (me, me, 0) in attempt.checks or state.own is None or any(privacy.wanted()):
        return
    found = challenge(state, roots)
    if found is None:
        return
    beta, count = found
    nonces = bitmap(attempt.nonces, attempt.size)
    told = state.compute(f"vouch {beta.hex()[:8]}", partial(_vouched, state, beta, count))
    if told is not None:
        failpoint.reach("check.vouch")
        state.propose(("check", beta), Check(state.slot, me, 0, nonces, told))


def _coder(state: State) -> RingCoder:
    assert isinstance(state.coder, RingCoder)
    return state.coder


def _vouched(state: State, beta: bytes, count: int) -> bytes:
    assert state.privacy is not None and state.own is not None
    return _coder(state).vouched(state.own.data, state.privacy.vouching(), beta, count)


def passes(state: State, roots: list[bytes]) -> bool | None:
    """Whether the gathered sums are what the survivors vouch for; None while check sums are missing.

    A survivor that vanished vouches for nothing: then the check is left out where nothing moves, and said.
    """
    attempt = state.view.attempt
    survivors = attempt.survivors or set()
    told = {s: data for (author, s, _), data in state.check_sums.items() if author == s and s in survivors}
    found = challenge(state, roots)
    if found is None:
        return None
    if len(told) < len(survivors):
        if state.stalled:
            if not state.unchecked:
                state.notes.append("a survivor vanished before it vouched for its upload: the sums are not checked")
            state.unchecked = True
            return True
        return None
    beta, count = found
    found_so: bool | None = state.compute(
        f"check {beta.hex()[:8]}", partial(_agrees, state, list(told.values()), beta, count)
    )
    return found_so


def _agrees(state: State, told: list[bytes], beta: bytes, count: int) -> bool:
    merged = [state.sums[shard].data for shard in range(len(state.cuts))]
    try:
        return _coder(state).agrees(told, merged, beta, count)
    except PeerError as error:
        state.notes.append(str(error))
        return False
