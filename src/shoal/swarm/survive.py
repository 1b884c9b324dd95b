"""Agreeing who survived: one set for a slot, signed by a quorum, for good."""

from __future__ import annotations

from shoal import failpoint
from shoal.errors import PeerError
from shoal.ledger.attempt import Attempt
from shoal.ledger.body import SurvivorCertificate, Vote, bitmap, positions
from shoal.ledger.certificate import collect, survivors_statement, vote
from shoal.ledger.identity import signature_holds
from shoal.secure.participant import Step
from shoal.swarm.core import State
from shoal.swarm.messages import AskVote, SurvivorVote


def arrived_everywhere(attempt: Attempt) -> set[int]:
    """Positions whose upload of every shard has a receipt, by its owner or its backup."""
    found = set(attempt.masked)
    for shard in range(len(attempt.plan.shards)):
        found &= set().union(*attempt.receipts.get(shard, {}).values())
    return found


def ask(state: State) -> None:
    """The coordinator asks for votes, once every shard has a receipt."""
    attempt = state.view.attempt
    if not state.coordinates or len(attempt.receipts) < len(attempt.plan.shards):
        return
    survivors = arrived_everywhere(attempt)
    if len(survivors) >= attempt.floor and state.due(("ask", tuple(sorted(survivors)))):
        failpoint.reach("survivors.ask")
        said = AskVote(state.slot, bitmap(survivors, attempt.size))
        state.tell_all(said)
        state.send(state.me.id, said)


def on_ask(state: State, peer: bytes, said: AskVote) -> None:
    """Keep the question: a leader's ledger is ahead of the others'."""
    if state.view.attempt.position(peer) is not None:
        state.asked[peer] = said.survivors
        answer(state)


def answer(state: State) -> None:
    """Vote, once the ledger bears the set out and if no other was signed for this slot, ever."""
    attempt = state.view.attempt
    if state.position is None or attempt.survivors is not None:
        return
    for peer, survivors in list(state.asked.items()):
        asked = positions(survivors, attempt.size)
        if asked is None or len(asked) < attempt.floor:
            del state.asked[peer]
        elif asked <= arrived_everywhere(attempt) and _ready(state):
            del state.asked[peer]
            if _may_sign(state, asked, survivors):
                failpoint.reach("survivors.sign")
                signed = vote(survivors_statement(attempt.rid, survivors), state.me)
                state.send(peer, SurvivorVote(state.slot, survivors, signed.signature))


def _ready(state: State) -> bool:
    """In a secure round only who has its share in the ledger signs: so a copy of a journal, restored from a backup, is
    found out for every slot that a later one signed in (peer.py)."""
    if not state.view.attempt.secure:
        return True
    known = state.position in state.view.attempt.shares
    return known and state.privacy is not None and state.privacy.step == Step.MASK


def _may_sign(state: State, asked: set[int], survivors: bytes) -> bool:
    if not state.view.attempt.secure:
        return state.may_sign(state.slot, survivors)
    assert state.privacy is not None
    try:
        state.privacy.sign(state.peer(p) for p in sorted(asked))
    except PeerError as error:
        state.notes.append(str(error))
        return False
    return True


def on_vote(state: State, peer: bytes, said: SurvivorVote) -> None:
    """Keep a vote that holds."""
    attempt = state.view.attempt
    statement = survivors_statement(attempt.rid, said.survivors)
    key = state.view.keys.get(peer)
    if key is None or attempt.position(peer) is None or not signature_holds(key, said.signature, statement):
        return
    votes = state.votes.setdefault(b"U" + said.survivors, {})
    if peer not in votes:
        votes[peer] = Vote(peer, said.signature)
        state.progress()


def certify(state: State) -> None:
    """With a quorum of votes for one set, put it into the ledger."""
    for name, votes in state.votes.items():
        if name[:1] == b"U" and len(votes) >= state.view.attempt.plan.thresholds.q:
            failpoint.reach("survivors.certify")
            state.propose(("survivors", name), SurvivorCertificate(state.slot, name[1:], collect(votes)))
