"""Whether the merged shards are what the survivors uploaded: the duties of the check (secure/check.py).

tell_nonce   every survivor, once every shard has a sum
challenge    the first check in the ledger fixes it: with the nonces that stand before it, the same for everybody,
             however patient a node is
vouch        every survivor tells the check sums of its upload
passes       whether they add up to what is in the sums; a sum that does not pass is not voted for
"""

from __future__ import annotations

from collections import Counter
from functools import partial

from shoal import failpoint
from shoal.errors import PeerError
from shoal.ledger.body import Check, Nonce, bitmap
from shoal.secure import check as checks
from shoal.secure.kdf import digest
from shoal.secure.participant import Step
from shoal.swarm import upload
from shoal.swarm.core import State
from shoal.swarm.parcel import Bytes
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


def ring_coder(state: State) -> RingCoder:
    assert isinstance(state.coder, RingCoder)
    return state.coder


def _vouched(state: State, beta: bytes, count: int) -> bytes:
    assert state.privacy is not None and state.own is not None
    return ring_coder(state).vouched(state.own.data, state.privacy.vouching(), beta, count)


def silent(state: State) -> dict[int, int]:
    """Survivors whose check sums others are to tell: those that withheld their nonce, or do not vouch where nothing
    moves, or whom somebody has vouched for already.  Each with the lapses at the time when it was found silent."""
    attempt = state.view.attempt
    if attempt.checks:
        missing = (attempt.survivors or set()) - {subject for author, subject, _ in attempt.checks if author == subject}
        vouched = {subject for author, subject, _ in attempt.checks if author != subject}
        for subject in vouched | (missing if state.stalled else missing - attempt.nonces):
            state.silent.setdefault(subject, state.lapses)
    return state.silent


def stand_in(state: State, roots: list[bytes]) -> None:
    """Vouch for survivors that are silent: t + 1 do for each shard, in its `State.line`, and one more at each lapse.

    What a silent one uploaded is with the shard's owner, and what it uploaded of its own shard with the backup; it fits
    the root in the ledger, and what takes its masks off is public by now.
    """
    privacy, attempt, me = state.privacy, state.view.attempt, state.position
    if privacy is None or privacy.step != Step.OPEN or me is None or any(privacy.wanted()):
        return
    found = challenge(state, roots)
    if found is None or not attempt.checks:
        return
    for subject, since in sorted(silent(state).items()):
        if (subject, subject, 0) in attempt.checks and not _is_vouched(state, subject):
            continue  # it speaks for itself
        count = attempt.plan.thresholds.t + 1 + state.lapses - since
        for shard in range(len(roots)):
            line = [p for p in state.line(shard) if p != subject]
            if me in line[:count] and (me, subject, shard + 1) not in attempt.checks:
                _stand_in(state, subject, shard, *found)


def _stand_in(state: State, subject: int, shard: int, beta: bytes, count: int) -> None:
    data = upload.part(state, shard, subject)
    if data is None or vouched_alike(state, subject, shard) is not None:
        return
    run = partial(vouched_shard, state, subject, shard, data, beta, count)
    told = state.compute(f"vouch {beta.hex()[:8]} {subject} {shard}", run)
    if told is not None:
        nonces = bitmap(state.view.attempt.nonces, state.view.attempt.size)
        state.propose(("check", beta, subject, shard), Check(state.slot, subject, shard + 1, nonces, told))


def vouched_shard(state: State, subject: int, shard: int, data: Bytes, beta: bytes, count: int) -> bytes:
    assert state.privacy is not None
    return ring_coder(state).vouched_shard(shard, data, state.privacy.vouching(state.peer(subject)), beta, count)


def _is_vouched(state: State, subject: int) -> bool:
    """Whether somebody honest has begun to vouch for this survivor: more than t have."""
    authors = {author for author, s, _ in state.view.attempt.checks if s == subject != author}
    return len(authors) > state.view.attempt.plan.thresholds.t


def vouched_alike(state: State, subject: int, shard: int) -> bytes | None:
    """What more than t others vouch for: one of them at least is honest."""
    votes = Counter(state.told(subject, shard + 1).values())
    values, count = votes.most_common(1)[0] if votes else (b"", 0)
    return values if count > state.view.attempt.plan.thresholds.t else None


def vouched_for(state: State, subject: int, count: int) -> bytes | None:
    """Check sums of a survivor's upload: what others vouch for where it was silent, else its own word; also where they
    do not come to an end.  None while it is waited for."""
    if subject in state.silent:
        parts = [vouched_alike(state, subject, shard) for shard in range(len(state.cuts))]
        told = [part for part in parts if part is not None]
        if len(told) == len(parts):
            return ring_coder(state).joined(told, count)
        if _is_vouched(state, subject) and not state.stalled:
            return None
    return state.told(subject, 0).get(subject)


def passes(state: State, roots: list[bytes]) -> bool | None:
    """Whether the gathered sums are what the survivors vouch for; None while check sums are missing.

    raises  PeerError  ``check.malformed``
    """
    found = challenge(state, roots)
    if found is None:
        return None
    beta, count = found
    told = [vouched_for(state, subject, count) for subject in sorted(state.view.attempt.survivors or ())]
    whole = [data for data in told if data is not None]
    if len(whole) < len(told):
        return None
    name = f"check {digest('told', beta, *whole).hex()[:16]}"
    agreed: bool | None = state.compute(name, partial(_agrees, state, whole, beta, count))
    return agreed


def lacking(state: State) -> str:
    """Why the check cannot be made; "" if nothing is missing, or it is not time for it."""
    attempt = state.view.attempt
    if not attempt.secure or not attempt.checks:
        return ""
    for subject in sorted(state.silent):
        if (subject, subject, 0) in attempt.checks:
            continue
        for shard in range(len(attempt.plan.shards)):
            if vouched_alike(state, subject, shard) is None:
                need = attempt.plan.thresholds.t + 1
                return (
                    f"participant {subject} fell silent after its upload, and no {need} others can vouch alike for "
                    f"its part of shard {shard}: the sums cannot be checked"
                )
    return ""


def _agrees(state: State, told: list[bytes], beta: bytes, count: int) -> bool:
    merged = [state.sums[shard].data for shard in range(len(state.cuts))]
    try:
        return ring_coder(state).agrees(told, merged, beta, count)
    except PeerError as error:
        state.notes.append(str(error))
        return False
