"""The duties of a secure round that have to do with masks: sharing and opening.

SHARE    deal; hold what others dealt, say whose shares are here; the coordinator proposes the share-set V1: all
         that everybody holds, or, where nothing moves, the largest set that holds together
REDUCE   every survivor tells its seed; holders give a clerk the halves that are missing; the clerk tells everybody
"""

from __future__ import annotations

from shoal import failpoint
from shoal.errors import PeerError
from shoal.ledger.attempt import Attempt
from shoal.ledger.body import Opened, Share, ShareSet, bitmap, positions
from shoal.secure.participant import Commitments, Step
from shoal.secure.shares import KEY_HALF, SEED_HALF, decode_opened, encode_opened
from shoal.swarm.core import State
from shoal.swarm.messages import DealtShare, Holds, Opening

#: kinds of messages.Opening
SEED, KEY, SEED_SHARE, KEY_SHARE = 1, 2, 3, 4


def _id(attempt: Attempt, position: int) -> bytes:
    return attempt.plan.participants[position].member


# --- SHARE -----------------------------------------------------------------------------------------------------------


def deal(state: State) -> None:
    """Draw and share the secrets of this slot, once; then say them again to those that may have missed them."""
    _look_out(state)
    privacy, me = state.privacy, state.position
    if privacy is None or me is None or (state.diff is None and privacy.step == Step.DEAL):
        return
    if privacy.step == Step.DEAL:
        state.dealt, state.sealed = privacy.deal()
        failpoint.reach("share.claim")
    if state.dealt is None or privacy.step != Step.HOLD:
        return
    if me not in state.view.attempt.shares:
        state.propose("share", Share(state.slot, state.dealt.root, state.dealt.seed, state.dealt.nonce))
    elif state.due("deal"):
        for holder, sealed in state.sealed.items():
            state.send(holder, DealtShare(state.slot, sealed))


def _look_out(state: State) -> None:
    """The ledger may have a share of this node that this life of it has not dealt, of one that had a later journal.
    That one may have signed, masked and opened in this slot: this one only looks on.
    """
    share = state.view.attempt.shares.get(-1 if state.position is None else state.position)
    if state.privacy is None or share is None or (state.dealt is not None and share.root == state.dealt.root):
        return
    state.privacy.forget()
    state.privacy = None
    state.notes.append("the ledger has a share of this site that another life of it dealt; this one looks on")


def on_share(state: State, peer: bytes, said: DealtShare) -> None:
    """Keep a sealed share until its dealer's commitments are in the ledger."""
    if state.view.attempt.position(peer) is not None:
        state.waiting[peer] = said.sealed


def hold(state: State) -> None:
    """Take the shares that fit what their dealers wrote into the ledger; tell the coordinator whose are here."""
    privacy, attempt = state.privacy, state.view.attempt
    if privacy is None or privacy.step != Step.HOLD:
        return
    for position, share in attempt.shares.items():
        dealer = _id(attempt, position)
        sealed = state.waiting.pop(dealer, None)
        if sealed is None or dealer in privacy.holds:
            continue
        try:
            privacy.hold(dealer, sealed, Commitments(share.root, share.seed_commitment, share.nonce_commitment))
        except PeerError as error:
            state.notes.append(str(error))
            continue
        failpoint.reach("share.hold")
        state.progress()
    held = {p for p in attempt.shares if _id(attempt, p) in privacy.holds}
    if state.due(("holds", tuple(sorted(held)))):
        said = Holds(state.slot, bitmap(held, attempt.size))
        for to in {state.coordinator, state.view.leader} - {b""}:
            if attempt.position(to) is not None:
                state.send(to, said)


def on_holds(state: State, peer: bytes, said: Holds) -> None:
    attempt = state.view.attempt
    position, held = attempt.position(peer), positions(said.dealers, attempt.size)
    if position is not None and held is not None:
        state.holders[position] = held


def share_set(state: State) -> None:
    """The coordinator proposes V1."""
    attempt = state.view.attempt
    if not state.coordinates or attempt.shared is not None:
        return
    members = set(attempt.shares)
    everybody = set(range(attempt.size))
    # Where somebody is missing, wait for as long as anything moves.
    if members != everybody and not state.stalled:
        return
    found = mutual(members, state.holders)
    if found == everybody or (state.stalled and len(found) >= attempt.floor):
        failpoint.reach("share.set")
        state.propose("share-set", ShareSet(state.slot, bitmap(found, attempt.size)))


def mutual(members: set[int], holders: dict[int, set[int]]) -> set[int]:
    """A largest set, found greedily, in which everybody holds everybody's share."""
    found = {p for p in members if p in holders and p in holders[p]}
    while found:
        lacking = {p: len(found - holders[p]) + sum(p not in holders[q] for q in found) for p in found}
        worst = max(sorted(found), key=lambda p: lacking[p])
        if lacking[worst] == 0:
            break
        found.remove(worst)
    return found


def begin(state: State) -> None:
    """The share-set is in the ledger."""
    _look_out(state)
    privacy, shared = state.privacy, state.view.attempt.shared
    if privacy is None or shared is None or privacy.step != Step.HOLD:
        return
    try:
        privacy.begin(_id(state.view.attempt, p) for p in sorted(shared))
    except PeerError as error:
        state.sits_out = str(error)


# --- REDUCE ----------------------------------------------------------------------------------------------------------


def certify(state: State) -> None:
    """The survivor certificate is in the ledger, and with it which half of each secret may be given."""
    privacy, attempt = state.privacy, state.view.attempt
    if privacy is None or attempt.survivors is None or privacy.step != Step.MASK:
        return
    privacy.certify(_id(attempt, p) for p in sorted(attempt.survivors))
    failpoint.reach("open.certify")
    for peer, said in state.early:
        on_opening(state, peer, said)
    state.early.clear()


def open_(state: State) -> None:
    """Tell the own seed; give clerks the halves of what nobody tells; the coordinator notes what was opened."""
    privacy, attempt, me = state.privacy, state.view.attempt, state.position
    if privacy is None or privacy.step != Step.OPEN or attempt.survivors is None or me is None:
        return
    if me in attempt.survivors and state.due("seed"):
        failpoint.reach("open.seed")
        state.tell_all(Opening(state.slot, me, SEED, privacy.own_seed()))
    seeds, keys = privacy.wanted()
    for subject in sorted(keys | (seeds if state.stalled else frozenset())):
        position = attempt.position(subject)
        assert position is not None
        if not state.due(("half", position)):
            continue
        half = privacy.half_of(subject) if subject in privacy.holds else None
        if half is not None:
            failpoint.reach("open.half")
            kind = SEED_SHARE if half.which == SEED_HALF else KEY_SHARE
            state.send(clerk(state, position), Opening(state.slot, position, kind, encode_opened(half)))
    _note_opened(state)


def clerk(state: State, subject: int) -> bytes:
    """Who puts a secret together: a survivor, the next one where nothing moves."""
    survivors = sorted(state.view.attempt.survivors or ())
    return state.peer(survivors[(subject + state.turns) % len(survivors)])


def _note_opened(state: State) -> None:
    privacy, attempt = state.privacy, state.view.attempt
    if privacy is None or not state.coordinates or any(privacy.wanted()):
        return
    seeds = set(attempt.survivors or ()) - attempt.opened_seeds
    fallen = {p for p in (attempt.shared or set()) - (attempt.survivors or set()) if p not in attempt.opened_keys}
    if seeds or fallen:
        state.propose("opened", Opened(state.slot, bitmap(seeds, attempt.size), bitmap(fallen, attempt.size)))


def on_opening(state: State, peer: bytes, said: Opening) -> None:
    """A secret, or a share of one: believed only if it fits the commitment in the ledger."""
    privacy, attempt = state.privacy, state.view.attempt
    if privacy is None or attempt.position(peer) is None or said.subject >= attempt.size:
        return
    if privacy.step != Step.OPEN:
        if len(state.early) < 4 * attempt.size:
            state.early.append((peer, said))
        return
    subject = _id(attempt, said.subject)
    before = privacy.wanted()
    try:
        if said.kind == SEED:
            privacy.take_seed(subject, said.data)
        elif said.kind == KEY:
            privacy.take_key(subject, said.data)
        else:
            half = decode_opened(said.data)
            secret = privacy.take_half(subject, peer, half)
            if secret is not None:
                kind = SEED if half.which == SEED_HALF else KEY
                state.tell_all(Opening(state.slot, said.subject, kind, secret))
    except PeerError as error:
        state.notes.append(f"{peer.hex()[:16]}: {error}")
        return
    if privacy.wanted() != before:
        state.progress()


assert (SEED_HALF, KEY_HALF) == (2, 1)
